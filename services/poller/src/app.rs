//! The poller on its lane: commands and answers in, records out.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use domain::mailbox::{Action, Context, Input, Mailbox, Rules, code};
use domain::{
    Command, ConnectionId, ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, JobId, JobState,
    OrganisationId, Progress, Timestamp, TokenVersion, Trigger,
};
use gmail::gate::Holding;
use kafka::lane::{App, Assignment, LaneHandle, Outbox};
use kafka::topics::Topics;
use kafka::{InputRecord, partition_of};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::calls::{Calls, Done, Mailboxes};
use crate::partition::{Found, Partition};
use crate::publish::{self, Publisher, Stamps};
use crate::restore::{Part, Rebuild};
use crate::slot::{self, Broken, Slot};
use crate::walks::Walks;
use crate::{key, metric};

/// How long after the start of a call its answer is worth waiting for with what is already to be written.
const PATIENCE: Duration = Duration::from_millis(5);

/// What all lanes of a process share.
pub struct Shared<M> {
    /// Where mailboxes are.
    pub mailboxes: Arc<M>,
    /// Runs the calls.
    pub runtime: Handle,
    /// The topics' names.
    pub topics: Topics,
    /// The numbers that mailboxes decide by.
    pub rules: Rules,
    /// The calls that may be under way in one lane.
    pub calls: usize,
    /// With more calls than this waiting, a lane takes no more commands.
    pub backlog: usize,
}

/// The poller of one lane.
pub struct Poller<M> {
    shared: Arc<Shared<M>>,
    calls: Calls<M>,
    walks: Walks,
    /// Tells the quota how many partitions are ours.
    holding: Option<Holding>,
    partition_count: i32,
    partitions: BTreeMap<i32, Partition>,
    /// Reused by every input.
    actions: Vec<Action>,
    /// Where announcements are encoded.
    buffer: BytesMut,
}

