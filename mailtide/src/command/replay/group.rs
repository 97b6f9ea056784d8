//! Moving a consumer group to a time.

use std::collections::BTreeMap;

use kafka::groups;
use kafka::reader::{Inspector, TopicPartition};
use kafka::topics::Topics;
use serde_json::json;

use super::super::ask::{self, Answer};
use super::super::{now, rfc3339};
use crate::cli::Replay;
use crate::cli::repair::From;
use crate::output;
use crate::settings::Settings;
use crate::{Outcome, WrongUse};

/// The groups that Mailtide's own services are in: what they have done does not go by their group's offsets alone.
const OURS: [&str; 3] = ["poller", "fetcher", "projector"];

/// Shows where the group goes, asks, and moves it.
pub(super) async fn run(ask: &Replay, group: &str, settings: &Settings) -> anyhow::Result<Outcome> {
    let kafka = &settings.kafka;
    if OURS.iter().any(|ours| group == format!("{}{ours}", kafka.topic_prefix)) {
        let why = "is one of Mailtide's own: its service goes by its own state, and would skip what it has done";
        return Err(WrongUse(format!("the group {group} {why}; move a consumer's group, or replay to a topic")).into());
    }
    let since = ask.since.resolve(now());
    let known = groups::find(kafka, group).await?;
    if let Some(members) = known.as_ref().map(|known| known.members).filter(|members| *members > 0) {
        anyhow::bail!(
            "the group {group} has {members} members, which would go on from where they are: stop its consumers, then try again"
        );
    }
    let names = Topics::new(&kafka.topic_prefix);
    let inspector = Inspector::new(kafka)?;
    let mut moves: BTreeMap<TopicPartition, (Option<i64>, i64)> = BTreeMap::new();
    for from in [From::Discovered, From::Fetched] {
        if ask.from.is_some_and(|only| only != from) {
            continue;
        }
        let topic = names.name(from.topic());
        let Ok(count) = inspector.partition_count(topic).await else { continue };
        let partitions = (0..count).map(|partition| TopicPartition { topic: topic.clone(), partition });
        let before = groups::committed(kafka, group, partitions).await?;
        if before.is_empty() && ask.from.is_none() {
            continue;
        }
        let to = inspector.offsets_at(topic, since.as_millis()).await?;
        for (partition, to) in (0..).zip(to) {
            let partition = TopicPartition { topic: topic.clone(), partition };
            let before = before.get(&partition).copied();
            moves.insert(partition, (before, to));
        }
    }
    if moves.is_empty() {
        anyhow::bail!(
            "the group {group} has committed no offset of {} or {}; say which with --from, and give its full name",
            names.name(From::Discovered.topic()),
            names.name(From::Fetched.topic())
        );
    }
    if !ask.dry_run && !ask.yes {
        ask::needs_terminal("moving a group")?;
        print(ask, group, &moves, "would move", since)?;
        if ask::confirm("Move the group there?").await? == Answer::No {
            anyhow::bail!("nothing was moved");
        }
    }
    if ask.dry_run {
        print(ask, group, &moves, "dry run", since)?;
        return Ok(Outcome::Done);
    }
    let to = moves.iter().map(|(partition, (_, to))| (partition.clone(), *to)).collect();
    groups::move_to(kafka, group, &to).await?;
    print(ask, group, &moves, "moved", since)?;
    Ok(Outcome::Done)
}

fn print(
    ask: &Replay,
    group: &str,
    moves: &BTreeMap<TopicPartition, (Option<i64>, i64)>,
    state: &str,
    since: domain::Timestamp,
) -> anyhow::Result<()> {
    if ask.output.json {
        let partitions: Vec<_> = moves
            .iter()
            .map(|(TopicPartition { topic, partition }, (before, after))| {
                json!({"topic": topic, "partition": partition, "before": before, "after": after})
            })
            .collect();
        let shown = json!({"group": group, "state": state, "since": rfc3339(since), "partitions": partitions});
        return output::line(&shown);
    }
    let rows = moves.iter().map(|(TopicPartition { topic, partition }, (before, after))| {
        let before = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
        [topic.to_string(), partition.to_string(), before, after.to_string()]
    });
    output::print(ask.output, &(), ["topic", "partition", "before", "after"], rows)
}
