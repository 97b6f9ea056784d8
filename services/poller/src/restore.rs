//! Rebuilding a partition's mailboxes from the state topic: bytes into a map, decoded only when a mailbox wakes.

use bytes::Bytes;
use domain::ConnectionId;
use hashbrown::{HashMap, HashSet};
use kafka::InputRecord;
use kafka::lane::{Refused, Restore, Restored};

use crate::key::StateKey;
use crate::publish::{ABSORBED, ACTIVE, PARTITIONS};
use crate::slot::Stored;

/// The mailboxes of one partition, as they were committed.
#[derive(Debug, Default)]
pub struct Part {
    pub(crate) mailboxes: HashMap<ConnectionId, Stored, foldhash::fast::RandomState>,
    /// Those with work under way, to be woken at once.
    pub(crate) active: HashSet<ConnectionId, foldhash::fast::RandomState>,
}

/// Reads a state partition.
#[derive(Debug)]
pub struct Rebuild {
    partitions: i32,
    part: Part,
    absorbed: Option<i64>,
    refused: Option<Refused>,
}

impl Rebuild {
    /// For a topic with so many partitions.
    pub(crate) fn new(partitions: i32) -> Self {
        Self { partitions, part: Part::default(), absorbed: None, refused: None }
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
                if let Some(stamp) = number::<i32>(record, PARTITIONS).filter(|stamp| *stamp != self.partitions) {
                    self.refused.get_or_insert_with(|| {
                        Refused(format!(
                            "The state in {}, partition {}, was written for {stamp} partitions, but the topic has {}: \
                             mailboxes would be looked for in the wrong partitions; restore the topics' former \
                             partition count, or move the state to the new one before starting",
                            record.topic, record.partition, self.partitions
                        ))
                    });
                }
                self.absorbed = self.absorbed.max(number(record, ABSORBED));
                if record.headers.get(ACTIVE).is_some() {
                    self.part.active.insert(id);
                } else {
                    self.part.active.remove(&id);
                }
                match value {
                    Some(frame) => self.part.mailboxes.entry(id).or_default().state = Some(frame),
                    None => {
                        self.part.active.remove(&id);
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
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        // Chunks of a mailbox that was forgotten are tombstoned with it, but compaction may have kept a few longer.
        self.part.mailboxes.retain(|_, stored| stored.state.is_some());
        Ok(Restored { part: self.part, absorbed: self.absorbed })
    }
}
