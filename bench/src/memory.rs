//! Gmail in memory: answers at once, as Gmail would answer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::mailbox::reply::{
    Answer, Call, HistoryPage, HistoryRecord, Label, ListPage, MessageRef, PageToken, Profile, Reply, Request,
};
use domain::{ConnectionId, HistoryId, MessageId, OrganisationId};
use poller::Mailboxes;
use tokio::sync::watch;

/// The history id of an empty mailbox.
const FIRST: u64 = 4_000_000;

/// Message ids begin here and are so far apart, in the way that Gmail's are: the time, then bits that tell messages of
/// the same time apart.
const MESSAGE: u64 = 0x19a0_0000_0000_0000;
const APART: u64 = 0x3_1415;

/// Mailboxes that hold nothing but the number of messages that have arrived.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    arrived: Mutex<HashMap<ConnectionId, u64>>,
    stalled: Mutex<Option<Stall>>,
}

/// Which mailbox does not answer, and until when.
#[derive(Debug)]
struct Stall {
    connection: ConnectionId,
    asked: watch::Sender<bool>,
    ended: watch::Receiver<()>,
}

/// A mailbox that does not answer until this is dropped.
#[derive(Debug)]
pub(crate) struct Stalled {
    begun: watch::Receiver<bool>,
    _until: watch::Sender<()>,
}

impl Stalled {
    /// Ends when the mailbox has been asked for something.
    pub(crate) async fn begun(&self) {
        // The sender is gone only when another mailbox is stalled, and then there is nothing to wait for.
        let _ = self.begun.clone().wait_for(|begun| *begun).await;
    }
}

impl Memory {
    /// A mailbox stops answering.
    pub(crate) fn stall(&self, connection: ConnectionId) -> Stalled {
        let (asked, begun) = watch::channel(false);
        let (until, ended) = watch::channel(());
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stall { connection, asked, ended });
        Stalled { begun, _until: until }
    }

    /// What a call to this mailbox waits for: until nobody holds the other end.
    fn wait(&self, connection: ConnectionId) -> Option<watch::Receiver<()>> {
        let stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        let stall = stalled.as_ref().filter(|stall| stall.connection == connection)?;
        stall.asked.send_replace(true);
        Some(stall.ended.clone())
    }

    /// So many more messages arrive in a mailbox.
    pub(crate) fn deliver(&self, connection: ConnectionId, messages: u64) {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner).entry(connection).or_default() += messages;
    }

    fn arrived(&self, connection: ConnectionId) -> u64 {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).get(&connection).copied().unwrap_or(0)
    }
}

impl Mailboxes for Memory {
    async fn call(&self, _: OrganisationId, connection: ConnectionId, call: Call) -> Answer {
        if let Some(mut ended) = self.wait(connection) {
            // It never changes: this ends when it is dropped.
            let _ = ended.changed().await;
        }
        let arrived = self.arrived(connection);
        let (reply, units) = match call.request {
            Request::Profile => (Reply::Profile(Profile { head: HistoryId::new(FIRST + arrived) }), 1),
            Request::History { start, token, max } => (Reply::History(page(arrived, start, token, max)), 2),
            // What arrived before the first sync is not what is measured.
            Request::List { .. } => (Reply::List(ListPage::default()), 5),
            Request::Watch | Request::Stop => (Reply::Stopped, 0),
        };
        Answer { result: Ok(reply), date: None, units, token_version: call.token_version }
    }
}

/// The page of history after `start`, or after the record that the token names.
fn page(arrived: u64, start: HistoryId, token: Option<PageToken>, max: u16) -> HistoryPage {
    let after = token.and_then(|PageToken(text)| text.parse().ok()).unwrap_or(start.get()).max(FIRST);
    let head = FIRST + arrived;
    let last = head.min(after + u64::from(max));
    HistoryPage {
        records: (after + 1..=last).map(record).collect(),
        next: (last < head).then(|| PageToken(last.to_string())),
        head: HistoryId::new(head),
    }
}

/// The record of one message that arrived.
fn record(id: u64) -> HistoryRecord {
    let message = MessageId::from_u64(MESSAGE + (id - FIRST) * APART);
    let labels = ["INBOX", "UNREAD", "CATEGORY_PERSONAL"].map(Label::new).to_vec();
    let added = vec![MessageRef { id: message.clone(), thread_id: message, labels: Some(labels) }];
    HistoryRecord { id: HistoryId::new(id), added, ..HistoryRecord::default() }
}
