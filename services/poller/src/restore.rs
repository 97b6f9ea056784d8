//! Rebuilding a partition's mailboxes from the state topic: bytes into a map, decoded only when a mailbox wakes.

use bytes::Bytes;
use domain::{ConnectionId, Timestamp};
use hashbrown::{HashMap, HashSet};
use kafka::InputRecord;
use kafka::lane::{Refused, Restore, Restored};

use crate::key::StateKey;
use crate::moving::BAR;
use crate::publish::{ABSORBED, ACTIVE, DECAYS, PARTITIONS};
use crate::slot::Stored;

/// The mailboxes of one partition, as they were committed.
#[derive(Debug, Default)]
pub struct Part {
    pub(crate) mailboxes: HashMap<ConnectionId, Stored, foldhash::fast::RandomState>,
    /// Those with work under way, to be woken at once.
    pub(crate) active: HashSet<ConnectionId, foldhash::fast::RandomState>,
    /// Those whose connection is forgotten, and when what is left of them may go.
    pub(crate) graves: HashMap<ConnectionId, Timestamp, foldhash::fast::RandomState>,
}

/// Reads a state partition.
#[derive(Debug)]
pub struct Rebuild {
    partitions: i32,
    part: Part,
    absorbed: Option<i64>,
    /// Mailboxes whose state, as it stands, was written for another partition count, and for which.
    foreign: HashMap<ConnectionId, i32, foldhash::fast::RandomState>,
    /// Where such a state was seen.
    place: Option<String>,
}

impl Rebuild {
    /// For a topic with so many partitions.
    pub(crate) fn new(partitions: i32) -> Self {
        Self { partitions, part: Part::default(), absorbed: None, foreign: HashMap::default(), place: None }
    }
}

/// A header's value as a number.
fn number<T: std::str::FromStr>(record: &InputRecord<'_>, name: &str) -> Option<T> {
    record.headers.text(name).and_then(|text| text.parse().ok())
}

impl Restore for Rebuild {
    type Part = Part;

    fn record(&mut self, record: &InputRecord<'_>) {
        let Some(key) = record.key.and_then(StateKey::parse) else { return };
        let value = record.value.map(Bytes::copy_from_slice);
        match key {
            StateKey::State(id) => {
                // What was written anew since counts no more.
                match number::<i32>(record, PARTITIONS).filter(|stamp| *stamp != self.partitions) {
                    Some(stamp) => {
                        self.foreign.insert(id, stamp);
                        self.place.get_or_insert_with(|| format!("{}, partition {}", record.topic, record.partition));
                    }
                    None => drop(self.foreign.remove(&id)),
                }
                self.absorbed = self.absorbed.max(number(record, ABSORBED));
                if record.headers.get(ACTIVE).is_some() {
                    self.part.active.insert(id);
                } else {
                    self.part.active.remove(&id);
                }
                match number(record, DECAYS).map(Timestamp::from_millis) {
                    Some(decays_at) => drop(self.part.graves.insert(id, decays_at)),
                    None => drop(self.part.graves.remove(&id)),
                }
                match value {
                    Some(frame) => self.part.mailboxes.entry(id).or_default().state = Some(frame),
                    None => {
                        self.part.active.remove(&id);
                        self.part.graves.remove(&id);
                        if let Some(stored) = self.part.mailboxes.get_mut(&id) {
                            stored.state = None;
                        }
                    }
                }
            }
            StateKey::Chunk(id, number) => {
                let stored = self.part.mailboxes.entry(id).or_default();
                match value {
                    Some(frame) => stored.put_chunk(number, frame),
                    None => stored.drop_chunk(number),
                }
            }
        }
    }

    fn finish(mut self) -> Result<Restored<Part>, Refused> {
        if self.foreign.values().any(|stamp| *stamp == BAR) {
            let why = "The state was being made anew, and is not whole; run `mailtide state restore` to its end";
            return Err(Refused(why.to_owned()));
        }
        if let (Some(stamp), Some(place)) = (self.foreign.into_values().next(), self.place) {
            return Err(Refused(format!(
                "The state in {place}, was written for {stamp} partitions, but the topic has {}: \
                 mailboxes would be looked for in the wrong partitions; restore the topics' former partition count, or, if \
                 `mailtide topics grow` was interrupted, run it again",
                self.partitions
            )));
        }
        // Chunks of a mailbox that was forgotten are tombstoned with it, but compaction may have kept a few longer.
        self.part.mailboxes.retain(|_, stored| stored.state.is_some());
        Ok(Restored { part: self.part, absorbed: self.absorbed })
    }
}
