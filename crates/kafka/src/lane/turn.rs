//! The loop of a lane: one turn after the other, all on one thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use crate::error::Cause;
use crate::faults::{Fault, Faults};
use crate::lane::app::{App, Assignment, Restore};
use crate::lane::done::DoneQueue;
use crate::lane::error::Failure;
use crate::lane::member::{Change, Member, Polled};
use crate::lane::meters::{Meters, lag_gauge};
use crate::lane::outbox::Outbox;
use crate::lane::partitions::{Open, Partitions, Stage};
use crate::lane::restore::{Opening, Outcome, Restorer};
use crate::lane::status::{PartitionStatus, Phase, Shared};
use crate::lane::transaction::{Transactions, Unpublished};
use crate::lane::tuning::{LaneSettings, Tuning};
use crate::native;
use crate::record::InputRecord;

/// How many records, and how many results, are taken before the loop looks at everything else.
const ITEMS_A_TURN: usize = 1000;

/// With so many records waiting, and something to follow, they are written while the application works on.
const RECORDS_AHEAD: usize = 256;

/// The longest wait. Whatever happens wakes the thread; this bounds the harm of a wake-up that got lost.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// How often the status is written for those who watch.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// How long transactions may keep aborting, in multiples of the transaction time-out, before the lane is dropped.
const ABORTING_FOR: u32 = 3;

/// The longest pause after an aborted transaction.
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

type PartOf<A> = <<A as App>::Restore as Restore>::Part;

/// What to do while the brokers take a transaction in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// Work on results that are there.
    Work,
    /// Nothing: no transaction follows that could carry what they lead to, and the work would be done again.
    Wait,
}

/// Since when transactions abort, and when to try again.
struct Aborting {
    since: Instant,
    backoff: Duration,
    until: Instant,
}

/// A lane that is a member of its group. Fields drop in this order: the application first, the producer last.
pub(crate) struct Running<A: App> {
    app: A,
    done: DoneQueue<A::Done>,
    restorer: Restorer<A::Restore>,
    member: Member,
    transactions: Transactions,
    partitions: Partitions,
    outbox: Outbox,
    /// What the application puts out while the outbox is being published.
    next: Outbox,
    /// Since when outputs wait.
    pending_since: Option<Instant>,
    aborting: Option<Aborting>,
    tuning: Tuning,
    input: Arc<str>,
    service: &'static str,
    shared: Arc<Shared>,
    meters: Meters,
    status_due: Instant,
    /// Whether the group has given its first answer.
    has_joined: bool,
    /// Whether a transaction was committed, or the group joined and held for long: earlier failures are forgiven then.
    commits: u64,
}

/// What a lane is put together from.
pub(crate) struct Parts<A: App> {
    pub(crate) app: A,
    pub(crate) done: DoneQueue<A::Done>,
    pub(crate) restorer: Restorer<A::Restore>,
    pub(crate) member: Member,
    pub(crate) transactions: Transactions,
}

impl<A: App> Running<A> {
    pub(crate) fn new(parts: Parts<A>, lane: &LaneSettings, tuning: &Tuning, shared: Arc<Shared>) -> Self {
        let Parts { app, done, restorer, member, transactions } = parts;
        Self {
            app,
            done,
            restorer,
            member,
            transactions,
            partitions: Partitions::default(),
            outbox: Outbox::default(),
            next: Outbox::default(),
            pending_since: None,
            aborting: None,
            tuning: tuning.clone(),
            input: lane.input.clone(),
            service: lane.service,
            shared,
            meters: Meters::new(lane),
            status_due: Instant::now(),
            has_joined: false,
            commits: 0,
        }
    }

