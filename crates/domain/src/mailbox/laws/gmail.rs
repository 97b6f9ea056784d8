//! A model of Gmail that lags, pages by position, expires and cannot be read here and there.

use crate::id::{HistoryId, MessageId};
use crate::mailbox::reply::*;
use crate::time::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mail,
    Spam,
    Draft,
}

/// A mailbox at Google.
pub(super) struct Gmail {
    pub(super) head: u64,
    pub(super) floor: u64,
    pub(super) records: Vec<Record>,
    pub(super) messages: Vec<Message>,
    /// So many pages of history without records come first.
    pub(super) empty_pages: usize,
    /// The last page of history leads back to the first.
    pub(super) is_circling: bool,
}

pub(super) struct Record {
    pub(super) id: u64,
    pub(super) visible_at: i64,
    pub(super) message: usize,
    pub(super) rescue: bool,
}

pub(super) struct Message {
    pub(super) id: MessageId,
    pub(super) arrived: i64,
    pub(super) indexed_at: i64,
    pub(super) kind: Kind,
    pub(super) rescued: bool,
    /// Pages of history that name it cannot be read; pages of listings that do.
    pub(super) poison: (bool, bool),
}

impl Message {
    pub(super) fn labels(&self) -> Vec<Label> {
        match self.kind {
            Kind::Spam if !self.rescued => vec![Label::SPAM],
            Kind::Draft => vec![Label::DRAFT],
            Kind::Mail | Kind::Spam => vec![Label::new("INBOX")],
        }
    }

    fn named(&self, labels: Option<Vec<Label>>) -> MessageRef {
        MessageRef { id: self.id.clone(), thread_id: self.id.clone(), labels }
    }
}

impl Gmail {
    pub(super) fn new() -> Self {
        Self { head: 1 << 54, floor: 0, records: Vec::new(), messages: Vec::new(), empty_pages: 0, is_circling: false }
    }

    fn record(&mut self, now: i64, lag: i64, message: usize, rescue: bool) {
        self.head += 1 + (self.head % 7);
        self.records.push(Record { id: self.head, visible_at: now + lag, message, rescue });
    }

    pub(super) fn deliver(&mut self, now: i64, kind: Kind, lag: i64, index_lag: i64) {
        let number = self.messages.len() as u64;
        // Ids that rise, as Gmail's do, and now and then one that is spelled otherwise.
        let id = if number % 11 == 10 {
            MessageId::new(&format!("odd-{number}"))
        } else {
            MessageId::from_u64(number << 20)
        };
        let indexed_at = now + index_lag;
        self.messages.push(Message { id, arrived: now, indexed_at, kind, rescued: false, poison: (false, false) });
        self.record(now, lag, number as usize, false);
    }

    pub(super) fn rescue(&mut self, now: i64) {
        if let Some(message) = self.messages.iter().position(|message| message.kind == Kind::Spam && !message.rescued) {
            self.messages[message].rescued = true;
            self.record(now, 0, message, true);
        }
    }

    /// Puts a rescued message into spam and takes it out again: nothing new.
    pub(super) fn respam(&mut self, now: i64) {
        if let Some(message) = self.messages.iter().position(|message| message.rescued) {
            self.record(now, 0, message, true);
        }
    }

    fn page<T: Clone>(all: &[T], token: Option<&PageToken>, max: u16) -> (Vec<T>, Option<PageToken>) {
        let from = token.map_or(0, |token| token.0.parse::<usize>().unwrap()).min(all.len());
        let until = (from + usize::from(max)).min(all.len());
        (all[from..until].to_vec(), (until < all.len()).then(|| PageToken(until.to_string())))
    }

    pub(super) fn answer(&self, now: i64, request: &Request) -> Result<Reply, CallError> {
        match request {
            Request::Profile => Ok(Reply::Profile(Profile { head: HistoryId::new(self.head) })),
            Request::History { start, token, max } => {
                if start.get() < self.floor {
                    return Err(CallError::NotFound);
                }
                let visible = self.records.iter().filter(|record| record.id > start.get() && record.visible_at <= now);
                let head = HistoryId::new(self.head);
                let empty =
                    token.as_ref().map_or(Some(0), |token| token.0.strip_prefix("empty")?.parse::<usize>().ok());
                if let Some(empty) = empty.filter(|empty| *empty < self.empty_pages) {
                    let next = Some(PageToken(format!("empty{}", empty + 1)));
                    return Ok(Reply::History(HistoryPage { records: Vec::new(), next, head }));
                }
                let token = token.as_ref().filter(|token| !token.0.starts_with("empty"));
                let (records, next) = Self::page(&visible.collect::<Vec<_>>(), token, *max);
                let next = next.or_else(|| self.is_circling.then(|| PageToken("0".to_owned())));
                if records.iter().any(|record| self.messages[record.message].poison.0) {
                    return Err(CallError::Transient { detail: "500".to_owned() });
                }
                let records: Vec<_> = records.into_iter().map(|record| self.history_record(record)).collect();
                Ok(Reply::History(HistoryPage { records, next, head }))
            }
            Request::List { window, held_only, token, max } => {
                let (since, until) = (window.since.as_millis(), window.until.as_millis());
                let listed = self.messages.iter().rev().filter(|message| {
                    let second = message.arrived / 1_000 * 1_000;
                    let inside = message.indexed_at <= now && (since..until).contains(&second);
                    inside && message.kind != Kind::Draft && (!held_only || message.labels() == [Label::SPAM])
                });
                let (messages, next) = Self::page(&listed.collect::<Vec<_>>(), token.as_ref(), *max);
                if messages.iter().any(|message| message.poison.1) {
                    return Err(CallError::Transient { detail: "500".to_owned() });
                }
                let messages: Vec<_> = messages.into_iter().map(|message| message.named(None)).collect();
                Ok(Reply::List(ListPage { messages, next }))
            }
            Request::Watch => Ok(Reply::Watch(Watching { expires_at: Timestamp::from_millis(now + 7 * 86_400_000) })),
            Request::Stop => Ok(Reply::Stopped),
        }
    }

    /// Whether the answer would be an error.
    pub(super) fn would_fail(&self, now: i64, request: &Request) -> bool {
        self.answer(now, request).is_err()
    }

    fn history_record(&self, record: &Record) -> HistoryRecord {
        let message = &self.messages[record.message];
        let mut said = HistoryRecord { id: HistoryId::new(record.id), ..HistoryRecord::default() };
        if record.rescue {
            let change = LabelChange { message: message.named(Some(message.labels())), labels: vec![Label::SPAM] };
            said.labels_removed.push(change);
        } else {
            // The labels at delivery, whatever they are now.
            let labels = if message.kind == Kind::Spam { vec![Label::SPAM] } else { message.labels() };
            said.added.push(message.named(Some(labels)));
        }
        said
    }
}

/// The page of a history in which the records 1 to `n` each add one message.
pub(super) fn page_of(
    n: u64,
    start: HistoryId,
    token: Option<PageToken>,
    max: u16,
    message: impl Fn(u64) -> MessageRef,
) -> HistoryPage {
    let after = token.map_or(start.get(), |token| token.0.parse().unwrap());
    let last = n.min(after.saturating_sub(1) + u64::from(max)) + 1;
    let record = |number: u64| HistoryRecord {
        id: HistoryId::new(number),
        added: vec![message(number)],
        ..HistoryRecord::default()
    };
    HistoryPage {
        records: (after + 1..=last).map(record).collect(),
        next: (last <= n).then(|| PageToken(last.to_string())),
        head: HistoryId::new(n + 1),
    }
}
