//! Finds out where a partition goes on and how far its state is to be read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::read::Task;
use super::{Job, Origin, Reply, finish};
use crate::client::{self, Context};
use crate::cluster;
use crate::error::Cause;
use crate::faults::{Fault, Faults};
use crate::lane::app::Restore;
use crate::lane::error::Failure;
use crate::lane::tuning::LaneSettings;
use crate::oauth;
use crate::settings::Settings;

/// How long one question to a broker may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the committed offsets of all partitions at once may take.
const ANSWER_AT_ONCE: Duration = Duration::from_millis(500);

/// How long the committed offset of one partition may take. Meanwhile the others wait, so it is short; it is asked
/// again and again, and the answer comes as soon as the transaction is decided.
const ANSWER_ALONE: Duration = Duration::from_millis(100);

/// How long to wait before asking again for what was not decided yet.
const PAUSE: Duration = Duration::from_millis(5);

/// What is still to be found out about a partition, in this order.
enum Stage {
    /// The committed offset, once no transaction that could still change it is open.
    Offset,
    /// How far the state's log reaches: its high watermark, open transactions included. It is taken after the stable
    /// offset, because from then on nobody but us can add to what counts.
    End(Origin),
    /// That the state is decided up to there. The stable end alone would not do: a transaction that hangs below a
    /// record hides it, also if a later owner committed that record.
    Stable {
        origin: Origin,
        /// Where the state's log begins.
        low: i64,
        /// Read up to here.
        target: i64,
    },
}

struct Pending<R> {
    job: Job<R>,
    stage: Stage,
    /// Whether it was already said that it waits.
    said: bool,
}

/// The preparing thread.
pub(super) struct Prepare<R: Restore> {
    /// Reads what is committed, and fetches stable offsets of the group; never a member of it.
    committed: BaseConsumer<Context>,
    /// Sees open transactions, too.
    uncommitted: BaseConsumer<Context>,
    input: Arc<str>,
    state: Option<Arc<str>>,
    jobs: Receiver<Job<R>>,
    readers: Vec<Sender<Task<R>>>,
    reply: Reply<R::Part>,
    faults: Faults,
}

impl<R: Restore> Prepare<R> {
    pub(super) fn new(
        settings: &Settings,
        lane: &LaneSettings,
        group: &str,
        jobs: Receiver<Job<R>>,
        readers: Vec<Sender<Task<R>>>,
        reply: Reply<R::Part>,
    ) -> Result<Self, Failure> {
        let name = format!("{}-{}-prepare", lane.service, lane.lane);
        let consumer = |isolation: &str| -> Result<BaseConsumer<Context>, Failure> {
            client::committed_reads(settings, &name)
                .set("isolation.level", isolation)
                .set("group.id", group)
                // An offset that is not stable yet is asked for again within librdkafka before we get to see that.
                .set("retry.backoff.ms", "5")
                .set("retry.backoff.max.ms", "20")
                .create_with_context(Context::of(settings))
                .map_err(|error| Failure::Client { what: "restoring consumer", cause: error.into() })
        };
        Ok(Self {
            committed: consumer("read_committed")?,
            uncommitted: consumer("read_uncommitted")?,
            input: lane.input.clone(),
            state: lane.state.clone(),
            jobs,
            readers,
            reply,
            faults: settings.lane.faults.clone(),
        })
    }

    /// Works until nobody sends jobs any more.
    pub(super) fn run(self) {
        let mut pending: Vec<Pending<R>> = Vec::new();
        while self.take_jobs(&mut pending) {
            pending.retain(|pending| !pending.job.cancel.is_cancelled());
            let (undecided, mut decided): (Vec<_>, Vec<_>) =
                pending.into_iter().partition(|pending| matches!(pending.stage, Stage::Offset));
            decided.extend(self.fetch_offsets(undecided));
            pending = decided.into_iter().filter_map(|pending| self.step(pending)).collect();
        }
    }

