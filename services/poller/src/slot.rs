//! One mailbox in a partition: asleep as the bytes that were read, awake as the machine.

use std::sync::Arc;

use bytes::Bytes;
use domain::mailbox::record::{MailboxChunk, MailboxState, Quarantine};
use domain::mailbox::{Mailbox, chunk_ids};
use domain::{ConnectionId, OrganisationId, Timestamp};
use hashbrown::HashMap;

/// The records of a mailbox, as they are on the state topic.
///
/// A lane has one of these for each mailbox that is asleep, which are almost all of a million. So every frame is an
/// allocation of exactly its length: one that was cut from an encoder's buffer would keep all of that alive, and the
/// count that shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// The frame of its [`MailboxState`]; none: nothing was ever written.
    state: Option<Box<[u8]>>,
    /// The frames of its chunks; none where there are none, as with most.
    chunks: Option<Box<Chunks>>,
}

/// The frames of chunks, by number.
type Chunks = Vec<(i64, Box<[u8]>)>;

/// A mailbox at work.
#[derive(Debug)]
pub(crate) struct Awake {
    pub(crate) mailbox: Mailbox,
    /// The offset after the last command that it has taken in.
    pub(crate) absorbed: i64,
    /// What of it is written, or about to be: what remains if it breaks.
    pub(crate) stored: Stored,
    /// Whether it changed since [`Self::stored`].
    pub(crate) is_dirty: bool,
    /// When its timer is set.
    pub(crate) wake_at: Option<Timestamp>,
}

/// A mailbox that broke the poller, set aside. Its bytes are kept.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) stored: Stored,
    pub(crate) reason: Arc<str>,
}

/// A mailbox whose connection is forgotten.
#[derive(Debug)]
pub(crate) struct Buried {
    pub(crate) stored: Stored,
    /// When its timer is set.
    pub(crate) decays_at: Timestamp,
}

/// One mailbox in a partition.
#[derive(Debug)]
pub(crate) enum Slot {
    /// Nothing is under way: only its bytes are kept, and it costs little more than they do.
    Asleep(Stored),
    /// Its connection is forgotten: only its bytes are kept, until their time.
    Buried(Box<Buried>),
    /// At work.
    Awake(Box<Awake>),
    /// Set aside.
    Quarantined(Box<Broken>),
}

/// The mailboxes of a partition.
pub(crate) type Slots = HashMap<ConnectionId, Slot, foldhash::fast::RandomState>;

/// Why a mailbox could not be woken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WakeError {
    /// A record of its state does not decode.
    #[error("A record of its state does not decode: {0}")]
    Undecodable(#[from] events::Error),
    /// A chunk holds no whole ids.
    #[error("Chunk {number} of its state has {length} bytes of ids, which is no multiple of 16")]
    Torn {
        /// Which chunk.
        number: i64,
        /// How long it is.
        length: usize,
    },
    /// It was set aside before.
    #[error("{0}")]
    Quarantined(String),
}

impl Stored {
    /// The frame of its state, if one was ever written.
    pub(crate) fn state(&self) -> Option<&[u8]> {
        self.state.as_deref()
    }

    /// Notes a state as written.
    pub(crate) fn put_state(&mut self, frame: &[u8]) {
        match &mut self.state {
            // A state that is written again is as long as before more often than not.
            Some(known) if known.len() == frame.len() => known.copy_from_slice(frame),
            known => *known = Some(frame.into()),
        }
    }

    /// Notes the state as tombstoned.
    pub(crate) fn drop_state(&mut self) {
        self.state = None;
    }

    /// The numbers and frames of its chunks.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (i64, &[u8])> {
        self.chunks.iter().flat_map(|chunks| chunks.iter()).map(|(number, frame)| (*number, frame.as_ref()))
    }

    /// The machine that these records describe; none where nothing was ever written.
    pub(crate) fn wake(&self) -> Result<Option<(Mailbox, i64)>, WakeError> {
        let Some(frame) = self.state() else { return Ok(None) };
        let state: MailboxState = events::decode(frame)?;
        if let Some(quarantine) = state.quarantine {
            return Err(WakeError::Quarantined(quarantine.reason));
        }
        let mut chunks: Vec<MailboxChunk> = Vec::new();
        for (number, frame) in self.chunks() {
            let chunk: MailboxChunk = events::decode(frame)?;
            if chunk.ids.len() != chunk_ids(&chunk).count() * 16 {
                return Err(WakeError::Torn { number, length: chunk.ids.len() });
            }
            chunks.push(chunk);
        }
        let absorbed = state.absorbed;
        Ok(Some((Mailbox::restored(state, &chunks), absorbed)))
    }

    /// Notes a chunk as written.
    pub(crate) fn put_chunk(&mut self, number: i64, frame: &[u8]) {
        let chunks = self.chunks.get_or_insert_default();
        chunks.retain(|(known, _)| *known != number);
        chunks.push((number, frame.into()));
    }

    /// Notes a chunk as tombstoned.
    pub(crate) fn drop_chunk(&mut self, number: i64) {
        if let Some(chunks) = &mut self.chunks {
            chunks.retain(|(known, _)| *known != number);
            if chunks.is_empty() {
                self.chunks = None;
            }
        }
    }
}

impl Awake {
    /// A machine with what of it is written.
    pub(crate) fn new(mailbox: Mailbox, absorbed: i64, stored: Stored) -> Self {
        Self { mailbox, absorbed, stored, is_dirty: false, wake_at: None }
    }

    /// Encodes the state as it is now, and notes it as written.
    pub(crate) fn store(&mut self, partitions: i32) -> Bytes {
        let frame = events::encode(&self.mailbox.state(partitions, self.absorbed));
        self.stored.put_state(&frame);
        self.is_dirty = false;
        frame
    }
}

/// The state record of a mailbox that is set aside: its bytes as they were, and why.
pub(crate) fn quarantined(
    connection: ConnectionId,
    organisation: OrganisationId,
    partitions: i32,
    absorbed: i64,
    stored: &Stored,
    reason: &str,
    at: Timestamp,
) -> Bytes {
    let mut state = Mailbox::new(connection, organisation).state(partitions, absorbed);
    let bytes = stored.state().map(Bytes::copy_from_slice).unwrap_or_default();
    state.quarantine = Some(Quarantine { reason: reason.to_owned(), at, bytes });
    events::encode(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_asleep_is_its_frame_and_little_more() {
        // With its key: what a million of them cost beside their frames.
        assert!(size_of::<(ConnectionId, Slot)>() <= 48, "{}", size_of::<(ConnectionId, Slot)>());
    }

    #[test]
    fn records_are_kept_until_they_are_tombstoned() {
        let mut stored = Stored::default();
        stored.put_state(b"one");
        stored.put_state(b"two");
        assert_eq!(stored.state(), Some(b"two" as &[u8]));
        stored.put_state(b"three");
        assert_eq!(stored.state(), Some(b"three" as &[u8]));
        stored.drop_state();
        assert_eq!(stored.state(), None);
        stored.put_chunk(1, b"a");
        stored.put_chunk(2, b"b");
        stored.put_chunk(1, b"c");
        let mut chunks: Vec<(i64, &[u8])> = stored.chunks().collect();
        chunks.sort_unstable();
        assert_eq!(chunks, [(1, b"c" as &[u8]), (2, b"b")]);
        stored.drop_chunk(1);
        stored.drop_chunk(2);
        stored.drop_chunk(3);
        assert_eq!(stored.chunks().count(), 0);
    }
}
