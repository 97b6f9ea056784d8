//! Where messages are read, and by what terms.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::mailbox::reply::{Call, CallId, Request};
use domain::{ConnectionId, Lane, MessageId, OrganisationId, TokenVersion};
use gmail::gate::Holding;
use gmail::{Client, Gate, Mailbox, Read, Reading, View};
use moka::sync::Cache;
use store::Store;
use store::fetching::{self, Terms};

/// How long one reading may take, waiting for its turn included.
const READING: Duration = Duration::from_secs(60);

/// How old terms may be while Postgres answers: a filter that was changed holds after so long at the latest, and a
/// connection that was deleted is not read any more. While it does not answer nobody can change them, and the last that
/// are known hold.
const FRESH: Duration = Duration::from_secs(30);

/// The most terms that are kept.
const KEPT: u64 = 100_000;

/// What has to be asked is away; it will be back. Why, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// Where mailboxes are: Gmail, or what stands in for it in a benchmark.
pub trait Mailboxes: Send + Sync + 'static {
    /// Reads messages of one mailbox, each with its own verdict, under no older refresh token than `oldest`. Always
    /// answers, in bounded time.
    fn read(&self, mailbox: Mailbox, ids: &[MessageId], oldest: TokenVersion) -> impl Future<Output = Read> + Send;

    /// By what terms a mailbox is read; none where the connection lives no more.
    fn terms(&self, mailbox: Mailbox) -> impl Future<Output = Result<Option<Arc<Terms>>, Away>> + Send;

    /// Whether Gmail answers for a mailbox at all.
    fn answers(&self, mailbox: Mailbox, oldest: TokenVersion) -> impl Future<Output = bool> + Send;

    /// Which refresh tokens these connections have now; those that live no more are left out.
    fn versions(
        &self,
        connections: Vec<(OrganisationId, ConnectionId)>,
    ) -> impl Future<Output = Result<Vec<(ConnectionId, TokenVersion)>, Away>> + Send;

    /// How long a message is tried that Gmail does not answer for while it answers for others, before it is put aside.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// For one lane, to tell how many partitions it has: quotas go by them. None where there are no quotas.
    fn holding(&self) -> Option<Holding> {
        None
    }
}

/// A part of Gmail may be out of order for a while, and with it what this part keeps.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Gmail itself, and what Postgres says of its mailboxes.
pub(crate) struct Gmail {
    client: Client,
    /// The one that the client's calls pass.
    gate: Gate,
    store: Store,
    terms: Cache<Mailbox, (Instant, Arc<Terms>)>,
    patience: Duration,
}

impl Gmail {
    pub(crate) fn new(client: Client, gate: Gate, store: Store, patience: Duration) -> Self {
        Self { client, gate, store, terms: Cache::new(KEPT), patience }
    }
}

impl Mailboxes for Gmail {
    fn patience(&self) -> Duration {
        self.patience
    }

    async fn read(&self, mailbox: Mailbox, ids: &[MessageId], oldest: TokenVersion) -> Read {
        let deadline = tokio::time::Instant::now() + READING;
        let reading = Reading { lane: Lane::Fetch, view: View::Full, deadline, token_version: oldest };
        self.client.get_messages(mailbox, ids, &reading).await
    }

    async fn terms(&self, mailbox: Mailbox) -> Result<Option<Arc<Terms>>, Away> {
        let known = self.terms.get(&mailbox);
        if let Some((at, terms)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(Some(terms.clone()));
        }
        match (fetching::terms(&self.store, mailbox.organisation_id, mailbox.connection_id).await, known) {
            (Ok(Some(terms)), _) => {
                let terms = Arc::new(terms);
                self.terms.insert(mailbox, (Instant::now(), terms.clone()));
                Ok(Some(terms))
            }
            (Ok(None), _) => {
                self.terms.invalidate(&mailbox);
                Ok(None)
            }
            (Err(error), Some((_, terms))) if error.is_unavailable() => Ok(Some(terms)),
            (Err(error), _) => Err(Away(error.to_string())),
        }
    }

    async fn answers(&self, mailbox: Mailbox, oldest: TokenVersion) -> bool {
        let call = Call {
            id: CallId(0),
            lane: Lane::Fetch,
            request: Request::Profile,
            deadline: None,
            token_version: oldest,
            trace: None,
        };
        self.client.call(mailbox, &call).await.result.is_ok()
    }

    async fn versions(
        &self,
        connections: Vec<(OrganisationId, ConnectionId)>,
    ) -> Result<Vec<(ConnectionId, TokenVersion)>, Away> {
        fetching::token_versions(&self.store, &connections).await.map_err(|error| Away(error.to_string()))
    }

    fn holding(&self) -> Option<Holding> {
        Some(self.gate.holding())
    }
}