/// The wall clock.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl<M: Mailboxes> Poller<M> {
    /// The poller for the lane that `handle` belongs to.
    pub fn new(shared: Arc<Shared<M>>, handle: LaneHandle<Done>) -> Self {
        let calls = Calls::new(shared.mailboxes.clone(), shared.runtime.clone(), handle.done, shared.calls);
        let holding = shared.mailboxes.holding();
        Self {
            shared,
            calls,
            walks: Walks::default(),
            holding,
            partition_count: handle.partitions,
            partitions: BTreeMap::new(),
            actions: Vec::new(),
            buffer: BytesMut::new(),
        }
    }

    /// Our part of the quotas goes by our partitions.
    fn hold(&self) {
        if let Some(holding) = &self.holding {
            holding.set(self.partitions.len(), usize::try_from(self.partition_count).unwrap_or(0));
        }
    }

    /// Runs one mailbox through one input (none: it was just restored) and publishes what that leads to.
    ///
    /// # Errors
    /// The mailbox panicked and was set aside, it alone; the reason.
    fn input(
        &mut self,
        assignment: Assignment,
        id: ConnectionId,
        input: Option<Input>,
        at: Timestamp,
        out: &mut Outbox,
    ) -> Result<(), Arc<str>> {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return Ok(()) };
        let Some(awake) = partition.awake(id) else { return Ok(()) };
        if awake.is_dirty {
            // What is put out already must not be forgotten if this input breaks the mailbox.
            awake.store(self.partition_count);
            awake.is_dirty = true;
        }
        let cx = Context { now: at, jitter: rand::random(), rules: &self.shared.rules };
        let (mailbox, actions) = (&mut awake.mailbox, &mut self.actions);
        let run = AssertUnwindSafe(|| match input {
            Some(input) => {
                #[cfg(feature = "faults")]
                crate::faults::panic_if_asked(&input);
                mailbox.on(&cx, input, actions);
            }
            None => mailbox.advance(&cx, actions),
        });
        if catch_unwind(run).is_err() {
            self.actions.clear();
            let reason: Arc<str> = "the mailbox's code panicked".into();
            let organisation = awake.mailbox.organisation();
            self.set_aside(assignment, id, organisation, &reason, at, out);
            return Err(reason);
        }
        let is_gone = awake.mailbox.is_gone();
        self.publish(assignment, id, at, out);
        if let Some(partition) = self.partitions.get_mut(&assignment.partition) {
            if is_gone {
                partition.remove(id);
            } else {
                partition.changed(id);
            }
        }
        Ok(())
    }

    /// Wakes a mailbox for something that is no command, and runs it through that.
    fn rouse(
        &mut self,
        assignment: Assignment,
        id: ConnectionId,
        input: Option<Input>,
        at: Timestamp,
        out: &mut Outbox,
    ) {
        // Only a mailbox that does not decode needs the tenant, and then nobody knows it.
        let unknown = OrganisationId::from_uuid(Uuid::nil());
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let (found, broke) = partition.wake(id, unknown);
        if let (Found::Broken(broken), Some(_)) = (found, broke) {
            let reason = broken.reason.clone();
            return self.set_aside(assignment, id, unknown, &reason, at, out);
        }
        // A mailbox that panics is set aside, which is told and counted there.
        let _ = self.input(assignment, id, input, at, out);
    }

    /// Carries out the actions that wait.
    fn publish(&mut self, assignment: Assignment, id: ConnectionId, at: Timestamp, out: &mut Outbox) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let Some(awake) = partition.awake(id) else { return };
        let organisation = awake.mailbox.organisation();
        let key = key::of(id);
        let mut publisher = Publisher::new(&self.shared.topics, assignment, out, at);
        let mut discovered = metric::Discovered::default();
        for action in self.actions.drain(..) {
            match action {
                Action::Call(call) => self.calls.push(assignment, organisation, id, call),
                Action::Discovered(event, trace) => {
                    discovered.add(event.origin);
                    publisher.discovered(key.clone(), &event, trace.as_ref(), &mut self.buffer);
                }
                Action::Job(event, trace) => {
                    if event.state.is_terminal() {
                        metric::job_ended(&event);
                    }
                    self.walks.told(&event);
                    publisher.job(&event, trace.as_ref());
                }
                Action::Connection(event) => publisher.connection(key.clone(), &event),
                Action::WriteChunk(chunk) => {
                    let frame = publisher.chunk(&chunk);
                    awake.stored.put_chunk(chunk.number, &frame);
                }
                Action::DropChunk(number) => {
                    publisher.drop_chunk(id, number);
                    awake.stored.drop_chunk(number);
                }
                Action::DeadLetter(letter) => {
                    tracing::warn!(connection = %id, place = ?letter.place, reason = letter.reason, "Unreadable at Gmail");
                    metric::unreadable();
                    publisher.unreadable(key.clone(), id, organisation, &letter);
                }
                Action::Alarm(alarm) => {
                    tracing::warn!(connection = %id, ?alarm, "Pushes of a mailbox want a look");
                    metric::alarm(&alarm);
                }
                Action::Forget => publisher.forget(key.clone()),
            }
        }
    }

    /// Takes one command in.
    fn command(&mut self, assignment: Assignment, record: &InputRecord<'_>, at: Timestamp, out: &mut Outbox) {
        let process = kafka::trace::process(record);
        let command = match self.read(record) {
            Ok(command) => command,
            Err(reason) => {
                process.fail("dead_letter");
                return self.refuse(assignment, record, &reason, at, out);
            }
        };
        let (id, job, organisation) = (command.connection_id(), command.job_id(), command.organisation_id());
        let is_forget = matches!(command, Command::Forget(_));
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let is_news = match &command {
            Command::Poll(_) => true,
            // There is nothing to end.
            Command::Cancel(_) | Command::Forget(_) => partition.knows(id),
        };
        if !is_news {
            return;
        }
        let trace = self.walks.begin(assignment, &command, &process).or_else(|| publish::trace(record));
        let (found, broke) = partition.wake(id, organisation);
        let reason = match found {
            Found::Awake(awake) => {
                awake.absorbed = record.offset + 1;
                match self.input(assignment, id, Some(Input::Command(command, trace.clone())), at, out) {
                    Ok(()) => return self.taken(assignment, id, job),
                    Err(reason) => reason,
                }
            }
            Found::Broken(broken) => broken.reason.clone(),
        };
        if broke.is_some() {
            self.set_aside(assignment, id, organisation, &reason, at, out);
        }
        if is_forget {
            return self.forget_broken(assignment, id, at, out);
        }
        if let Some(job) = job {
            let event = failed(job, id, organisation, at, code::QUARANTINED, set_aside_because(&reason));
            self.walks.told(&event);
            Publisher::new(&self.shared.topics, assignment, out, at).job(&event, trace.as_ref());
        }
    }

    /// A mailbox took a command in.
    fn taken(&mut self, assignment: Assignment, id: ConnectionId, job: Option<JobId>) {
        let (Some(job), Some(partition)) = (job, self.partitions.get_mut(&assignment.partition)) else { return };
        let waits = || partition.awake(id).is_some_and(|awake| awake.mailbox.jobs().iter().any(|of| of.job_id == job));
        self.walks.taken(job, waits);
    }

    /// Reads a command, and checks that it is where it belongs.
    fn read(&self, record: &InputRecord<'_>) -> Result<Command, String> {
        let value = record.value.ok_or_else(|| "The record has no value".to_owned())?;
        let key = record.key.ok_or_else(|| "The record has no key, so its mailbox is not known".to_owned())?;
        let id = key::connection(key).ok_or_else(|| "The key is no connection id".to_owned())?;
        let command = events::decode_command(value).map_err(|error| format!("The value does not decode: {error}"))?;
        if command.connection_id() != id {
            return Err("The key names another connection than the value".to_owned());
        }
        let home = partition_of(key, self.partition_count);
        if home != record.partition {
            return Err(format!(
                "The key belongs to partition {home} of {}; write with the partitioner murmur2_random",
                self.partition_count
            ));
        }
        Ok(command)
    }

    /// Puts a command aside that is of no use, and fails its job, if one is named.
    fn refuse(
        &mut self,
        assignment: Assignment,
        record: &InputRecord<'_>,
        reason: &str,
        at: Timestamp,
        out: &mut Outbox,
    ) {
        tracing::warn!(
            topic = record.topic,
            partition = record.partition,
            offset = record.offset,
            reason,
            "Command put aside"
        );
        metric::dead_letter();
        let job = record.headers.text(events::headers::JOB_ID).and_then(|text| text.parse::<JobId>().ok());
        let connection = record.key.and_then(key::connection);
        let organisation = publish::organisation(record);
        let mut publisher = Publisher::new(&self.shared.topics, assignment, out, at);
        publisher.dead_letter(record, reason);
        if let (Some(job), Some(connection), Some(organisation)) = (job, connection, organisation) {
            let detail = format!("The command could not be taken and is among the dead letters: {reason}");
            let event = failed(job, connection, organisation, at, code::UNREADABLE_COMMAND, detail);
            publisher.job(&event, publish::trace(record).as_ref());
        }
    }

    /// Sets a mailbox aside: its bytes are kept, the jobs that it is known to have fail, and everybody else goes on.
    fn set_aside(
        &mut self,
        assignment: Assignment,
        id: ConnectionId,
        organisation: OrganisationId,
        reason: &Arc<str>,
        at: Timestamp,
        out: &mut Outbox,
    ) {
        tracing::error!(connection = %id, partition = assignment.partition, %reason, "Mailbox set aside");
        metric::quarantined();
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let Some(slot) = partition.remove(id) else { return };
        let (stored, absorbed) = match slot {
            Slot::Asleep(stored) => (stored, 0),
            Slot::Quarantined(broken) => (broken.stored, 0),
            Slot::Buried(buried) => (buried.stored, 0),
            Slot::Awake(awake) => (awake.stored, awake.absorbed),
        };
        let mut publisher = Publisher::new(&self.shared.topics, assignment, out, at);
        // What is known of it is what was written last, if that decodes.
        let known = stored.wake().ok().flatten().map(|(mailbox, _)| mailbox);
        for job in known.iter().flat_map(Mailbox::jobs) {
            let event = GmailJobStatusChanged {
                trigger: job.trigger,
                requested_at: job.requested_at,
                started_at: job.started_at,
                deadline: job.deadline,
                ..failed(job.job_id, id, organisation, at, code::QUARANTINED, set_aside_because(reason))
            };
            self.walks.told(&event);
            publisher.job(&event, job.trace.as_ref());
        }
        let event = GmailConnectionStatusChanged {
            organisation_id: organisation,
            connection_id: id,
            status: ConnectionState::Quarantined,
            step: at.as_millis(),
            last_history_id: None,
            last_synced_at: None,
            token_version: TokenVersion::default(),
            code: Some(code::QUARANTINED.to_owned()),
            at,
            watch_expires_at: None,
            last_push_at: None,
            units_today: None,
            units_day: None,
        };
        publisher.connection(key::of(id), &event);
        let frame = slot::quarantined(id, organisation, self.partition_count, absorbed, &stored, reason, at);
        let stamps = Stamps { partitions: self.partition_count, absorbed, is_active: false, decays_at: None };
        publisher.state(key::of(id), frame, &stamps);
        partition.quarantine(id, Broken { stored, reason: reason.clone() });
    }

    /// Tombstones a mailbox that was set aside.
    fn forget_broken(&mut self, assignment: Assignment, id: ConnectionId, at: Timestamp, out: &mut Outbox) {
        let Some(partition) = self.partitions.get_mut(&assignment.partition) else { return };
        let mut publisher = Publisher::new(&self.shared.topics, assignment, out, at);
        if let Some(Slot::Quarantined(broken)) = partition.remove(id) {
            broken.stored.chunks().for_each(|(number, _)| publisher.drop_chunk(id, number));
        }
        publisher.forget(key::of(id));
    }
}

