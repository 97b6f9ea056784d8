//! Identifiers, each a type of its own, so that one is never taken for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id that these bytes spell.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id as a plain UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// The 16 bytes of the id, big-endian (RFC 9562 §4).
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// An organisation: the tenant that an API key speaks for.
    OrganisationId
}
uuid_id! {
    /// One connected mailbox of one organisation. Never used again once the connection is deleted.
    ConnectionId
}
uuid_id! {
    /// One job: a sync, a backfill, or a repair that the pipeline owes itself.
    JobId
}
uuid_id! {
    /// One message of one connection, however often it is announced: consumers deduplicate by it.
    EventId
}

/// The name space under which every name-based id of Mailtide is derived (a UUIDv5 of its own, RFC 9562 §5.5).
/// It is part of the contract: changing it would change every event id.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d61_696c_7469_5de0_8000_6576_656e_7473);

impl EventId {
    /// The id of every event that announces `message` of `connection`: UUIDv5 over the connection's 16 bytes
    /// followed by the message id as Gmail spells it.
    pub fn of(connection: ConnectionId, message: &MessageId) -> Self {
        let mut name = [0_u8; 16 + 48];
        name[..16].copy_from_slice(connection.as_bytes());
        match message.0 {
            Repr::Hex(value) => {
                let mut digits = [0_u8; 16];
                let text = hex(value, &mut digits);
                name[16..16 + text.len()].copy_from_slice(text.as_bytes());
                Self(Uuid::new_v5(&NAMESPACE, &name[..16 + text.len()]))
            }
            Repr::Other(ref text) => {
                Self(Uuid::new_v5(&NAMESPACE, &[connection.as_bytes() as &[u8], text.as_bytes()].concat()))
            }
        }
    }
}

impl JobId {
    /// The id that the pipeline gives a job of its own making: UUIDv5 over connection and `name`, so that two
    /// processes that decide the same thing make one job.
    pub fn derived(connection: ConnectionId, name: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, &[connection.as_bytes() as &[u8], b"/job/", name.as_bytes()].concat()))
    }
}

/// A Gmail message id: unique within one mailbox only, immutable (discovery document, `Message.id`).
///
/// In practice up to 16 lowercase hex digits, which are kept as a number; any other text is kept as it is, so that
/// no id is ever refused or changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Hex(u64),
    Other(Arc<str>),
}

impl MessageId {
    /// A number that stands for the id in the sets of remembered ids: the number it spells, or, for any other
    /// spelling, a UUIDv5 of it (whose version bits lie above every `u64`).
    pub fn key(&self) -> u128 {
        match self.0 {
            Repr::Hex(value) => u128::from(value),
            Repr::Other(ref text) => Uuid::new_v5(&NAMESPACE, text.as_bytes()).as_u128(),
        }
    }

    /// The id that Gmail spells `text`.
    pub fn new(text: &str) -> Self {
        match parse_hex(text) {
            Some(value) => Self(Repr::Hex(value)),
            None => Self(Repr::Other(text.into())),
        }
    }

    /// The id whose spelling is the lowercase hex of `value`, without leading zeros.
    pub const fn from_u64(value: u64) -> Self {
        Self(Repr::Hex(value))
    }

    /// The number that the id spells, when it is the canonical lowercase hex of one.
    pub const fn as_u64(&self) -> Option<u64> {
        match self.0 {
            Repr::Hex(value) => Some(value),
            Repr::Other(_) => None,
        }
    }

    /// Calls `f` with the id as Gmail spells it, without allocating.
    pub fn with_str<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        match self.0 {
            Repr::Hex(value) => f(hex(value, &mut [0; 16])),
            Repr::Other(ref text) => f(text),
        }
    }
}

/// Lowercase hex of `value` without leading zeros, written at the end of `digits`.
fn hex(mut value: u64, digits: &mut [u8; 16]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
        if value == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).expect("hex digits are ASCII")
}

/// The number that `text` spells, only if `hex` of it gives `text` back.
fn parse_hex(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let canonical = matches!(bytes, [b'0'] | [b'1'..=b'9' | b'a'..=b'f', ..]);
    if !canonical || bytes.len() > 16 {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.write_str(text))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.write_str(text))
    }
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_str(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = MessageId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Gmail message id")
            }

            fn visit_str<E>(self, text: &str) -> Result<MessageId, E> {
                Ok(MessageId::new(text))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// A Gmail thread id: spelled like a message id, and for a thread's first message equal to it.
pub type ThreadId = MessageId;

/// A mailbox's history id: `uint64`, rising with random gaps, comparable only within one mailbox. On the wire always
/// a decimal string, as Gmail itself writes it (it may exceed 2^53).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HistoryId(u64);

impl HistoryId {
    /// The history id with this number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The id as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HistoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HistoryId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for HistoryId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HistoryId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = HistoryId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a history id: an unsigned 64-bit number or its decimal string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HistoryId, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E>(self, value: u64) -> Result<HistoryId, E> {
                Ok(HistoryId(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<HistoryId, E> {
                u64::try_from(value).map(HistoryId).map_err(E::custom)
            }
        }
        // Text first: Avro has no untyped read, and Gmail's own form is the string.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Visitor)
        } else {
            deserializer.deserialize_str(Visitor)
        }
    }
}

/// Counts the refresh tokens that a connection has had. A newer one ends `needs_reauth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenVersion(pub i64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_id_is_spelled_as_gmail_spelled_it(text in "[0-9a-fA-FxyzZ_-]{0,20}") {
            prop_assert_eq!(MessageId::new(&text).to_string(), text);
        }

        #[test]
        fn a_number_and_its_spelling_are_the_same_message_id(value: u64) {
            let id = MessageId::from_u64(value);
            prop_assert_eq!(MessageId::new(&id.to_string()), id);
        }

        #[test]
        fn event_ids_differ_by_connection_and_by_message(a: u128, b: u128, m: u64, n: u64) {
            let id = |c, m| EventId::of(ConnectionId::from_uuid(Uuid::from_u128(c)), &MessageId::from_u64(m));
            prop_assert_eq!(id(a, m) == id(b, n), a == b && m == n);
        }
    }

    #[test]
    fn an_event_id_is_what_it_was_when_published() {
        let connection = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b".parse().unwrap();
        let id = EventId::of(connection, &MessageId::new("18d1c0ffee001234"));
        let by_the_rfc = Uuid::new_v5(&NAMESPACE, &[connection.as_bytes() as &[u8], b"18d1c0ffee001234"].concat());
        assert_eq!(*id.as_uuid(), by_the_rfc);
    }
}
