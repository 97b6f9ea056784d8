//! `history.list`: pages of records after a start.

use std::ops::Range;

use super::{Index, Mailbox};
use crate::label::{Label, LabelSet};
use crate::seed::mix;

/// Changes looked at for one page at most: a walk with a filter that few records pass gets pages without
/// `history` but with a token, as Gmail gives them.
const SCAN: usize = 5_000;

/// One thing that happened to one message. Changes with the same record id are one record.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The record's id.
    pub(crate) record: u64,
    /// When it happened, ms since the epoch.
    pub(crate) at_ms: i64,
    /// Whom it happened to.
    pub(crate) message: Index,
    /// The labels added or removed.
    pub(crate) labels: LabelSet,
    /// The message's labels after the record.
    pub(crate) after: LabelSet,
    /// What happened.
    pub(crate) kind: Kind,
}

/// What can happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `messagesAdded`.
    Added,
    /// `messagesDeleted`.
    Deleted,
    /// `labelsAdded`.
    LabelsAdded,
    /// `labelsRemoved`.
    LabelsRemoved,
}

impl Kind {
    /// The kinds in the order of a record's members.
    pub(crate) const ALL: [Self; 4] = [Self::Added, Self::Deleted, Self::LabelsAdded, Self::LabelsRemoved];

    /// Its bit in [`Walk::kinds`].
    pub(crate) const fn bit(self) -> u8 {
        match self {
            Self::Added => 1,
            Self::Deleted => 2,
            Self::LabelsAdded => 4,
            Self::LabelsRemoved => 8,
        }
    }

    /// The kind that the parameter `historyTypes` names.
    pub(crate) fn from_parameter(text: &str) -> Option<Self> {
        match text {
            "messageAdded" => Some(Self::Added),
            "messageDeleted" => Some(Self::Deleted),
            "labelAdded" => Some(Self::LabelsAdded),
            "labelRemoved" => Some(Self::LabelsRemoved),
            _ => None,
        }
    }
}

/// The parameters of a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    /// Records after this one.
    pub(crate) start: u64,
    /// Bits of the kinds wanted.
    pub(crate) kinds: u8,
    /// Only messages with this label.
    pub(crate) label: Option<Label>,
    /// Keep records of which the wanted kinds leave nothing but the messages that they touched.
    pub(crate) bare: bool,
    /// Records a page at most.
    pub(crate) max: usize,
    /// The page's position: records after this one. The start, for the first page.
    pub(crate) after: Option<u64>,
    /// How Gmail's reads lag.
    pub(crate) view: View,
}

/// How much of the history can be read at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// The time of reading, ms since the epoch.
    pub(crate) now_ms: i64,
    /// Records become readable after a time between 0 and this, each its own: so out of order.
    pub(crate) lag_ms: i64,
    /// Records older than this cannot be read; `None` keeps all.
    pub(crate) retention_ms: Option<i64>,
    /// What an id ahead of the head answers.
    pub(crate) ahead: Ahead,
}

/// What a `startHistoryId` ahead of the head answers; Gmail does not document it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ahead {
    /// 200 with nothing but the head.
    #[default]
    Empty,
    /// 404, as when expired.
    NotFound,
}

/// `startHistoryId` is older than what is kept, or otherwise no place to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired;

/// One page: the records as ranges of changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Each record's changes.
    pub(crate) records: Vec<Range<usize>>,
    /// The next page's position.
    pub(crate) next: Option<u64>,
    /// The mailbox's head now.
    pub(crate) head: u64,
}

impl View {
    fn shows(&self, change: &Change) -> bool {
        if self.lag_ms <= 0 {
            return true;
        }
        let span = u64::try_from(self.lag_ms).unwrap_or(0) + 1;
        let own = i64::try_from(mix(change.record) % span).unwrap_or(self.lag_ms);
        change.at_ms.saturating_add(own) <= self.now_ms
    }
}

impl Mailbox {
    /// One page of `history.list`.
    pub(crate) fn history(&self, walk: &Walk) -> Result<Page, Expired> {
        if walk.start < self.floor || (walk.start > self.head && walk.view.ahead == Ahead::NotFound) {
            return Err(Expired);
        }
        let first = self.changes.partition_point(|change| change.record <= walk.start);
        if let (Some(oldest), Some(retention)) = (self.changes.get(first), walk.view.retention_ms)
            && oldest.at_ms < walk.view.now_ms.saturating_sub(retention)
        {
            return Err(Expired);
        }
        let from = match walk.after {
            Some(after) => self.changes.partition_point(|change| change.record <= after.max(walk.start)),
            None => first,
        };
        let mut page = Page { records: Vec::with_capacity(walk.max.min(SCAN)), next: None, head: self.head };
        let mut changes = self.changes.iter_from(from).peekable();
        let mut at = from;
        let mut last = None;
        while changes.peek().is_some() {
            if page.records.len() >= walk.max || at - from >= SCAN {
                page.next = last;
                break;
            }
            let Some(change) = changes.next() else { break };
            let start = at;
            let mut touched = self.touched(walk, change);
            at += 1;
            while let Some(other) = changes.next_if(|other| other.record == change.record) {
                touched |= self.touched(walk, other);
                at += 1;
            }
            last = Some(change.record);
            if touched && walk.view.shows(change) {
                page.records.push(start..at);
            }
        }
        Ok(page)
    }

    /// The changes of a record that the walk wants.
    pub(crate) fn wanted_changes(&self, walk: &Walk, record: Range<usize>) -> impl Iterator<Item = &Change> {
        record
            .map(|at| &self.changes[at])
            .filter(move |change| walk.kinds & change.kind.bit() != 0 && self.touched(walk, change))
    }

    /// The changes whose messages a record names in `messages`.
    pub(crate) fn touched_changes(&self, walk: &Walk, record: Range<usize>) -> impl Iterator<Item = &Change> {
        record.map(|at| &self.changes[at]).filter(move |change| self.touched(walk, change))
    }

    /// One change of those that a page's records name.
    pub(crate) fn change(&self, at: usize) -> &Change {
        &self.changes[at]
    }

    fn touched(&self, walk: &Walk, change: &Change) -> bool {
        (walk.bare || walk.kinds & change.kind.bit() != 0)
            && walk.label.is_none_or(|label| {
                self.labels.contains(change.after, label) || self.labels.contains(change.labels, label)
            })
    }
}
