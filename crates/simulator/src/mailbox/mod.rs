//! One mailbox: messages, labels, threads and the history of their changes. Pure: time and seeds are passed in.
//!
//! Laws (tested as properties): message ids and record ids only rise; every change writes a record and moves the
//! head; the records after any head that was ever seen, applied to the mailbox as it was then, give it as it is.

pub(crate) mod chunks;
pub(crate) mod history;
#[cfg(test)]
mod laws;
pub(crate) mod listing;

use std::collections::HashMap;
use std::sync::Arc;

use self::chunks::Chunks;
use self::history::{Change, Kind};
use crate::label::{self, LabelSet, Table};
use crate::mime::Mail;
use crate::seed::{self, Seed};

/// A message's place in the mailbox, in order of arrival.
pub(crate) type Index = u32;

/// `Message::body` of a message whose content is made from its id when asked for.
const SYNTHETIC: u32 = u32::MAX;

/// What the mailbox keeps of one message: 56 bytes, so that a million fit.
#[derive(Debug)]
pub(crate) struct Message {
    /// Gmail's message id. Rises with arrival.
    pub(crate) id: u64,
    /// The last record that touched the message: its `historyId`.
    pub(crate) history: u64,
    /// `internalDate`, ms since the epoch.
    pub(crate) internal_ms: i64,
    /// When it came into the mailbox, ms since the epoch.
    pub(crate) added_ms: i64,
    /// The first message of its thread; the message itself when it began one.
    root: Index,
    /// For a root: how many messages of the thread still exist.
    in_thread: u32,
    /// Its labels; for a deleted message, those that it had.
    pub(crate) labels: LabelSet,
    /// Index into `Mailbox::mails`, or [`SYNTHETIC`].
    body: u32,
    /// Permanently deleted.
    pub(crate) gone: bool,
}

/// Where a message's content comes from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Made from the message's id.
    Synthetic,
    /// Mail that was delivered as bytes.
    Mail(Arc<Mail>),
}

/// A message to be delivered.
#[derive(Debug, Clone)]
pub(crate) struct NewMessage {
    /// Its labels at delivery.
    pub(crate) labels: LabelSet,
    /// `internalDate`, ms since the epoch.
    pub(crate) internal_ms: i64,
    /// What it says.
    pub(crate) content: Content,
    /// The thread it joins; else found by the mail's references, else new.
    pub(crate) thread: Option<Index>,
}

/// How a mailbox is made.
#[derive(Debug, Clone)]
pub(crate) struct Birth {
    /// What the random gaps of ids come from.
    pub(crate) seed: u64,
    /// The head before anything happened.
    pub(crate) first_history_id: u64,
    /// Record ids rise by 1 up to this.
    pub(crate) max_history_gap: u64,
}

/// What was asked of a message that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("No message {0:016x} in this mailbox")]
pub struct NoSuchMessage(pub u64);

/// A mailbox. See the module's laws.
#[derive(Debug)]
pub(crate) struct Mailbox {
    messages: Chunks<Message>,
    changes: Chunks<Change>,
    /// Messages by (`internalDate`, arrival), oldest first; sorted when `sorted`.
    by_date: Vec<Index>,
    sorted: bool,
    mails: Vec<Arc<Mail>>,
    /// Hash of a `Message-ID` to the thread of its mail.
    threads_by_reference: HashMap<u64, Index>,
    /// The user labels.
    pub(crate) labels: Table,
    /// The current record.
    head: u64,
    /// `startHistoryId` below this is expired.
    floor: u64,
    max_history_gap: u64,
    seed: Seed,
    messages_total: u32,
    threads_total: u32,
    /// Counts changes, so that remembered positions in a listing are known to be stale.
    version: u64,
    pub(crate) positions: listing::Positions,
    drafts: Vec<Draft>,
}

/// A draft: its id stays while each save replaces its message.
#[derive(Debug)]
struct Draft {
    id: u64,
    message: Index,
}

