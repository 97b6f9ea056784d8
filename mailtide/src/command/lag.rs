//! `mailtide lag`: how far consumer groups are behind.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use kafka::groups::{self, Group};
use kafka::reader::TopicPartition;
use kafka::topics::{Topic, Topics};
use runtime::Shutdown;
use serde::Serialize;
use store::Store;
use store::projection::{self, READER};

use super::{ask, now, rfc3339};
use crate::cli::Lag;
use crate::output;
use crate::settings::Settings;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// The topics that somebody reads on and on.
const READ: [Topic; 5] = [Topic::Poll, Topic::Discovered, Topic::Fetched, Topic::JobStatus, Topic::ConnectionStatus];

/// How far a group is behind, in a topic or in one partition of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Behind {
    pub(crate) group: String,
    /// How many members the group has; none where it is not Kafka that knows.
    pub(crate) members: Option<usize>,
    pub(crate) topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    pub(crate) lag: u64,
}

/// Looks once, or until it is told to stop.
pub(crate) async fn run(lag: &Lag, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<()> {
    loop {
        let found = look(&lag.groups, settings).await?;
        let found = if lag.partitions { found } else { by_topic(found) };
        if lag.watch && !lag.output.json && std::io::stdout().is_terminal() {
            // Home, and everything below cleared.
            ask::say("\x1b[H\x1b[2J")?;
        }
        if lag.output.json {
            output::line(&serde_json::json!({"at": rfc3339(now()), "groups": found}))?;
        } else {
            let number = |number: Option<i64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
            let rows = found.iter().map(|it| {
                let members = it.members.map_or_else(|| "-".to_owned(), |members| members.to_string());
                let partition = it.partition.map_or_else(|| "all".to_owned(), |partition| partition.to_string());
                let (committed, end) = match it.partition {
                    Some(_) => (number(it.committed), number(it.end)),
                    None => ("-".to_owned(), "-".to_owned()),
                };
                [it.group.clone(), members, it.topic.clone(), partition, committed, end, it.lag.to_string()]
            });
            let header = ["group", "members", "topic", "partition", "committed", "end", "lag"];
            output::print(lag.output, &(), header, rows)?;
        }
        if !lag.watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
}

/// How far every group is behind in each topic that it reads.
pub(crate) async fn summary(settings: &Settings) -> anyhow::Result<Vec<Behind>> {
    look(&[], settings).await.map(by_topic)
}

/// How far `groups` are behind, or all, partition by partition.
async fn look(groups: &[String], settings: &Settings) -> anyhow::Result<Vec<Behind>> {
    let kafka = &settings.kafka;
    let names = Topics::new(&kafka.topic_prefix);
    let topics: Vec<Arc<str>> = READ.iter().map(|topic| names.name(*topic).clone()).collect();
    let known: BTreeMap<String, Group> =
        groups::list(kafka).await?.into_iter().map(|group| (group.name.clone(), group)).collect();
    let asked: Vec<String> = match groups {
        [] => known.keys().cloned().collect(),
        named => named.to_vec(),
    };
    let mut lags = groups::lags(kafka, &asked, &topics).await?;
    if groups.is_empty() {
        lags.extend(projector(settings).await?);
    }
    let found = lags.into_iter().map(|it| {
        let TopicPartition { topic, partition } = it.partition;
        Behind {
            members: (it.group != READER).then(|| known.get(&it.group).map_or(0, |group| group.members)),
            group: it.group,
            topic: topic.to_string(),
            partition: Some(partition),
            committed: it.committed,
            end: Some(it.end),
            lag: it.lag,
        }
    });
    Ok(found.collect())
}

/// How far the projector is behind, if Postgres is within reach.
async fn projector(settings: &Settings) -> Result<Vec<groups::Lag>, groups::Error> {
    let Ok(store) = Store::connect(&settings.store) else { return Ok(Vec::new()) };
    let Ok(positions) = projection::positions(&store, projection::JOBS).await else { return Ok(Vec::new()) };
    let stands = |it: projection::Position| {
        let partition = TopicPartition { topic: it.topic.into(), partition: it.partition };
        (partition, it.next_offset)
    };
    let next = positions.into_iter().map(stands).collect();
    let names = Topics::new(&settings.kafka.topic_prefix);
    let topics = [Topic::JobStatus, Topic::ConnectionStatus].map(|topic| names.name(topic).clone());
    groups::lags_from(&settings.kafka, READER, &next, &topics).await
}

/// The partitions of a topic together.
fn by_topic(found: Vec<Behind>) -> Vec<Behind> {
    let mut sums: Vec<Behind> = Vec::new();
    for it in found {
        match sums.last_mut() {
            Some(sum) if sum.group == it.group && sum.topic == it.topic => sum.lag += it.lag,
            _ => sums.push(Behind { partition: None, committed: None, end: None, ..it }),
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_partitions_are_summed_for_each_group() {
        let behind = |group: &str, topic: &str, partition, lag| Behind {
            group: group.to_owned(),
            members: Some(1),
            topic: topic.to_owned(),
            partition: Some(partition),
            committed: Some(0),
            end: Some(9),
            lag,
        };
        let found =
            vec![behind("a", "x", 0, 1), behind("a", "x", 1, 2), behind("a", "y", 0, 4), behind("b", "y", 0, 8)];
        let sums: Vec<(String, String, u64)> =
            by_topic(found).into_iter().map(|it| (it.group, it.topic, it.lag)).collect();
        let sum = |group: &str, topic: &str, lag| (group.to_owned(), topic.to_owned(), lag);
        assert_eq!(sums, [sum("a", "x", 3), sum("a", "y", 4), sum("b", "y", 8)]);
    }
}
