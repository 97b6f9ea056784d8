//! Going through the records that a replay covers, to send or to count them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use domain::{Origin, Timestamp};
use indicatif::ProgressBar;
use kafka::snapshot::{Spans, Step};
use kafka::topics::Topics;
use kafka::{OutRecord, OwnedRecord, SharedHeaders, SoleWriter};
use runtime::Shutdown;
use serde::Serialize;

use super::plan::{Counts, Plan, Progress};
use crate::cli::repair::From;
use crate::command::journal;

/// Records that do not decode, named at most; all are counted.
const NAMED: usize = 20;

/// With so many records read and nothing to send, how far it is is written all the same.
const READ_AHEAD: usize = 200_000;

/// What was sent waits no longer than this for company.
const LINGER: Duration = Duration::from_secs(1);

/// A record that does not decode.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Unreadable {
    partition: i32,
    offset: i64,
    reason: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {} offset {}: {}", self.partition, self.offset, self.reason)
    }
}

/// What tells which records a replay sends, and as what.
pub(super) struct Sieve {
    kind: From,
    key: Option<String>,
    since: Timestamp,
    until: Timestamp,
    target: Arc<str>,
    shared: SharedHeaders,
    buffer: BytesMut,
    pub(super) unreadable: Vec<Unreadable>,
}

impl Sieve {
    pub(super) fn new(kind: From, plan: &Plan, id: &str, now: Timestamp) -> Self {
        Self {
            kind,
            key: plan.connection.map(|id| id.to_string()),
            since: plan.since,
            until: plan.until,
            target: plan.target.as_str().into(),
            shared: kind.headers(id, now),
            buffer: BytesMut::new(),
            unreadable: Vec::new(),
        }
    }

    /// The record to send for the one that was read, if there is one; either way it is counted.
    fn pass(&mut self, record: &OwnedRecord, counts: &mut Counts) -> Option<OutRecord> {
        let is_wanted = self.key.as_ref().is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()));
        if !is_wanted {
            counts.others += 1;
            return None;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(64 << 10);
        }
        let marked = match self.kind.mark(record.value.as_deref().unwrap_or_default(), &self.shared, &mut self.buffer) {
            Ok(marked) => marked,
            Err(error) => {
                counts.unreadable += 1;
                if self.unreadable.len() < NAMED {
                    let (partition, offset) = (record.partition, record.offset);
                    self.unreadable.push(Unreadable { partition, offset, reason: error.to_string() });
                }
                return None;
            }
        };
        if marked.at < self.since || marked.at >= self.until {
            counts.others += 1;
            return None;
        }
        if marked.origin == Origin::Replay {
            counts.replays += 1;
            return None;
        }
        counts.sent += 1;
        counts.bytes += (record.key.as_ref().map_or(0, bytes::Bytes::len) + marked.frame.len()) as u64;
        // The key decides on the partition: where the target has as many as the source, it is the same.
        let (key, headers) = (record.key.clone(), marked.headers);
        Some(OutRecord { topic: self.target.clone(), partition: None, key, value: Some(marked.frame), headers })
    }
}

/// How many there are.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) partitions: BTreeMap<i32, Counts>,
    /// Events and bytes by key.
    pub(super) connections: BTreeMap<String, (u64, u64)>,
}

/// Counts what is still to be sent. None when it was stopped.
pub(super) fn count(
    settings: &kafka::Settings,
    spans: BTreeMap<i32, Range<i64>>,
    source: &Arc<str>,
    sieve: &mut Sieve,
    bar: &ProgressBar,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Census>> {
    let mut census = Census::default();
    let mut reading = Spans::open(settings, "replay", source, spans)?;
    while !shutdown.is_requested() {
        match reading.step()? {
            Step::Record(record) => {
                let counts = census.partitions.entry(record.partition).or_default();
                if let Some(out) = sieve.pass(&record, counts) {
                    let key = out.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                    let (events, bytes) = census.connections.entry(key).or_default();
                    *events += 1;
                    *bytes += (out.key.map_or(0, |key| key.len()) + out.value.map_or(0, |value| value.len())) as u64;
                }
                bar.inc(1);
            }
            Step::Waiting => {}
            Step::End => return Ok(Some(census)),
        }
    }
    Ok(None)
}

/// A replay being sent.
pub(super) struct Sending<'a> {
    pub(super) settings: &'a kafka::Settings,
    pub(super) names: &'a Topics,
    pub(super) id: &'a str,
    pub(super) plan: &'a mut Plan,
    pub(super) progress: BTreeMap<i32, Progress>,
    pub(super) writer: SoleWriter,
    pub(super) sieve: &'a mut Sieve,
    pub(super) bar: &'a ProgressBar,
    /// When a plan is finished.
    pub(super) now: fn() -> Timestamp,
}

