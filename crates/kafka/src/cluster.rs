//! Questions to the brokers that block their caller: how many partitions a topic has, and where they begin and end.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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
