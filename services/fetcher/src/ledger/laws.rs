//! The laws of the ledger: whatever is read, done, let go and read again in whatever order, and whenever it crashes,
//! nothing is left out, nothing is done twice, each key's records are done in their order, and memory is bounded.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Bounds, Hungry, Ledger, Mark, Offered, Write};

const BOUNDS: Bounds = Bounds { key: 4, all: 10, window: 12 };

#[derive(Debug, Clone)]
enum Step {
    /// The next so many records of the log are read.
    Read(usize),
    /// The first record of a key is done.
    Done(usize),
    /// The first so many of a key are worked on.
    Pin(usize, usize),
    /// A key lets go of what it holds, and is not to be filled.
    Park(usize),
    /// It is to be filled again.
    Wake(usize),
    /// A reading of what was left begins.
    Seek,
    /// It brings so many records at most, and ends.
    Fill(usize),
    /// A transaction commits.
    Commit,
    /// Memory is lost.
    Crash,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_usize).prop_map(Step::Read),
        6 => (0..6_usize).prop_map(Step::Done),
        1 => ((0..6_usize), (0..4_usize)).prop_map(|(key, count)| Step::Pin(key, count)),
        1 => (0..6_usize).prop_map(Step::Park),
        1 => (0..6_usize).prop_map(Step::Wake),
        2 => Just(Step::Seek),
        3 => (0..6_usize).prop_map(Step::Fill),
        3 => Just(Step::Commit),
        1 => Just(Step::Crash),
    ]
}

/// A log: the key of each record, none where a transaction ended.
fn logs() -> impl Strategy<Value = Vec<Option<usize>>> {
    // Few keys have most of the records.
    let key = prop_oneof![3 => Just(0_usize), 2 => Just(1_usize), 3 => 2..6_usize];
    prop::collection::vec(prop::option::weighted(0.9, key), 1..80)
}

fn name(key: usize) -> Bytes {
    format!("key-{key}").into()
}

/// Whether a key is parked.
#[derive(Debug, Default, Clone, Copy)]
struct Parked(bool);

struct World {
    log: Vec<Option<usize>>,
    ledger: Ledger<i64, Parked>,
    /// The next offset to read.
    next: i64,
    /// Records done that no transaction has.
    open: Vec<(usize, i64)>,
    /// What transactions have: records done, marks, the offset.
    done: Vec<(usize, i64)>,
    marks: BTreeMap<Bytes, Mark>,
    committed: i64,
    seeking: Vec<Hungry>,
}

impl World {
    fn new(log: Vec<Option<usize>>) -> Self {
        Self {
            log,
            ledger: Ledger::new(BOUNDS),
            next: 0,
            open: Vec::new(),
            done: Vec::new(),
            marks: BTreeMap::new(),
            committed: 0,
            seeking: Vec::new(),
        }
    }

    fn read(&mut self) -> bool {
        let Some(record) = usize::try_from(self.next).ok().and_then(|next| self.log.get(next)) else { return false };
        let offset = self.next;
        if let Some(key) = record {
            let offered = self.ledger.offer(&name(*key), offset, || offset);
            if offered == Offered::Known {
                assert!(self.done.contains(&(*key, offset)), "{offset} of {key} is skipped, and was never done");
            }
            // Only a record changes the position; what ends a transaction is not seen.
        }
        self.next += 1;
        true
    }

    fn finish(&mut self, key: usize) -> bool {
        let Some(offset) = self.ledger.done(&name(key)) else { return false };
        self.open.push((key, offset));
        true
    }

    /// What a reading of the log brings for each key: at most so many, and never beyond the end of the log.
    fn fill(&mut self, most: usize) {
        for Hungry { key, from, last, want } in std::mem::take(&mut self.seeking) {
            let mut items = Vec::new();
            let mut read_to = from;
            for offset in from..=last {
                if items.len() == want.min(most) {
                    break;
                }
                let record = self.log.get(usize::try_from(offset).unwrap()).copied().flatten();
                if record.map(name).as_ref() == Some(&key) {
                    items.push((offset, offset));
                }
                read_to = offset + 1;
            }
            self.ledger.refill(&key, items, read_to);
        }
    }

    fn commit(&mut self) {
        let mut writes = Vec::new();
        self.ledger.settle(self.next, &mut writes);
        let committed = self.ledger.commit_at(self.next);
        assert!(committed >= self.committed && committed <= self.next, "the committed offset goes back");
        self.committed = committed;
        for write in writes {
            match write {
                Write::Mark(key, mark) => self.marks.insert(key, mark),
                Write::Tombstone(key) => self.marks.remove(&key),
            };
        }
        self.done.append(&mut self.open);
    }

