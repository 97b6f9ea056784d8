//! Reading one stretch of one partition again, once: for what was read before and not kept.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Context};
use crate::error::Cause;
use crate::reader::Error;
use crate::record::InputRecord;
use crate::settings::Settings;

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(50);

/// How long nothing may come before the scan is over.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls `each` with the committed records of a partition from `from` on, or from where the log begins if that is later,
/// until it breaks, or until no more come. Gives the offset after the last record that it saw.
///
/// That no more come does not mean that there are no more: brokers may be slow, or change their leader. Whoever has to
/// know that a record was passed has to see one at least as late.
///
/// Blocks; to be called where that is allowed. `is_given_up` is asked at every turn.
///
/// # Errors
/// When librdkafka refuses the settings, or reading cannot go on.
pub fn scan(
    settings: &Settings,
    name: &str,
    topic: &Arc<str>,
    partition: i32,
    from: i64,
    is_given_up: impl Fn() -> bool,
    mut each: impl FnMut(InputRecord<'_>) -> ControlFlow<()>,
) -> Result<i64, Error> {
    let mut config = client::committed_reads(settings, name);
    config
        // A hint that there is nothing more for now; offsets have gaps where transactions ended, so none tells it.
        .set("enable.partition.eof", "true")
        .set("group.id", format!("{}{name}-scan", settings.topic_prefix))
        .set("fetch.wait.max.ms", "20")
        // Few records are wanted, and what was fetched beyond them was fetched and unpacked for nothing.
        .set("fetch.message.max.bytes", (256 << 10).to_string())
        .set("queued.max.messages.kbytes", (1 << 10).to_string());
    let consumer: BaseConsumer<Context> = config.create_with_context(Context::of(settings)).map_err(|error| {
        Error::Client { bootstrap_servers: settings.bootstrap_servers.clone(), cause: error.into() }
    })?;
    let failed = |error: KafkaError| Error::Reading { cause: error.into() };
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(failed)?;
    consumer.assign(&list).map_err(failed)?;
    let mut next = from;
    let mut heard = Instant::now();
    while !is_given_up() {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => {
                // Offsets rise; whatever else came would be given twice.
                if message.offset() < next {
                    continue;
                }
                next = message.offset() + 1;
                if each(InputRecord::of(&message, topic)).is_break() {
                    break;
                }
                heard = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(failed(error)),
            Some(Err(error)) if Cause::from(error.clone()).is_permanent() => return Err(failed(error)),
            Some(Err(_)) | None if heard.elapsed() > PATIENCE => break,
            Some(Err(_)) | None => {}
        }
    }
    Ok(next)
}
