//! Rebuilding a partition's ledger from the state topic.

use bytes::Bytes;
use domain::{ConnectionId, FetchPosition, FetchState};
use hashbrown::HashMap;
use kafka::InputRecord;
use kafka::lane::{Refused, Restore, Restored};

/// The length of a hyphenated UUID.
const UUID: usize = 36;

/// What the keys of records begin with on the state topic where they are no connection's: theirs could be anything.
const OTHER: u8 = b'?';

/// The connection that a record's key names.
pub(crate) fn connection(key: &[u8]) -> Option<ConnectionId> {
    let text = std::str::from_utf8(key).ok().filter(|text| text.len() == UUID)?;
    text.parse().ok()
}

/// The key on the state topic for records under `key`.
pub(crate) fn state_key(key: &Bytes) -> Bytes {
    if connection(key).is_some() { key.clone() } else { [&[OTHER], key.as_ref()].concat().into() }
}

/// The key of the records whose key on the state topic this is.
fn record_key(state_key: &[u8]) -> Option<Bytes> {
    match state_key {
        [OTHER, key @ ..] => Some(Bytes::copy_from_slice(key)),
        key => connection(key).map(|_| Bytes::copy_from_slice(key)),
    }
}

/// How far one partition is, as it was committed.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) states: HashMap<Bytes, FetchState, foldhash::fast::RandomState>,
    /// The offset that was committed last; none: nothing ever was.
    pub(crate) position: Option<i64>,
}

/// Reads a state partition.
#[derive(Debug)]
pub(crate) struct Rebuild {
    partitions: i32,
    part: Part,
    refused: Option<Refused>,
    /// Set while the position, as it stands, was written for another partition count.
    foreign: Option<Refused>,
}

impl Rebuild {
    /// For a topic with so many partitions.
    pub(crate) fn new(partitions: i32) -> Self {
        Self { partitions, part: Part::default(), refused: None, foreign: None }
    }

    fn refuse(&mut self, reason: impl FnOnce() -> String) {
        self.refused.get_or_insert_with(|| Refused(reason()));
    }

    fn position(&mut self, record: &InputRecord<'_>) {
        let Some(value) = record.value else { return };
        match events::decode::<FetchPosition>(value) {
            Ok(FetchPosition { partitions, position }) => {
                // What was written anew since counts no more.
                self.foreign = (partitions != self.partitions).then(|| {
                    Refused(format!(
                        "The state in {}, partition {}, was written for {partitions} partitions, but the topic has {}: \
                         mailboxes would be looked for in the wrong partitions; restore the topics' former partition count, \
                         or, if `mailtide topics grow` was interrupted, run it again",
                        record.topic, record.partition, self.partitions
                    ))
                });
                self.part.position = Some(position);
            }
            Err(error) => self.refuse(|| undecodable(record, &error)),
        }
    }
}

/// To go on without it would mean to fetch again what is done, or to skip what is not.
fn undecodable(record: &InputRecord<'_>, error: &events::Error) -> String {
    format!(
        "The state in {}, partition {}, offset {} does not decode: {error}; a newer version of this program may have \
         written it",
        record.topic, record.partition, record.offset
    )
}

impl Restore for Rebuild {
    type Part = Part;

    fn record(&mut self, record: &InputRecord<'_>) {
        let Some(key) = record.key else { return };
        if key == FetchPosition::KEY.as_bytes() {
            return self.position(record);
        }
        let Some(key) = record_key(key) else { return };
        match record.value.map(events::decode::<FetchState>) {
            Some(Ok(state)) => {
                self.part.states.insert(key, state);
            }
            Some(Err(error)) => self.refuse(|| undecodable(record, &error)),
            None => {
                self.part.states.remove(&key);
            }
        }
    }

    fn finish(self) -> Result<Restored<Part>, Refused> {
        match self.refused.or(self.foreign) {
            Some(refused) => Err(refused),
            None => Ok(Restored { absorbed: self.part.position, part: self.part }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_own_on_the_state_topic() {
        let id = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b";
        for key in [id, "", "position", "?", "?position", "0a9f3b1c"] {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let on_state = state_key(&key);
            assert_ne!(on_state, FetchPosition::KEY.as_bytes());
            assert_eq!(record_key(&on_state), Some(key));
        }
        assert_eq!(state_key(&id.into()), id);
        assert_eq!(record_key(FetchPosition::KEY.as_bytes()), None);
    }
}
