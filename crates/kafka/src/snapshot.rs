//! Everything that is committed in a topic at one moment, and then an end: for those who count and compare.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Context};
use crate::cluster;
use crate::error::Cause;
use crate::reader::Error;
use crate::record::{InputRecord, OwnedRecord};
use crate::settings::Settings;

/// How long the brokers may be silent before the reading is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(100);

/// Calls `each` with every committed record of a topic, partition by partition in their order, up to where they end
/// when each partition's end is reached. Runs on a thread that may block.
///
/// # Errors
/// When there is no such topic, reading cannot go on, or the brokers are silent for 30 s.
pub async fn read_all(
    settings: &Settings,
    name: &str,
    topic: &Arc<str>,
    mut each: impl FnMut(OwnedRecord) + Send + 'static,
) -> Result<(), Error> {
    let mut config = client::committed_reads(settings, name);
    // The end is an event of its own: offsets have gaps where transactions ended, so no offset tells it.
    config
        .set("enable.partition.eof", "true")
        .set("group.id", format!("{}{name}-snapshot", settings.topic_prefix))
        .set("fetch.wait.max.ms", "20");
    let bootstrap_servers = settings.bootstrap_servers.clone();
    let topic = Arc::clone(topic);
    let read = move || {
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context)
            .map_err(|error| Error::Client { bootstrap_servers, cause: error.into() })?;
        read_to_ends(&consumer, &topic, &mut each)
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| Error::Gone)?
}

fn read_to_ends(
    consumer: &BaseConsumer<Context>,
    topic: &Arc<str>,
    each: &mut impl FnMut(OwnedRecord),
) -> Result<(), Error> {
    let request = |error: KafkaError| Error::Request {
        action: "Counting the partitions",
        topic: topic.to_string(),
        cause: error.into(),
    };
    let count = cluster::partition_count(consumer, topic, SILENCE).map_err(request)?;
    let mut list = TopicPartitionList::with_capacity(usize::try_from(count).unwrap_or_default());
    for partition in 0..count {
        list.add_partition_offset(topic, partition, Offset::Beginning).map_err(request)?;
    }
    consumer.assign(&list).map_err(request)?;
    let mut open: BTreeSet<i32> = (0..count).collect();
    let mut heard = Instant::now();
    while !open.is_empty() {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => each(InputRecord::of(&message, message.topic()).to_owned_in(topic)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                return Err(Error::Reading { cause: error.into() });
            }
            Some(Err(error)) if heard.elapsed() > SILENCE || Cause::from(error.clone()).is_permanent() => {
                return Err(Error::Reading { cause: error.into() });
            }
            None if heard.elapsed() > SILENCE => {
                let cause = KafkaError::MessageConsumption(rdkafka::error::RDKafkaErrorCode::OperationTimedOut).into();
                return Err(Error::Reading { cause });
            }
            Some(Err(_)) | None => continue,
        }
        heard = Instant::now();
    }
    Ok(())
}
