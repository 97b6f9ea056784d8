//! From a consent page to a connection that is synced, and from a deletion to nothing that is left.
//!
//! What is to be done besides a row (commands to write, a grant to end) is itself in Postgres from the moment that the
//! row is, and taken out when it is done. So a crash anywhere leaves it to whoever repeats the request, or to
//! [`crate::unfinished`]. Each step may be repeated: a job's id follows from the consent, a mailbox is forgotten once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use domain::mailbox::Rules;
use domain::{ConnectionId, Duration as Span, ForgetConnection, JobId, PollGmailConnection, Trigger, Window};
use events::TraceParent;
use gmail::Gate;
use gmail::consent::{ConsentError, Consents, Verifier};
use secrecy::SecretString;
use store::connections::{self, Connected, Consent, FirstSync, Leaving};
use store::consents::Pending;
use url::Url;

use crate::Settings;
use crate::app::{App, database_problem, now};
use crate::problem::Problem;
use crate::rows::Answer;

/// The path that Google sends browsers back to.
pub(crate) const CALLBACK: &str = "gmail-connections/oauth-callback";

/// How far back the first sync of a new connection reaches when nobody says otherwise.
pub(crate) const REACH: Span = Span::from_days(30);

/// What a sync lists by itself where there is no history to walk; what is older is a backfill's.
const CAUGHT_UP: Span = Rules::DEFAULT.catch_up;

/// How long the browser waits for the first sync's commands to be acknowledged. They are written later if not by then.
const ACKNOWLEDGED: Duration = Duration::from_millis(1_000);

/// After so long a grant that cannot be ended at Google is left to its owner, who sees it in the account.
const GIVE_UP: Span = Span::from_hours(24);

/// What consents are asked and ended with.
#[derive(Debug)]
pub(crate) struct Google {
    pub(crate) consents: Consents,
    /// Where Google sends browsers back to: as the OAuth client has it, to the letter.
    pub(crate) redirect_uri: Url,
    /// How often a connection is synced that says nothing of it.
    pub(crate) sync_interval: Span,
    /// Consents that an organisation may have open at once.
    pub(crate) open_consents: u32,
}

/// What the browser is sent back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is a connection, new or renewed.
    Connected(ConnectionId),
    /// The user said no.
    Denied,
    /// The user said yes to less than is needed.
    MissingScope,
    /// Something went wrong, which the log tells.
    Failed,
}

impl Google {
    /// For an API that listens at `address`, whose calls pass `gate`.
    pub(crate) fn new(settings: &Settings, address: SocketAddr, gate: Gate) -> anyhow::Result<Self> {
        let consents = Consents::new(&settings.gmail, gate).context("setting up the client for consents")?;
        let mut base = match &settings.public_url {
            Some(url) => url.clone(),
            None if address.ip().is_unspecified() => Url::parse(&format!("http://localhost:{}", address.port()))?,
            None => Url::parse(&format!("http://{address}"))?,
        };
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let redirect_uri = base.join(CALLBACK).context("making the address that Google sends browsers back to")?;
        let interval = i64::try_from(settings.sync_interval.as_millis()).unwrap_or(i64::MAX);
        let sync_interval = Span::from_millis(interval);
        Ok(Self { consents, redirect_uri, sync_interval, open_consents: settings.open_consents })
    }
}

impl App {
    /// Turns the code of a consent into a connection and starts its first sync.
    pub(crate) async fn finish_consent(&self, google: &Google, pending: Pending, code: SecretString) -> Outcome {
        let organisation = pending.organisation_id;
        let verifier = Verifier::from_secret(pending.verifier.clone());
        let granted = match google.consents.exchange(&code, &verifier, &google.redirect_uri).await {
            Ok(granted) => granted,
            Err(error @ ConsentError::MissingScope { .. }) => {
                tracing::info!(%organisation, %error, "A consent grants too little");
                return Outcome::MissingScope;
            }
            Err(error @ (ConsentError::Refused { .. } | ConsentError::Away { .. })) => {
                tracing::warn!(%organisation, %error, "A consent's code came to nothing");
                return Outcome::Failed;
            }
        };
        let address = granted.address.as_str();
        let consent = Consent { account: address, email: address, refresh_token: &granted.refresh_token };
        let at = now();
        let since = |connected: &Connected| pending.since.or_else(|| connected.is_new.then(|| at - REACH));
        let connect =
            || connections::connect(&self.store, organisation, &consent, granted.subject.as_deref(), since, at);
        let mut connected = connect().await;
        if connected.as_ref().is_err_and(store::Error::is_unavailable) {
            // Consenting again costs a person's time: a connection that died in the pool is worth another try.
            connected = connect().await;
        }
        let connected = match connected {
            Ok(connected) => connected,
            Err(error) => {
                tracing::error!(%organisation, %error, "A consent cannot be kept; its owner has to consent again");
                return Outcome::Failed;
            }
        };
        let id = connected.connection.connection_id;
        tracing::info!(%organisation, connection = %id, is_new = connected.is_new, "Mailbox connected");
        self.connection_changed(organisation, id).await;
        let first = FirstSync {
            connection_id: id,
            organisation_id: organisation,
            token_version: connected.connection.token_version,
            since: since(&connected),
        };
        match tokio::time::timeout(ACKNOWLEDGED, self.start_first_sync(&first)).await {
            Ok(Ok(())) => {}
            // It is connected all the same, and what is owed is written down.
            Ok(Err(_)) | Err(_) => tracing::warn!(connection = %id, "The first sync of a connection has to wait"),
        }
        Outcome::Connected(id)
    }

