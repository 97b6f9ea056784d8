//! Sets of remembered ids that outlive the process: a short tail inside the mailbox's state, and sealed chunks beside
//! it that are written once and never again.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hashbrown::HashSet;

use super::record::{ChunkKind, MailboxChunk, Tail};
use super::{Action, ConnectionId, Timestamp};

/// A tail of so many ids is sealed into a chunk.
const SEAL: usize = 1_024;

/// No chunk holds more ids than this, so that none is above 64 KB.
const CHUNK: usize = 4_000;

/// Milliseconds in the unit of time that is remembered with an id.
const MINUTE: i64 = 60_000;

/// A set of ids, each with the minute in which it came.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    kind: ChunkKind,
    tail: Vec<(u128, i32)>,
    index: HashSet<u128, foldhash::fast::FixedState>,
    chunks: Vec<Sealed>,
    /// No id is above it. Gmail's ids rise, so that a new one need not be looked for.
    highest: u128,
}

#[derive(Debug, Clone)]
struct Sealed {
    number: i64,
    newest_minute: i32,
    /// Sorted.
    ids: Box<[u128]>,
}

impl Sealed {
    fn contains(&self, id: u128) -> bool {
        let (Some(first), Some(last)) = (self.ids.first(), self.ids.last()) else { return false };
        (*first..=*last).contains(&id) && self.ids.binary_search(&id).is_ok()
    }
}

/// The minute in which `at` lies.
fn minute(at: Timestamp) -> i32 {
    i32::try_from(at.as_millis().div_euclid(MINUTE)).unwrap_or(i32::MAX)
}

impl Remembered {
    pub(super) fn new(kind: ChunkKind) -> Self {
        Self { kind, tail: Vec::new(), index: HashSet::default(), chunks: Vec::new(), highest: 0 }
    }

    /// The set that `tail` and, later, [`Self::restore_chunk`] make.
    pub(super) fn restored(kind: ChunkKind, tail: &Tail) -> Self {
        let mut set = Self::new(kind);
        let (mut ids, mut minutes) = (tail.ids.clone(), tail.minutes.clone());
        while ids.remaining() >= 16 && minutes.remaining() >= 4 {
            let id = ids.get_u128();
            set.index.insert(id);
            set.highest = set.highest.max(id);
            set.tail.push((id, minutes.get_i32()));
        }
        set
    }

    pub(super) fn restore_chunk(&mut self, chunk: &MailboxChunk) {
        let mut bytes = chunk.ids.clone();
        let mut ids = Vec::with_capacity(bytes.len() / 16);
        while bytes.remaining() >= 16 {
            ids.push(bytes.get_u128());
        }
        self.highest = ids.last().copied().unwrap_or_default().max(self.highest);
        self.chunks.push(Sealed { number: chunk.number, newest_minute: chunk.newest_minute, ids: ids.into() });
    }

    /// The part of the set that is inside the mailbox's state.
    pub(super) fn tail(&self) -> Tail {
        let mut ids = BytesMut::with_capacity(self.tail.len() * 16);
        let mut minutes = BytesMut::with_capacity(self.tail.len() * 4);
        for (id, minute) in &self.tail {
            ids.put_u128(*id);
            minutes.put_i32(*minute);
        }
        Tail { ids: ids.freeze(), minutes: minutes.freeze() }
    }

    pub(super) fn contains(&self, id: u128) -> bool {
        id <= self.highest && (self.index.contains(&id) || self.chunks.iter().rev().any(|chunk| chunk.contains(id)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.chunks.is_empty()
    }

    /// Remembers `id`; false when it was remembered already.
    pub(super) fn insert(&mut self, id: u128, now: Timestamp) -> bool {
        if self.contains(id) {
            return false;
        }
        self.index.insert(id);
        self.highest = self.highest.max(id);
        self.tail.push((id, minute(now)));
        true
    }

    /// Seals the tail when it is long.
    pub(super) fn seal(&mut self, connection: ConnectionId, next_chunk: &mut i64, out: &mut Vec<Action>) {
        if self.tail.len() < SEAL {
            return;
        }
        self.index.clear();
        for part in self.tail.chunks(CHUNK) {
            let number = *next_chunk;
            *next_chunk += 1;
            let newest_minute = part.iter().map(|(_, minute)| *minute).max().unwrap_or(i32::MIN);
            let mut ids: Vec<u128> = part.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            let mut bytes = BytesMut::with_capacity(ids.len() * 16);
            ids.iter().for_each(|id| bytes.put_u128(*id));
            out.push(Action::WriteChunk(MailboxChunk {
                connection_id: connection,
                kind: self.kind,
                number,
                ids: bytes.freeze(),
                newest_minute,
            }));
            self.chunks.push(Sealed { number, newest_minute, ids: ids.into() });
        }
        self.tail = Vec::new();
    }

    /// Forgets what was remembered before `horizon`. A minute too long is right, a minute too short is a repetition.
    pub(super) fn prune(&mut self, horizon: Timestamp, out: &mut Vec<Action>) {
        let horizon = minute(horizon).saturating_sub(1);
        if self.tail.first().is_some_and(|(_, at)| *at < horizon) {
            let index = &mut self.index;
            self.tail.retain(|(id, at)| {
                let keep = *at >= horizon;
                if !keep {
                    index.remove(id);
                }
                keep
            });
        }
        self.chunks.retain(|chunk| {
            let keep = chunk.newest_minute >= horizon;
            if !keep {
                out.push(Action::DropChunk(chunk.number));
            }
            keep
        });
    }

    /// The first horizon before which all of it lies; none when it is empty.
    pub(super) fn past_at(&self) -> Option<Timestamp> {
        let tail = self.tail.iter().map(|(_, minute)| *minute);
        let newest = tail.chain(self.chunks.iter().map(|chunk| chunk.newest_minute)).max()?;
        Some(Timestamp::from_millis((i64::from(newest) + 2) * MINUTE))
    }

    /// The numbers of all its chunks.
    pub(super) fn chunk_numbers(&self) -> impl Iterator<Item = i64> {
        self.chunks.iter().map(|chunk| chunk.number)
    }
}

#[cfg(test)]
impl Remembered {
    /// What the sealed ids take in memory.
    pub(super) fn sealed_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| size_of_val(&*chunk.ids) + size_of::<Sealed>()).sum()
    }
}

/// The ids of a chunk's bytes, for tests and tools.
pub fn chunk_ids(chunk: &MailboxChunk) -> impl Iterator<Item = u128> {
    let mut bytes: Bytes = chunk.ids.clone();
    std::iter::from_fn(move || (bytes.remaining() >= 16).then(|| bytes.get_u128()))
}
