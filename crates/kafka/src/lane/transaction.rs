//! One transaction: outputs, then the input offsets they stand on, all or nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::util::Timeout;
use tracing::{debug, info};

use crate::client::{self, Context};
use crate::error::{Cause, Verdict, classify, is_queue_full};
use crate::faults::{Fault, Faults, Point};
use crate::lane::app::Assignment;
use crate::lane::error::Failure;
use crate::lane::member::Member;
use crate::lane::tuning::LaneSettings;
use crate::native;
use crate::oauth;
use crate::record::OutRecord;
use crate::settings::Settings;

/// How often a call that may be repeated is, before the lane is dropped.
const ATTEMPTS: u32 = 20;

/// How long fencing the predecessor may take, the broker finishing its transaction included.
const TAKE_OVER: Duration = Duration::from_secs(60);

/// How long what waits to be served is served at a time.
const REPORTS: Duration = Duration::from_millis(2);

/// Why a transaction was not committed.
#[derive(Debug)]
pub(crate) enum Unpublished {
    /// It was aborted; the same outputs may be published again for the assignments that still stand.
    Aborted(String),
    /// The lane has to be dropped.
    Failed(Failure),
}

impl From<Failure> for Unpublished {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Stable for each instance and lane, so that whoever comes back fences what it left behind.
pub(crate) fn transactional_id(settings: &Settings, lane: &LaneSettings) -> Arc<str> {
    format!("{}{}-{}-{}", settings.topic_prefix, lane.service, settings.instance, lane.lane).into()
}

/// The lane's transactional producer.
pub(crate) struct Transactions {
    producer: BaseProducer<Context>,
    id: Arc<str>,
    faults: Faults,
    /// No record is in flight for longer.
    patience: Duration,
    /// How long one attempt to abort may take.
    abort_within: Duration,
    /// How many records the open transaction has; none: no transaction is open.
    written: Option<usize>,
}

/// How long the end of a drain is waited for at a time.
const SLICE: Duration = Duration::from_millis(2);

impl Transactions {
    /// Makes the producer and takes the transactional id over: whoever had it is fenced, and what it left open aborted.
    ///
    /// `is_stopping` is asked between attempts, since without a broker this takes long.
    pub(crate) fn take_over(
        settings: &Settings,
        lane: &LaneSettings,
        is_stopping: impl Fn() -> bool,
    ) -> Result<Self, Failure> {
        let id = transactional_id(settings, lane);
        Self::take_over_as(settings, &format!("{}-{}", lane.service, lane.lane), id, is_stopping)
    }

