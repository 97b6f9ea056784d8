//! Where consumer groups stand: ours, and those of whoever reads our topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Context};
use crate::error::Cause;
use crate::reader::TopicPartition;
use crate::settings::Settings;

/// How long one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Its full name.
    pub name: String,
    /// Its state in the broker's words, such as `Stable` or `Empty`.
    pub state: String,
    /// How many members it has.
    pub members: usize,
}

/// Why groups cannot be told of, or not be moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The brokers did not do as they were asked.
    #[error("{action} failed: {cause}; check that the brokers can be reached and allow it")]
    Request {
        /// What was asked.
        action: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// Whoever is a member says where the group stands.
    #[error("The group {group} has members, which would go on from where they are: stop its consumers, then try again")]
    InUse {
        /// The group.
        group: String,
    },
    /// A thread of ours is gone.
    #[error("The thread that asks the brokers is gone")]
    Gone,
}

/// All groups that the brokers know, by name.
///
/// # Errors
/// When the brokers do not answer.
pub async fn list(settings: &Settings) -> Result<Vec<Group>, Error> {
    ask(settings, "Listing the groups", None, |consumer| groups(consumer, None)).await
}

/// The group with this name; none if the brokers know none, or one that never had a member.
///
/// # Errors
/// When the brokers do not answer.
pub async fn find(settings: &Settings, group: &str) -> Result<Option<Group>, Error> {
    let name = group.to_owned();
    let action = format!("Looking up the group {group}");
    let found = ask(settings, &action, None, move |consumer| groups(consumer, Some(&name))).await?;
    Ok(found.into_iter().find(|it| it.name == group && it.state != "Dead"))
}

fn groups(consumer: &BaseConsumer<Context>, name: Option<&str>) -> Result<Vec<Group>, KafkaError> {
    let list = consumer.fetch_group_list(name, ANSWER)?;
    let mut groups: Vec<Group> = list
        .groups()
        .iter()
        .map(|group| Group {
            name: group.name().to_owned(),
            state: group.state().to_owned(),
            members: group.members().len(),
        })
        .collect();
    groups.sort();
    Ok(groups)
}

/// The offsets that a group has committed, of those of `partitions` for which it has; an offset that an open
/// transaction may still change is waited for.
///
/// # Errors
/// When the brokers do not answer.
pub async fn committed(
    settings: &Settings,
    group: &str,
    partitions: impl IntoIterator<Item = TopicPartition>,
) -> Result<BTreeMap<TopicPartition, i64>, Error> {
    let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
    let action = format!("Fetching the offsets of the group {group}");
    ask(settings, &action, Some(group), move |consumer| {
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for TopicPartition { topic, partition } in &partitions {
            asked.add_partition(topic, *partition);
        }
        let answer = if partitions.is_empty() { asked } else { consumer.committed_offsets(asked, ANSWER)? };
        let mut committed = BTreeMap::new();
        for partition in partitions {
            let Some(found) = answer.find_partition(&partition.topic, partition.partition) else { continue };
            found.error()?;
            if let Offset::Offset(offset) = found.offset() {
                committed.insert(partition, offset);
            }
        }
        Ok(committed)
    })
    .await
}

/// Says where a group goes on, all partitions at once. It must have no members, which the broker checks.
///
/// # Errors
/// [`Error::InUse`] when it has; [`Error::Request`] when the brokers do not answer.
pub async fn move_to(settings: &Settings, group: &str, to: &BTreeMap<TopicPartition, i64>) -> Result<(), Error> {
    let to = to.clone();
    let action = format!("Moving the group {group}");
    let moved = ask(settings, &action, Some(group), move |consumer| {
        let mut list = TopicPartitionList::with_capacity(to.len());
        for (TopicPartition { topic, partition }, offset) in &to {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.commit(&list, CommitMode::Sync)
    })
    .await;
    match moved {
        Err(Error::Request { cause, .. }) if cause.is_group_in_use() => Err(Error::InUse { group: group.to_owned() }),
        other => other,
    }
}

/// Asks a question on a thread that may block, as a client that is no member of any group.
async fn ask<T: Send + 'static>(
    settings: &Settings,
    action: &str,
    group: Option<&str>,
    question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, Error> {
    let mut config = client::committed_reads(settings, "groups");
    let none = format!("{}groups", settings.topic_prefix);
    // The first look for a group's coordinator may come before the broker has one.
    config.set("group.id", group.unwrap_or(&none)).set("retry.backoff.ms", "20").set("retry.backoff.max.ms", "200");
    let action: Arc<str> = action.into();
    let request = |error: KafkaError| Error::Request { action: action.to_string(), cause: error.into() };
    let consumer: BaseConsumer<Context> = config.create_with_context(Context).map_err(request)?;
    let answer = tokio::task::spawn_blocking(move || question(&consumer));
    answer.await.map_err(|_| Error::Gone)?.map_err(request)
}
