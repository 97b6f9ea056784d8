//! The spans of outputs on their way into a transaction, where traces are told.
//!
//! One transaction carries the outputs of many mailboxes. So each trace has a span of its own for it, from the first output
//! to the commit, which is the parent of what others do with the records; and one span, of no trace but its own, is the
//! transaction itself and points at all of them.

use std::time::SystemTime;

use runtime::trace::{Kind, Link, Parent, Span, is_on};

use crate::lane::app::Assignment;
use crate::trace::{operation, with};

/// The most traces that one transaction is told of. The records of others name what led to them.
const MOST: usize = 128;

/// One trace's part in the transaction to come.
#[derive(Debug)]
struct Sending {
    assignment: Assignment,
    parent: Box<str>,
    span: Span,
    traceparent: String,
    is_committed: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_committed {
            self.span.fail("not_committed");
        }
    }
}

/// Every trace's part in the transaction to come.
#[derive(Debug, Default)]
pub(crate) struct Sendings(Vec<Sending>);

impl Sendings {
    /// The `traceparent` for outputs that `parent` led to; none where that is not recorded.
    pub(super) fn of(&mut self, assignment: Assignment, parent: &str) -> Option<String> {
        if !is_on() {
            return None;
        }
        let same = |known: &&Sending| known.assignment == assignment && *known.parent == *parent;
        // The last ones are the likeliest.
        if let Some(known) = self.0.iter().rev().find(same) {
            return Some(known.traceparent.clone());
        }
        if self.0.len() >= MOST {
            return Some(parent.to_owned());
        }
        let span = with(Kind::Producer, "transaction", Parent::Remote(Some(parent)), None, Vec::new());
        if !span.is_recording() {
            return None;
        }
        operation(&span, "send", "send");
        span.set("messaging.destination.partition.id", assignment.partition.to_string());
        let traceparent = span.traceparent()?;
        let parent = parent.into();
        self.0.push(Sending { assignment, parent, span, traceparent: traceparent.clone(), is_committed: false });
        Some(traceparent)
    }

    /// Ends those of partitions that `keep` denies.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Assignment) -> bool) {
        self.0.retain(|sending| keep(sending.assignment));
    }

    /// Takes over all of another.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// The transaction of a lane that reads `input` is committed, with so many records, having begun `at`.
    pub(crate) fn committed(&mut self, input: &str, records: usize, at: SystemTime) {
        if self.0.is_empty() {
            return;
        }
        let links: Vec<Link> = self.0.iter().filter_map(|sending| sending.span.link()).collect();
        let whole = with(Kind::Client, format!("commit {input}"), Parent::Root, Some(at), links);
        operation(&whole, "commit", "settle");
        whole.set("messaging.destination.name", input.to_owned());
        whole.set_with("messaging.batch.message_count", || i64::try_from(records).unwrap_or(i64::MAX));
        for mut sending in self.0.drain(..) {
            sending.span.add_link(whole.link());
            sending.is_committed = true;
        }
    }

    /// The transaction was aborted; what it was to carry is published again.
    pub(crate) fn aborted(&self) {
        self.0.iter().for_each(|sending| sending.span.event("aborted"));
    }
}
