//! How far the fetcher is, which it keeps as offsets: they mean nothing for a mailbox in another partition. So all that was
//! announced has to be fetched before, or to be left.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use domain::{FetchPosition, FetchState, Timestamp};
use kafka::reader::TopicPartition;
use kafka::snapshot::{Spans, Step};
use kafka::topics::Topic;
use kafka::{Headers, IdleGroup, OutRecord, SoleWriter, groups};

use super::{Growth, blocking, ends, mailboxes};
use crate::cli::Grow;
use crate::command::rfc3339;

/// A record is written a little after what it tells happened.
const BEFORE: domain::Duration = domain::Duration::from_minutes(1);

/// Mailboxes named at most; all are counted.
const NAMED: usize = 5;

/// How far the fetcher is.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// Where each partition of the announcements ends; empty where no fetcher has ever run and there is nothing to fetch.
    ends: BTreeMap<TopicPartition, i64>,
    /// Announcements that are not fetched, those of mailboxes that are behind apart.
    unfetched: u64,
    /// Keys of mailboxes that are behind, such as those that wait for a consent.
    behind: Vec<String>,
    /// What the states of single mailboxes are written under.
    keys: Vec<(i32, Bytes)>,
    /// From when on announcements may not have been fetched; none: all are.
    pub(super) replay: Option<String>,
}

impl Fetching {
    /// Looks how far it is. It must be stopped.
    pub(super) async fn look(growth: &Growth<'_>) -> anyhow::Result<Self> {
        let state = growth.name(Topic::FetchState);
        kafka::snapshot::until_decided(growth.kafka, "grow", state).await?;
        let group = growth.group("fetcher");
        let ends = ends(growth, Topic::Discovered).await?;
        let committed = groups::committed(growth.kafka, &group, ends.keys().cloned()).await?;
        let start = |at: &TopicPartition| committed.get(at).copied().unwrap_or(0).max(ends[at].low);
        let lags = ends.iter().map(|(at, log)| groups::Lag {
            group: group.clone(),
            partition: at.clone(),
            committed: committed.get(at).copied(),
            end: log.end,
            lag: (log.end - start(at)).max(0).unsigned_abs(),
        });
        let unfetched = groups::exact(growth.kafka, lags.collect()).await?.iter().map(|lag| lag.lag).sum();
        let (kafka, topic, from) = (growth.kafka.clone(), state.clone(), growth.from);
        let read = move || -> anyhow::Result<_> {
            let (mut keys, mut behind) = (Vec::new(), BTreeMap::new());
            for partition in 0..from {
                for (key, record) in mailboxes::latest(&kafka, &topic, partition)? {
                    if key == FetchPosition::KEY.as_bytes() {
                        continue;
                    }
                    let state = record.value.as_deref().map(events::decode::<FetchState>).transpose()?;
                    if let Some(state) = state.filter(|state| state.behind) {
                        behind.insert((partition, key.clone()), state.from);
                    }
                    keys.push((partition, key));
                }
            }
            Ok((keys, behind))
        };
        let (keys, behind) = tokio::task::spawn_blocking(read).await??;
        let mut oldest: BTreeMap<i32, i64> = ends.keys().map(|at| (at.partition, start(at))).collect();
        for ((partition, _), from) in &behind {
            oldest.entry(*partition).and_modify(|oldest| *oldest = (*oldest).min(*from));
        }
        let replay = if unfetched == 0 && behind.is_empty() { None } else { since(growth, oldest).await? };
        let is_used = unfetched > 0 || !committed.is_empty() || !keys.is_empty();
        let name = |(_, key): &(i32, Bytes)| String::from_utf8_lossy(key).into_owned();
        Ok(Self {
            ends: if is_used { ends.into_iter().map(|(at, ends)| (at, ends.end)).collect() } else { BTreeMap::new() },
            unfetched,
            behind: behind.keys().map(name).collect(),
            keys,
            replay: replay.map(rfc3339),
        })
    }

    /// Refuses while something is left that was not said to be left.
    pub(super) fn refuse(&self, ask: &Grow) -> anyhow::Result<()> {
        if ask.leave_unfetched {
            return Ok(());
        }
        if self.unfetched > 0 {
            bail!(
                "{} announcements are not fetched: run the fetcher until `mailtide lag` shows none, then stop it; or, where \
                 none is run, --leave-unfetched",
                self.unfetched
            );
        }
        if !self.behind.is_empty() {
            let named: Vec<&str> = self.behind.iter().take(NAMED).map(String::as_str).collect();
            bail!(
                "{} mailboxes are behind with fetching, such as {}: run the fetcher until they are not, which for one that \
                 needs a consent means to have it or to delete the connection; or --leave-unfetched, and replay theirs \
                 afterwards",
                self.behind.len(),
                named.join(", ")
            );
        }
        Ok(())
    }

    /// Writes that everything is fetched up to where it ends now, for the new partition count, all at once.
    pub(super) async fn carry_out(&self, growth: &Growth<'_>, writer: SoleWriter) -> anyhow::Result<SoleWriter> {
        if self.ends.is_empty() {
            return Ok(writer);
        }
        let topic: &Arc<str> = growth.name(Topic::FetchState);
        let record = |partition: i32, key: Bytes, value: Option<Bytes>| OutRecord {
            topic: topic.clone(),
            partition: Some(partition),
            key: Some(key),
            value,
            headers: Headers::new(),
        };
        let positions = self.ends.iter().map(|(at, end)| {
            let position = FetchPosition { partitions: growth.to, position: *end };
            record(at.partition, Bytes::from_static(FetchPosition::KEY.as_bytes()), Some(events::encode(&position)))
        });
        let gone = self.keys.iter().map(|(partition, key)| record(*partition, key.clone(), None));
        let records: Vec<OutRecord> = positions.chain(gone).collect();
        let (group, ends) = (IdleGroup::new(growth.kafka, &growth.group("fetcher"))?, self.ends.clone());
        let (writer, ()) = blocking(writer, move |writer| writer.commit_moving(&records, &group, &ends)).await?;
        Ok(writer)
    }
}

/// When the oldest of the announcements from these offsets on was written, less a little.
async fn since(growth: &Growth<'_>, from: BTreeMap<i32, i64>) -> anyhow::Result<Option<Timestamp>> {
    let (kafka, topic) = (growth.kafka.clone(), growth.name(Topic::Discovered).clone());
    let read = move || -> anyhow::Result<Option<Timestamp>> {
        let mut oldest: Option<Timestamp> = None;
        for (partition, from) in from {
            let mut reading = Spans::open(&kafka, "grow", &topic, BTreeMap::from([(partition, from..i64::MAX)]))?;
            loop {
                match reading.step()? {
                    Step::Record(record) => {
                        let at = record.timestamp.map_or(Timestamp::default(), Timestamp::from_millis) - BEFORE;
                        oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
                        break;
                    }
                    Step::Waiting => {}
                    Step::End => break,
                }
            }
        }
        Ok(oldest)
    };
    tokio::task::spawn_blocking(read).await?
}
