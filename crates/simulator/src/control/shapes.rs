//! What goes into the control API and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::mailbox::{Index, Mailbox};
use crate::quota::Method;
use crate::world::Account;

/// A mailbox to be made.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewMailbox {
    /// Its address.
    pub email: String,
    /// The head before anything happens; else drawn from the seed. May exceed 2⁵³.
    #[serde(default)]
    pub first_history_id: Option<u64>,
    /// The client that the grant is for; else any.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The scopes of the grant, parted by blanks; else `gmail.readonly`.
    #[serde(default)]
    pub scopes: Option<String>,
}

/// A mailbox as it was made.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Its address.
    pub email: String,
    /// A refresh token for it.
    pub refresh_token: String,
    /// Its head, in decimal.
    #[serde(serialize_with = "as_text")]
    pub history_id: u64,
}

impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { email, refresh_token: _, history_id } = self;
        let mut shown = f.debug_struct("Created");
        shown.field("email", email).field("refresh_token", &"***").field("history_id", history_id).finish()
    }
}

/// What is delivered.
#[derive(Debug, Clone)]
pub enum Mails {
    /// This many that nobody wrote.
    Synthetic(usize),
    /// One, in RFC 5322.
    Raw(Vec<u8>),
    /// All of an mbox (mboxrd).
    Mbox(Vec<u8>),
}

/// How it is delivered.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// Labels at delivery, by id or name; else `INBOX` and `UNREAD`.
    pub labels: Option<Vec<String>>,
    /// `internalDate` of the first, ms since the epoch; else now.
    pub internal_ms: Option<i64>,
    /// How much later each next one is dated, in ms.
    pub step_ms: i64,
}

/// A message as the world knows it: the truth that a checker compares with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Truth {
    /// 16 hex digits.
    pub id: String,
    /// 16 hex digits.
    pub thread_id: String,
    /// Its labels; for one that is gone, its last.
    pub label_ids: Vec<String>,
    /// When it came, ms since the epoch.
    pub delivered_ms: i64,
    /// `internalDate`, ms since the epoch.
    pub internal_ms: i64,
    /// Its last record.
    #[serde(serialize_with = "as_text")]
    pub history_id: u64,
    /// Deleted for good.
    pub gone: bool,
}

/// What was asked, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// Calls by method, also refused ones.
    pub calls: BTreeMap<&'static str, u64>,
    /// Units charged.
    pub units: u64,
    /// Calls refused for a quota or for concurrency.
    pub throttled: u64,
    /// The most requests at the same time.
    pub most_at_once: u32,
}

/// What was asked of everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// All mailboxes together; `most_at_once` is the most of any.
    pub total: Spent,
    /// Requests to the token endpoint.
    pub token_requests: u64,
    /// Posts of pushes.
    pub pushes_posted: u64,
    /// Pushes that were acknowledged.
    pub pushes_acknowledged: u64,
    /// Each mailbox that was asked anything.
    pub mailboxes: BTreeMap<String, Spent>,
}

pub(super) fn truth(mailbox: &Mailbox, index: Index) -> Truth {
    truth_of(mailbox, mailbox.message(index))
}

pub(super) fn truth_of(mailbox: &Mailbox, message: &crate::mailbox::Message) -> Truth {
    Truth {
        id: format!("{:016x}", message.id),
        thread_id: format!("{:016x}", mailbox.thread_id(message)),
        label_ids: mailbox.labels.ids(message.labels),
        delivered_ms: message.added_ms,
        internal_ms: message.internal_ms,
        history_id: message.history,
        gone: message.gone,
    }
}

pub(super) fn spent(account: &Account) -> Spent {
    let usage = &account.usage;
    let calls = Method::ALL.iter().filter_map(|method| {
        let calls = usage.calls[method.index()].load(Ordering::Relaxed);
        (calls > 0).then_some((method.name(), calls))
    });
    Spent {
        calls: calls.collect(),
        units: usage.units.load(Ordering::Relaxed),
        throttled: usage.throttled.load(Ordering::Relaxed),
        most_at_once: usage.most_at_once.load(Ordering::Relaxed),
    }
}

fn as_text<S: serde::Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
