//! More partitions for topics that are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::error::RDKafkaErrorCode;

use super::{DEADLINE, Error, Topic, Topics, admin, look_up};
use crate::settings::Settings;

/// The partition counts of those of `which` topics that exist and whose partitions all have a leader.
///
/// # Errors
/// When the brokers do not answer.
pub async fn counts(settings: &Settings, topics: &Topics, which: &[Topic]) -> Result<BTreeMap<Topic, i32>, Error> {
    look_up(&Arc::new(admin(settings)?), settings, topics, which).await
}

/// Gives each of `which` topics `partitions` partitions and waits until the brokers show them. What is in the topics
/// stays where it is. A topic that has as many, or more, is left as it is.
///
/// # Errors
/// When a topic is missing, a broker cannot be reached or refuses, or the partitions are not there within 30 s.
pub async fn grow(settings: &Settings, topics: &Topics, which: &[Topic], partitions: i32) -> Result<(), Error> {
    let admin = Arc::new(admin(settings)?);
    let deadline = Instant::now() + DEADLINE;
    let mut is_asked = false;
    loop {
        let shown = look_up(&admin, settings, topics, which).await?;
        let short: Vec<Topic> =
            which.iter().copied().filter(|topic| shown.get(topic).is_none_or(|count| *count < partitions)).collect();
        if short.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Missing(short.iter().map(|topic| topics.name(*topic).to_string()).collect()));
        }
        if is_asked {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        is_asked = true;
        let count = usize::try_from(partitions).expect("a partition count is positive");
        let specs: Vec<NewPartitions<'_>> =
            short.iter().map(|topic| NewPartitions::new(topics.name(*topic), count)).collect();
        let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
        let answers = admin.create_partitions(&specs, &options).await.map_err(|error| Error::Request {
            action: "Adding partitions",
            bootstrap_servers: settings.bootstrap_servers.clone(),
            cause: error.into(),
        })?;
        for answer in answers {
            match answer {
                // It has as many: somebody else was quicker, or the brokers showed less than there was.
                Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                Err((topic, code)) => return Err(Error::Ungrown { topic: topic.into(), reason: code.to_string() }),
            }
        }
    }
}
