//! Reading again what was left in the log: one pass over a partition for several keys at once, off the lane's thread.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use kafka::lane::{Assignment, DoneSender};
use kafka::{OwnedRecord, Settings};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::app::Done;
use crate::ledger::Hungry;

/// What all passes of a process share.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) kafka: Settings,
    /// The topic that is read.
    pub(crate) input: Arc<str>,
    pub(crate) runtime: Handle,
    /// The passes that may be under way.
    pub(crate) places: Arc<Semaphore>,
}

/// What a pass has brought for one key.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: Bytes,
    pub(crate) records: Vec<Arc<OwnedRecord>>,
    /// All its records below were brought, from where it wanted them.
    pub(crate) read_to: i64,
    /// Whether the pass ended before it came to what was wanted.
    pub(crate) is_short: bool,
}

/// A key that is looked for.
struct Wanted {
    hungry: Hungry,
    records: Vec<Arc<OwnedRecord>>,
}

impl Log {
    /// Reads a partition once for all of `hungry`. Each key's records are handed over as soon as it has what it wants;
    /// the end of the pass follows them.
    pub(crate) fn pass(&self, assignment: Assignment, hungry: Vec<Hungry>, done: DoneSender<Done>) {
        let log = self.clone();
        self.runtime.spawn(async move {
            let Ok(_place) = log.places.clone().acquire_owned().await else { return };
            if done.is_gone() {
                return;
            }
            let runtime = log.runtime.clone();
            let back = done.clone();
            let pass = move || Pass::new(&log, assignment, hungry, &done).run();
            // A pass that panics is over; the lane begins another.
            let rest = runtime.spawn_blocking(pass).await.unwrap_or_default();
            for found in rest {
                let _ = back.send(assignment, Done::Found(found)).await;
            }
            let _ = back.send(assignment, Done::PassEnded).await;
        });
    }
}

struct Pass<'a> {
    log: &'a Log,
    assignment: Assignment,
    done: &'a DoneSender<Done>,
    wanted: HashMap<Bytes, Wanted, foldhash::fast::RandomState>,
    /// Where the last record of each key is that need be looked for.
    ends: BTreeSet<(i64, Bytes)>,
}

impl<'a> Pass<'a> {
    fn new(log: &'a Log, assignment: Assignment, hungry: Vec<Hungry>, done: &'a DoneSender<Done>) -> Self {
        let ends = hungry.iter().map(|hungry| (hungry.last, hungry.key.clone())).collect();
        let wanted = hungry.into_iter().map(|hungry| (hungry.key.clone(), Wanted { hungry, records: Vec::new() }));
        Self { log, assignment, done, wanted: wanted.collect(), ends }
    }

    /// Gives what it has of those that did not get what they want.
    fn run(mut self) -> Vec<Found> {
        let Some(from) = self.wanted.values().map(|wanted| wanted.hungry.from).min() else { return Vec::new() };
        let Log { kafka, input, .. } = self.log;
        let (partition, done) = (self.assignment.partition, self.done);
        let name = format!("fetcher-{partition}");
        let scanned = kafka::scan::scan(
            kafka,
            &name,
            input,
            partition,
            from,
            || done.is_gone(),
            |record| {
                let offset = record.offset;
                let key = record.key.unwrap_or_default();
                if let Some(wanted) = self.wanted.get_mut(key)
                    && (wanted.hungry.from..=wanted.hungry.last).contains(&offset)
                {
                    wanted.records.push(Arc::new(record.to_owned_in(input)));
                    if wanted.records.len() >= wanted.hungry.want {
                        self.found(key, offset + 1);
                    }
                }
                while self.ends.first().is_some_and(|(last, _)| *last <= offset) {
                    let Some((last, key)) = self.ends.pop_first() else { break };
                    self.found(&key, last + 1);
                }
                if self.wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        let read_to = match scanned {
            Ok(read_to) => read_to,
            Err(error) => {
                tracing::warn!(%error, partition, "Reading the log again was broken off");
                from
            }
        };
        let rest = self.wanted.into_values().map(|Wanted { hungry, records }| {
            let known = records.last().map_or(hungry.from, |record| record.offset + 1);
            Found { key: hungry.key, records, read_to: known.max(read_to.min(hungry.last + 1)), is_short: true }
        });
        rest.collect()
    }

    /// A key has what it wants.
    fn found(&mut self, key: &[u8], read_to: i64) {
        let Some(Wanted { hungry, records }) = self.wanted.remove(key) else { return };
        self.ends.remove(&(hungry.last, hungry.key.clone()));
        let found = Found { key: hungry.key, records, read_to, is_short: false };
        // A lane that is gone needs nothing.
        let _ = self.log.runtime.block_on(self.done.send(self.assignment, Done::Found(found)));
    }
}
