//! The mailbox's laws, tried on random lives.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::history::{Ahead, Expired, Kind, View, Walk};
use super::listing::Listing;
use super::{Birth, Content, Index, Mailbox, NewMessage};
use crate::label::{self, LabelSet};

/// Everything can be read at once and nothing expires.
const CLEAR: View = View { now_ms: i64::MAX, lag_ms: 0, retention_ms: None, ahead: Ahead::Empty };
const EVERY_KIND: u8 = 15;
/// Above every set of system labels.
const ALL_LABELS: u16 = 1 << label::SYSTEM.len();

#[derive(Debug, Clone)]
enum Step {
    Deliver { internal_ms: i64, spam: bool, thread: Option<usize> },
    Relabel { which: Vec<usize>, add: u16, remove: u16, user: bool },
    Delete(usize),
    SaveDraft { again: bool },
    SendDraft { to_self: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..1_000_i64, any::<bool>(), proptest::option::of(0..50_usize))
            .prop_map(|(internal_ms, spam, thread)| Step::Deliver { internal_ms, spam, thread }),
        3 => (proptest::collection::vec(0..50_usize, 1..4), 0..ALL_LABELS, 0..ALL_LABELS, any::<bool>())
            .prop_map(|(which, add, remove, user)| Step::Relabel { which, add, remove, user }),
        1 => (0..50_usize).prop_map(Step::Delete),
        1 => any::<bool>().prop_map(|again| Step::SaveDraft { again }),
        1 => any::<bool>().prop_map(|to_self| Step::SendDraft { to_self }),
    ]
}

/// A mailbox that lives one step at a time, with all heads and states that it went through.
struct Life {
    mailbox: Mailbox,
    drafts: Vec<u64>,
    past: Vec<(u64, BTreeMap<u64, Vec<String>>)>,
    now_ms: i64,
}

impl Life {
    fn new(first_history_id: u64) -> Self {
        let mailbox = Mailbox::new(&Birth { seed: 1, first_history_id, max_history_gap: 9 });
        let past = vec![(mailbox.head(), BTreeMap::new())];
        Self { mailbox, drafts: Vec::new(), past, now_ms: 1_700_000_000_000 }
    }

    fn existing(&self, n: usize) -> Option<Index> {
        let ids: Vec<u64> = state(&self.mailbox).into_keys().collect();
        (!ids.is_empty()).then(|| self.mailbox.find(ids[n % ids.len()]).unwrap())
    }

    fn take(&mut self, step: &Step) {
        self.now_ms += 7;
        let now_ms = self.now_ms;
        match step {
            Step::Deliver { internal_ms, spam, thread } => {
                let thread = thread.and_then(|n| self.existing(n)).map(|index| self.mailbox.message(index).root);
                let labels = LabelSet::system(if *spam { label::SPAM } else { label::INBOX | label::UNREAD });
                let new = NewMessage { labels, internal_ms: *internal_ms, content: Content::Synthetic, thread };
                self.mailbox.deliver(new, now_ms);
            }
            Step::Relabel { which, add, remove, user } => {
                let mut indexes: Vec<Index> = which.iter().filter_map(|&n| self.existing(n)).collect();
                indexes.sort_unstable();
                indexes.dedup();
                let name: &[&str] = if *user { &["Work"] } else { &[] };
                let users = self.mailbox.labels.set_of(name.iter().copied()).unwrap();
                let add = self.mailbox.labels.union(users, LabelSet::system(*add)).unwrap();
                self.mailbox.relabel(&indexes, add, LabelSet::system(*remove), now_ms).unwrap();
            }
            Step::Delete(n) => {
                if let Some(index) = self.existing(*n) {
                    self.mailbox.delete(index, now_ms);
                }
            }
            Step::SaveDraft { again } => {
                let draft = self.drafts.last().copied().filter(|_| *again);
                let (id, _) = self.mailbox.save_draft(draft, Content::Synthetic, now_ms);
                self.drafts.retain(|kept| *kept != id);
                self.drafts.push(id);
            }
            Step::SendDraft { to_self } => {
                if let Some(draft) = self.drafts.pop() {
                    self.mailbox.send_draft(draft, *to_self, now_ms).unwrap();
                }
            }
        }
        self.past.push((self.mailbox.head(), state(&self.mailbox)));
    }
}

