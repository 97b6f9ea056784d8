//! What an application has put out and no transaction has carried yet.

use std::sync::Arc;

use bytes::Bytes;

use crate::lane::app::Assignment;
use crate::lane::sendings::Sendings;
use crate::record::{Headers, OutRecord};

/// Collects the outputs of an application; the lane publishes them in one transaction with the input offsets of
/// every partition they belong to.
#[derive(Debug, Default)]
pub struct Outbox {
    records: Vec<(Assignment, OutRecord)>,
    bytes: usize,
    /// For those who follow a trace: what the records are parts of.
    sendings: Sendings,
}

impl Outbox {
    /// Adds an output of this partition. It is published only if the assignment is still the current one then.
    pub fn push(&mut self, assignment: Assignment, record: OutRecord) {
        self.bytes += record.size();
        self.records.push((assignment, record));
    }

    /// Says of which trace the records are that follow, by the `traceparent` of what led to them. What comes back is theirs
    /// to bear: it names the span of their way into a transaction and to its end. None where the trace is not recorded.
    pub fn trace(&mut self, assignment: Assignment, parent: Option<&str>) -> Option<String> {
        self.sendings.of(assignment, parent?)
    }

    /// Adds a tombstone for `key` of `topic`, in the partition given.
    pub fn tombstone(&mut self, assignment: Assignment, topic: &Arc<str>, partition: i32, key: impl Into<Bytes>) {
        self.push(
            assignment,
            OutRecord {
                topic: topic.clone(),
                partition: Some(partition),
                key: Some(key.into()),
                value: None,
                headers: Headers::new(),
            },
        );
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Their keys, values and headers, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All that waits, in the order it was put out.
    pub(crate) fn records(&self) -> &[(Assignment, OutRecord)] {
        &self.records
    }

    /// Drops what belongs to partitions that `keep` denies, and says how many records that were.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Assignment) -> bool) -> usize {
        self.sendings.retain(&mut keep);
        let before = self.records.len();
        let bytes = &mut self.bytes;
        self.records.retain(|(assignment, record)| {
            let kept = keep(*assignment);
            if !kept {
                *bytes -= record.size();
            }
            kept
        });
        before - self.records.len()
    }

    /// Takes over all that waits in another, behind what waits here. What is empty changes places, so that both keep
    /// their memory.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.records.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.records.append(&mut other.records);
            self.bytes += std::mem::take(&mut other.bytes);
            self.sendings.append(&mut other.sendings);
        }
    }

    /// What the records that wait are parts of.
    pub(crate) const fn sendings(&mut self) -> &mut Sendings {
        &mut self.sendings
    }

    /// Forgets all that waits, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}
