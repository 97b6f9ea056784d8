//! Rebuilding a partition's mailboxes from the state topic: bytes into a map, decoded only when a mailbox wakes.

use domain::{ConnectionId, Timestamp};
use hashbrown::{HashMap, HashSet};
use kafka::InputRecord;
use kafka::lane::{Refused, Restore, Restored};

use crate::key::StateKey;
use crate::moving::BAR;
use crate::publish::{ABSORBED, ACTIVE, DECAYS, PARTITIONS};
use crate::slot::{Slot, Slots, Stored};

/// The mailboxes of one partition, as they were committed.
#[derive(Debug, Default)]
pub struct Part {
    /// All asleep. The lane takes the map over as it is.
    pub(crate) mailboxes: Slots,
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

    /// What was read of a mailbox so far.
    fn stored(&mut self, id: ConnectionId) -> &mut Stored {
        match self.part.mailboxes.entry(id).or_insert_with(|| Slot::Asleep(Stored::default())) {
            Slot::Asleep(stored) => stored,
            Slot::Awake(_) | Slot::Buried(_) | Slot::Quarantined(_) => {
                unreachable!("nobody wakes a mailbox that is being restored")
            }
        }
    }
}

/// What the headers of a state say, gathered in one pass over them: there are millions of records.
#[derive(Default)]
struct Stamped {
    partitions: Option<i32>,
    absorbed: Option<i64>,
    is_active: bool,
    decays_at: Option<Timestamp>,
}

impl Stamped {
    fn of(record: &InputRecord<'_>) -> Self {
        fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
            std::str::from_utf8(value).ok()?.parse().ok()
        }
        let mut stamped = Self::default();
        for (name, value) in record.headers.iter() {
            let Some(value) = value else { continue };
            match name.as_ref() {
                PARTITIONS => stamped.partitions = number(value),
                ABSORBED => stamped.absorbed = number(value),
                ACTIVE => stamped.is_active = true,
                DECAYS => stamped.decays_at = number(value).map(Timestamp::from_millis),
                _ => {}
            }
        }
        stamped
    }
}

impl Restore for Rebuild {
    type Part = Part;

    fn record(&mut self, record: &InputRecord<'_>) {
        let Some(key) = record.key.and_then(StateKey::parse) else { return };
        match key {
            StateKey::State(id) => {
                let Stamped { partitions, absorbed, is_active, decays_at } = Stamped::of(record);
                // What was written anew since counts no more.
                match partitions.filter(|stamp| *stamp != self.partitions) {
                    Some(stamp) => {
                        self.foreign.insert(id, stamp);
                        self.place.get_or_insert_with(|| format!("{}, partition {}", record.topic, record.partition));
                    }
                    None => drop(self.foreign.remove(&id)),
                }
                self.absorbed = self.absorbed.max(absorbed);
                if is_active {
                    self.part.active.insert(id);
                } else {
                    self.part.active.remove(&id);
                }
                match decays_at {
                    Some(decays_at) => drop(self.part.graves.insert(id, decays_at)),
                    None => drop(self.part.graves.remove(&id)),
                }
                match record.value {
                    Some(frame) => self.stored(id).put_state(frame),
                    None => {
                        self.part.active.remove(&id);
                        self.part.graves.remove(&id);
                        if let Some(Slot::Asleep(stored)) = self.part.mailboxes.get_mut(&id) {
                            stored.drop_state();
                        }
                    }
                }
            }
            StateKey::Chunk(id, number) => {
                let stored = self.stored(id);
                match record.value {
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
        self.part.mailboxes.retain(|_, slot| matches!(slot, Slot::Asleep(stored) if stored.state().is_some()));
        self.part.active.retain(|id| self.part.mailboxes.contains_key(id));
        Ok(Restored { part: self.part, absorbed: self.absorbed })
    }
}
