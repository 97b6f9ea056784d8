//! What a restore writes.

use bytes::Bytes;
use domain::mailbox::rebuilt::Projected;
use domain::mailbox::record::Job as Waiting;
use domain::mailbox::{Context, Mailbox, Rules, code};
use domain::{ConnectionId, Duration, GmailJobStatusChanged, JobState, PollGmailConnection, Timestamp, Trigger};
use events::headers::Envelope;
use events::{Event, TraceParent};
use kafka::OutRecord;
use kafka::topics::{Topic, Topics};
use poller::moving;
use store::jobs::Job;
use store::living::Living;
use uuid::Uuid;

/// Who says so, in CloudEvents.
const SOURCE: &str = "urn:mailtide:restore";

/// No connection's id: they are random.
const NOBODY: ConnectionId = ConnectionId::from_uuid(Uuid::nil());

/// The lost state may have told more of a job than was projected of it.
const STEPS: i64 = 1_000_000_000;

/// What all that is written has in common.
pub(super) struct Writing<'a> {
    pub(super) names: &'a Topics,
    pub(super) partitions: i32,
    /// How far back before its cursor a mailbox owes.
    pub(super) margin: Duration,
    pub(super) now: Timestamp,
}

impl Writing<'_> {
    /// A mailbox's state, and its open jobs as the commands that ask for them.
    pub(super) fn mailbox(&self, living: Living, open: Vec<Job>) -> Vec<OutRecord> {
        let Living { connection_id, organisation_id, created_at, token_version, .. } = living;
        let step = open.iter().map(|job| job.step).chain([living.step]).max().unwrap_or(-1);
        let (gaps, others): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|job| job.trigger == Trigger::Gap && job.progress.window.is_some());
        let waiting = |job: Job| {
            let Job { job_id, trigger, requested_at, deadline, started_at, progress, .. } = job;
            let window = progress.window?;
            Some((Waiting { job_id, trigger, requested_at, deadline, started_at, walk: None, trace: None }, window))
        };
        let known = Projected {
            connection_id,
            organisation_id,
            connected_at: created_at,
            token_version,
            step,
            synced: living.synced,
            needs_reauth: living.needs_reauth,
            last_push_at: living.last_push_at,
            gaps: gaps.into_iter().filter_map(waiting).collect(),
        };
        let cx = Context { now: self.now, jitter: 0, rules: &Rules::DEFAULT };
        let mailbox = Mailbox::rebuilt(&cx, known, self.margin);
        let state =
            moving::state(self.names.name(Topic::State), &mailbox.state(self.partitions, 0), mailbox.has_work());
        let commands = others.into_iter().map(|job| {
            let command = PollGmailConnection {
                job_id: job.job_id,
                organisation_id,
                connection_id,
                trigger: job.trigger,
                window: job.progress.window.filter(|_| is_windowed(job.trigger)),
                token_version,
                requested_at: job.requested_at,
                deadline: job.deadline,
            };
            self.event(Topic::Poll, connection_id.to_string(), &command)
        });
        std::iter::once(state).chain(commands).collect()
    }

    /// The failure of a job whose connection is gone.
    pub(super) fn failed(&self, job: Job) -> OutRecord {
        let event = GmailJobStatusChanged {
            job_id: job.job_id,
            organisation_id: job.organisation_id,
            connection_id: job.connection_id,
            trigger: job.trigger,
            state: JobState::Failed,
            step: job.step.max(0).saturating_add(STEPS),
            progress: job.progress,
            requested_at: job.requested_at,
            started_at: job.started_at,
            ended_at: Some(self.now),
            deadline: job.deadline,
            at: self.now,
            code: Some(code::CONNECTION_NOT_FOUND.to_owned()),
            detail: Some("The connection was deleted before the job ended".to_owned()),
        };
        self.event(Topic::JobStatus, event.job_id.to_string(), &event)
    }

    /// Keeps pollers from a partition.
    pub(super) fn bar(&self, partition: i32) -> OutRecord {
        moving::bar(self.names.name(Topic::State), NOBODY).to_partition(partition)
    }

    /// Lets them in again.
    pub(super) fn unbar(&self, partition: i32) -> OutRecord {
        OutRecord { value: None, headers: kafka::Headers::new(), ..self.bar(partition) }
    }

    fn event<T: Event>(&self, topic: Topic, key: String, event: &T) -> OutRecord {
        let frame: Bytes = events::encode(event);
        let trace = TraceParent::new(rand::random(), rand::random());
        let headers = Envelope::new(SOURCE, self.now, trace).headers(event, &frame);
        OutRecord::new(self.names.name(topic), key, frame, headers.into())
    }
}

/// Whether jobs of this kind list a window. Others may tell one, too: that of the listing that answers them.
const fn is_windowed(trigger: Trigger) -> bool {
    match trigger {
        Trigger::Backfill | Trigger::Audit | Trigger::Gap => true,
        Trigger::Api | Trigger::Connect | Trigger::Schedule | Trigger::Push => false,
    }
}
