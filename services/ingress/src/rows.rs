//! The `queued` rows of accepted commands, many requests sharing one insert.
//!
//! A request waits until its row is there, so that a look-up right after the answer finds it. One insert runs at a
//! time, and takes all rows that came in while the one before it ran: the busier, the fewer statements a row.
//!
//! While Postgres is away the rows of requests that may do without are kept, up to a number, and inserted when it is
//! back. What is lost with the process the projector writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::PollGmailConnection;
use store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::metrics;
use crate::outage::Outage;

/// Rows of one insert at most.
const BATCH: usize = 1_000;

/// How long an insert is waited for before its rows count as such that cannot be inserted now.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Between two attempts to insert what was kept.
const PAUSE: Duration = Duration::from_millis(250);

/// The row could not be written: Postgres is away, and no more is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// When a request may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Once its row is there.
    WithRow,
    /// Once its row is there or, while Postgres is away, kept.
    Anyhow,
}

/// The way to the task that inserts.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    queue: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    command: PollGmailConnection,
    answer: Answer,
    done: oneshot::Sender<Result<(), Unavailable>>,
}

impl Rows {
    /// Starts the task, for at most `capacity` requests waiting and `kept` rows in an outage. It ends when the last clone
    /// is gone.
    pub(crate) fn start(store: Store, outage: Arc<Outage>, capacity: usize, kept: usize) -> Self {
        let (queue, waiting) = mpsc::channel(capacity);
        tokio::spawn(Inserter { store, outage, most: kept, kept: VecDeque::new() }.run(waiting));
        Self { queue }
    }

    /// Ends when the row is there, be it by the projector, or when the answer may be given anyhow.
    pub(crate) async fn insert(&self, command: PollGmailConnection, answer: Answer) -> Result<(), Unavailable> {
        let span = store::trace::statement("INSERT jobs");
        let (done, inserted) = oneshot::channel();
        self.queue.try_send(Waiting { command, answer, done }).map_err(|_| Unavailable)?;
        inserted.await.unwrap_or(Err(Unavailable)).inspect_err(|Unavailable| span.fail("unavailable"))
    }
}

struct Inserter {
    store: Store,
    outage: Arc<Outage>,
    most: usize,
    kept: VecDeque<PollGmailConnection>,
}

impl Inserter {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            if self.kept.is_empty() {
                if queue.recv_many(&mut waiting, BATCH).await == 0 {
                    return;
                }
                self.insert(&mut waiting).await;
            } else if !self.catch_up(&mut queue, &mut waiting).await {
                return;
            }
        }
    }

    /// One insert for all that wait; keeps what may be kept when that fails.
    async fn insert(&mut self, waiting: &mut Vec<Waiting>) {
        // Whoever has stopped waiting needs no row from us: the projector writes it.
        waiting.retain(|waiting| !waiting.done.is_closed());
        if waiting.is_empty() {
            return;
        }
        let commands: Vec<_> = waiting.iter().map(|waiting| waiting.command.clone()).collect();
        let inserted = match tokio::time::timeout(PATIENCE, insert(&self.store, &commands)).await {
            Ok(inserted) => inserted,
            Err(_) => Err(Failure::Away),
        };
        match inserted {
            Ok(()) => {
                for Waiting { done, .. } in waiting.drain(..) {
                    // It may have stopped waiting meanwhile, which is its own affair.
                    let _ = done.send(Ok(()));
                }
            }
            Err(Failure::Away) => {
                self.outage.went_on();
                self.keep(waiting);
            }
            Err(Failure::Refused) => {
                for Waiting { done, .. } in waiting.drain(..) {
                    let _ = done.send(Err(Unavailable));
                }
            }
        }
    }

    /// Keeps the rows of those that may do without, and answers all.
    fn keep(&mut self, waiting: &mut Vec<Waiting>) {
        for Waiting { command, answer, done } in waiting.drain(..) {
            let is_kept = answer == Answer::Anyhow && self.kept.len() < self.most;
            if is_kept {
                self.kept.push_back(command);
            }
            let _ = done.send(if is_kept { Ok(()) } else { Err(Unavailable) });
        }
        metrics::rows_kept(self.kept.len());
    }

    /// Tries to insert the oldest of what was kept, and keeps what comes in meanwhile; whether there may be more.
    async fn catch_up(&mut self, queue: &mut mpsc::Receiver<Waiting>, waiting: &mut Vec<Waiting>) -> bool {
        let store = self.store.clone();
        let oldest: Vec<_> = self.kept.iter().take(BATCH).cloned().collect();
        let attempt = async move {
            let inserted = insert(&store, &oldest).await;
            if matches!(inserted, Err(Failure::Away)) {
                tokio::time::sleep(PAUSE).await;
            }
            (oldest.len(), inserted)
        };
        let mut attempt = std::pin::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                (rows, inserted) = &mut attempt => {
                    match inserted {
                        Ok(()) => {
                            self.kept.drain(..rows);
                            tracing::info!(rows, left = self.kept.len(), "Inserted queued jobs of an outage");
                        }
                        Err(Failure::Away) => self.outage.went_on(),
                        Err(Failure::Refused) => drop(self.kept.drain(..rows)),
                    }
                    metrics::rows_kept(self.kept.len());
                    return true;
                }
                came = queue.recv_many(waiting, BATCH) => {
                    if came == 0 {
                        return false;
                    }
                    self.keep(waiting);
                }
            }
        }
    }
}

/// Why an insert failed.
enum Failure {
    /// Postgres did not answer.
    Away,
    /// It did, and trying again would not help: the projector has to write these rows.
    Refused,
}

async fn insert(store: &Store, commands: &[PollGmailConnection]) -> Result<(), Failure> {
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
        Err(error) if error.is_unavailable() => {
            tracing::debug!(%error, rows = commands.len(), "Cannot insert queued jobs now");
            Err(Failure::Away)
        }
        Err(error) => {
            tracing::error!(%error, rows = commands.len(), "Cannot insert queued jobs; the projector will write their rows");
            Err(Failure::Refused)
        }
    }
}
