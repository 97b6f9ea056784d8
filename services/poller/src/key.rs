//! Keys of the state topic: a connection's id for its state, the id and a number for each chunk beside it.

use bytes::Bytes;
use domain::ConnectionId;

/// The length of a hyphenated UUID.
const UUID: usize = 36;

/// What a key of the state topic names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateKey {
    /// A mailbox's state.
    State(ConnectionId),
    /// One of its chunks.
    Chunk(ConnectionId, i64),
}

impl StateKey {
    /// Reads a key; none if it is nothing of ours.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (id, rest) = key.split_at_checked(UUID)?;
        let id = connection(id)?;
        match rest {
            [] => Some(Self::State(id)),
            [b'/', number @ ..] => std::str::from_utf8(number).ok()?.parse().ok().map(|number| Self::Chunk(id, number)),
            _ => None,
        }
    }
}

/// The connection that a record's key names.
pub(crate) fn connection(key: &[u8]) -> Option<ConnectionId> {
    let text = std::str::from_utf8(key).ok().filter(|text| text.len() == UUID)?;
    text.parse().ok()
}

/// The key of everything of a connection.
pub(crate) fn of(connection: ConnectionId) -> Bytes {
    connection.to_string().into()
}

/// The key of a chunk.
pub(crate) fn of_chunk(connection: ConnectionId, number: i64) -> Bytes {
    format!("{connection}/{number}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let id: ConnectionId = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b".parse().unwrap();
        assert_eq!(StateKey::parse(&of(id)), Some(StateKey::State(id)));
        assert_eq!(StateKey::parse(&of_chunk(id, 42)), Some(StateKey::Chunk(id, 42)));
    }

    #[test]
    fn what_is_no_key_of_ours_is_none() {
        for key in [
            "",
            "0a9f3b1c",
            "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b/",
            "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b/x",
            "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4bx",
            "zz9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b",
        ] {
            assert_eq!(StateKey::parse(key.as_bytes()), None, "{key}");
        }
        assert_eq!(StateKey::parse(&[0xff; 40]), None);
    }
}
