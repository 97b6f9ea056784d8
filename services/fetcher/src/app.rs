//! The fetcher on its lane: announcements and readings in, records out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{ConnectionId, TokenVersion};
use gmail::gate::Holding;
use kafka::InputRecord;
use kafka::lane::{App, Assignment, DoneSender, LaneHandle, Outbox};
use kafka::topics::Topics;
use tokio::runtime::Handle;

use crate::catch_up::{Found, Log};
use crate::ledger::{Bounds, Offered};
use crate::mailboxes::{Away, Mailboxes};
use crate::metric;
use crate::partition::Partition;
use crate::publish::Names;
use crate::reading::{Report, Trouble};
use crate::readings::{Ended, Readings};
use crate::restore::{Part, Rebuild};
use crate::work::{Budget, Item, Phase};

/// How long after the start of a reading its answer is worth waiting for with what is already to be written.
const PATIENCE: Duration = Duration::from_millis(5);

/// How often Postgres is asked whether somebody has consented again.
const CONSENTS_EVERY: Duration = Duration::from_secs(5);

/// How many mailboxes it is asked about at once.
const CONSENTS_AT_ONCE: usize = 500;

/// How often the metrics of memory are set.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// Bytes of outcomes that a lane keeps while an earlier message of their mailbox is missing; beyond that they are read
/// again.
const KEPT: usize = 16 << 20;

/// What all lanes of a process share.
pub(crate) struct Shared<M> {
    /// Where mailboxes are.
    pub(crate) mailboxes: Arc<M>,
    /// Runs the readings.
    pub(crate) runtime: Handle,
    /// The topics' names.
    pub(crate) topics: Topics,
    /// The readings that may be under way in one lane.
    pub(crate) places: usize,
    /// What a partition holds.
    pub(crate) bounds: Bounds,
    /// Reads the log again.
    pub(crate) log: Log,
}

/// A finished piece of work.
#[derive(Debug)]
pub(crate) enum Done {
    /// Messages were read.
    Read(Ended),
    /// What a mailbox had left in the log.
    Found(Found),
    /// A reading of the log is over.
    PassEnded,
    /// Which refresh tokens those mailboxes have that wait for a newer one.
    Versions { asked: Vec<(Bytes, ConnectionId)>, versions: Result<Vec<(ConnectionId, TokenVersion)>, Away> },
}

/// The fetcher of one lane.
pub(crate) struct Fetcher<M> {
    shared: Arc<Shared<M>>,
    names: Names,
    lane: usize,
    done: DoneSender<Done>,
    readings: Readings<M>,
    holding: Option<Holding>,
    partitions: BTreeMap<i32, Partition>,
    /// When which mailbox's pause is over.
    timers: BTreeSet<(Instant, i32, Bytes)>,
    consents_at: Instant,
    metrics_at: Instant,
    budget: Budget,
}

impl<M: Mailboxes> Fetcher<M> {
    /// The fetcher for the lane that `handle` belongs to.
    pub(crate) fn new(shared: Arc<Shared<M>>, handle: LaneHandle<Done>) -> Self {
        let names = Names::new(&shared.topics, handle.partitions);
        let readings = Readings::new(
            shared.mailboxes.clone(),
            shared.runtime.clone(),
            handle.done.clone(),
            names.clone(),
            shared.places,
        );
        let holding = shared.mailboxes.holding();
        Self {
            shared,
            names,
            lane: handle.lane,
            done: handle.done,
            readings,
            holding,
            partitions: BTreeMap::new(),
            timers: BTreeSet::new(),
            consents_at: Instant::now(),
            metrics_at: Instant::now(),
            budget: Budget::default(),
        }
    }

    /// Our part of the quotas goes by our partitions.
    fn hold(&self) {
        if let Some(holding) = &self.holding {
            holding.set(self.partitions.len(), usize::try_from(self.names.partitions).unwrap_or(0));
        }
    }

