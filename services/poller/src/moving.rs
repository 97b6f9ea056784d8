//! Records of the state topic for whoever moves mailboxes while no poller runs.

use std::sync::Arc;

use bytes::Bytes;
use domain::ConnectionId;
use domain::mailbox::record::MailboxState;
use kafka::{Headers, OutRecord, OwnedRecord};

use crate::key::{self, StateKey};
use crate::publish::{ABSORBED, DECAYS, PARTITIONS, Stamps};

/// The partition count that a record names which keeps pollers from its partition: no topic has as few.
pub(crate) const BAR: i32 = 0;

/// The mailbox that a key of the state topic belongs to: as its state, or as a chunk beside it. None if the key is nothing
/// of ours.
pub fn owner(key: &[u8]) -> Option<ConnectionId> {
    match StateKey::parse(key)? {
        StateKey::State(id) | StateKey::Chunk(id, _) => Some(id),
    }
}

/// Whether the key is that of a mailbox's state, not of a chunk beside it.
pub fn is_state(key: &[u8]) -> bool {
    matches!(StateKey::parse(key), Some(StateKey::State(_)))
}

/// The partition that a mailbox belongs to, of so many.
pub fn home(mailbox: ConnectionId, partitions: i32) -> i32 {
    kafka::partition_of(&key::of(mailbox), partitions)
}

/// The partition count for which a state was written; none for a chunk.
pub fn stamp(record: &OwnedRecord) -> Option<i32> {
    number(record, PARTITIONS)
}

/// The offset after the last command that a state has taken in; none for a chunk.
pub fn absorbed(record: &OwnedRecord) -> Option<i64> {
    number(record, ABSORBED)
}

/// Whether a record is the state of a mailbox whose connection is forgotten: of no use to anybody but to know commands
/// again that come late.
pub fn is_grave(record: &OwnedRecord) -> bool {
    record.headers.get(DECAYS).is_some()
}

/// A record of the state topic as it is to be in `partition` of `partitions`, whose commands before `absorbed` are all
/// taken in. A state that does not decode keeps its bytes: it is told of when its mailbox wakes.
pub fn moved(record: &OwnedRecord, partition: i32, partitions: i32, absorbed: i64) -> OutRecord {
    let is_state = record.key.as_deref().is_some_and(is_state);
    let out = OutRecord {
        topic: record.topic.clone(),
        partition: Some(partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    };
    if !is_state {
        return out;
    }
    let value = record.value.as_ref().map(|value| match events::decode::<MailboxState>(value) {
        Ok(state) => events::encode(&MailboxState { partitions, absorbed, ..state }),
        Err(_) => value.clone(),
    });
    let mut headers = Headers::new();
    headers.push(PARTITIONS, partitions.to_string());
    headers.push(ABSORBED, absorbed.to_string());
    for (name, value) in record.headers.iter().filter(|(name, _)| ![PARTITIONS, ABSORBED].contains(name)) {
        headers.push_nullable(name.to_owned(), value.cloned());
    }
    OutRecord { value, headers, ..out }
}

/// A mailbox's state, where it belongs; `is_active`: whether it is to be woken as soon as it is restored.
pub fn state(topic: &Arc<str>, state: &MailboxState, is_active: bool) -> OutRecord {
    let &MailboxState { connection_id: id, partitions, absorbed, decays_at, .. } = state;
    let headers = Stamps { partitions, absorbed, is_active, decays_at }.headers();
    OutRecord::new(topic, key::of(id), events::encode(state), headers).to_partition(home(id, partitions))
}

/// A record under the id of nobody that keeps pollers from the partition that it is in, until it is tombstoned.
pub fn bar(topic: &Arc<str>, nobody: ConnectionId) -> OutRecord {
    let mut headers = Headers::new();
    headers.push(PARTITIONS, BAR.to_string());
    OutRecord::new(topic, key::of(nobody), Bytes::new(), headers)
}

/// Whether a record is a [`bar`].
pub fn is_bar(record: &OwnedRecord) -> bool {
    stamp(record) == Some(BAR)
}

fn number<T: std::str::FromStr>(record: &OwnedRecord, name: &str) -> Option<T> {
    let value: &Bytes = record.headers.get(name)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use domain::OrganisationId;
    use domain::mailbox::Mailbox;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_state_is_stamped_anew_and_keeps_everything_else() {
        let id = ConnectionId::from_uuid(Uuid::from_u128(7));
        let state = Mailbox::new(id, OrganisationId::from_uuid(Uuid::from_u128(1))).state(4, 99);
        let mut headers = Headers::new();
        headers.push(PARTITIONS, "4");
        headers.push(ABSORBED, "99");
        headers.push(DECAYS, "123");
        let record = |key: Bytes, value: Bytes, headers| OwnedRecord {
            topic: "state".into(),
            partition: 1,
            offset: 5,
            timestamp: None,
            key: Some(key),
            value: Some(value),
            headers,
        };
        let stored = record(key::of(id), events::encode(&state), headers.clone());
        assert_eq!((stamp(&stored), absorbed(&stored)), (Some(4), Some(99)));
        let out = moved(&stored, 6, 7, 12);
        assert_eq!((out.partition, out.key.clone()), (Some(6), Some(key::of(id))));
        let written: MailboxState = events::decode(out.value.as_ref().unwrap()).unwrap();
        assert_eq!(written, MailboxState { partitions: 7, absorbed: 12, ..state });
        let again = record(key::of(id), out.value.unwrap(), out.headers);
        assert_eq!((stamp(&again), absorbed(&again), again.headers.len()), (Some(7), Some(12), 3));
        assert!(is_grave(&again));

        let torn = moved(&record(key::of(id), Bytes::from_static(b"?"), headers), 6, 7, 12);
        assert_eq!(torn.value.as_deref(), Some(b"?" as &[u8]));
        let chunk = record(key::of_chunk(id, 3), Bytes::from_static(b"chunk"), Headers::new());
        assert_eq!(owner(chunk.key.as_ref().unwrap()), Some(id));
        let out = moved(&chunk, 6, 7, 12);
        assert_eq!((out.value.as_deref(), out.headers.len()), (Some(b"chunk" as &[u8]), 0));
    }
}
