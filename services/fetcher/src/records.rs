//! One partition's records: which of them a reading is for, what becomes of them, and what the state topic hears of it.

use std::time::Duration;

use bytes::Bytes;
use domain::FetchState;
use kafka::lane::{Assignment, Outbox};

use crate::ledger::{Mark, Write};
use crate::metric;
use crate::partition::Partition;
use crate::publish::{self, Names};
use crate::reading::{Due, Outcome, Step, Trouble, now};
use crate::readings::Sequel;
use crate::restore::{connection, state_key};
use crate::work::{Budget, Item, Phase, Work};

/// The records of a reading.
pub(crate) struct Chunk {
    pub(crate) due: Vec<Due>,
    /// The offset of the last of them.
    pub(crate) last: i64,
}

impl Partition {
    /// The records of a mailbox's next reading: of the first that it holds, those that have no outcome yet.
    pub(crate) fn first(&mut self, key: &[u8]) -> Option<Chunk> {
        let chunk = self.ledger.work(key)?.chunk;
        let last = self.ledger.held(key).take(chunk).last()?.record.offset;
        let due = self.ledger.held(key).take(chunk).filter(|item| !item.is_done()).map(Item::due).collect();
        Some(Chunk { due, last })
    }

    /// The records of the reading after one that ends with the offset `last`: as many as it takes at most, else they
    /// are better read together with those to come.
    pub(crate) fn following(&mut self, key: &[u8], last: i64) -> Option<Chunk> {
        let chunk = self.ledger.work(key)?.chunk;
        let rest = self.ledger.held(key).skip_while(|item| item.record.offset <= last);
        let due: Vec<Due> = rest.take(chunk).take_while(|item| !item.is_done()).map(Item::due).collect();
        let last = due.last()?.record.offset;
        (due.len() == chunk).then_some(Chunk { due, last })
    }

    /// The mailbox is being read, and its reading was given all up to this offset.
    pub(crate) fn given(&mut self, key: &[u8], last: i64, sequel: Option<Sequel>) {
        let given = self.ledger.held(key).take_while(|item| item.record.offset <= last).count();
        self.ledger.pin(key, given);
        if let Some(work) = self.ledger.work(key) {
            work.phase = Phase::Reading;
            work.sequel = sequel.map(|sequel| (sequel, last));
        }
    }

    /// A reading goes on with its sequel, and is given the one after that.
    pub(crate) fn go_on(&mut self, key: &[u8]) {
        let Some(work) = self.ledger.work(key) else { return };
        work.recovered();
        let Some((sequel, last)) = work.sequel.take() else { return };
        let last = match self.following(key, last) {
            Some(chunk) => {
                sequel.offer(chunk.due);
                chunk.last
            }
            None => last,
        };
        self.given(key, last, Some(sequel));
    }

    /// Notes what became of the records with these offsets.
    pub(crate) fn take_in(&mut self, key: &[u8], asked: Vec<i64>, steps: Vec<Step>, budget: &Budget) {
        let mut steps = asked.into_iter().zip(steps).peekable();
        for item in self.ledger.held_mut(key) {
            let offset = item.record.offset;
            // What was let go meanwhile is read again.
            while steps.next_if(|(asked, _)| *asked < offset).is_some() {}
            match steps.next_if(|(asked, _)| *asked == offset) {
                Some((_, Step::Done(outcome))) => item.keep(outcome, budget),
                Some((_, Step::Again(tries))) => item.tries = tries,
                None if steps.peek().is_none() => break,
                None => {}
            }
        }
    }

    /// Puts out what is at its end, in order; whether anything was.
    pub(crate) fn put_out(&mut self, assignment: Assignment, key: &Bytes, out: &mut Outbox) -> bool {
        let (mut has_moved, mut filtered) = (false, 0_u32);
        let at = now();
        while self.ledger.held(key).next().is_some_and(Item::is_done) {
            let Some(item) = self.ledger.done(key) else { break };
            let Some((announced, outcome)) = item.into_outcome() else { break };
            has_moved = true;
            let waited = announced.timestamp.and_then(|written| u64::try_from(at.as_millis() - written).ok());
            metric::ended(&outcome, waited.map(Duration::from_millis));
            match outcome {
                Outcome::Fetched(mut record) | Outcome::Gone(mut record) => {
                    if let Some(trace) = out.trace(assignment, kafka::trace::parent_of(&record.headers)) {
                        record.headers.replace(kafka::trace::TRACE_PARENT, trace);
                    }
                    out.push(assignment, record);
                }
                Outcome::Dead(record) => {
                    let (partition, offset) = (announced.partition, announced.offset);
                    tracing::warn!(partition, offset, "An announcement was put aside");
                    out.push(assignment, record);
                }
                Outcome::Filtered(_) => filtered += 1,
                Outcome::Deleted => {}
            }
        }
        if filtered > 0 {
            tracing::info!(connection = %String::from_utf8_lossy(key), filtered, "Messages were filtered");
        }
        has_moved
    }

    /// Tells of trouble that somebody should know of.
    pub(crate) fn say(&self, key: &[u8], trouble: &Trouble) {
        let connection = String::from_utf8_lossy(key);
        match trouble {
            Trouble::Revoked(_) => tracing::info!(%connection, "Fetching waits until somebody consents again"),
            Trouble::Refused(code, detail) => tracing::warn!(%connection, code, detail, "Gmail refuses a mailbox"),
            Trouble::Failing(detail) => tracing::debug!(%connection, detail, "Reading messages failed"),
            Trouble::Single | Trouble::Throttled(_) => {}
        }
    }

    /// What the state topic is to hear with the next transaction.
    pub(crate) fn settle(&mut self, names: &Names, writes: &mut Vec<Write>, out: &mut Outbox) {
        let position = self.ledger.commit_at(self.next);
        self.ledger.settle(self.next, writes);
        let (assignment, number) = (self.assignment, self.assignment.partition);
        if self.position != Some(position) || !writes.is_empty() {
            self.position = Some(position);
            out.push(assignment, publish::position(names, number, position));
        }
        for write in writes.drain(..) {
            match write {
                Write::Mark(key, Mark { from, is_behind }) => {
                    let (organisation_id, revoked_version) = match self.ledger.work(&key) {
                        Some(Work { organisation, phase: Phase::Parked(version), .. }) => {
                            (*organisation, Some(*version))
                        }
                        Some(Work { organisation, .. }) => (*organisation, None),
                        None => (None, None),
                    };
                    let connection_id = connection(&key);
                    let state = FetchState { connection_id, organisation_id, from, behind: is_behind, revoked_version };
                    out.push(assignment, publish::state(names, number, state_key(&key), &state));
                }
                Write::Tombstone(key) => out.tombstone(assignment, &names.state, number, state_key(&key)),
            }
        }
    }
}
