//! Where consumer groups stand: ours, and those of whoever reads our topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinSet;

use crate::client::{self, Context};
use crate::cluster;
use crate::error::Cause;
use crate::oauth;
use crate::reader::{self, TopicPartition};
use crate::settings::Settings;
use crate::snapshot::{Spans, Step};

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
    /// Records could not be looked at.
    #[error(transparent)]
    Reading(#[from] reader::Error),
    /// A thread of ours is gone.
    #[error("The thread that asks the brokers is gone")]
    Gone,
}

impl Error {
    /// Whether the brokers know us and do not let us.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Request { cause, .. }
            | Self::Reading(
                reader::Error::Client { cause, .. }
                | reader::Error::Request { cause, .. }
                | reader::Error::Reading { cause },
            ) => cause.is_denied(),
            Self::InUse { .. } | Self::Reading(reader::Error::Rewound { .. } | reader::Error::Gone) | Self::Gone => {
                false
            }
        }
    }
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

/// How far a group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The group.
    pub group: String,
    /// Where.
    pub partition: TopicPartition,
    /// The next offset that the group reads; none: it has committed none here.
    pub committed: Option<i64>,
    /// The next offset after what is committed.
    pub end: i64,
    /// How far it is behind: in records where it is close to the end, else in offsets, among them marks of
    /// transactions, which are no records. A group that has committed no offset here has all that is kept before it.
    pub lag: u64,
}

/// How far `groups` are behind in `topics`, in the partitions of those topics that they have committed an offset of. A
/// topic that is not there is left out.
///
/// # Errors
/// When the brokers do not answer.
pub async fn lags(settings: &Settings, groups: &[String], topics: &[Arc<str>]) -> Result<Vec<Lag>, Error> {
    let ends = ends(settings, topics).await?;
    let mut lags = Vec::new();
    for (group, committed) in all_committed(settings, groups, ends.keys().cloned().collect()).await? {
        let stands = topics.iter().filter(|topic| committed.keys().any(|it| it.topic == **topic));
        stands.for_each(|topic| lags.extend(behind(&group, topic, &committed, &ends)));
    }
    exact(settings, lags).await
}

/// The same for somebody whose next offsets are kept elsewhere, in all of `topics`.
///
/// # Errors
/// When the brokers do not answer.
pub async fn lags_from(
    settings: &Settings,
    group: &str,
    next: &BTreeMap<TopicPartition, i64>,
    topics: &[Arc<str>],
) -> Result<Vec<Lag>, Error> {
    let ends = ends(settings, topics).await?;
    let lags = topics.iter().flat_map(|topic| behind(group, topic, next, &ends)).collect();
    exact(settings, lags).await
}

/// How far a group is behind in each partition of a topic.
fn behind(
    group: &str,
    topic: &Arc<str>,
    next: &BTreeMap<TopicPartition, i64>,
    ends: &BTreeMap<TopicPartition, (i64, i64)>,
) -> Vec<Lag> {
    let of_topic = ends.iter().filter(|(it, _)| it.topic == *topic);
    of_topic
        .map(|(partition, (low, end))| {
            let committed = next.get(partition).copied();
            let lag = (end - committed.unwrap_or(*low).max(*low)).max(0).unsigned_abs();
            Lag { group: group.to_owned(), partition: partition.clone(), committed, end: *end, lag }
        })
        .collect()
}

/// Where each partition of these topics begins and ends; a topic that is not there has none.
async fn ends(settings: &Settings, topics: &[Arc<str>]) -> Result<BTreeMap<TopicPartition, (i64, i64)>, Error> {
    let asked: Vec<Arc<str>> = topics.to_vec();
    ask(settings, "Finding where topics end", None, move |consumer| {
        let mut ends = BTreeMap::new();
        for topic in asked {
            let count = match cluster::partition_count(consumer, &topic, ANSWER) {
                Err(error) if Cause::from(error.clone()).is_unknown_topic() => continue,
                count => count?,
            };
            for partition in 0..count {
                let log = cluster::log_ends(consumer, &topic, partition, ANSWER)?;
                ends.insert(TopicPartition { topic: topic.clone(), partition }, log);
            }
        }
        Ok(ends)
    })
    .await
}

/// The committed offsets of many groups, in the order of their names; each question is a client of its own, some at a
/// time.
async fn all_committed(
    settings: &Settings,
    groups: &[String],
    partitions: Vec<TopicPartition>,
) -> Result<BTreeMap<String, BTreeMap<TopicPartition, i64>>, Error> {
    /// Questions at a time.
    const AT_ONCE: usize = 8;
    let mut all = BTreeMap::new();
    let mut asking = JoinSet::new();
    for group in groups {
        if asking.len() >= AT_ONCE
            && let Some(answer) = asking.join_next().await
        {
            let (group, committed): (String, Result<_, Error>) = answer.map_err(|_| Error::Gone)?;
            all.insert(group, committed?);
        }
        let (settings, group, partitions) = (settings.clone(), group.clone(), partitions.clone());
        asking.spawn(async move {
            let committed = committed(&settings, &group, partitions).await;
            (group, committed)
        });
    }
    while let Some(answer) = asking.join_next().await {
        let (group, committed) = answer.map_err(|_| Error::Gone)?;
        all.insert(group, committed?);
    }
    Ok(all)
}

/// Counts records where few offsets are left: what follows the last record may be nothing but the mark that ends its
/// transaction, and whoever has read everything would be behind for ever.
///
/// # Errors
/// When the brokers do not answer.
pub async fn exact(settings: &Settings, mut lags: Vec<Lag>) -> Result<Vec<Lag>, Error> {
    /// So many offsets are looked at.
    const CLOSE: u64 = 100;
    let is_close = |lag: &Lag| (1..=CLOSE).contains(&lag.lag);
    let mut spans: BTreeMap<Arc<str>, BTreeMap<i32, std::ops::Range<i64>>> = BTreeMap::new();
    for lag in lags.iter().filter(|lag| is_close(lag)) {
        let from = lag.end - i64::try_from(lag.lag).unwrap_or(0);
        let spans = spans.entry(lag.partition.topic.clone()).or_default();
        // Several groups may be close to the same end: what the last of them has left holds what all have.
        let span = spans.entry(lag.partition.partition).or_insert(from..lag.end);
        span.start = span.start.min(from);
    }
    for (topic, spans) in spans {
        let (name, settings) = (topic.clone(), settings.clone());
        let read = tokio::task::spawn_blocking(move || -> Result<Vec<(i32, i64)>, reader::Error> {
            let (mut spans, mut found) = (Spans::open(&settings, "lag", &name, spans)?, Vec::new());
            loop {
                match spans.step()? {
                    Step::Record(record) => found.push((record.partition, record.offset)),
                    Step::Waiting => {}
                    Step::End => return Ok(found),
                }
            }
        });
        let found = read.await.map_err(|_| Error::Gone)??;
        for lag in lags.iter_mut().filter(|lag| lag.partition.topic == topic && is_close(lag)) {
            let from = lag.end - i64::try_from(lag.lag).unwrap_or(0);
            let is_left = |at: &&(i32, i64)| at.0 == lag.partition.partition && (from..lag.end).contains(&at.1);
            lag.lag = found.iter().filter(is_left).count() as u64;
        }
    }
    Ok(lags)
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
    let consumer: BaseConsumer<Context> = config.create_with_context(Context::of(settings)).map_err(request)?;
    let settings = settings.clone();
    let answer = tokio::task::spawn_blocking(move || {
        oauth::authorise(&settings, consumer.client());
        question(&consumer)
    });
    answer.await.map_err(|_| Error::Gone)?.map_err(request)
}