    /// How many transactions were committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Turns until the lane is to stop; then what is pending is published, if that works at once.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        while !self.shared.is_stopping() {
            let is_idle = !self.turn()?;
            self.write_status();
            if is_idle {
                thread::park_timeout(self.wait());
            }
        }
        if self.has_pending() {
            self.publish(Meanwhile::Wait)?;
        }
        Ok(())
    }

    /// One turn. Returns whether anything happened.
    fn turn(&mut self) -> Result<bool, Failure> {
        let mut happened = self.read()?;
        happened |= self.open_restored()?;
        happened |= self.take_done()?;
        if let Some(at) = self.app.wake_at() {
            let now = Instant::now();
            if at <= now {
                self.app.tick(now, &mut self.outbox);
                happened = true;
            }
        }
        self.hold_back()?;
        if self.is_due() {
            self.publish(Meanwhile::Work)?;
            happened = true;
        }
        Ok(happened)
    }

    /// Reads what is there, rebalances included. No transaction is open here.
    fn read(&mut self) -> Result<bool, Failure> {
        let mut happened = false;
        for _ in 0..ITEMS_A_TURN {
            if self.is_full() {
                break;
            }
            match self.member.poll() {
                Polled::Nothing => break,
                Polled::Change(change) => self.change(change)?,
                Polled::Error(error) => complaint(&self.input, error)?,
                Polled::Record(message) => {
                    let partition = message.partition();
                    // Before a partition is open, anything that comes of it is left over from an earlier ownership.
                    let Some((assignment, open)) = self.partitions.open_mut(partition) else { continue };
                    let offset = message.offset();
                    if self.tuning.faults.has(Fault::LibraryRebalance) && open.next == open.committed {
                        open.next = offset;
                    }
                    if offset < open.next {
                        let (topic, expected) = (self.input.clone(), open.next);
                        return Err(Failure::Rewound { topic, partition, expected, found: offset });
                    }
                    open.next = offset + 1;
                    let record = InputRecord::of(&message, &self.input);
                    self.app.record(assignment, &record, &mut self.outbox);
                    self.meters.read.increment(1);
                    if !self.app.wants_input(assignment) {
                        open.is_paused = true;
                        self.member.pause(&[partition])?;
                    }
                }
            }
            happened = true;
        }
        Ok(happened)
    }

    /// Carries out a rebalance.
    fn change(&mut self, change: Change) -> Result<(), Failure> {
        match change {
            Change::Assigned(partitions) => {
                self.has_joined = true;
                self.member.take_up(&partitions)?;
                for partition in partitions {
                    let assignment = Partitions::assign(partition);
                    debug!(topic = %self.input, partition, "Partition assigned");
                    let cancel = self.restorer.restore(assignment, self.app.restore(assignment))?;
                    self.partitions.insert(assignment, cancel);
                }
            }
            Change::Revoked(partitions) => {
                let is_lost = self.member.has_lost_assignment();
                if is_lost {
                    warn!(topic = %self.input, ?partitions, "Partitions were lost");
                } else if self.has_pending() && self.aborting.is_none() {
                    // Still ours: what they have put out is published before they are given up.
                    self.publish(Meanwhile::Wait)?;
                }
                for partition in &partitions {
                    debug!(topic = %self.input, partition, "Partition revoked");
                    // Its lag is for its next owner to tell.
                    lag_gauge(self.service, *partition).set(0.0);
                    if let Some(assignment) = self.partitions.remove(*partition) {
                        self.app.closed(assignment);
                    }
                }
                self.drop_stale();
                self.member.give_up(&partitions)?;
            }
        }
        self.status_due = Instant::now();
        Ok(())
    }

    /// Opens partitions whose state is rebuilt.
    fn open_restored(&mut self) -> Result<bool, Failure> {
        let mut happened = false;
        while let Some(Outcome { assignment, result }) = self.restorer.next() {
            if !self.partitions.is_restoring(assignment) {
                continue;
            }
            self.open(assignment, result?)?;
            happened = true;
        }
        Ok(happened)
    }

    fn open(&mut self, assignment: Assignment, opening: Opening<PartOf<A>>) -> Result<(), Failure> {
        let Opening { part, start, records, since } = opening;
        self.start(assignment.partition, start)?;
        self.partitions.open(assignment, start);
        let took = since.elapsed();
        self.meters.restored.increment(records);
        self.meters.restore_seconds.record(took);
        info!(topic = %self.input, partition = assignment.partition, start, records, ?took, "Partition opened");
        self.app.opened(assignment, part, &mut self.outbox);
        self.status_due = Instant::now();
        Ok(())
    }

    /// Starts reading. librdkafka starts a partition in the background after it was assigned, and refuses until then.
    fn start(&self, partition: i32, offset: i64) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.member.start_at(partition, offset) {
                Ok(()) => return Ok(()),
                Err(cause) if Instant::now() >= deadline => {
                    return Err(Failure::Call { what: "starting to read a partition", cause });
                }
                Err(cause) => {
                    debug!(%cause, partition, "A partition is not ready to be read yet");
                    thread::park_timeout(Duration::from_millis(1));
                }
            }
        }
    }

    /// Takes finished work, as long as its assignment is the current one.
    ///
    /// When there is much of it, its outputs are written at once, and the brokers take them in while the application
    /// goes on. The transaction is published in this very turn: it is not open when the consumer is polled again.
    fn take_done(&mut self) -> Result<bool, Failure> {
        let mut happened = false;
        let mut written = 0;
        for _ in 0..ITEMS_A_TURN {
            if self.is_full() {
                break;
            }
            let Some((assignment, done)) = self.done.next() else { break };
            if self.partitions.is_current(assignment) {
                self.app.done(assignment, done, &mut self.outbox);
            } else {
                self.meters.dropped.increment(1);
            }
            happened = true;
            if self.aborting.is_none() && self.outbox.len() >= written + RECORDS_AHEAD {
                written = self.outbox.len();
                if let Err(unpublished) = self.transactions.write(self.outbox.records()) {
                    self.unpublished(unpublished)?;
                }
            }
        }
        Ok(happened)
    }

    /// Pauses partitions that want no input and resumes those that do again.
    fn hold_back(&mut self) -> Result<(), Failure> {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (assignment, open) in self.partitions.opened_mut() {
            let wants = self.app.wants_input(assignment);
            if wants == open.is_paused {
                open.is_paused = !wants;
                if wants { &mut resume } else { &mut pause }.push(assignment.partition);
            }
        }
        if !pause.is_empty() {
            self.member.pause(&pause)?;
        }
        if !resume.is_empty() {
            self.member.resume(&resume)?;
        }
        Ok(())
    }

    /// Whether a transaction has as much as it may have.
    fn is_full(&self) -> bool {
        is_full(&self.outbox, &self.tuning)
    }

    fn has_pending(&self) -> bool {
        !self.outbox.is_empty()
            || self.partitions.have_moved(|assignment, next| self.app.commit_at(assignment, next))
            || self.app.is_dirty()
    }

    /// Whether to publish now: something is pending, and nothing that could ride along is worth waiting for.
    fn is_due(&mut self) -> bool {
        if !self.has_pending() {
            self.pending_since = None;
            return false;
        }
        if self.transactions.is_open() {
            return true;
        }
        let now = Instant::now();
        let since = *self.pending_since.get_or_insert(now);
        if let Some(aborting) = &self.aborting {
            return now >= aborting.until;
        }
        self.is_full() || !self.app.busy() || now >= since + self.tuning.linger
    }

    /// How long there is nothing to do if nobody wakes the thread.
    fn wait(&self) -> Duration {
        let now = Instant::now();
        let linger = match &self.aborting {
            Some(aborting) => Some(aborting.until),
            None => self.pending_since.map(|since| since + self.tuning.linger),
        };
        let next = [linger, self.app.wake_at()].into_iter().flatten().min();
        next.map_or(LONGEST_WAIT, |next| next.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    /// Publishes all that is pending in one transaction.
    fn publish(&mut self, meanwhile: Meanwhile) -> Result<(), Failure> {
        self.drop_stale();
        self.app.before_commit(&mut self.outbox);
        let Self { partitions, app, outbox, .. } = self;
        let touched = partitions.touched(outbox, |assignment, next| app.commit_at(assignment, next));
        if touched.is_empty() {
            return Ok(());
        }
        let (begun, at) = (Instant::now(), SystemTime::now());
        let offsets = offsets(&self.input, &touched, &self.tuning.faults);
        // The brokers take their time to acknowledge; results that are there already are worked on meanwhile. What they
        // lead to belongs to the next transaction: states and offsets of this one are fixed.
        let Self { app, done, partitions, next, meters, tuning, .. } = self;
        let meanwhile = || {
            if meanwhile == Meanwhile::Wait || is_full(next, tuning) {
                return false;
            }
            let Some((assignment, done)) = done.next() else { return false };
            if partitions.is_current(assignment) {
                app.done(assignment, done, next);
            } else {
                meters.dropped.increment(1);
            }
            true
        };
        let published = self.transactions.publish(self.outbox.records(), &offsets, &self.member, meanwhile);
        let n = self.outbox.len();
        if published.is_ok() {
            self.outbox.sendings().committed(&self.input, n, at);
            self.outbox.clear();
        }
        self.outbox.append(&mut self.next);
        match published {
            Ok(()) => {
                self.meters.committed.increment(1);
                self.meters.seconds.record(begun.elapsed());
                self.meters.records.record(n as f64);
                self.commits += 1;
                self.pending_since = None;
                self.aborting = None;
                for (assignment, Open { target, .. }) in touched {
                    if let Some((_, open)) = self.partitions.open_mut(assignment.partition) {
                        open.committed = target;
                    }
                    self.app.committed(assignment, target);
                }
                Ok(())
            }
            Err(unpublished) => self.unpublished(unpublished),
        }
    }

    fn unpublished(&mut self, unpublished: Unpublished) -> Result<(), Failure> {
        match unpublished {
            Unpublished::Aborted(reason) => {
                self.meters.aborted.increment(1);
                self.outbox.sendings().aborted();
                self.shared.status().aborted += 1;
                self.back_off(reason)
            }
            Unpublished::Failed(failure) => Err(failure),
        }
    }

    /// After an abort: the outputs stay, and are published again unless a rebalance takes their assignment away.
    fn back_off(&mut self, reason: String) -> Result<(), Failure> {
        let now = Instant::now();
        let (since, backoff) = match self.aborting.take() {
            Some(aborting) => (aborting.since, (aborting.backoff * 2).min(LONGEST_BACKOFF)),
            None => (now, Duration::from_millis(2)),
        };
        let patience = self.tuning.transaction_timeout * ABORTING_FOR;
        if now.duration_since(since) > patience {
            return Err(Failure::Aborting { seconds: patience.as_secs(), cause: reason });
        }
        self.aborting = Some(Aborting { since, backoff, until: now + backoff });
        Ok(())
    }

    /// Drops outputs whose assignment is over.
    fn drop_stale(&mut self) {
        let dropped = self.outbox.retain(|assignment| self.partitions.is_current(assignment));
        self.meters.dropped.increment(dropped as u64);
    }

    /// Tells those who watch how the lane fares.
    fn write_status(&mut self) {
        let now = Instant::now();
        if now < self.status_due {
            return;
        }
        self.status_due = now + STATUS_EVERY;
        let consumer = self.member.consumer();
        let partitions: Vec<PartitionStatus> = self
            .partitions
            .iter()
            .map(|(assignment, stage)| {
                let partition = assignment.partition;
                match stage {
                    Stage::Restoring(_) => {
                        PartitionStatus { partition, is_open: false, is_paused: true, next: 0, lag: None }
                    }
                    Stage::Open(open) => {
                        let end = native::known_end(consumer, &self.input, partition);
                        let lag = end.map(|end| (end - open.committed).max(0));
                        if let Some(lag) = lag {
                            lag_gauge(self.service, partition).set(lag as f64);
                        }
                        PartitionStatus { partition, is_open: true, is_paused: open.is_paused, next: open.next, lag }
                    }
                }
            })
            .collect();
        let (restoring, open) = self.partitions.counts();
        self.meters.restoring.set(restoring as f64);
        self.meters.open.set(open as f64);
        let mut status = self.shared.status();
        if self.has_joined {
            status.phase = Phase::Running;
        }
        status.partitions = partitions;
        status.committed = self.commits;
        status.last_turn = now;
    }
}

fn is_full(outbox: &Outbox, tuning: &Tuning) -> bool {
    outbox.len() >= tuning.transaction_records || outbox.bytes() as u64 >= tuning.transaction_bytes
}

/// The offsets that a transaction commits.
fn offsets(input: &str, touched: &[(Assignment, Open)], faults: &Faults) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(touched.len());
    for (assignment, open) in touched {
        let has_moved = open.target != open.committed;
        let offset = match has_moved {
            false if faults.has(Fault::MovedOffsetsOnly) => continue,
            false if faults.has(Fault::InvalidOffsets) => Offset::Invalid,
            _ => Offset::Offset(open.target),
        };
        list.add_partition_offset(input, assignment.partition, offset).expect("a number or the invalid offset");
    }
    list
}

/// What the consumer complains of: passing, and then the next poll goes on, or the end of the lane.
fn complaint(input: &str, error: KafkaError) -> Result<(), Failure> {
    let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    let cause = Cause::from(error);
    if is_fatal || cause.is_permanent() {
        return Err(Failure::Call { what: "reading the input", cause });
    }
    debug!(%cause, topic = input, "Reading the input is delayed");
    Ok(())
}