    /// The same for whoever is no lane: `id` is the transactional id in full, `name` what the client is called.
    pub(crate) fn take_over_as(
        settings: &Settings,
        name: &str,
        id: Arc<str>,
        is_stopping: impl Fn() -> bool,
    ) -> Result<Self, Failure> {
        let tuning = &settings.lane;
        let mut config = client::base(settings, name);
        config
            .set("transactional.id", id.as_ref())
            .set("transaction.timeout.ms", tuning.transaction_timeout.as_millis().to_string())
            .set("message.timeout.ms", tuning.delivery_timeout.as_millis().to_string())
            // librdkafka refuses more than 100 ms above the transaction's.
            .set("socket.timeout.ms", tuning.transaction_timeout.as_millis().to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            // All records of a transaction are there at once, and the drain waits for them.
            .set("linger.ms", "0")
            // What was acknowledged needs no report: the drain counts. What failed fails the transaction.
            .set("delivery.report.only.error", "true")
            .set("queue.buffering.max.messages", settings.queue_records.to_string())
            .set("queue.buffering.max.kbytes", (settings.queue_bytes >> 10).to_string())
            // While the broker finishes the previous transaction it answers "try again": these bound the wait.
            .set("retry.backoff.ms", "1")
            .set("retry.backoff.max.ms", "5");
        let producer: BaseProducer<Context> = config
            .create_with_context(Context::of(settings))
            .map_err(|error| Failure::Client { what: "transactional producer", cause: error.into() })?;
        // Taking the id over does not poll, and is the first that it does.
        oauth::authorise(settings, producer.client());
        let this = Self {
            producer,
            id,
            faults: tuning.faults.clone(),
            patience: tuning.delivery_timeout + Duration::from_secs(5),
            abort_within: tuning.transaction_timeout,
            written: None,
        };
        let deadline = Instant::now() + TAKE_OVER;
        loop {
            // A call that timed out goes on where it was when it is called again.
            match this.producer.init_transactions(Duration::from_secs(2)) {
                Ok(()) => return Ok(this),
                Err(error) => {
                    let may_wait = classify(&error) == Verdict::Retry || Cause::from(error.clone()).is_unreachable();
                    if !may_wait || is_stopping() || Instant::now() >= deadline {
                        return Err(this.failure("taking over the transactional id", error));
                    }
                    debug!(%error, id = %this.id, "Still taking over the transactional id");
                    this.producer.poll(Duration::from_millis(10));
                }
            }
        }
    }

    /// Whether a transaction is open; then it must be published before the consumer is polled again.
    pub(crate) const fn is_open(&self) -> bool {
        self.written.is_some()
    }

    /// Writes those of `records` that are not written yet, in a transaction that it opens if none is open, so that they
    /// are on their way while the application works on. The same records, and more, are to be published then.
    pub(crate) fn write(&mut self, records: &[(Assignment, OutRecord)]) -> Result<(), Unpublished> {
        self.write_all(records.iter().map(|(_, record)| record))
    }

    fn write_all<'a>(&mut self, records: impl ExactSizeIterator<Item = &'a OutRecord>) -> Result<(), Unpublished> {
        let written = match self.written {
            Some(written) => written,
            None => {
                self.producer.begin_transaction().map_err(|error| self.failure("beginning a transaction", error))?;
                0
            }
        };
        self.written = Some(records.len());
        for record in records.skip(written) {
            if let Err(error) = self.enqueue(record) {
                let (bytes, topic) = (record.size(), record.topic.clone());
                let aborted = self.abort(format!("a record of {bytes} bytes for {topic} was refused: {error}"));
                let cause = Cause::from(error);
                // To publish it again would come to the same.
                return Err(if cause.is_permanent() {
                    Failure::Record { topic, bytes, cause }.into()
                } else {
                    aborted
                });
            }
        }
        Ok(())
    }

    /// Publishes `records` and commits `offsets` for the group of `member`, all or nothing. No transaction is open then.
    ///
    /// While the brokers take the records in, `meanwhile` is called again and again, and says whether it did anything;
    /// it must not touch the consumer.
    ///
    /// On an abort the records may be published again; on a failure the outcome is unknown or the lane is over.
    pub(crate) fn publish(
        &mut self,
        records: &[(Assignment, OutRecord)],
        offsets: &TopicPartitionList,
        member: &Member,
        meanwhile: impl FnMut() -> bool,
    ) -> Result<(), Unpublished> {
        if self.faults.has(Fault::OffsetsOutside) {
            let done = member.consumer().commit(offsets, CommitMode::Sync);
            done.map_err(|error| Failure::Call { what: "committing offsets", cause: error.into() })?;
        }
        self.write(records)?;
        if !self.faults.has(Fault::NoDrain) {
            self.drain("waiting for the acknowledgements of a transaction's records", meanwhile)?;
        }
        // In this order: metadata that is taken while we are a member carries our generation, and fences us if that is
        // over. Metadata without member id and generation fences nobody: the broker takes it for somebody who has no
        // group at all. Whoever is no member any more stays none until the next poll, so the check comes in time.
        let Some(group) = member.consumer().group_metadata() else {
            return Err(self.abort("the group's metadata is not to be had".to_owned()));
        };
        if !self.faults.has(Fault::NoOwnershipCheck) {
            if native::member_id(member.consumer()).is_none() {
                return Err(self.abort("the lane is no member of its group any more".to_owned()));
            }
            if member.has_lost_assignment() {
                return Err(self.abort("the lane's partitions were taken from it".to_owned()));
            }
        }
        self.faults.reach(Point::Checked);
        if !self.faults.has(Fault::OffsetsOutside) {
            self.call("sending offsets to the transaction", |this| {
                this.producer.send_offsets_to_transaction(offsets, &group, Timeout::Never)
            })?;
        }
        self.faults.reach(Point::Sent);
        self.call("committing the transaction", |this| this.producer.commit_transaction(Timeout::Never))?;
        self.written = None;
        Ok(())
    }

