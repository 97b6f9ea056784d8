//! The `queued` rows of accepted commands, many requests sharing one insert.
//!
//! A request waits until its row is there, so that a look-up right after the answer finds it. One insert runs at a
//! time, and takes all rows that came in while the one before it ran: the busier, the fewer statements a row.

use std::time::Instant;

use domain::PollGmailConnection;
use store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::metrics;

/// Rows of one insert at most.
const BATCH: usize = 1_000;

/// The row could not be written: Postgres is away, or more requests wait than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// The way to the task that inserts.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    queue: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    command: PollGmailConnection,
    done: oneshot::Sender<Result<(), Unavailable>>,
}

impl Rows {
    /// Starts the task, for at most `capacity` requests waiting. It ends when the last clone is gone.
    pub(crate) fn start(store: Store, capacity: usize) -> Self {
        let (queue, waiting) = mpsc::channel(capacity);
        tokio::spawn(insert_all(store, waiting));
        Self { queue }
    }

    /// Ends when the row is there, be it by the projector.
    pub(crate) async fn insert(&self, command: PollGmailConnection) -> Result<(), Unavailable> {
        let (done, inserted) = oneshot::channel();
        self.queue.try_send(Waiting { command, done }).map_err(|_| Unavailable)?;
        inserted.await.unwrap_or(Err(Unavailable))
    }
}

async fn insert_all(store: Store, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::with_capacity(BATCH);
    let mut commands = Vec::with_capacity(BATCH);
    let mut done = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        for Waiting { command, done: waiter } in waiting.drain(..) {
            // Whoever has stopped waiting needs no row from us: the projector writes it.
            if !waiter.is_closed() {
                commands.push(command);
                done.push(waiter);
            }
        }
        if commands.is_empty() {
            continue;
        }
        let result = insert(&store, &commands).await;
        commands.clear();
        for waiter in done.drain(..) {
            // It may have stopped waiting meanwhile, which is its own affair.
            let _ = waiter.send(result);
        }
    }
}

async fn insert(store: &Store, commands: &[PollGmailConnection]) -> Result<(), Unavailable> {
    let begun = Instant::now();
    let mut result = store::jobs::insert_queued(store, commands).await;
    if result.as_ref().is_err_and(store::Error::is_unavailable) {
        // A connection that died in the pool, as after a restart of Postgres, is found out by using it.
        result = store::jobs::insert_queued(store, commands).await;
    }
    match result {
        Ok(()) => {
            metrics::rows_inserted(commands.len(), begun.elapsed());
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, rows = commands.len(), "Cannot insert queued jobs; the projector will write their rows");
            Err(Unavailable)
        }
    }
}