impl Mailbox {
    /// An empty mailbox.
    pub(crate) fn new(birth: &Birth) -> Self {
        Self {
            messages: Chunks::default(),
            changes: Chunks::default(),
            by_date: Vec::new(),
            sorted: true,
            mails: Vec::new(),
            threads_by_reference: HashMap::new(),
            labels: Table::default(),
            head: birth.first_history_id,
            floor: birth.first_history_id,
            max_history_gap: birth.max_history_gap.max(1),
            seed: Seed::of(birth.seed, "mailbox"),
            messages_total: 0,
            threads_total: 0,
            version: 0,
            positions: listing::Positions::default(),
            drafts: Vec::new(),
        }
    }

    /// The current record's id.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// How many messages exist.
    pub(crate) fn messages_total(&self) -> u32 {
        self.messages_total
    }

    /// How many threads have a message.
    pub(crate) fn threads_total(&self) -> u32 {
        self.threads_total
    }

    /// The message at `index`.
    pub(crate) fn message(&self, index: Index) -> &Message {
        &self.messages[index as usize]
    }

    /// All messages that ever were, in order of arrival.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter_from(0)
    }

    /// The place of the existing message `id`.
    pub(crate) fn find(&self, id: u64) -> Option<Index> {
        let at = self.messages.partition_point(|message| message.id < id);
        let message = self.messages.get(at)?;
        (message.id == id && !message.gone).then(|| index(at))
    }

    /// The id of the thread of `message`: that of its first message.
    pub(crate) fn thread_id(&self, message: &Message) -> u64 {
        self.message(message.root).id
    }

    /// What the message says.
    pub(crate) fn content(&self, message: &Message) -> Content {
        match message.body {
            SYNTHETIC => Content::Synthetic,
            at => Content::Mail(Arc::clone(&self.mails[at as usize])),
        }
    }

    /// Puts a message into the mailbox and writes its `messagesAdded`.
    pub(crate) fn deliver(&mut self, new: NewMessage, now_ms: i64) -> Index {
        let record = self.next_record();
        self.add(new, now_ms, record)
    }

    /// Adds and takes away labels of several messages in one record; messages that it changes nothing about are
    /// left out, and no record is written if there is no other.
    pub(crate) fn relabel(
        &mut self,
        messages: &[Index],
        add: LabelSet,
        remove: LabelSet,
        now_ms: i64,
    ) -> Result<(), label::Error> {
        let mut record = None;
        for &at in messages {
            let old = self.message(at).labels;
            let added = self.labels.minus(add, old)?;
            let stays = self.labels.minus(old, remove)?;
            let removed = self.labels.minus(old, stays)?;
            let new = self.labels.union(stays, added)?;
            if new == old {
                continue;
            }
            let record = *record.get_or_insert_with(|| self.next_record());
            for (kind, labels) in [(Kind::LabelsAdded, added), (Kind::LabelsRemoved, removed)] {
                if !labels.is_empty() {
                    self.changes.push(Change { record, at_ms: now_ms, message: at, labels, after: new, kind });
                }
            }
            let message = &mut self.messages[at as usize];
            message.labels = new;
            message.history = record;
        }
        Ok(())
    }

    /// Deletes a message for good.
    pub(crate) fn delete(&mut self, at: Index, now_ms: i64) {
        let record = self.next_record();
        self.remove(at, now_ms, record);
    }

    /// Saves a draft: a new message each time, and the last one deleted. A new draft's id is its first message's.
    pub(crate) fn save_draft(&mut self, draft: Option<u64>, content: Content, now_ms: i64) -> (u64, Index) {
        let old = draft.and_then(|id| self.drafts.iter().position(|draft| draft.id == id));
        let thread = old.map(|at| self.message(self.drafts[at].message).root);
        let labels = LabelSet::system(label::DRAFT);
        let message = self.deliver(NewMessage { labels, internal_ms: now_ms, content, thread }, now_ms);
        match old {
            Some(at) => {
                let replaced = std::mem::replace(&mut self.drafts[at].message, message);
                self.delete(replaced, now_ms);
                (self.drafts[at].id, message)
            }
            None => {
                let id = self.message(message).id;
                self.drafts.push(Draft { id, message });
                (id, message)
            }
        }
    }

    /// Sends a draft: a new message labelled `SENT` (and `INBOX`, `UNREAD` if it went to its own sender) takes the
    /// place of the draft's.
    pub(crate) fn send_draft(&mut self, draft: u64, to_self: bool, now_ms: i64) -> Result<Index, NoSuchMessage> {
        let at = self.drafts.iter().position(|kept| kept.id == draft).ok_or(NoSuchMessage(draft))?;
        let draft = self.drafts.swap_remove(at);
        let old = self.message(draft.message);
        let (thread, content) = (Some(old.root), self.content(old));
        let bits = label::SENT | if to_self { label::INBOX | label::UNREAD } else { 0 };
        let new = NewMessage { labels: LabelSet::system(bits), internal_ms: now_ms, content, thread };
        let sent = self.deliver(new, now_ms);
        self.delete(draft.message, now_ms);
        Ok(sent)
    }

    /// Makes every history id that anyone may hold expire; the head that is read from now on is good.
    pub(crate) fn expire(&mut self) {
        self.floor = self.next_record();
    }

    fn add(&mut self, new: NewMessage, now_ms: i64, record: u64) -> Index {
        let at = index(self.messages.len());
        let root = new.thread.unwrap_or_else(|| self.thread_of(&new.content, at));
        let body = match new.content {
            Content::Synthetic => SYNTHETIC,
            Content::Mail(mail) => {
                self.mails.push(mail);
                index(self.mails.len() - 1)
            }
        };
        let id = self.next_message_id(now_ms);
        self.messages.push(Message {
            id,
            history: record,
            internal_ms: new.internal_ms,
            added_ms: now_ms,
            root,
            in_thread: 0,
            labels: new.labels,
            body,
            gone: false,
        });
        self.changes.push(Change {
            record,
            at_ms: now_ms,
            message: at,
            labels: LabelSet::default(),
            after: new.labels,
            kind: Kind::Added,
        });
        self.messages_total += 1;
        let thread = &mut self.messages[root as usize];
        thread.in_thread += 1;
        self.threads_total += u32::from(thread.in_thread == 1);
        let in_order = self.by_date.last().is_none_or(|&last| self.message(last).internal_ms <= new.internal_ms);
        self.sorted &= in_order;
        self.by_date.push(at);
        at
    }

    fn remove(&mut self, at: Index, now_ms: i64, record: u64) {
        let message = &mut self.messages[at as usize];
        if message.gone {
            return;
        }
        message.gone = true;
        message.history = record;
        let (labels, root) = (message.labels, message.root);
        let none = LabelSet::default();
        self.changes.push(Change {
            record,
            at_ms: now_ms,
            message: at,
            labels: none,
            after: labels,
            kind: Kind::Deleted,
        });
        self.messages_total -= 1;
        let thread = &mut self.messages[root as usize];
        thread.in_thread -= 1;
        self.threads_total -= u32::from(thread.in_thread == 0);
    }

    /// The thread that the mail's references name, and the mail's own id remembered for its answers.
    fn thread_of(&mut self, content: &Content, at: Index) -> Index {
        let Content::Mail(mail) = content else { return at };
        let hash = |id: &String| id.bytes().fold(0, |state, byte| seed::mix(state ^ u64::from(byte)));
        let known = mail.references().iter().rev().find_map(|id| self.threads_by_reference.get(&hash(id)).copied());
        let root = known.unwrap_or(at);
        if let Some(id) = mail.message_id() {
            self.threads_by_reference.entry(hash(&id.to_owned())).or_insert(root);
        }
        root
    }

    /// The upper 44 bits are the time in ms, as in real ids; the rest is random. Always above the last id, and
    /// below 2⁶³.
    fn next_message_id(&mut self, now_ms: i64) -> u64 {
        let by_time = u64::try_from(now_ms).unwrap_or(0).min((1 << 43) - 1) << 20;
        match self.messages.last() {
            Some(last) if last.id >= by_time => last.id + 1 + self.seed.below(64),
            _ => by_time | self.seed.below(1 << 12),
        }
    }

    /// A new head.
    fn next_record(&mut self) -> u64 {
        self.head += 1 + self.seed.below(self.max_history_gap);
        self.version += 1;
        self.head
    }
}

/// A mailbox holds fewer messages than fit in 32 bits: they would take 240 GB.
fn index(at: usize) -> Index {
    Index::try_from(at).expect("a mailbox holds fewer than 2³² messages")
}
