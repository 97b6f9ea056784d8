//! Access tokens: kept by connection, renewed ahead of their end, once however many calls wait.
//!
//! An organisation has at most one living connection of an account, so there is one token for each account and
//! tenant. An account that two tenants connected has two consents, and a token got by one tenant's never serves the
//! other: revoking one must not be hidden by the other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use domain::mailbox::reply::CallError;
use domain::{ConnectionId, TokenVersion};
use futures_util::future::BoxFuture;
use moka::sync::Cache;
use secrecy::SecretString;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::client::Mailbox;
use crate::oauth::Endpoint;
use crate::{Error, Settings, metric};

/// A mailbox that is not called for so long loses its place.
pub(crate) const IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a token that still lives is used before another refresh is tried, after one that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Google's account, whose quota is spent. Does not print: it may be an address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Account(Arc<str>);

impl Account {
    /// The account that the store names so.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name in the store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(…)")
    }
}

/// What the token source knows of a connection.
pub struct Grant {
    /// Whose quota is spent.
    pub account: Account,
    /// How many connections share the account.
    pub shares: u32,
    /// Which of the connection's refresh tokens this is.
    pub token_version: TokenVersion,
    /// What opens the mailbox.
    pub credential: Credential,
}

/// What an access token is got with.
pub enum Credential {
    /// The owner's consent.
    RefreshToken(SecretString),
    /// The service account of the settings, for the user with this address.
    Delegated {
        /// The address.
        subject: String,
    },
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("token_version", &self.token_version).finish_non_exhaustive()
    }
}

/// Why there is no refresh token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenSourceError {
    /// The source is away: it will be back.
    #[error("the token store is away: {detail}")]
    Away {
        /// What came of asking it.
        detail: String,
    },
    /// The connection does not exist any more.
    #[error("the connection is gone")]
    Gone,
    /// The token is there and cannot be read: an operator has to look.
    #[error("the refresh token cannot be read: {detail}")]
    Unreadable {
        /// Why.
        detail: String,
    },
}

/// Where refresh tokens come from. Asked once for each refresh, not for each call.
pub trait TokenSource: Send + Sync + 'static {
    /// The newest refresh token of a mailbox.
    fn refresh_token(&self, mailbox: Mailbox) -> BoxFuture<'_, Result<Grant, TokenSourceError>>;
}

/// An access token in use.
pub(crate) struct Access {
    pub(crate) token: SecretString,
    pub(crate) account: Account,
    pub(crate) shares: u32,
    pub(crate) token_version: TokenVersion,
    /// From here on it is renewed.
    renew_at: Instant,
    /// From here on it is not used.
    dead_at: Instant,
}

/// The access tokens of a process.
pub(crate) struct Tokens {
    slots: Cache<ConnectionId, Arc<Slot>>,
    source: Arc<dyn TokenSource>,
    endpoint: Endpoint,
    skew: Duration,
}

#[derive(Default)]
struct Slot {
    current: ArcSwapOption<Access>,
    /// Held by the one that refreshes.
    last: Mutex<Last>,
    /// Counts refreshes that came to an end, well or not.
    attempts: AtomicU64,
}

/// What came of the last refresh, when it failed.
#[derive(Default)]
struct Last {
    failure: Option<(CallError, Instant)>,
}

impl Tokens {
    pub(crate) fn new(settings: &Settings, source: Arc<dyn TokenSource>) -> Result<Self, Error> {
        Ok(Self {
            slots: Cache::builder().max_capacity(settings.max_tokens).time_to_idle(IDLE).build(),
            source,
            endpoint: Endpoint::new(settings)?,
            skew: settings.token_skew,
        })
    }

