//! What of a partition is done, what is to be done, and what of that is held in memory. Pure.
//!
//! Records are done in order for each key, and in any order between keys. So what is done is one offset a key, and:
//!
//! - The offset that is committed is the first of all records that are held and not done ([`Ledger::commit_at`]). After
//!   a crash the log is read again from there. A key of which a record at or above it is done has a record in the state
//!   topic that says up to where; the others need none ([`Ledger::settle`]).
//! - A key that falls far *behind* holds nobody up: its record in the state topic says from where it is not done, and
//!   the committed offset no longer waits for it.
//! - A key holds a bounded number of records, and so do all together. What does not fit is left in the log, from the
//!   first that was not held on. Somebody reads it from there again when the key has room ([`Ledger::hungry`],
//!   [`Ledger::refill`]).
//!
//! The invariant that a crash at any moment leaves nothing out and nothing twice: of every key, what is not done is
//! exactly its records at or above both its offset in the state topic (or the committed one, if it has none there), and,
//! unless it is marked as behind there, the committed offset.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use hashbrown::HashMap;

#[cfg(test)]
mod laws;

/// How much is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Records of one key.
    pub(crate) key: usize,
    /// Records of all keys of a partition. A refill may go an eighth beyond.
    pub(crate) all: usize,
    /// How far behind the newest record a key's first may lie, in offsets, before the committed offset stops waiting
    /// for it: how much is read again after a crash.
    pub(crate) window: i64,
}

/// What the state topic says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// All the key's records below this offset are done; none at or above it is.
    pub(crate) from: i64,
    /// Whether records below the committed offset are among those that are not done.
    pub(crate) is_behind: bool,
}

/// What became of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It was done before.
    Known,
    /// It is held, to be worked on.
    Held,
    /// It is left in the log.
    Left,
}

/// A key with room for records that were left in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hungry {
    /// The key.
    pub(crate) key: Bytes,
    /// None of its records below is wanted.
    pub(crate) from: i64,
    /// None of its records above need be looked for.
    pub(crate) last: i64,
    /// At most so many are wanted, at least one.
    pub(crate) want: usize,
}

/// What to write to the state topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// The key's record.
    Mark(Bytes, Mark),
    /// The key needs no record any more.
    Tombstone(Bytes),
}

/// A stretch of the log that holds records of a key which are not held here.
#[derive(Debug, Clone, Copy)]
struct Left {
    from: i64,
    last: i64,
}

/// One key. `W` is what its worker keeps of it.
#[derive(Debug)]
struct Key<T, W> {
    held: VecDeque<(i64, T)>,
    /// So many of the first of them may not be let go: somebody works on them.
    pinned: usize,
    left: Option<Left>,
    /// Everything below is done.
    from: i64,
    is_behind: bool,
    /// Whether the state topic has a record of it, or will have with the next transaction.
    is_marked: bool,
    is_dirty: bool,
    /// Whether it stands in the line of those that want what was left.
    is_in_line: bool,
    /// A refill is under way, from this offset on, of at most so many records.
    filling: Option<(i64, usize)>,
    /// Its entry among the lingering marks.
    lingers: Option<i64>,
    work: W,
}

impl<T, W> Key<T, W> {
    /// The first record that is not done.
    fn pending(&self) -> Option<i64> {
        self.held.front().map(|(offset, _)| *offset).or(self.left.map(|left| left.from))
    }

    fn mark(&self) -> Mark {
        // A key that is behind is read again from its first record, not from its last one done, which may be ages older.
        let from = if self.is_behind { self.pending().unwrap_or(self.from) } else { self.from };
        Mark { from, is_behind: self.is_behind }
    }
}

/// One partition's records.
#[derive(Debug)]
pub(crate) struct Ledger<T, W> {
    bounds: Bounds,
    keys: HashMap<Bytes, Key<T, W>, foldhash::fast::RandomState>,
    held: usize,
    /// Room that refills under way may take.
    reserved: usize,
    /// The first record of each key that the committed offset waits for.
    floors: BTreeSet<(i64, Bytes)>,
    /// Marks of keys that are not behind: no longer needed once the committed offset has passed them.
    lingering: BTreeSet<(i64, Bytes)>,
    dirty: Vec<Bytes>,
    /// Keys that have left records in the log.
    line: VecDeque<Bytes>,
    /// No key has so much that letting go of half of it would help; until there is room.
    is_flat: bool,
}