    /// A mailbox that has something to be read and nothing else to wait for stands in line for it.
    fn noticed(&mut self, assignment: Assignment, key: &[u8]) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        if partition.ledger.held(key).next().is_none() {
            return;
        }
        if let Some(work) = partition.ledger.work(key).filter(|work| work.phase == Phase::Idle) {
            work.phase = Phase::Ready;
            self.readings.push(assignment, Bytes::copy_from_slice(key));
        }
    }

    /// Starts as many readings as may run, and reads the log again for those that lag.
    fn start(&mut self) {
        while let Some((assignment, key)) = self.readings.next() {
            let Some(partition) = self.partitions.get_mut(&assignment.partition) else { continue };
            let Some(work) = partition.ledger.work(&key).filter(|work| work.phase == Phase::Ready) else { continue };
            work.phase = Phase::Idle;
            let oldest = work.oldest;
            let Some(first) = partition.first(&key) else { continue };
            let then = partition.following(&key, first.last);
            let last = then.as_ref().map_or(first.last, |then| then.last);
            let sequel = self.readings.start(assignment, key.clone(), first.due, then.map(|then| then.due), oldest);
            partition.given(&key, last, sequel);
        }
        let now = Instant::now();
        for partition in self.partitions.values_mut() {
            partition.catch_up(now, &self.shared.log, &self.done);
        }
    }

    /// Takes in what a reading came to.
    fn read(&mut self, assignment: Assignment, ended: Ended, out: &mut Outbox) {
        let Ended { key, asked, report: Report { steps, trouble, organisation }, took, goes_on, room } = ended;
        metric::read(trouble.as_ref(), took);
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let Some(work) = partition.ledger.work(&key) else { return };
        work.organisation = organisation.or(work.organisation);
        if trouble.is_none() && steps.len() == work.chunk {
            work.paced(took);
        }
        partition.take_in(&key, asked, steps, &self.budget);
        let has_moved = partition.put_out(assignment, &key, out);
        drop(room);
        if goes_on {
            return partition.go_on(&key);
        }
        partition.ledger.pin(&key, 0);
        if self.budget.kept() > KEPT {
            partition.ledger.held_mut(&key).for_each(Item::let_go);
        }
        let Some(work) = partition.ledger.work(&key) else { return };
        work.phase = Phase::Idle;
        work.sequel = None;
        let Some(trouble) = trouble else {
            work.recovered();
            return self.noticed(assignment, &key);
        };
        partition.say(&key, &trouble);
        if let Trouble::Revoked(version) = trouble {
            return self.park(assignment, &key, version);
        }
        let Some(work) = partition.ledger.work(&key) else { return };
        let pause = work.pause(&trouble, has_moved, rand::random());
        let until = Instant::now() + pause;
        work.phase = Phase::Paused(until);
        self.timers.insert((until, assignment.partition, key));
    }

    /// A mailbox waits for somebody's consent: what it holds is left in the log.
    fn park(&mut self, assignment: Assignment, key: &Bytes, version: TokenVersion) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let Some(work) = partition.ledger.work(key) else { return };
        work.oldest = version;
        work.phase = Phase::Parked(version);
        partition.parked.push_back(key.clone());
        partition.ledger.let_go(key);
        partition.ledger.touch(key);
    }

    /// Asks Postgres whether somebody has consented again.
    fn ask_for_consents(&mut self) {
        for partition in self.partitions.values_mut().filter(|partition| !partition.is_asking) {
            let asked = partition.next_to_ask(CONSENTS_AT_ONCE);
            if asked.is_empty() {
                continue;
            }
            partition.is_asking = true;
            let (mailboxes, done, assignment) =
                (self.shared.mailboxes.clone(), self.done.clone(), partition.assignment);
            self.shared.runtime.spawn(async move {
                let connections = asked.iter().map(|(_, organisation, id)| (*organisation, *id)).collect();
                let versions = mailboxes.versions(connections).await;
                let asked = asked.into_iter().map(|(key, _, id)| (key, id)).collect();
                // A lane that is gone has no use for it.
                let _ = done.send(assignment, Done::Versions { asked, versions }).await;
            });
        }
    }

    /// Lets those go on of whom there is a newer refresh token, and those whose connection was deleted: what they have
    /// left is dropped then.
    fn consented(
        &mut self,
        assignment: Assignment,
        asked: &[(Bytes, ConnectionId)],
        versions: Result<Vec<(ConnectionId, TokenVersion)>, Away>,
    ) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        partition.is_asking = false;
        let versions: BTreeMap<ConnectionId, TokenVersion> = match versions {
            Ok(versions) => versions.into_iter().collect(),
            Err(away) => return tracing::debug!(%away, "Nobody can say who has consented again"),
        };
        let mut woken = Vec::new();
        for (key, id) in asked {
            let Some(work) = partition.ledger.work(key) else { continue };
            let Phase::Parked(parked) = work.phase else { continue };
            let newer = versions.get(id).copied();
            if newer.is_some_and(|newer| newer <= parked) {
                continue;
            }
            tracing::info!(connection = %id, is_deleted = newer.is_none(), "A mailbox that waited for consent goes on");
            work.phase = Phase::Idle;
            work.oldest = newer.unwrap_or(parked);
            work.recovered();
            partition.ledger.touch(key);
            partition.ledger.want(key);
            woken.push(key.clone());
        }
        partition.parked.retain(|key| !woken.contains(key));
        woken.iter().for_each(|key| self.noticed(assignment, key));
    }

    /// What a mailbox had left in the log is there.
    fn found(&mut self, assignment: Assignment, found: Found) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let Found { key, records, read_to, is_short } = found;
        partition.was_short |= is_short;
        let items = records.into_iter().map(|record| (record.offset, Item::new(record))).collect();
        partition.ledger.refill(&key, items, read_to);
        // It may have been parked meanwhile.
        if partition.ledger.work(&key).is_some_and(|work| work.is_parked()) {
            partition.ledger.let_go(&key);
        }
        self.noticed(assignment, &key);
    }

    fn tell(&mut self, at: Instant) {
        if at < self.metrics_at {
            return;
        }
        self.metrics_at = at + METRICS_EVERY;
        let held = self.partitions.values().map(|partition| partition.ledger.len()).sum();
        let parked = self.partitions.values().map(|partition| partition.parked.len()).sum();
        metric::memory(self.lane, held, parked);
    }
}

