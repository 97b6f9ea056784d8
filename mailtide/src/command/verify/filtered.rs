//! Which announced messages are not fetched because the organisation's filter, as it is now, keeps them back.

use std::collections::BTreeMap;

use domain::filter::Rule;
use domain::mailbox::reply::Label;
use domain::{EventId, FetchFilter, GmailMessageDiscovered, Lane, MessageId, Origin, ThreadId};
use gmail::{Client, Mailbox, Message, Reading, View};
use store::connections::Connection;

use super::LOOK;
use crate::command::now;

/// What is missing among the fetched, and why it need not be there.
#[derive(Debug, Default)]
pub(super) struct Sifted<'a> {
    /// Nobody knows why.
    pub(super) unfetched: Vec<&'a MessageId>,
    /// Kept back, by the rule.
    pub(super) filtered: BTreeMap<&'static str, usize>,
    /// What the looks cost.
    pub(super) units: u32,
}

impl<'a> Sifted<'a> {
    fn put(&mut self, id: &'a MessageId, rule: Option<Rule>) {
        match rule {
            Some(rule) => *self.filtered.entry(rule.as_str()).or_default() += 1,
            None => self.unfetched.push(id),
        }
    }
}

/// Judges messages as the fetcher does: by the labels that the announcement names, else by the message itself, of which
/// `most` are read.
pub(super) async fn sift<'a>(
    client: &Client,
    connection: &Connection,
    filter: &FetchFilter,
    unfetched: Vec<(&'a MessageId, Option<&[Label]>)>,
    most: usize,
) -> Sifted<'a> {
    let mut sifted = Sifted::default();
    let mut unsure = Vec::new();
    for (id, labels) in unfetched {
        match labels.and_then(|labels| filter.judge_labels(labels)) {
            None if !filter.is_empty() && unsure.len() < most => unsure.push(id),
            rule => sifted.put(id, rule),
        }
    }
    let mailbox = Mailbox { organisation_id: connection.organisation_id, connection_id: connection.connection_id };
    let deadline = tokio::time::Instant::now() + LOOK;
    let reading = Reading { lane: Lane::Audit, view: View::Full, deadline, token_version: connection.token_version };
    let ids: Vec<MessageId> = unsure.iter().map(|id| (*id).clone()).collect();
    let read = client.get_messages(mailbox, &ids, &reading).await;
    sifted.units = read.units;
    for (id, message) in unsure.into_iter().zip(read.messages) {
        sifted.put(id, message.ok().and_then(|message| judge(filter, connection, id, &message)));
    }
    sifted
}

fn judge(filter: &FetchFilter, connection: &Connection, id: &MessageId, message: &Message) -> Option<Rule> {
    // What is judged is in the message alone.
    let discovered = GmailMessageDiscovered {
        event_id: EventId::of(connection.connection_id, id),
        organisation_id: connection.organisation_id,
        connection_id: connection.connection_id,
        message_id: id.clone(),
        thread_id: ThreadId::new(""),
        label_ids: None,
        history_id: None,
        origin: Origin::Audit,
        job_id: None,
        discovered_at: now(),
    };
    let by_labels = filter.judge_labels(&message.labels);
    by_labels.or_else(|| filter.judge(&gmail::fetched(&discovered, message, now())))
}
