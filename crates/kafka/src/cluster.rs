//! Questions to the brokers that block their caller: how many partitions a topic has, and where they begin and end.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::Context;

/// A topic's partition count.
///
/// # Errors
/// [`RDKafkaErrorCode::UnknownTopicOrPartition`] when there is no such topic; else what librdkafka said.
pub(crate) fn partition_count(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<i32, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let shown = metadata.topics().iter().find(|shown| shown.name() == topic);
    match shown {
        Some(shown) if shown.error().is_some() => {
            Err(KafkaError::MetadataFetch(shown.error().map_or(RDKafkaErrorCode::Unknown, Into::into)))
        }
        Some(shown) if !shown.partitions().is_empty() => {
            Ok(i32::try_from(shown.partitions().len()).expect("a partition's number is an i32"))
        }
        _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)),
    }
}

/// Where a partition's log begins and where it ends for the isolation level of this consumer: the last stable offset
/// for committed reads, the high watermark otherwise.
pub(crate) fn log_ends(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> Result<(i64, i64), KafkaError> {
    consumer.fetch_watermarks(topic, partition, timeout)
}

/// By partition: the first offset whose record's time is `at` or later, else where the log ends for the isolation level
/// of this consumer.
pub(crate) fn offsets_at(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    at: i64,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
    let count = partition_count(consumer, topic, timeout)?;
    let mut asked = TopicPartitionList::new();
    for partition in 0..count {
        asked.add_partition_offset(topic, partition, Offset::Offset(at.max(0)))?;
    }
    let answer = consumer.offsets_for_times(asked, timeout)?;
    (0..count)
        .map(|partition| {
            let found = answer.find_partition(topic, partition);
            let found = found.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
            found.error()?;
            match found.offset() {
                Offset::Offset(offset) => Ok(offset),
                _ => log_ends(consumer, topic, partition, timeout).map(|(_, end)| end),
            }
        })
        .collect()
}
