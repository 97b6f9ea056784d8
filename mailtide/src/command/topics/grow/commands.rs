//! Commands that no poller has read yet: written anew to where their keys lead then, each mailbox's in their order.
//!
//! A group's offset moves past a whole stretch of a partition, so the whole stretch is written anew, also what stays in
//! its partition. Where the stretches end is journalled before the first record of them is written: were it not, a second
//! run would take what the first one has written for more of the same, and put it behind what comes after it.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::bail;
use kafka::reader::TopicPartition;
use kafka::snapshot::{Spans, Step};
use kafka::topics::Topic;
use kafka::{IdleGroup, OutRecord, OwnedRecord, SoleWriter, groups, partition_of};
use serde::{Deserialize, Serialize};

use super::{Growth, blocking, ends};
use crate::command::{ask, journal};

/// How often commands that came meanwhile are gone after.
const ROUNDS: usize = 5;

/// Up to where the commands of each partition are written anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The partition count that the topics grow to.
    pub(super) partitions: i32,
    ends: BTreeMap<i32, i64>,
}

impl Plan {
    /// Where it is in the journal.
    pub(super) const KEY: &str = "topics-grow";
}

/// Commands that were not read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unread {
    pub(super) commands: u64,
    /// Those that lie in another partition than their key leads to.
    pub(super) misplaced: u64,
}

/// The partition of a command; one without a key stays where it is.
fn home(record: &OwnedRecord, partitions: i32) -> i32 {
    record.key.as_deref().map_or(record.partition, |key| partition_of(key, partitions))
}

/// Where the commands of each partition go on that has them: at what was committed, else at what the states say, else
/// where the log begins. This is how a lane begins.
pub(super) async fn starts(
    growth: &Growth<'_>,
    absorbed: &BTreeMap<i32, i64>,
) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
    let ends = ends(growth, Topic::Poll).await?;
    let committed = groups::committed(growth.kafka, &growth.group("poller"), ends.keys().cloned()).await?;
    let start = |at: &TopicPartition| {
        let start = committed.get(at).or_else(|| absorbed.get(&at.partition)).copied();
        start.unwrap_or(0).max(ends[at].low)
    };
    Ok(ends.keys().map(|at| (at.clone(), start(at))).collect())
}

/// The same, once the group has an offset for all of them but those that the growth has just made.
pub(super) async fn positions(growth: &Growth<'_>) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
    starts(growth, &BTreeMap::new()).await
}

/// Counts the commands from `starts` on.
pub(super) async fn unread(growth: &Growth<'_>, starts: &BTreeMap<TopicPartition, i64>) -> anyhow::Result<Unread> {
    let (kafka, topic, partitions) = (growth.kafka.clone(), growth.name(Topic::Poll).clone(), growth.to);
    let spans = starts.iter().map(|(at, start)| (at.partition, *start..i64::MAX)).collect();
    let count = move || -> anyhow::Result<Unread> {
        let (mut reading, mut found) = (Spans::open(&kafka, "grow", &topic, spans)?, Unread::default());
        loop {
            match reading.step()? {
                Step::Record(record) => {
                    found.commands += 1;
                    found.misplaced += u64::from(home(&record, partitions) != record.partition);
                }
                Step::Waiting => {}
                Step::End => return Ok(found),
            }
        }
    };
    tokio::task::spawn_blocking(count).await?
}

/// Writes commands anew until all that are unread lie where they belong, by the plan of an earlier run first. None when
/// it was stopped.
pub(super) async fn carry_out(
    growth: &Growth<'_>,
    mut writer: SoleWriter,
    mut plan: Option<Plan>,
) -> anyhow::Result<Option<SoleWriter>> {
    for _ in 0..ROUNDS {
        let positions = positions(growth).await?;
        let ends = match plan.take() {
            Some(plan) => plan.ends,
            None if unread(growth, &positions).await?.misplaced == 0 => return Ok(Some(writer)),
            None => {
                let ends = ends(growth, Topic::Poll).await?;
                let ends = ends.iter().map(|(at, ends)| (at.partition, ends.end)).collect();
                let plan = Plan { partitions: growth.to, ends };
                let entry = journal::entry(&growth.names, Plan::KEY.to_owned(), &plan);
                (writer, _) = blocking(writer, move |writer| writer.commit(&[entry])).await?;
                plan.ends
            }
        };
        let spans = positions.iter().filter_map(|(at, start)| Some((at.partition, *start..*ends.get(&at.partition)?)));
        match write_anew(growth, writer, spans.filter(|(_, span)| !span.is_empty()).collect()).await? {
            Some(after) => writer = after,
            None => return Ok(None),
        }
    }
    bail!(
        "commands keep coming to partitions of the former count: stop ingress and scheduler, then run the same again; it \
         goes on where it is"
    )
}

/// Writes the commands of `spans` anew, and moves the group past them. False when it was stopped.
async fn write_anew(
    growth: &Growth<'_>,
    mut writer: SoleWriter,
    spans: BTreeMap<i32, Range<i64>>,
) -> anyhow::Result<Option<SoleWriter>> {
    let (kafka, topic, partitions) = (growth.kafka.clone(), growth.name(Topic::Poll).clone(), growth.to);
    let (group, shutdown) = (growth.group("poller"), growth.shutdown.clone());
    let work = move || -> anyhow::Result<Option<SoleWriter>> {
        let group = IdleGroup::new(&kafka, &group)?;
        let total = spans.values().map(|span| (span.end - span.start).unsigned_abs()).sum();
        let bar = ask::bar(total, "commands written anew");
        for (partition, span) in spans {
            let mut reading = Spans::open(&kafka, "grow", &topic, BTreeMap::from([(partition, span.clone())]))?;
            let mut batch: Vec<OutRecord> = Vec::new();
            let mut next = span.start;
            loop {
                let is_over = match reading.step()? {
                    Step::Record(record) => {
                        next = record.offset + 1;
                        let home = Some(home(&record, partitions));
                        let (key, value, headers) = (record.key, record.value, record.headers);
                        batch.push(OutRecord { topic: topic.clone(), partition: home, key, value, headers });
                        false
                    }
                    Step::Waiting => continue,
                    Step::End => true,
                };
                if is_over {
                    next = span.end;
                } else if batch.len() < kafka.lane.transaction_records {
                    continue;
                }
                let at = TopicPartition { topic: topic.clone(), partition };
                writer.commit_moving(&batch, &group, &BTreeMap::from([(at, next)]))?;
                bar.inc(batch.len() as u64);
                batch.clear();
                if is_over {
                    break;
                }
                if shutdown.is_requested() {
                    return Ok(None);
                }
            }
        }
        bar.finish_and_clear();
        Ok(Some(writer))
    };
    tokio::task::spawn_blocking(work).await?
}