impl<T, W: Default> Ledger<T, W> {
    /// An empty one.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            keys: HashMap::default(),
            held: 0,
            reserved: 0,
            floors: BTreeSet::new(),
            lingering: BTreeSet::new(),
            dirty: Vec::new(),
            line: VecDeque::new(),
            is_flat: false,
        }
    }

    /// Takes in what the state topic says of a key, before any record. `position` is the committed offset.
    pub(crate) fn restore(&mut self, key: Bytes, mark: Mark, position: i64, work: W) {
        let is_behind = mark.is_behind && mark.from < position;
        // What is below the committed offset was seen, and is left in the log; where its last record is nobody knows.
        let left = is_behind.then_some(Left { from: mark.from, last: position - 1 });
        let entry = Key {
            held: VecDeque::new(),
            pinned: 0,
            left,
            from: mark.from,
            is_behind,
            is_marked: true,
            is_dirty: false,
            is_in_line: false,
            filling: None,
            lingers: (!is_behind).then_some(mark.from),
            work,
        };
        if !is_behind {
            self.lingering.insert((mark.from, key.clone()));
        }
        self.keys.insert(key.clone(), entry);
        self.stand_in_line(&key);
    }

    /// Takes in the next record of the log.
    pub(crate) fn offer(&mut self, key: &[u8], offset: i64, item: impl FnOnce() -> T) -> Offered {
        if !self.keys.contains_key(key) {
            let entry = Key {
                held: VecDeque::new(),
                pinned: 0,
                left: None,
                from: offset,
                is_behind: false,
                is_marked: false,
                is_dirty: false,
                is_in_line: false,
                filling: None,
                lingers: None,
                work: W::default(),
            };
            self.keys.insert(Bytes::copy_from_slice(key), entry);
        }
        if self.is_full() {
            self.shed();
        }
        let is_full = self.is_full();
        let Some((name, entry)) = self.keys.get_key_value_mut(key) else { return Offered::Left };
        let offered = if offset < entry.from {
            Offered::Known
        } else if let Some(left) = &mut entry.left {
            left.last = left.last.max(offset);
            Offered::Left
        } else if entry.held.len() >= self.bounds.key || is_full {
            entry.left = Some(Left { from: offset, last: offset });
            let name = name.clone();
            self.fall_behind(&name);
            self.stand_in_line(&name);
            Offered::Left
        } else {
            if entry.held.is_empty() && !entry.is_behind {
                self.floors.insert((offset, name.clone()));
            }
            entry.held.push_back((offset, item()));
            self.held += 1;
            Offered::Held
        };
        while let Some((first, name)) = self.floors.first().filter(|(first, _)| *first + self.bounds.window <= offset) {
            debug_assert!(*first <= offset);
            let name = name.clone();
            self.fall_behind(&name);
        }
        offered
    }

    /// Whether there is no room for another record, that of refills under way left aside.
    const fn is_full(&self) -> bool {
        let all = self.bounds.all;
        self.held >= all || self.held + self.reserved >= all + all / 8
    }

    /// The records of a key that wait, the first one first.
    pub(crate) fn held(&self, key: &[u8]) -> impl Iterator<Item = &T> {
        self.keys.get(key).into_iter().flat_map(|entry| entry.held.iter().map(|(_, item)| item))
    }

    /// The same, to be changed.
    pub(crate) fn held_mut(&mut self, key: &[u8]) -> impl Iterator<Item = &mut T> {
        self.keys.get_mut(key).into_iter().flat_map(|entry| entry.held.iter_mut().map(|(_, item)| item))
    }

    /// How many records are held, of all keys.
    pub(crate) const fn len(&self) -> usize {
        self.held
    }

    /// How many keys are known.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many keys the committed offset does not wait for.
    #[cfg(test)]
    pub(crate) fn behind(&self) -> usize {
        self.keys.values().filter(|entry| entry.is_behind).count()
    }

    /// What the worker keeps of a key.
    pub(crate) fn work(&mut self, key: &[u8]) -> Option<&mut W> {
        self.keys.get_mut(key).map(|entry| &mut entry.work)
    }

    /// Says that the first `count` records of a key are being worked on, and may not be let go.
    pub(crate) fn pin(&mut self, key: &[u8], count: usize) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.pinned = count;
        }
    }

    /// The first record of a key is done; gives it.
    pub(crate) fn done(&mut self, key: &[u8]) -> Option<T> {
        let (name, entry) = self.keys.get_key_value_mut(key)?;
        let (offset, item) = entry.held.pop_front()?;
        let name = name.clone();
        entry.pinned = entry.pinned.saturating_sub(1);
        entry.from = offset + 1;
        self.held -= 1;
        if self.held < self.bounds.all - self.bounds.all / 16 {
            self.is_flat = false;
        }
        if !entry.is_behind {
            self.floors.remove(&(offset, name.clone()));
            if let Some(next) = entry.pending() {
                self.floors.insert((next, name.clone()));
            }
        }
        let has_room = entry.held.len() <= self.bounds.key / 2;
        self.changed(&name);
        self.catch_up(&name);
        if has_room {
            self.stand_in_line(&name);
        }
        Some(item)
    }

    /// Lets go of what a key holds beyond what is being worked on: it stays in the log, and is not asked for until
    /// [`Ledger::want`].
    pub(crate) fn let_go(&mut self, key: &[u8]) {
        let Some((name, entry)) = self.keys.get_key_value_mut(key) else { return };
        let name = name.clone();
        let keep = entry.pinned;
        self.truncate(&name, keep);
    }

    /// A key wants what it left in the log again.
    pub(crate) fn want(&mut self, key: &[u8]) {
        if let Some((name, _)) = self.keys.get_key_value(key) {
            let name = name.clone();
            self.stand_in_line(&name);
        }
    }

    /// Has a key's record in the state topic written anew with the next transaction, if it has one or needs one.
    pub(crate) fn touch(&mut self, key: &[u8]) {
        if let Some((name, _)) = self.keys.get_key_value(key) {
            let name = name.clone();
            self.changed(&name);
        }
    }

    /// Whether some key stands in line for [`Ledger::hungry`].
    pub(crate) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Takes up to `keys` keys out of the line that have room for what they left in the log. Each is filled by
    /// [`Ledger::refill`], which has to be called for it. Those that `is_wanted` denies leave the line, too, until
    /// [`Ledger::want`].
    pub(crate) fn hungry(&mut self, keys: usize, is_wanted: impl Fn(&W) -> bool) -> Vec<Hungry> {
        let mut hungry = Vec::new();
        let mut room = (self.bounds.all + self.bounds.all / 8).saturating_sub(self.held + self.reserved);
        while hungry.len() < keys && room > 0 {
            let Some(name) = self.line.pop_front() else { break };
            let Some(entry) = self.keys.get_mut(&name) else { continue };
            entry.is_in_line = false;
            let Some(left) = entry.left else { continue };
            // It stands in line again as soon as it has room.
            if entry.held.len() > self.bounds.key / 2 || !is_wanted(&entry.work) {
                continue;
            }
            // A fair part each: many keys that want a little go before few that want a lot.
            let want = (self.bounds.key - entry.held.len()).min((room / 4).max(1));
            room -= want;
            self.reserved += want;
            entry.filling = Some((left.from, want));
            hungry.push(Hungry { key: name, from: left.from, last: left.last, want });
        }
        hungry
    }

    /// Gives a key the records that it left, all of them from [`Hungry::from`] to below `read_to`.
    pub(crate) fn refill(&mut self, key: &[u8], items: Vec<(i64, T)>, read_to: i64) {
        let Some((name, entry)) = self.keys.get_key_value_mut(key) else { return };
        let name = name.clone();
        let (begun, want) = entry.filling.take().unzip();
        let want = want.unwrap_or(0);
        self.reserved -= want;
        // What was let go meanwhile has to come first.
        if let Some(left) = entry.left.as_mut().filter(|left| begun == Some(left.from)) {
            let begin = left.from;
            left.from = left.from.max(read_to);
            if left.from > left.last {
                entry.left = None;
            }
            let before = entry.held.len();
            debug_assert!(items.len() <= want, "more than was asked for");
            entry.held.extend(items.into_iter().filter(|(offset, _)| (begin..read_to).contains(offset)));
            self.held += entry.held.len() - before;
        }
        self.stand_in_line(&name);
        self.catch_up(&name);
    }

    /// The offset to commit when everything before `next` was read.
    pub(crate) fn commit_at(&self, next: i64) -> i64 {
        self.floors.first().map_or(next, |(first, _)| *first)
    }

    /// Whether something changed that the state topic may have to hear of.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What to write to the state topic in the transaction that commits [`Ledger::commit_at`] of `next`.
    pub(crate) fn settle(&mut self, next: i64, writes: &mut Vec<Write>) {
        let commit = self.commit_at(next);
        for name in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.keys.get_mut(&name) else { continue };
            entry.is_dirty = false;
            if entry.is_behind || entry.from > commit {
                entry.is_marked = true;
                let mark = entry.mark();
                let lingers = (!entry.is_behind).then_some(entry.from);
                if let Some(old) = std::mem::replace(&mut entry.lingers, lingers) {
                    self.lingering.remove(&(old, name.clone()));
                }
                if let Some(from) = lingers {
                    self.lingering.insert((from, name.clone()));
                }
                writes.push(Write::Mark(name, mark));
            } else {
                if let Some(old) = entry.lingers.take() {
                    self.lingering.remove(&(old, name.clone()));
                }
                if std::mem::take(&mut entry.is_marked) {
                    writes.push(Write::Tombstone(name.clone()));
                }
                self.forget(&name);
            }
        }
        while self.lingering.first().is_some_and(|(from, _)| *from <= commit) {
            let Some((_, name)) = self.lingering.pop_first() else { break };
            let Some(entry) = self.keys.get_mut(&name) else { continue };
            entry.lingers = None;
            if std::mem::take(&mut entry.is_marked) {
                writes.push(Write::Tombstone(name.clone()));
            }
            self.forget(&name);
        }
    }

    /// Forgets a key that nothing is to be known of.
    fn forget(&mut self, name: &Bytes) {
        let is_over = self.keys.get(name).is_some_and(|entry| {
            entry.pending().is_none()
                && !entry.is_marked
                && !entry.is_dirty
                && !entry.is_behind
                && entry.filling.is_none()
        });
        if is_over {
            self.keys.remove(name);
        }
    }

    fn changed(&mut self, name: &Bytes) {
        if let Some(entry) = self.keys.get_mut(name)
            && !std::mem::replace(&mut entry.is_dirty, true)
        {
            self.dirty.push(name.clone());
        }
    }

    fn stand_in_line(&mut self, name: &Bytes) {
        if let Some(entry) = self.keys.get_mut(name)
            && entry.left.is_some()
            && entry.filling.is_none()
            && !std::mem::replace(&mut entry.is_in_line, true)
        {
            self.line.push_back(name.clone());
        }
    }

    /// The committed offset waits for a key no longer.
    fn fall_behind(&mut self, name: &Bytes) {
        let Some(entry) = self.keys.get_mut(name) else { return };
        if std::mem::replace(&mut entry.is_behind, true) {
            return;
        }
        if let Some(first) = entry.pending() {
            self.floors.remove(&(first, name.clone()));
        }
        self.changed(name);
    }

    /// The committed offset waits for a key again, if that does not take it back: all that it left is held, and the
    /// first of that is not below the offset.
    fn catch_up(&mut self, name: &Bytes) {
        let floor = self.floors.first().map(|(first, _)| *first);
        let Some(entry) = self.keys.get_mut(name) else { return };
        if !entry.is_behind || entry.left.is_some() {
            return;
        }
        match (entry.pending(), floor) {
            (None, _) => entry.is_behind = false,
            (Some(first), Some(floor)) if first >= floor => {
                entry.is_behind = false;
                self.floors.insert((first, name.clone()));
            }
            (Some(_), _) => return,
        }
        self.changed(name);
    }

    /// Makes room: the key that holds most lets go of half of it.
    fn shed(&mut self) {
        /// Less than this is not worth letting go.
        const WORTH: usize = 8;
        if self.is_flat {
            return;
        }
        let largest = self.keys.iter().max_by_key(|(_, entry)| entry.held.len() - entry.pinned.min(entry.held.len()));
        match largest {
            Some((name, entry)) if entry.held.len() - entry.pinned.min(entry.held.len()) >= WORTH => {
                let (name, keep) = (name.clone(), entry.pinned.max(entry.held.len() / 2));
                self.truncate(&name, keep);
                self.stand_in_line(&name);
            }
            _ => self.is_flat = true,
        }
    }

    /// Leaves what a key holds beyond `keep` records in the log.
    fn truncate(&mut self, name: &Bytes, keep: usize) {
        let Some(entry) = self.keys.get_mut(name) else { return };
        let gone = entry.held.len().saturating_sub(keep);
        let Some((first, _)) = entry.held.get(keep) else { return };
        let first = *first;
        let last = entry.held.back().map_or(first, |(offset, _)| *offset);
        let last = entry.left.map_or(last, |left| left.last.max(last));
        let floor = entry.pending();
        entry.held.truncate(keep);
        entry.left = Some(Left { from: first, last });
        self.held -= gone;
        let was_behind = std::mem::replace(&mut entry.is_behind, true);
        if !was_behind {
            if let Some(floor) = floor {
                self.floors.remove(&(floor, name.clone()));
            }
            self.changed(name);
        }
    }
}