fn state(mailbox: &Mailbox) -> BTreeMap<u64, Vec<String>> {
    let live = mailbox.messages().filter(|message| !message.gone);
    live.map(|message| (message.id, mailbox.labels.ids(message.labels))).collect()
}

fn walk(start: u64, kinds: u8, max: usize, after: Option<u64>) -> Walk {
    Walk { start, kinds, label: None, bare: false, max, after, view: CLEAR }
}

/// Applies everything after `start`, read in pages of `max`, to `state`.
fn replay(mailbox: &Mailbox, start: u64, max: usize, state: &mut BTreeMap<u64, Vec<String>>) {
    let (mut after, mut last) = (None, start);
    loop {
        let walk = walk(start, EVERY_KIND, max, after);
        let page = mailbox.history(&walk).unwrap();
        assert_eq!(page.head, mailbox.head());
        assert!(page.records.len() <= max);
        for record in &page.records {
            let mut id = None;
            for change in mailbox.wanted_changes(&walk, record.clone()) {
                assert!(*id.get_or_insert(change.record) == change.record);
                let message = mailbox.message(change.message);
                let labels = state.entry(message.id).or_default();
                match change.kind {
                    Kind::Deleted => {
                        state.remove(&message.id);
                        continue;
                    }
                    Kind::Added => *labels = mailbox.labels.ids(change.after),
                    Kind::LabelsAdded => labels.extend(mailbox.labels.ids(change.labels)),
                    Kind::LabelsRemoved => {
                        let gone = mailbox.labels.ids(change.labels);
                        labels.retain(|id| !gone.contains(id));
                    }
                }
            }
            let id = id.unwrap();
            assert!(last < id && id <= mailbox.head(), "records rise: {last}, {id}");
            last = id;
        }
        after = page.next;
        if after.is_none() {
            return;
        }
    }
}

