//! One mailbox in a partition: asleep as the bytes that were read, awake as the machine.

use std::sync::Arc;

use bytes::Bytes;
use domain::mailbox::record::{MailboxChunk, MailboxState, Quarantine};
use domain::mailbox::{Mailbox, chunk_ids};
use domain::{ConnectionId, OrganisationId, Timestamp};

/// The records of a mailbox, as they are on the state topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// The frame of its [`MailboxState`]; none: nothing was ever written.
    pub(crate) state: Option<Bytes>,
    /// The frames of its chunks, by number.
    pub(crate) chunks: Vec<(i64, Bytes)>,
}

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
    /// The machine that these records describe; none where nothing was ever written.
    pub(crate) fn wake(&self) -> Result<Option<(Mailbox, i64)>, WakeError> {
        let Some(frame) = &self.state else { return Ok(None) };
        let state: MailboxState = events::decode(frame)?;
        if let Some(quarantine) = state.quarantine {
            return Err(WakeError::Quarantined(quarantine.reason));
        }
        let mut chunks: Vec<MailboxChunk> = Vec::with_capacity(self.chunks.len());
        for (number, frame) in &self.chunks {
            let chunk: MailboxChunk = events::decode(frame)?;
            if chunk.ids.len() != chunk_ids(&chunk).count() * 16 {
                return Err(WakeError::Torn { number: *number, length: chunk.ids.len() });
            }
            chunks.push(chunk);
        }
        let absorbed = state.absorbed;
        Ok(Some((Mailbox::restored(state, &chunks), absorbed)))
    }

    /// Notes a chunk as written.
    pub(crate) fn put_chunk(&mut self, number: i64, frame: Bytes) {
        self.chunks.retain(|(known, _)| *known != number);
        self.chunks.push((number, frame));
    }

    /// Notes a chunk as tombstoned.
    pub(crate) fn drop_chunk(&mut self, number: i64) {
        self.chunks.retain(|(known, _)| *known != number);
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
        self.stored.state = Some(frame.clone());
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
    let bytes = stored.state.clone().unwrap_or_default();
    state.quarantine = Some(Quarantine { reason: reason.to_owned(), at, bytes });
    events::encode(&state)
}