    /// Publishes `records` and no offsets, all or nothing. What fences a predecessor then is the transactional id alone.
    pub(crate) fn publish_alone(&mut self, records: &[OutRecord]) -> Result<(), Unpublished> {
        self.write_all(records.iter())?;
        self.drain("waiting for the acknowledgements of a transaction's records", || false)?;
        self.faults.reach(Point::Checked);
        self.call("committing the transaction", |this| this.producer.commit_transaction(Timeout::Never))?;
        self.written = None;
        Ok(())
    }

    /// The same, and moves a group that has no members to `offsets`, with the records or not at all. The metadata of such a
    /// group fences nobody.
    pub(crate) fn publish_moving(
        &mut self,
        records: &[OutRecord],
        group: &ConsumerGroupMetadata,
        offsets: &TopicPartitionList,
    ) -> Result<(), Unpublished> {
        self.write_all(records.iter())?;
        self.drain("waiting for the acknowledgements of a transaction's records", || false)?;
        self.faults.reach(Point::Checked);
        self.call("sending offsets to the transaction", |this| {
            this.producer.send_offsets_to_transaction(offsets, group, Timeout::Never)
        })?;
        self.faults.reach(Point::Sent);
        self.call("committing the transaction", |this| this.producer.commit_transaction(Timeout::Never))?;
        self.written = None;
        Ok(())
    }

    /// Hands one record to librdkafka, waiting for room.
    fn enqueue(&self, record: &OutRecord) -> KafkaResult<()> {
        let mut base = BaseRecord::<'_, [u8], [u8], ()>::to(&record.topic);
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        base.partition = record.partition;
        base.headers = record.headers.to_native();
        loop {
            match self.producer.send(base) {
                Ok(()) => return Ok(()),
                Err((error, back)) if is_queue_full(&error) => {
                    // Room comes as records are acknowledged or fail, at the latest after the delivery time-out.
                    native::is_drained(&self.producer, Duration::from_millis(1));
                    self.producer.poll(REPORTS);
                    base = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until no record is in flight, and does something else meanwhile if there is something to do. It ends: each is acknowledged or fails within the delivery time-out.
    ///
    /// The binding's poll with no time serves a single event, and a broker that is away makes more of them than there
    /// are slices of waiting: reports of failures would wait behind them for ever. So each slice serves all there are.
    fn drain(&self, what: &'static str, mut meanwhile: impl FnMut() -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + self.patience;
        while !native::is_drained(&self.producer, if meanwhile() { Duration::ZERO } else { SLICE }) {
            self.producer.poll(REPORTS);
            if Instant::now() >= deadline {
                return Err(Failure::Undrained { what, seconds: self.patience.as_secs() });
            }
        }
        Ok(())
    }

    /// Calls until the verdict is another than to call again.
    fn call(&mut self, what: &'static str, call: impl Fn(&Self) -> KafkaResult<()>) -> Result<(), Unpublished> {
        for attempt in 1.. {
            let Err(error) = call(self) else { return Ok(()) };
            match classify(&error) {
                Verdict::Retry if attempt < ATTEMPTS => {
                    debug!(%error, what, attempt, "Repeating a transactional call");
                    self.producer.poll(Duration::from_millis(10));
                }
                Verdict::AbortAndRedo => return Err(self.abort(format!("{what} failed: {error}"))),
                Verdict::Retry | Verdict::Restart => return Err(self.failure(what, error).into()),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Aborts the open transaction.
    fn abort(&mut self, reason: String) -> Unpublished {
        self.written = None;
        info!(reason, id = %self.id, "Aborting a transaction");
        // librdkafka waits for the reports of what it purges, and does not serve them itself: they are served before.
        self.producer.purge(PurgeConfig::default().queue().inflight());
        if let Err(failure) = self.drain("waiting for the records of an aborted transaction to be let go", || false) {
            return failure.into();
        }
        for attempt in 1.. {
            let Err(error) = self.producer.abort_transaction(self.abort_within) else {
                return Unpublished::Aborted(reason);
            };
            match classify(&error) {
                Verdict::Retry if attempt < ATTEMPTS => self.producer.poll(Duration::from_millis(10)),
                Verdict::Retry | Verdict::AbortAndRedo | Verdict::Restart => {
                    return Unpublished::Failed(self.failure("aborting the transaction", error));
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn failure(&self, what: &'static str, error: KafkaError) -> Failure {
        let cause = Cause::from(error);
        if cause.is_fenced() {
            Failure::Fenced { what, transactional_id: self.id.clone(), cause }
        } else {
            Failure::Call { what, cause }
        }
    }
}