impl<M: Mailboxes> App for Fetcher<M> {
    type Restore = Rebuild;
    type Done = Done;

    fn restore(&mut self, _: Assignment) -> Rebuild {
        Rebuild::new(self.names.partitions)
    }

    fn opened(&mut self, assignment: Assignment, part: Part, _: &mut Outbox) {
        let partition = Partition::new(assignment, self.shared.bounds, part);
        self.partitions.insert(assignment.partition, partition);
        self.hold();
        self.start();
    }

    fn closed(&mut self, assignment: Assignment) {
        self.partitions.remove(&assignment.partition);
        self.readings.forget(assignment);
        self.timers.retain(|(_, partition, _)| *partition != assignment.partition);
        self.hold();
    }

    fn record(&mut self, assignment: Assignment, record: &InputRecord<'_>, _: &mut Outbox) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        partition.next = record.offset + 1;
        let key = record.key.unwrap_or_default();
        let topic = &self.shared.log.input;
        let item = || Item::new(Arc::new(record.to_owned_in(topic)));
        match partition.ledger.offer(key, record.offset, item) {
            Offered::Held => self.noticed(assignment, key),
            Offered::Known | Offered::Left => {}
        }
        self.start();
    }

    fn done(&mut self, assignment: Assignment, done: Done, out: &mut Outbox) {
        match done {
            Done::Read(ended) => {
                self.readings.ended(assignment, ended.goes_on);
                self.read(assignment, ended, out);
            }
            Done::Found(found) => self.found(assignment, found),
            Done::PassEnded => {
                if let Some(partition) = self.partitions.get_mut(&assignment.partition) {
                    partition.pass_ended(Instant::now());
                }
            }
            Done::Versions { asked, versions } => self.consented(assignment, &asked, versions),
        }
        self.start();
    }

    fn wake_at(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        let passes = self.partitions.values().filter_map(Partition::pass_at).min();
        let is_parked = self.partitions.values().any(|partition| !partition.parked.is_empty());
        let metrics = (!self.partitions.is_empty()).then_some(self.metrics_at);
        [timer, passes, is_parked.then_some(self.consents_at), metrics].into_iter().flatten().min()
    }

    fn tick(&mut self, at: Instant, _: &mut Outbox) {
        while self.timers.first().is_some_and(|(due, ..)| *due <= at) {
            let Some((due, number, key)) = self.timers.pop_first() else { break };
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            let assignment = partition.assignment;
            if let Some(work) = partition.ledger.work(&key).filter(|work| work.phase == Phase::Paused(due)) {
                work.phase = Phase::Idle;
                self.noticed(assignment, &key);
            }
        }
        if self.consents_at <= at {
            self.consents_at = at + CONSENTS_EVERY;
            self.ask_for_consents();
        }
        self.tell(at);
        self.start();
    }

    fn busy(&self) -> bool {
        self.readings.is_busy(PATIENCE)
    }

    /// Always: what does not fit into memory is left in the log, so that nobody waits behind somebody else's records.
    fn wants_input(&self, _: Assignment) -> bool {
        true
    }

    fn is_dirty(&self) -> bool {
        self.partitions.values().any(|partition| partition.ledger.is_dirty())
    }

    fn before_commit(&mut self, out: &mut Outbox) {
        let mut writes = Vec::new();
        for partition in self.partitions.values_mut() {
            partition.settle(&self.names, &mut writes, out);
        }
    }

    fn commit_at(&self, assignment: Assignment, next: i64) -> i64 {
        self.partitions.get(&assignment.partition).map_or(next, |partition| partition.ledger.commit_at(next))
    }
}
