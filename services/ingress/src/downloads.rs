//! Files of mails, from Gmail to a caller: at most so many at a time, none of them held as a whole.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use bytes::Bytes;
use domain::mailbox::reply::CallError;
use domain::{Attachment, ConnectionId, Lane, MessageId, OrganisationId, Timestamp, TokenVersion};
use futures_util::stream;
use gmail::{Asking, Client, Download, Gate, Mailbox};
use grants::Grants;
use http::header::RETRY_AFTER;
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::Settings;
use crate::app::now;
use crate::problem::{Code, Problem};

/// What is left of a request's time for its answer when Gmail is given up.
const MARGIN: Duration = Duration::from_millis(250);

/// All downloads of this process.
#[derive(Debug)]
pub(crate) struct Downloads {
    client: Client,
    open: Arc<Semaphore>,
    /// How long Gmail may take to begin.
    patience: Duration,
    /// How long one may go on.
    age: Duration,
}

/// A file that has begun to come.
pub(crate) struct Begun {
    /// What the mail says of it.
    pub(crate) file: Attachment,
    /// What is in it.
    pub(crate) body: Body,
}

impl Downloads {
    /// Downloads through `gate`.
    pub(crate) fn new(settings: &Settings, store: Store, gate: Gate) -> anyhow::Result<Self> {
        let client = Client::new(&settings.gmail, Arc::new(Grants::new(store)), gate);
        Ok(Self {
            client: client.context("setting up the client that reads attachments")?,
            open: Arc::new(Semaphore::new(settings.downloads)),
            patience: settings.download_patience.saturating_sub(MARGIN),
            age: settings.download_age,
        })
    }

    /// Begins a download. It is answered when the first bytes are there, so that whatever goes wrong before is told as
    /// what it is; what goes wrong later cuts the connection.
    ///
    /// # Errors
    /// What the caller is told.
    pub(crate) async fn begin(
        &self,
        organisation_id: OrganisationId,
        (connection_id, token_version): (ConnectionId, TokenVersion),
        message: &MessageId,
        part_id: &str,
    ) -> Result<Begun, Problem> {
        let open = Arc::clone(&self.open).try_acquire_owned().map_err(|_| Code::Overloaded)?;
        let deadline = Instant::now() + self.patience;
        let asking = Asking { lane: Lane::Fetch, deadline, token_version };
        let mailbox = Mailbox { organisation_id, connection_id };
        let failed = |error: CallError| problem(connection_id, &error);
        let begun = self.client.download(mailbox, message, part_id, &asking).await.map_err(failed)?;
        let mut download = begun.ok_or(Code::AttachmentNotFound)?;
        let first = tokio::time::timeout_at(deadline, download.chunk()).await;
        let first = first.map_err(|_| Code::GmailUnavailable)?.map_err(failed)?;
        let file = download.file.clone();
        let Some(first) = first else { return Ok(Begun { file, body: Body::empty() }) };
        let rest = Rest { download, until: Instant::now() + self.age, connection_id, _open: open };
        let body = stream::try_unfold((Some(first), rest), |(first, mut rest)| async move {
            let next = match first {
                Some(first) => Some(first),
                None => rest.next().await?,
            };
            Ok::<_, Broken>(next.map(|chunk| (chunk, (None, rest))))
        });
        Ok(Begun { file, body: Body::from_stream(body) })
    }
}

/// What is still to come of a file.
struct Rest {
    download: Download,
    until: Instant,
    connection_id: ConnectionId,
    _open: OwnedSemaphorePermit,
}

/// A file that will not come whole: the connection is cut, so that nobody takes what came for all of it.
#[derive(Debug, thiserror::Error)]
#[error("the file does not come whole")]
struct Broken;

impl Rest {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let next = tokio::time::timeout_at(self.until, self.download.chunk()).await;
        next.map_err(|_| "it took too long".to_owned()).and_then(|next| next.map_err(words)).map_err(|reason| {
            tracing::warn!(connection = %self.connection_id, reason, "An attachment was cut off");
            Broken
        })
    }
}

fn words(error: CallError) -> String {
    match error {
        CallError::Transient { detail } | CallError::Broken { detail } => detail,
        other => format!("{other:?}"),
    }
}

/// What the caller is told of a call that came to nothing.
fn problem(connection: ConnectionId, error: &CallError) -> Problem {
    match error {
        CallError::NotFound => Code::MessageNotFound.into(),
        CallError::ConnectionGone => Code::ConnectionNotFound.into(),
        CallError::Revoked { .. } => Code::ReauthRequired.into(),
        CallError::Throttled { until } => throttled(*until),
        CallError::Permanent { code, detail } if code == "Gmail.TokenUnreadable" => {
            tracing::error!(%connection, detail, "An attachment cannot be read");
            Code::GmailRefused.into()
        }
        // Gmail does not take the id for one.
        CallError::Permanent { code, .. } if code == "Gmail.InvalidRequest" => Code::MessageNotFound.into(),
        CallError::Permanent { code, detail } => {
            Problem::from(Code::GmailRefused).with_detail(format!("{code}: {detail}"))
        }
        CallError::Transient { detail } | CallError::Broken { detail } => {
            tracing::warn!(%connection, detail, "An attachment cannot be read just now");
            Code::GmailUnavailable.into()
        }
        CallError::InvalidPageToken => Code::GmailUnavailable.into(),
    }
}

/// To be asked again when Gmail, or the budget, has room.
fn throttled(until: Option<Timestamp>) -> Problem {
    let problem = Problem::from(Code::GmailThrottled);
    match until {
        Some(until) => {
            let seconds = until.since(now()).as_millis().unsigned_abs().div_ceil(1_000).clamp(1, 3_600);
            problem.with_header(RETRY_AFTER, seconds.into())
        }
        None => problem,
    }
}
