//! Idempotency keys claimed, many requests sharing one statement.
//!
//! As with the rows of jobs, one statement runs at a time and takes all claims that came in while the one before it ran:
//! a key costs its row, and hardly ever a statement or a commit of its own.

use std::time::{Duration, Instant};

use store::Store;
use store::idempotency::{self, Claim, KEPT, Wanted};
use tokio::sync::{mpsc, oneshot};

use crate::app::now;
use crate::metrics;

/// Claims of one statement at most.
const BATCH: usize = 500;

/// How long a statement is waited for: less than a request may take, so that those behind it have an answer in time, too.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The key could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unclaimed {
    /// Postgres is away or too slow.
    Away,
    /// It refused, which was logged.
    Refused,
}

/// The way to the task that claims.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    queue: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    wanted: Wanted,
    done: oneshot::Sender<Result<Claim, Unclaimed>>,
}

impl Claims {
    /// Starts the task, for at most `capacity` requests waiting. It ends when the last clone is gone.
    pub(crate) fn start(store: Store, capacity: usize) -> Self {
        let (queue, waiting) = mpsc::channel(capacity);
        tokio::spawn(run(store, waiting));
        Self { queue }
    }

    /// Claims a key; what stands under it then.
    pub(crate) async fn claim(&self, wanted: Wanted) -> Result<Claim, Unclaimed> {
        let (done, claimed) = oneshot::channel();
        self.queue.try_send(Waiting { wanted, done }).map_err(|_| Unclaimed::Away)?;
        claimed.await.unwrap_or(Err(Unclaimed::Away))
    }
}

async fn run(store: Store, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        // Whoever has stopped waiting makes nothing.
        waiting.retain(|waiting| !waiting.done.is_closed());
        let wanted: Vec<Wanted> = waiting.iter().map(|waiting| waiting.wanted).collect();
        let claims = claim_all(&store, &wanted).await;
        for (index, Waiting { done, .. }) in waiting.drain(..).enumerate() {
            let claim = match &claims {
                Ok(claims) => claims[index].clone().ok_or(Unclaimed::Away),
                Err(unclaimed) => Err(*unclaimed),
            };
            // It may have stopped waiting meanwhile: the claim stands for the request that is sent again.
            let _ = done.send(claim);
        }
    }
}

async fn claim_all(store: &Store, wanted: &[Wanted]) -> Result<Vec<Option<Claim>>, Unclaimed> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let begun = Instant::now();
    let at = now();
    match tokio::time::timeout(PATIENCE, idempotency::claim_all(store, wanted, at, at - KEPT)).await {
        Ok(Ok(claims)) => {
            metrics::keys_claimed(claims.len(), begun.elapsed());
            Ok(claims)
        }
        Ok(Err(error)) if error.is_unavailable() => {
            tracing::warn!(%error, keys = wanted.len(), "Cannot claim idempotency keys now");
            Err(Unclaimed::Away)
        }
        Ok(Err(error)) => {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "Cannot claim idempotency keys");
            Err(Unclaimed::Refused)
        }
        Err(_) => {
            tracing::warn!(keys = wanted.len(), "Idempotency keys were not claimed within {PATIENCE:?}");
            Err(Unclaimed::Away)
        }
    }
}