/// A job's failure where nothing but its id is known.
fn failed(
    job: JobId,
    connection: ConnectionId,
    organisation: OrganisationId,
    at: Timestamp,
    code: &str,
    detail: String,
) -> GmailJobStatusChanged {
    GmailJobStatusChanged {
        job_id: job,
        organisation_id: organisation,
        connection_id: connection,
        trigger: Trigger::Api,
        state: JobState::Failed,
        step: at.as_millis(),
        progress: Progress::default(),
        requested_at: at,
        started_at: None,
        ended_at: Some(at),
        deadline: at,
        at,
        code: Some(code.to_owned()),
        detail: Some(detail),
    }
}

fn set_aside_because(reason: &str) -> String {
    format!("The mailbox was set aside because {reason}; an operator has to look at it")
}

impl<M: Mailboxes> App for Poller<M> {
    type Restore = Rebuild;
    type Done = Done;

    fn restore(&mut self, _: Assignment) -> Rebuild {
        Rebuild::new(self.partition_count)
    }

    fn opened(&mut self, assignment: Assignment, part: Part, out: &mut Outbox) {
        let (partition, active) = Partition::new(assignment, part);
        self.partitions.insert(assignment.partition, partition);
        self.hold();
        let at = now();
        for id in active {
            self.rouse(assignment, id, None, at, out);
        }
    }

