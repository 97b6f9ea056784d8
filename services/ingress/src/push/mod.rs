//! Pushes of Gmail's: "something changed in this mailbox", through Cloud Pub/Sub, at least once, in no order.
//!
//! A push only ever means "look soon, and once more a little later": what it says of the mailbox is never believed. It
//! is answered when Kafka has a command that was written after it came, so that none is lost by a crash. The second look
//! is the mailbox's own affair.

mod notice;
mod settings;
mod turns;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::WWW_AUTHENTICATE;
use domain::{PollGmailConnection, Timestamp, Trigger};
use events::TraceParent;
use gmail::oidc::{Refused, Verifier};
use store::connections::{self, Due};

pub(crate) use notice::Notice;
pub use settings::Settings;
use turns::Turns;

use crate::app::{App, database_problem, new_job_id, now};
use crate::known::Known;
use crate::metrics;
use crate::problem::{Code, Problem};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");
/// Connections of one address that are told: one for each organisation that has it.
const MOST_OF_AN_ADDRESS: u32 = 100;

/// Takes pushes.
pub(crate) struct Pushes {
    app: Arc<App>,
    verifier: Verifier,
    addresses: Known<String, Arc<[Due]>>,
    turns: Turns,
    job_deadline: domain::Duration,
}

impl Pushes {
    /// None where the settings take no pushes.
    ///
    /// # Errors
    /// When the HTTP library does not start.
    pub(crate) fn new(settings: &crate::Settings, app: &Arc<App>) -> Result<Option<Arc<Self>>, gmail::Error> {
        let push = &settings.push;
        let Some(expected) = &push.expected else { return Ok(None) };
        let job_deadline = i64::try_from(push.job_deadline.as_millis()).unwrap_or(i64::MAX);
        Ok(Some(Arc::new(Self {
            app: Arc::clone(app),
            verifier: Verifier::new(expected)?,
            addresses: Known::new(
                settings.cache_entries,
                settings.cache_ttl,
                settings.outage_grace,
                Arc::clone(&app.outage),
            ),
            turns: Turns::new(settings.cache_entries, push.spacing),
            job_deadline: domain::Duration::from_millis(job_deadline),
        })))
    }

    /// Whether `token` is the subscription's.
    ///
    /// # Errors
    /// 401 when it is not, 503 while nobody can say.
    pub(crate) async fn authenticate(&self, token: Option<&str>) -> Result<(), Problem> {
        let outcome = match token {
            Some(token) => self.verifier.verify(token).await,
            None => Err(Refused::Token("no token")),
        };
        outcome.map_err(|refused| {
            tracing::debug!(%refused, "A push is refused");
            match refused {
                Refused::Token(_) => {
                    metrics::pushed("refused");
                    // A 401 names the way to authenticate (RFC 9110 §15.5.2).
                    Problem::from(Code::PushTokenInvalid).with_header(WWW_AUTHENTICATE, CHALLENGE)
                }
                Refused::KeysAway => {
                    metrics::pushed("keys_away");
                    Code::PushKeysUnavailable.into()
                }
            }
        })
    }

    /// Tells every living connection of the notice's address. Ends when Kafka has a command for each.
    ///
    /// # Errors
    /// 503 while Kafka or Postgres are away.
    pub(crate) async fn take(&self, notice: Notice, trace: TraceParent) -> Result<(), Problem> {
        let store = &self.app.store;
        let address = notice.address.clone();
        let ask = async {
            let found = connections::of_address(store, &address, MOST_OF_AN_ADDRESS).await?;
            Ok((!found.is_empty()).then(|| Arc::from(found)))
        };
        let found = self.addresses.get(notice.address, ask, store::Error::is_unavailable).await.map_err(|error| {
            metrics::pushed("failed");
            database_problem(&error)
        })?;
        // Nothing tells a stranger's address from one that is not to be synced now.
        let active = |due: &&Due| due.state == domain::ConnectionState::Active;
        let told = found.iter().flat_map(|found| found.iter()).filter(active).map(|due| self.tell(*due, trace));
        let told = futures_util::future::join_all(told).await;
        metrics::pushed(match &told[..] {
            [] => "unknown",
            told if told.iter().any(Result::is_err) => "failed",
            _ => "told",
        });
        told.into_iter().collect()
    }

    /// Writes a command, in the mailbox's turn, unless another that was written meanwhile does for this one.
    async fn tell(&self, due: Due, trace: TraceParent) -> Result<(), Problem> {
        let turn = self.turns.of(due.connection_id);
        let write = async || {
            let command = self.command(due, now());
            self.app.produce(&command, command.connection_id, command.requested_at, trace).await?;
            metrics::push_command();
            Ok(())
        };
        self.turns.take(&turn, write).await.map(drop)
    }

    fn command(&self, due: Due, now: Timestamp) -> PollGmailConnection {
        PollGmailConnection {
            job_id: new_job_id(now),
            organisation_id: due.organisation_id,
            connection_id: due.connection_id,
            trigger: Trigger::Push,
            window: None,
            token_version: due.token_version,
            requested_at: now,
            deadline: now + self.job_deadline,
        }
    }
}