fn sorted(state: &BTreeMap<u64, Vec<String>>) -> BTreeMap<u64, BTreeSet<&String>> {
    state.iter().map(|(id, labels)| (*id, labels.iter().collect())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn history_from_any_head_gives_the_mailbox_as_it_is(
        steps in proptest::collection::vec(step(), 1..40),
        first in prop_oneof![1_u64..1_000, (1_u64 << 53) - 50..(1 << 53) + 50],
        max in 1_usize..12,
    ) {
        let mut life = Life::new(first);
        for step in &steps {
            life.take(step);
        }
        let now = state(&life.mailbox);
        for (head, past) in &life.past {
            let mut replayed = past.clone();
            replay(&life.mailbox, *head, max, &mut replayed);
            prop_assert_eq!(sorted(&replayed), sorted(&now), "from head {}", head);
        }
        let heads: Vec<u64> = life.past.iter().map(|(head, _)| *head).collect();
        prop_assert!(heads.is_sorted());
        let ids: Vec<u64> = life.mailbox.messages().map(|message| message.id).collect();
        prop_assert!(ids.is_sorted_by(|a, b| a < b), "message ids rise");
        prop_assert_eq!(life.mailbox.messages_total() as usize, now.len());
        let threads: BTreeSet<u64> = life.mailbox.messages().filter(|message| !message.gone)
            .map(|message| life.mailbox.thread_id(message)).collect();
        prop_assert_eq!(life.mailbox.threads_total() as usize, threads.len());
    }

    #[test]
    fn pages_of_a_listing_hold_every_message_once_newest_first(
        steps in proptest::collection::vec(step(), 1..40),
        max in 1_usize..7,
        (since, until) in (0_i64..1_000, 0_i64..1_000),
        key in 0_u64..2,
    ) {
        let mut life = Life::new(1);
        for step in &steps {
            life.take(step);
        }
        let mut listed: Vec<(i64, u64)> = Vec::new();
        let mut offset = 0;
        loop {
            let listing = Listing { dates: since..until, key, offset, max };
            let page = life.mailbox.list(&listing, |_, message| !message.labels.has_any(label::SPAM));
            prop_assert!(page.estimate >= page.messages.len() as u64);
            listed.extend(page.messages.iter().map(|&index| {
                let message = life.mailbox.message(index);
                (message.internal_ms, message.id)
            }));
            match page.next {
                Some(next) => offset = next,
                None => break,
            }
        }
        let mut wanted: Vec<(i64, u64)> = life.mailbox.messages()
            .filter(|message| !message.gone && !message.labels.has_any(label::SPAM))
            .map(|message| (message.internal_ms, message.id))
            .filter(|(internal_ms, _)| (since..until).contains(internal_ms))
            .collect();
        wanted.sort_unstable();
        wanted.reverse();
        prop_assert_eq!(listed, wanted);
    }
}

#[test]
fn an_expired_or_forgotten_start_is_refused_and_the_head_is_not() {
    let mut life = Life::new(10);
    life.take(&Step::Deliver { internal_ms: 1, spam: false, thread: None });
    let old = life.mailbox.head();
    assert_eq!(life.mailbox.history(&walk(9, EVERY_KIND, 10, None)), Err(Expired));
    life.mailbox.expire();
    assert_eq!(life.mailbox.history(&walk(old, EVERY_KIND, 10, None)), Err(Expired));
    assert!(life.mailbox.history(&walk(life.mailbox.head(), EVERY_KIND, 10, None)).unwrap().records.is_empty());

    let head = life.mailbox.head();
    life.take(&Step::Deliver { internal_ms: 1, spam: false, thread: None });
    let aged = |now_ms| View { now_ms, retention_ms: Some(1_000), ..CLEAR };
    let from = |view| Walk { view, ..walk(head, EVERY_KIND, 10, None) };
    assert!(life.mailbox.history(&from(aged(life.now_ms + 1_000))).is_ok());
    assert_eq!(life.mailbox.history(&from(aged(life.now_ms + 1_001))), Err(Expired));
}

#[test]
fn an_id_ahead_of_the_head_is_empty_or_refused_as_set() {
    let life = Life::new(10);
    let ahead = walk(11, EVERY_KIND, 10, None);
    assert!(life.mailbox.history(&ahead).unwrap().records.is_empty());
    let refusing = Walk { view: View { ahead: Ahead::NotFound, ..CLEAR }, ..ahead };
    assert_eq!(life.mailbox.history(&refusing), Err(Expired));
}

#[test]
fn records_become_readable_late_and_out_of_order_below_a_head_already_seen() {
    let mut life = Life::new(10);
    for _ in 0..200 {
        life.take(&Step::Deliver { internal_ms: 1, spam: false, thread: None });
    }
    let lag_ms = 5_000;
    let read = |now_ms| {
        let view = View { now_ms, lag_ms, ..CLEAR };
        let walk = Walk { view, ..walk(10, EVERY_KIND, 500, None) };
        let page = life.mailbox.history(&walk).unwrap();
        assert_eq!(page.head, life.mailbox.head());
        page.records.iter().map(|record| record.start).collect::<BTreeSet<usize>>()
    };
    let early = read(life.now_ms);
    let late = read(life.now_ms + lag_ms);
    assert_eq!(late.len(), 200);
    assert!(early.is_subset(&late) && early.len() < 200 && !early.is_empty());
    let out_of_order = early.iter().enumerate().any(|(at, &record)| at != record);
    assert!(out_of_order, "a later record was readable before an earlier one");
}

#[test]
fn a_walk_that_wants_little_gets_pages_without_records() {
    let mut life = Life::new(10);
    for _ in 0..6_000 {
        let labels = LabelSet::system(label::INBOX);
        life.mailbox.deliver(NewMessage { labels, internal_ms: 1, content: Content::Synthetic, thread: None }, 1);
    }
    let page = life.mailbox.history(&walk(10, Kind::Deleted.bit(), 500, None)).unwrap();
    assert!(page.records.is_empty() && page.next.is_some());
    let page = life.mailbox.history(&walk(10, Kind::Deleted.bit(), 500, page.next)).unwrap();
    assert!(page.records.is_empty() && page.next.is_none());
}