    fn closed(&mut self, assignment: Assignment) {
        self.partitions.remove(&assignment.partition);
        self.calls.forget(assignment);
        self.walks.closed(assignment);
        self.hold();
    }

    fn record(&mut self, assignment: Assignment, record: &InputRecord<'_>, out: &mut Outbox) {
        self.command(assignment, record, now(), out);
    }

    fn done(&mut self, assignment: Assignment, done: Done, out: &mut Outbox) {
        let Done { connection, call, answer, is_patient } = done;
        self.calls.ended(assignment, is_patient);
        let _ = self.input(assignment, connection, Some(Input::Answer(call, answer)), now(), out);
        self.calls.start();
    }

    fn wake_at(&self) -> Option<Instant> {
        let first = self.partitions.values().filter_map(Partition::wake_at).min()?;
        let left = first.since(now()).as_millis();
        Some(Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    fn tick(&mut self, _: Instant, out: &mut Outbox) {
        let at = now();
        let assignments: Vec<Assignment> = self.partitions.values().map(|partition| partition.assignment).collect();
        for assignment in assignments {
            let Some(partition) = self.partitions.get_mut(&assignment.partition) else { continue };
            for id in partition.due(at) {
                self.rouse(assignment, id, Some(Input::Timer), at, out);
            }
        }
        self.calls.start();
    }

    fn busy(&self) -> bool {
        self.calls.is_busy(PATIENCE)
    }

    fn wants_input(&self, _: Assignment) -> bool {
        self.calls.waiting() < self.shared.backlog
    }

    fn is_dirty(&self) -> bool {
        self.partitions.values().any(|partition| !partition.dirty.is_empty())
    }

    fn before_commit(&mut self, out: &mut Outbox) {
        let at = now();
        for partition in self.partitions.values_mut() {
            for id in std::mem::take(&mut partition.dirty) {
                let Some(awake) = partition.awake(id) else { continue };
                let frame = awake.store(self.partition_count);
                let is_idle = awake.mailbox.is_idle();
                let stamps = Stamps {
                    partitions: self.partition_count,
                    absorbed: awake.absorbed,
                    is_active: !is_idle,
                    decays_at: awake.mailbox.decays_at(),
                };
                let mut publisher = Publisher::new(&self.shared.topics, partition.assignment, out, at);
                publisher.state(key::of(id), frame, &stamps);
                if is_idle {
                    partition.sleep(id);
                }
            }
        }
    }
}