/// What waits to be committed.
#[derive(Default)]
struct Batch {
    outputs: Vec<OutRecord>,
    bytes: u64,
    /// Records read since the last commit.
    read: usize,
    /// Partitions that moved on.
    moved: BTreeMap<i32, ()>,
    since: Option<Instant>,
}

impl Sending<'_> {
    /// Sends until everything is sent (true) or the order to stop (false). Each transaction carries events and how far
    /// the source was read for them.
    pub(super) fn run(&mut self, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let spans = self.plan.spans.iter().map(|(partition, span)| {
            let next = self.progress.get(partition).map_or(span.start, |progress| progress.next);
            (*partition, next..span.end)
        });
        let source: Arc<str> = self.plan.source.as_str().into();
        let mut reading = Spans::open(self.settings, "replay", &source, spans.collect())?;
        let mut batch = Batch::default();
        let is_whole = loop {
            if shutdown.is_requested() {
                break false;
            }
            match reading.step()? {
                Step::Record(record) => self.take(&record, &mut batch),
                Step::Waiting => {}
                Step::End => break true,
            }
            if self.is_due(&batch) {
                self.commit(&mut batch)?;
            }
        };
        if is_whole {
            // What follows the last record of a span is the mark that ends its transaction: the span is read.
            for (partition, span) in &self.plan.spans {
                if let Some(progress) = self.progress.get_mut(partition) {
                    progress.next = span.end;
                    batch.moved.insert(*partition, ());
                }
            }
            self.plan.finished_at = Some((self.now)());
            batch.outputs.push(journal::entry(self.names, Plan::key(self.id), self.plan));
        }
        self.commit(&mut batch)?;
        Ok(is_whole)
    }

    fn take(&mut self, record: &OwnedRecord, batch: &mut Batch) {
        let Some(progress) = self.progress.get_mut(&record.partition) else { return };
        if let Some(out) = self.sieve.pass(record, &mut progress.counts) {
            batch.bytes += out.value.as_ref().map_or(0, |value| value.len() as u64) + 512;
            batch.outputs.push(out);
        }
        progress.next = record.offset + 1;
        batch.read += 1;
        batch.moved.insert(record.partition, ());
        batch.since.get_or_insert_with(Instant::now);
    }

    fn is_due(&self, batch: &Batch) -> bool {
        let lane = &self.settings.lane;
        batch.outputs.len() >= lane.transaction_records
            || batch.bytes >= lane.transaction_bytes
            || batch.read >= READ_AHEAD
            || batch.since.is_some_and(|since| since.elapsed() >= LINGER)
    }

    fn commit(&mut self, batch: &mut Batch) -> anyhow::Result<()> {
        let Batch { mut outputs, read, moved, .. } = std::mem::take(batch);
        let stands = moved.keys().filter_map(|partition| Some((*partition, self.progress.get(partition)?)));
        outputs.extend(
            stands.map(|(partition, progress)| {
                journal::entry(self.names, Plan::progress_key(self.id, partition), progress)
            }),
        );
        if !outputs.is_empty() {
            self.writer.commit(&outputs)?;
        }
        self.bar.inc(read as u64);
        Ok(())
    }

    /// What was done so far, all partitions together.
    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.progress.values().for_each(|progress| sum += progress.counts);
        sum
    }
}