    /// Writes the commands of a first sync, and notes that they are written.
    ///
    /// The sync goes first: it owes the 24 hours before it was asked for, and the backfill ends where those begin, or
    /// later when it was asked for anew. The other way round a crash in between would leave a gap.
    pub(crate) async fn start_first_sync(&self, first: &FirstSync) -> Result<(), Problem> {
        let requested_at = now();
        let trace = TraceParent::new(rand::random(), rand::random());
        let FirstSync { connection_id, organisation_id, token_version, since } = *first;
        let command = |name: &str, trigger, window, deadline| PollGmailConnection {
            job_id: JobId::derived(connection_id, &format!("{name}/{}", token_version.0)),
            organisation_id,
            connection_id,
            trigger,
            window,
            token_version,
            requested_at,
            deadline: requested_at + deadline,
        };
        let window = since.map(|since| Window { since, until: requested_at - CAUGHT_UP });
        let older = window.filter(|window| !window.is_empty());
        let sync = command("connect", Trigger::Connect, None, self.job_deadline);
        let backfill =
            older.map(|window| command("connect/backfill", Trigger::Backfill, Some(window), self.backfill_deadline));
        for command in [Some(sync), backfill].into_iter().flatten() {
            self.produce(&command, connection_id, requested_at, trace).await?;
            // Without it the projector writes the row.
            let _ = self.rows.insert(command, Answer::Anyhow).await;
        }
        connections::first_sync_done(&self.store, first).await.map_err(|error| database_problem(&error))
    }

    /// Finishes a deletion: has the mailbox forgotten, which cancels its jobs, ends the grant at Google if it was the
    /// account's last here, and wipes the token.
    ///
    /// Two deletions at one time may both end the grant, which Google takes well. A consent for the same account that
    /// comes in between loses its grant with it, and says `needs_reauth`: Google ends all grants of an account at once.
    pub(crate) async fn finish_deletion(&self, google: &Google, leaving: &Leaving) -> Result<(), Problem> {
        let Leaving { connection_id, organisation_id, deleted_at, is_forgotten } = *leaving;
        if is_forgotten {
            return Ok(());
        }
        let at = now();
        let trace = TraceParent::new(rand::random(), rand::random());
        let forget = ForgetConnection { organisation_id, connection_id, requested_at: at };
        self.produce(&forget, connection_id, at, trace).await?;
        let is_late = at.since(deleted_at) >= GIVE_UP;
        match self.end_grant(google, leaving).await? {
            Ended::Yes => {}
            Ended::NotYet if is_late => {
                tracing::warn!(connection = %connection_id, "A grant was left at Google; its owner may end it there");
            }
            Ended::NotYet => return Ok(()),
        }
        connections::forget(&self.store, organisation_id, connection_id, at)
            .await
            .map_err(|error| database_problem(&error))?;
        tracing::info!(connection = %connection_id, "Connection forgotten");
        Ok(())
    }

    async fn end_grant(&self, google: &Google, leaving: &Leaving) -> Result<Ended, Problem> {
        let Leaving { connection_id, organisation_id, .. } = *leaving;
        let token = match connections::last_grant(&self.store, organisation_id, connection_id).await {
            Ok(None) => return Ok(Ended::Yes),
            Ok(Some(token)) => token,
            Err(error @ (store::Error::TokenKey { .. } | store::Error::Settings { .. })) => {
                tracing::error!(connection = %connection_id, %error, "A grant cannot be ended");
                return Ok(Ended::NotYet);
            }
            Err(error) => return Err(database_problem(&error)),
        };
        match google.consents.revoke(&token).await {
            Ok(()) => Ok(Ended::Yes),
            Err(error @ (ConsentError::Refused { .. } | ConsentError::MissingScope { .. })) => {
                tracing::warn!(connection = %connection_id, %error, "Google does not end a grant");
                Ok(Ended::Yes)
            }
            Err(error @ ConsentError::Away { .. }) => {
                tracing::warn!(connection = %connection_id, %error, "A grant has to be ended later");
                Ok(Ended::NotYet)
            }
        }
    }
}

/// Whether nothing is left to do about a grant.
enum Ended {
    Yes,
    NotYet,
}