    /// Takes what has come; waits if there is nothing else to do, or a little if there is. False when the lane is gone.
    fn take_jobs(&self, pending: &mut Vec<Pending<R>>) -> bool {
        let first = if pending.is_empty() {
            self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.jobs.recv_timeout(PAUSE)
        };
        let mut take = |job| pending.push(Pending { job, stage: Stage::Offset, said: false });
        match first {
            Ok(job) => {
                // Nobody polls these two, so they ask for no token by themselves.
                for consumer in [&self.committed, &self.uncommitted] {
                    oauth::give(consumer.context().tokens(), consumer.client());
                }
                take(job);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => take(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Asks for the committed offsets of these partitions. Those that are not stable yet stay.
    ///
    /// librdkafka repeats the question by itself until *every* partition of it is stable or time is up, and tells
    /// nothing of the others then. So all are asked at once, which is answered within milliseconds if nothing hangs;
    /// and if something does, each is asked alone.
    fn fetch_offsets(&self, undecided: Vec<Pending<R>>) -> Vec<Pending<R>> {
        let at_once = self.ask_offsets(&undecided, ANSWER_AT_ONCE);
        match at_once {
            Ok(answer) => undecided.into_iter().filter_map(|pending| self.decide(pending, &answer)).collect(),
            Err(error) if is_time_out(&error) && undecided.len() > 1 => undecided
                .into_iter()
                .filter_map(|pending| {
                    let alone = std::slice::from_ref(&pending);
                    match self.ask_offsets(alone, ANSWER_ALONE) {
                        Ok(answer) => self.decide(pending, &answer),
                        Err(error) => self.postpone(pending, &error),
                    }
                })
                .collect(),
            Err(error) => undecided.into_iter().filter_map(|pending| self.postpone(pending, &error)).collect(),
        }
    }

    fn ask_offsets(&self, pending: &[Pending<R>], timeout: Duration) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(pending.len());
        for pending in pending {
            list.add_partition(&self.input, pending.job.assignment.partition);
        }
        if pending.is_empty() { Ok(list) } else { self.committed.committed_offsets(list, timeout) }
    }

    /// Keeps a partition whose offset could not be had in time, which is how an open transaction shows.
    fn postpone(&self, mut pending: Pending<R>, error: &KafkaError) -> Option<Pending<R>> {
        if self.faults.has(Fault::LibraryRebalance) {
            return self.decide(pending, &TopicPartitionList::new());
        }
        if is_time_out(error) {
            self.say_waiting(&mut pending, "for a transaction of its previous owner, or for the brokers");
            return Some(pending);
        }
        self.keep_or_fail(pending, "fetching committed offsets", error)
    }

    /// Takes the partition's committed offset from an answer.
    fn decide(&self, mut pending: Pending<R>, answer: &TopicPartitionList) -> Option<Pending<R>> {
        let partition = pending.job.assignment.partition;
        let found = answer.find_partition(&self.input, partition);
        let committed = match found.as_ref().map(|found| (found.error(), found.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => Some(offset),
            Some((Ok(()), _)) | None => None,
            Some((Err(error), _)) => return self.keep_or_fail(pending, "fetching committed offsets", &error),
        };
        let low = match cluster::log_ends(&self.committed, &self.input, partition, ANSWER) {
            Ok((low, _)) => low,
            Err(error) => return self.keep_or_fail(pending, "finding the input's start", &error),
        };
        if let Some(committed) = committed
            && committed < low
        {
            warn!(
                topic = %self.input, partition, committed, low,
                "Records were removed by retention before they were read"
            );
        }
        pending.stage = Stage::End(Origin { committed, low });
        Some(pending)
    }

    /// Takes a partition as far as it goes now; none when it has gone on to be read.
    fn step(&self, mut pending: Pending<R>) -> Option<Pending<R>> {
        let Some(state) = &self.state else {
            return match pending.stage {
                Stage::Offset => Some(pending),
                Stage::End(origin) | Stage::Stable { origin, .. } => {
                    finish(pending.job, origin, 0, &self.reply);
                    None
                }
            };
        };
        let partition = pending.job.assignment.partition;
        if let Stage::End(origin) = pending.stage {
            let client = if self.faults.has(Fault::StableEndOnly) { &self.committed } else { &self.uncommitted };
            match cluster::log_ends(client, state, partition, ANSWER) {
                Ok((low, target)) => pending.stage = Stage::Stable { origin, low, target },
                Err(error) => return self.keep_or_fail(pending, "finding the state's end", &error),
            }
        }
        let Stage::Stable { origin, low, target } = pending.stage else { return Some(pending) };
        if low >= target {
            finish(pending.job, origin, 0, &self.reply);
            return None;
        }
        match cluster::log_ends(&self.committed, state, partition, ANSWER) {
            Ok((_, stable)) if stable >= target => {
                debug!(topic = %state, partition, low, target, "Reading state");
                let index = usize::try_from(partition).expect("a partition's number is not negative");
                let reader = &self.readers[index % self.readers.len()];
                // A reader that is gone takes the lane with it.
                let _ = reader.send(Task { job: pending.job, origin, low, target });
                None
            }
            Ok(_) => {
                self.say_waiting(&mut pending, "for a transaction that is open on its state");
                Some(pending)
            }
            Err(error) => self.keep_or_fail(pending, "finding the state's stable end", &error),
        }
    }

    /// Keeps a partition whose question may be asked again; fails it otherwise.
    fn keep_or_fail(&self, mut pending: Pending<R>, what: &'static str, error: &KafkaError) -> Option<Pending<R>> {
        let cause = Cause::from(error.clone());
        if cause.is_unreachable() || is_transient(error) {
            self.say_waiting(&mut pending, "for the brokers to answer");
            return Some(pending);
        }
        self.reply.send(pending.job.assignment, Err(Failure::Call { what, cause }));
        None
    }

    /// Says once that a partition waits, and only if it has for a while.
    fn say_waiting(&self, pending: &mut Pending<R>, reason: &'static str) {
        let waited = Instant::now().saturating_duration_since(pending.job.since);
        if !pending.said && waited > Duration::from_secs(1) {
            pending.said = true;
            info!(topic = %self.input, partition = pending.job.assignment.partition, "A partition waits {reason}");
        }
    }
}

fn is_time_out(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}

/// Whether the answer is another one soon: leadership or the coordinator is on the move.
fn is_transient(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        CoordinatorLoadInProgress, CoordinatorNotAvailable, FencedLeaderEpoch, KafkaStorageError, LeaderNotAvailable,
        NotCoordinator, NotLeaderForPartition, OffsetNotAvailable, UnknownLeaderEpoch, UnknownTopicOrPartition,
        UnstableOffsetCommit,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            CoordinatorLoadInProgress
                | CoordinatorNotAvailable
                | FencedLeaderEpoch
                | KafkaStorageError
                | LeaderNotAvailable
                | NotCoordinator
                | NotLeaderForPartition
                | OffsetNotAvailable
                | UnknownLeaderEpoch
                | UnknownTopicOrPartition
                | UnstableOffsetCommit
        )
    )
}
