//! Writes transactions that stand on no consumer group, under a name that one process has at a time: for tools that do
//! something once and have to know, when they are run again, how far they came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Context};
use crate::lane::Failure;
use crate::lane::transaction::{Transactions, Unpublished};
use crate::reader::TopicPartition;
use crate::record::OutRecord;
use crate::settings::Settings;

/// How often a transaction that was aborted is published again.
const ATTEMPTS: u32 = 20;

/// The pause before that.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a transaction was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the name now.
    #[error("Another process has taken over what {name} does, and goes on with it; this one has stopped")]
    TakenOver {
        /// The name.
        name: String,
    },
    /// The brokers aborted it again and again. Nothing of it is committed.
    #[error("A transaction of {name} was aborted {ATTEMPTS} times, lastly because {cause}; nothing of it is written")]
    Aborted {
        /// The writer's name.
        name: String,
        /// The last reason.
        cause: String,
    },
    /// A call failed. Whether the last transaction is committed is not known; what a successor reads, it is.
    #[error(
        "A transaction of {name} failed: {cause}; check the brokers and run the same again, it goes on where it is"
    )]
    Failed {
        /// The writer's name.
        name: String,
        /// What failed, and how.
        cause: String,
    },
}

/// A consumer group that nobody is a member of, to be moved by transactions. Whoever moves it has to know that it is
/// idle: the brokers do not check.
pub struct IdleGroup {
    consumer: BaseConsumer<Context>,
}

impl IdleGroup {
    /// The group of this name.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &Settings, group: &str) -> Result<Self, Error> {
        let consumer = client::committed_reads(settings, "groups")
            .set("group.id", group)
            .create_with_context(Context::of(settings));
        let client = |error: KafkaError| Failure::Client { what: "consumer of an idle group", cause: error.into() };
        Ok(Self { consumer: consumer.map_err(|error| failed(group, &client(error)))? })
    }
}

impl std::fmt::Debug for IdleGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdleGroup").finish_non_exhaustive()
    }
}

/// A transactional producer that fences whoever had its name before. All its calls block.
pub struct SoleWriter {
    transactions: Transactions,
    name: String,
}

impl SoleWriter {
    /// Takes the name over: a process that had it can commit nothing more, and what it left open is aborted.
    ///
    /// # Errors
    /// When the settings are refused, or the brokers cannot be reached within a minute.
    pub fn take_over(settings: &Settings, name: &str) -> Result<Self, Error> {
        let id: Arc<str> = format!("{}{name}", settings.topic_prefix).into();
        let transactions = Transactions::take_over_as(settings, name, id, || false);
        let transactions = transactions.map_err(|failure| failed(name, &failure))?;
        Ok(Self { transactions, name: name.to_owned() })
    }

    /// Writes `records`, all or none.
    ///
    /// # Errors
    /// [`Error::TakenOver`] when somebody else has the name; the writer is of no more use after any error.
    pub fn commit(&mut self, records: &[OutRecord]) -> Result<(), Error> {
        self.try_often(|transactions| transactions.publish_alone(records))
    }

    /// Writes `records` and says where `group` goes on, all or none.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_moving(
        &mut self,
        records: &[OutRecord],
        group: &IdleGroup,
        to: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), Error> {
        let call = |error: KafkaError| {
            failed(&self.name, &Failure::Call { what: "naming where a group goes on", cause: error.into() })
        };
        let mut offsets = TopicPartitionList::with_capacity(to.len());
        for (TopicPartition { topic, partition }, offset) in to {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(call)?;
        }
        let metadata = group.consumer.group_metadata();
        let metadata = metadata.ok_or_else(|| call(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownGroup)))?;
        self.try_often(|transactions| transactions.publish_moving(records, &metadata, &offsets))
    }

    fn try_often(&mut self, publish: impl Fn(&mut Transactions) -> Result<(), Unpublished>) -> Result<(), Error> {
        for attempt in 1.. {
            match publish(&mut self.transactions) {
                Ok(()) => return Ok(()),
                Err(Unpublished::Aborted(_)) if attempt < ATTEMPTS => thread::sleep(PAUSE),
                Err(Unpublished::Aborted(cause)) => return Err(Error::Aborted { name: self.name.clone(), cause }),
                Err(Unpublished::Failed(failure)) => return Err(failed(&self.name, &failure)),
            }
        }
        unreachable!("the last attempt returns")
    }
}

impl std::fmt::Debug for SoleWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoleWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

fn failed(name: &str, failure: &Failure) -> Error {
    let name = name.to_owned();
    if failure.is_fenced() { Error::TakenOver { name } } else { Error::Failed { name, cause: failure.to_string() } }
}