    fn crash(&mut self) {
        self.open.clear();
        self.seeking.clear();
        self.ledger = Ledger::new(BOUNDS);
        for (key, mark) in &self.marks {
            self.ledger.restore(key.clone(), *mark, self.committed, Parked::default());
        }
        self.next = self.committed;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Read(count) => (0..count).for_each(|_| {
                self.read();
            }),
            Step::Done(key) => {
                self.finish(key);
            }
            Step::Pin(key, count) => self.ledger.pin(&name(key), count),
            Step::Park(key) => {
                if let Some(work) = self.ledger.work(&name(key)) {
                    *work = Parked(true);
                    self.ledger.let_go(&name(key));
                }
            }
            Step::Wake(key) => {
                if let Some(work) = self.ledger.work(&name(key)) {
                    *work = Parked(false);
                    self.ledger.want(&name(key));
                }
            }
            Step::Seek if self.seeking.is_empty() => self.seeking = self.ledger.hungry(3, |parked| !parked.0),
            Step::Seek => {}
            Step::Fill(most) => self.fill(most),
            Step::Commit => self.commit(),
            Step::Crash => self.crash(),
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.ledger.len() <= BOUNDS.all + BOUNDS.all / 8, "{} records are held", self.ledger.len());
        let counted: usize = (0..6).map(|key| self.ledger.held(&name(key)).count()).sum();
        assert_eq!(self.ledger.len(), counted);
        for key in 0..6 {
            assert!(self.ledger.held(&name(key)).count() <= BOUNDS.key);
        }
        let mut last = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (key, offset) in self.done.iter().chain(&self.open) {
            assert!(seen.insert(*offset), "{offset} is done twice");
            assert!(last.insert(*key, *offset) < Some(*offset), "{offset} of {key} is done out of turn");
        }
    }

    /// Lets everything come to its end.
    fn drain(&mut self) {
        for key in 0..6 {
            self.step(Step::Wake(key));
        }
        while self.read() {
            for key in 0..6 {
                self.finish(key);
            }
        }
        let all = self.log.iter().filter(|record| record.is_some()).count();
        for _ in 0..10 * self.log.len() {
            if self.done.len() + self.open.len() == all && self.seeking.is_empty() && self.ledger.behind() == 0 {
                break;
            }
            while (0..6).any(|key| self.finish(key)) {}
            self.step(Step::Fill(100));
            self.step(Step::Seek);
        }
        self.step(Step::Commit);
        // Marks that the committed offset has passed go with the transaction that moves it.
        self.step(Step::Commit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_left_out_nothing_is_done_twice_and_memory_is_bounded(
        log in logs(),
        steps in prop::collection::vec(steps(), 0..120),
    ) {
        let mut world = World::new(log);
        for step in steps {
            world.step(step);
        }
        world.drain();
        let all = world.log.iter().filter(|record| record.is_some()).count();
        prop_assert_eq!(world.done.len(), all, "some were left out");
        prop_assert_eq!(&world.marks, &BTreeMap::new(), "the state keeps what nobody needs");
        prop_assert_eq!(world.committed, world.next);
        prop_assert_eq!(world.ledger.keys(), 0);
        // And nothing of it is done again after a crash.
        world.crash();
        world.drain();
        prop_assert_eq!(world.done.len(), all);
    }
}

/// The offset that is committed waits for a key only within the window.
#[test]
fn a_key_that_stands_still_holds_nobody_up() {
    let mut ledger: Ledger<i64, Parked> = Ledger::new(Bounds { key: 10, all: 1_000, window: 100 });
    ledger.offer(b"slow", 0, || 0);
    for offset in 1..1_000 {
        ledger.offer(b"quick", offset, || offset);
        assert_eq!(ledger.done(b"quick"), Some(offset));
        assert!(ledger.commit_at(offset + 1) + 100 > offset, "{offset}");
    }
    let mut writes = Vec::new();
    ledger.settle(1_000, &mut writes);
    assert_eq!(ledger.commit_at(1_000), 1_000);
    let slow = Write::Mark(Bytes::from_static(b"slow"), Mark { from: 0, is_behind: true });
    assert_eq!(writes, [slow], "the quick one needs no mark");
    assert_eq!(ledger.done(b"slow"), Some(0));
    writes.clear();
    ledger.settle(1_000, &mut writes);
    assert_eq!(writes, [Write::Tombstone(Bytes::from_static(b"slow"))]);
    assert_eq!(ledger.keys(), 0);
}

/// One key with a million records, and another with one behind them.
#[test]
fn a_huge_key_leaves_room_for_others() {
    let mut ledger: Ledger<i64, Parked> = Ledger::new(Bounds { key: 500, all: 2_000, window: 10_000 });
    for offset in 0..1_000_000 {
        ledger.offer(b"huge", offset, || offset);
    }
    assert_eq!(ledger.len(), 500);
    assert_eq!(ledger.offer(b"small", 1_000_000, || 0), Offered::Held);
    assert_eq!(ledger.commit_at(1_000_001), 1_000_000, "the huge one is behind");
}

/// When all the room is taken, whoever has most makes room.
#[test]
fn the_largest_lets_go_for_the_smallest() {
    let mut ledger: Ledger<i64, Parked> = Ledger::new(Bounds { key: 50, all: 100, window: 10_000 });
    for offset in 0..100 {
        ledger.offer(if offset % 2 == 0 { b"a" } else { b"b" }, offset, || offset);
    }
    assert_eq!(ledger.len(), 100);
    assert_eq!(ledger.offer(b"c", 100, || 100), Offered::Held);
    assert!(ledger.len() <= 76);
}
