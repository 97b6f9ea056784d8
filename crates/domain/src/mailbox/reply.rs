//! What Gmail is asked and what it answers, as the mailbox sees it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{HistoryId, MessageId, ThreadId, TokenVersion};
use crate::job::Lane;
use crate::time::{Timestamp, Window};

/// A label id. Gmail's own (`INBOX`, `SPAM`, …) are kept without allocating.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Cow<'static, str>);

/// The label ids that Gmail defines itself (API guide, "Manage labels"), most frequent first.
const SYSTEM: [&str; 17] = [
    "INBOX",
    "UNREAD",
    "IMPORTANT",
    "CATEGORY_UPDATES",
    "CATEGORY_PERSONAL",
    "CATEGORY_PROMOTIONS",
    "CATEGORY_SOCIAL",
    "CATEGORY_FORUMS",
    "SENT",
    "DRAFT",
    "SPAM",
    "TRASH",
    "STARRED",
    "YELLOW_STAR",
    "CHAT",
    "OPENED",
    "SNOOZED",
];

impl Label {
    /// Mail that Gmail took for spam.
    pub const SPAM: Self = Self(Cow::Borrowed("SPAM"));
    /// Mail in the bin.
    pub const TRASH: Self = Self(Cow::Borrowed("TRASH"));
    /// A draft; every autosave is a message of its own.
    pub const DRAFT: Self = Self(Cow::Borrowed("DRAFT"));
    /// A chat transcript.
    pub const CHAT: Self = Self(Cow::Borrowed("CHAT"));

    /// The label that Gmail spells `text`.
    pub fn new(text: &str) -> Self {
        match SYSTEM.iter().find(|known| **known == text) {
            Some(known) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(text.to_owned())),
        }
    }

    /// The label id as Gmail spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Label {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label id")
            }

            fn visit_str<E>(self, text: &str) -> Result<Label, E> {
                Ok(Label::new(text))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// A page token: a position, good only for the walk that got it, never stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageToken(pub String);

/// Names one call of one mailbox while it is in flight. An answer that nothing waits for is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// A call to Gmail that the mailbox wants made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What the answer has to be brought back with.
    pub id: CallId,
    /// The priority.
    pub lane: Lane,
    /// What is asked.
    pub request: Request,
    /// When nobody waits for the answer any more.
    pub deadline: Option<Timestamp>,
    /// The oldest refresh token that may still be used: a cached access token of an earlier one is not.
    pub token_version: TokenVersion,
    /// The W3C `traceparent` of the job that the call serves first.
    pub trace: Option<Arc<str>>,
}

/// What is asked of Gmail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `users.getProfile`: the mailbox's current history id.
    Profile,
    /// `users.history.list` of added messages and changed labels after `start`.
    History {
        /// Records after this id are wanted. Constant over all pages of a walk.
        start: HistoryId,
        /// The page; none for the first.
        token: Option<PageToken>,
        /// At most so many records, 1 to 500.
        max: u16,
    },
    /// `users.messages.list` with spam and trash included, drafts and chats not.
    List {
        /// By `internalDate`; the ends are whole seconds and may be taken in or left out by Gmail.
        window: Window,
        /// Only what lies in spam or trash.
        held_only: bool,
        /// The page; none for the first.
        token: Option<PageToken>,
        /// At most so many messages, 1 to 500.
        max: u16,
    },
    /// `users.watch` for changes of any label, on the Pub/Sub topic that the client is set up with.
    Watch,
    /// `users.stop`: no more pushes for this account. Whoever makes the calls leaves it out where another connection
    /// of the same account may still want them.
    Stop,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What Gmail said.
    pub result: Result<Reply, CallError>,
    /// Gmail's `Date` header: its clock decides what "now" is in a mailbox.
    pub date: Option<Timestamp>,
    /// Quota units spent.
    pub units: u32,
    /// The version of the refresh token that the call was made under.
    pub token_version: TokenVersion,
}

/// A successful answer, by what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Profile`].
    Profile(Profile),
    /// To [`Request::History`].
    History(HistoryPage),
    /// To [`Request::List`].
    List(ListPage),
    /// To [`Request::Watch`].
    Watch(Watching),
    /// To [`Request::Stop`].
    Stopped,
}

/// `users.watch`, as far as the mailbox cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// When it ends if it is not renewed: about 7 days from now.
    pub expires_at: Timestamp,
}

/// `users.getProfile`, as far as the mailbox cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The mailbox's current history id.
    pub head: HistoryId,
}

/// One page of `users.history.list`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryPage {
    /// The records, normally with rising ids; may be empty though `next` is there.
    pub records: Vec<HistoryRecord>,
    /// The next page, if there is one.
    pub next: Option<PageToken>,
    /// The mailbox's current history id when the page was made.
    pub head: HistoryId,
}

/// One history record. A record may name several messages in several ways, or none that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryRecord {
    /// The record's id.
    pub id: HistoryId,
    /// Messages that arrived.
    pub added: Vec<MessageRef>,
    /// Messages that got labels, with the labels they got.
    pub labels_added: Vec<LabelChange>,
    /// Messages that lost labels, with the labels they lost.
    pub labels_removed: Vec<LabelChange>,
}

/// A message as history and listings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// The message.
    pub id: MessageId,
    /// Its thread.
    pub thread_id: ThreadId,
    /// All its labels after the record, where Gmail gave them; it need not, and listings never do.
    pub labels: Option<Vec<Label>>,
}

/// A change of a message's labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelChange {
    /// The message.
    pub message: MessageRef,
    /// The labels it got or lost.
    pub labels: Vec<Label>,
}

/// One page of `users.messages.list`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// The messages, normally newest first.
    pub messages: Vec<MessageRef>,
    /// The next page, if there is one.
    pub next: Option<PageToken>,
}

/// Why a call brought nothing, decided on Gmail's reason, not on the status alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// Gmail pushes back. Says nothing about the page that was asked for.
    Throttled {
        /// When Gmail said to come back, if it said so.
        until: Option<Timestamp>,
    },
    /// An outage or an accident: server errors, time-outs, resets, bodies that are not what they should be. Also our
    /// own side's trouble, such as a token store that is away.
    Transient {
        /// What happened, without anything of the mail.
        detail: String,
    },
    /// A 200 whose body breaks the schema, and where.
    Broken {
        /// The place and what was wrong there.
        detail: String,
    },
    /// 404. For history: the start is too old.
    NotFound,
    /// 400 "Invalid pageToken".
    InvalidPageToken,
    /// The grant is gone: somebody has to consent again.
    Revoked {
        /// The cause as Google's token endpoint or Gmail names it.
        cause: String,
    },
    /// The connection is not there any more.
    ConnectionGone,
    /// An error that trying again does not mend.
    Permanent {
        /// The dotted code for the job, such as `Gmail.Forbidden`.
        code: String,
        /// A sentence.
        detail: String,
    },
}
