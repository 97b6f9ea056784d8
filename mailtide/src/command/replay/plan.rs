//! What a replay is: its name, what it covers, and how far it is. Both are kept in the journal.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Context as _;
use domain::{ConnectionId, Duration, Timestamp};
use kafka::reader::Inspector;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cli::Replay;
use crate::cli::repair::From;
use crate::command::journal::Journal;

/// A record is written after what it tells happened, but soon: within this, however clocks differ and brokers are slow.
const LATE: Duration = Duration::from_hours(1);

/// What a replay covers. Fixed when it is first begun: what comes later is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// The topic that is read.
    pub(super) source: String,
    /// The topic that is written.
    pub(super) target: String,
    /// The mailbox; none: all.
    pub(super) connection: Option<ConnectionId>,
    /// Events of this time and later.
    pub(super) since: Timestamp,
    /// Events before this time.
    pub(super) until: Timestamp,
    /// The offsets that hold them, by partition.
    pub(super) spans: BTreeMap<i32, Range<i64>>,
    /// Which time it is done, from 1.
    pub(super) run: u32,
    /// When this run was begun.
    pub(super) begun_at: Timestamp,
    /// When it had sent everything.
    pub(super) finished_at: Option<Timestamp>,
}

/// How far a replay is in one partition of its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    /// The run that this counts for.
    pub(super) run: u32,
    /// The next offset to read.
    pub(super) next: i64,
    /// What was done with those before it.
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// What becomes of the records of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    /// Events sent.
    pub(super) sent: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
    /// Records left out: another mailbox's, or of another time.
    pub(super) others: u64,
    /// Replays left out.
    pub(super) replays: u64,
    /// Records that do not decode.
    pub(super) unreadable: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.others += other.others;
        self.replays += other.replays;
        self.unreadable += other.unreadable;
    }
}

impl Plan {
    /// What the command covers if it is begun now.
    pub(super) async fn make(
        ask: &Replay,
        from: From,
        settings: &kafka::Settings,
        source: &str,
        target: &str,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let since = ask.since.resolve(now);
        let until = ask.until.map_or(now, |until| until.resolve(now));
        let inspector = Inspector::new(settings)?;
        // A record's own time is when it was written, which is not when what it tells happened, so the span is a little
        // longer on both sides; each event then says for itself whether it is meant.
        let starts = inspector.offsets_at(source, (since - LATE).as_millis()).await?;
        let ends = inspector.offsets_at(source, (until + LATE).as_millis()).await?;
        let count = i32::try_from(starts.len()).context("counting the partitions")?;
        let home = ask.connection.map(|id| kafka::partition_of(id.to_string().as_bytes(), count));
        let spans = (0..).zip(starts).zip(ends).map(|((partition, start), end)| (partition, start..end));
        let spans = spans.filter(|(partition, span)| home.is_none_or(|home| home == *partition) && !span.is_empty());
        Ok(Self {
            source: source.to_owned(),
            target: target.to_owned(),
            connection: ask.connection,
            since,
            until,
            spans: spans.collect(),
            run: 1,
            begun_at: now,
            finished_at: None,
        })
        .inspect(|plan| tracing::debug!(?from, ?plan, "Replay planned"))
    }

    /// The replay's name: the same for the same command, whenever it is given.
    pub(super) fn id(ask: &Replay, source: &str, target: &str) -> String {
        let whose = ask.connection.map_or_else(|| "all".to_owned(), |id| id.to_string());
        let until = ask.until.map_or_else(|| "begin".to_owned(), |until| until.to_string());
        let name = format!("urn:mailtide:replay\n{source}\n{target}\n{whose}\n{}\n{until}", ask.since);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
    }

    /// Its key in the journal.
    pub(super) fn key(id: &str) -> String {
        format!("replay/{id}")
    }

    /// The key of one partition's progress.
    pub(super) fn progress_key(id: &str, partition: i32) -> String {
        format!("replay/{id}/{partition}")
    }

    /// How far it is, by partition.
    pub(super) fn progress(&self, id: &str, journal: &Journal) -> BTreeMap<i32, Progress> {
        let stands = |(partition, span): (&i32, &Range<i64>)| {
            let known: Option<Progress> = journal.get(&Self::progress_key(id, *partition));
            let begin = Progress { run: self.run, next: span.start, counts: Counts::default() };
            (*partition, known.filter(|known| known.run == self.run).unwrap_or(begin))
        };
        self.spans.iter().map(stands).collect()
    }
}