    /// An access token of `mailbox`, got under `oldest` or a later version of its refresh token.
    pub(crate) async fn access(&self, mailbox: Mailbox, oldest: TokenVersion) -> Result<Arc<Access>, CallError> {
        let slot = self.slots.get_with(mailbox.connection_id, Arc::default);
        let alive = slot.alive(oldest);
        if let Some(access) = &alive {
            if access.renew_at > Instant::now() {
                return Ok(Arc::clone(access));
            }
            // Old but alive: one call renews it, the others go on with it.
            let Ok(turn) = slot.last.try_lock() else { return Ok(Arc::clone(access)) };
            if turn.failure.as_ref().is_some_and(|(_, at)| at.elapsed() < PAUSE) {
                return Ok(Arc::clone(access));
            }
            return match self.refresh(&slot, turn, mailbox, oldest).await {
                Err(CallError::ConnectionGone) => Err(CallError::ConnectionGone),
                // The grant is gone, or nobody can say so: what Gmail thinks of the living token decides.
                Err(_) => Ok(Arc::clone(access)),
                renewed => renewed,
            };
        }
        let seen = slot.attempts.load(Ordering::Acquire);
        let turn = slot.last.lock().await;
        // Whoever waited takes what the one before it got, a failure too: a thousand calls behind one dead endpoint
        // do not try it a thousand times.
        if let Some(access) = slot.alive(oldest) {
            return Ok(access);
        }
        if slot.attempts.load(Ordering::Acquire) != seen
            && let Some((failure, _)) = &turn.failure
        {
            return Err(failure.clone());
        }
        self.refresh(&slot, turn, mailbox, oldest).await
    }

    /// Keeps nothing of a mailbox: its next token is got by the refresh token that its connection has then, if it lives.
    pub(crate) fn forget(&self, mailbox: Mailbox) {
        self.slots.invalidate(&mailbox.connection_id);
    }

    /// Gmail did not take this token: it is not used again, unless another has taken its place already.
    pub(crate) fn reject(&self, mailbox: Mailbox, access: &Arc<Access>) {
        if let Some(slot) = self.slots.get(&mailbox.connection_id) {
            slot.current.rcu(|current| match current {
                Some(current) if Arc::ptr_eq(current, access) => None,
                other => other.clone(),
            });
        }
    }

    /// Holds the turn until the outcome is there for all who wait. When the caller goes away meanwhile, the next one
    /// in the row takes over.
    async fn refresh(
        &self,
        slot: &Slot,
        mut turn: MutexGuard<'_, Last>,
        mailbox: Mailbox,
        oldest: TokenVersion,
    ) -> Result<Arc<Access>, CallError> {
        let result = self.fresh(mailbox, oldest).await;
        match &result {
            Ok(access) => {
                slot.current.store(Some(Arc::clone(access)));
                turn.failure = None;
                metric::refreshed("ok");
            }
            Err(error) => {
                tracing::debug!(connection = %mailbox.connection_id, ?error, "Could not refresh an access token");
                turn.failure = Some((error.clone(), Instant::now()));
                metric::refreshed(match error {
                    CallError::Revoked { .. } => "revoked",
                    CallError::ConnectionGone => "gone",
                    CallError::Permanent { .. } => "refused",
                    _ => "failed",
                });
            }
        }
        slot.attempts.fetch_add(1, Ordering::Release);
        result
    }

    async fn fresh(&self, mailbox: Mailbox, oldest: TokenVersion) -> Result<Arc<Access>, CallError> {
        let grant = self.source.refresh_token(mailbox).await.map_err(|error| match error {
            TokenSourceError::Away { .. } => CallError::Transient { detail: error.to_string() },
            TokenSourceError::Gone => CallError::ConnectionGone,
            TokenSourceError::Unreadable { detail } => {
                CallError::Permanent { code: "Gmail.TokenUnreadable".to_owned(), detail }
            }
        })?;
        if grant.token_version < oldest {
            let detail = format!(
                "the token store is behind: it has version {} and {} is wanted",
                grant.token_version.0, oldest.0
            );
            return Err(CallError::Transient { detail });
        }
        // The life is counted from before the request: it began no earlier than that.
        let asked = Instant::now();
        let issued = self.endpoint.issue(&grant.credential).await?;
        let life = issued.expires_in;
        Ok(Arc::new(Access {
            token: issued.access_token,
            account: grant.account,
            shares: grant.shares.max(1),
            token_version: grant.token_version,
            // A token that lives hardly longer than the margin is renewed at half of its life.
            renew_at: asked + life.saturating_sub(self.skew).max(life / 2),
            dead_at: asked + life,
        }))
    }
}

impl Slot {
    fn alive(&self, oldest: TokenVersion) -> Option<Arc<Access>> {
        self.current.load_full().filter(|access| access.token_version >= oldest && access.dead_at > Instant::now())
    }
}
