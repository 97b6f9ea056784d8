//! The state of every mailbox: what there is, and its way to where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use kafka::snapshot::{Spans, Step};
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, OwnedRecord, SoleWriter};
use poller::moving;

use super::Growth;
use crate::command::ask;

/// What there is of mailboxes.
#[derive(Debug, Clone, Default)]
pub(super) struct Survey {
    /// Those whose connection is not forgotten.
    pub(super) mailboxes: u64,
    /// Mailboxes that belong to another partition then.
    pub(super) moving: u64,
    /// Records that are to be written anew, chunks among them.
    pub(super) to_write: u64,
    /// Up to where commands are taken in, by partition, as the states say.
    pub(super) absorbed: BTreeMap<i32, i64>,
}

/// What stands in one partition: the last record of each key. As much as a poller holds of a partition.
pub(super) fn latest(
    kafka: &kafka::Settings,
    topic: &Arc<str>,
    partition: i32,
) -> Result<BTreeMap<Bytes, OwnedRecord>, kafka::reader::Error> {
    let mut latest = BTreeMap::new();
    let mut spans = Spans::open(kafka, "grow", topic, BTreeMap::from([(partition, 0..i64::MAX)]))?;
    loop {
        match spans.step()? {
            Step::Record(record) => {
                let Some(key) = record.key.clone() else { continue };
                match record.value {
                    Some(_) => latest.insert(key, record),
                    None => latest.remove(&key),
                };
            }
            Step::Waiting => {}
            Step::End => return Ok(latest),
        }
    }
}

/// Where a record belongs; none if it is right where it is, or nothing of ours.
fn way(record: &OwnedRecord, partitions: i32) -> Option<i32> {
    let home = moving::home(moving::owner(record.key.as_deref()?)?, partitions);
    let is_stamped = moving::stamp(record).is_none_or(|stamp| stamp == partitions);
    (home != record.partition || !is_stamped).then_some(home)
}

/// Looks at all mailboxes. No transaction may be open on their topic.
pub(super) async fn survey(growth: &Growth<'_>) -> anyhow::Result<Survey> {
    let (kafka, topic, from, to) = (growth.kafka.clone(), growth.name(Topic::State).clone(), growth.from, growth.to);
    let look = move || -> anyhow::Result<Survey> {
        let mut survey = Survey::default();
        let bar = ask::bar(u64::try_from(from)?, "partitions looked at");
        for partition in 0..from {
            let (mut known, mut moving, mut graves) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            for record in latest(&kafka, &topic, partition)?.values() {
                let Some(id) = record.key.as_deref().and_then(moving::owner) else { continue };
                if moving::is_bar(record) {
                    bail!("a restore of the state was interrupted: end it with `mailtide state restore`, then grow");
                }
                known.insert(id);
                if moving::is_grave(record) {
                    graves.insert(id);
                }
                if let Some(absorbed) = moving::absorbed(record) {
                    let most = survey.absorbed.entry(partition).or_default();
                    *most = absorbed.max(*most);
                }
                if let Some(home) = way(record, to) {
                    survey.to_write += 1;
                    if home != partition {
                        moving.insert(id);
                    }
                }
            }
            survey.mailboxes += known.difference(&graves).count() as u64;
            survey.moving += moving.difference(&graves).count() as u64;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(survey)
    };
    tokio::task::spawn_blocking(look).await?
}

/// Moves all mailboxes to where they belong, `absorbed` being where the commands of each partition go on. None when it
/// was stopped.
pub(super) async fn carry_out(
    growth: &Growth<'_>,
    mut writer: SoleWriter,
    absorbed: BTreeMap<i32, i64>,
    total: u64,
) -> anyhow::Result<Option<SoleWriter>> {
    let (kafka, topic, from, to) = (growth.kafka.clone(), growth.name(Topic::State).clone(), growth.from, growth.to);
    let shutdown = growth.shutdown.clone();
    let work = move || -> anyhow::Result<Option<SoleWriter>> {
        let bar = ask::bar(total, "records written");
        for partition in 0..from {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for record in latest(&kafka, &topic, partition)?.into_values() {
                let Some(home) = way(&record, to) else { continue };
                let absorbed = absorbed.get(&home).copied().unwrap_or(0);
                let out = moving::moved(&record, home, to, absorbed);
                bytes += out.value.as_ref().map_or(0, |value| value.len() as u64) + 256;
                batch.push(out);
                if home != partition {
                    let (topic, key) = (topic.clone(), record.key);
                    let headers = Headers::new();
                    batch.push(OutRecord { topic, partition: Some(partition), key, value: None, headers });
                }
                bar.inc(1);
                if batch.len() >= kafka.lane.transaction_records || bytes >= kafka.lane.transaction_bytes {
                    writer.commit(&batch)?;
                    (batch, bytes) = (Vec::new(), 0);
                    if shutdown.is_requested() {
                        return Ok(None);
                    }
                }
            }
            if !batch.is_empty() {
                writer.commit(&batch)?;
            }
        }
        bar.finish_and_clear();
        Ok(Some(writer))
    };
    tokio::task::spawn_blocking(work).await?
}
