//! What a fetched message is: `gmail.message.fetched`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::{GmailMessageDiscovered, Origin};
use crate::id::{ConnectionId, EventId, HistoryId, JobId, MessageId, OrganisationId, ThreadId};
use crate::mailbox::reply::Label;
use crate::time::Timestamp;

/// The headers and attachments of one message of one mailbox, or that it is gone: `gmail.message.fetched`, keyed by
/// connection id. It has the `eventId` of the [`GmailMessageDiscovered`] that it follows; type and source in the headers
/// tell the two apart.
///
/// [`GmailMessageFetched::gone`] makes it of a message that is no more, `gmail::fetched` of one that was read. All text
/// is the mail's own, decoded, without control characters, and bounded: a record stays under [`MAX_TEXT`] bytes of it.
/// Prints without anything of the mail.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GmailMessageFetched {
    /// UUIDv5 of connection and message: the same for every announcement of this message.
    pub event_id: EventId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The message, within its mailbox.
    pub message_id: MessageId,
    /// Its thread, within its mailbox.
    pub thread_id: ThreadId,
    /// By which way it was found.
    pub origin: Origin,
    /// A job that was answered by the walk that found it, when one was waiting.
    pub job_id: Option<JobId>,
    /// When the poller found it.
    pub discovered_at: Timestamp,
    /// When it was read, or found to be gone.
    pub fetched_at: Timestamp,
    /// Whether it was gone when it was to be read; then all below is absent.
    pub gone: bool,
    /// The last history record that had changed it.
    pub history_id: Option<HistoryId>,
    /// The labels that it bore when it was read.
    pub label_ids: Option<Vec<Label>>,
    /// When Gmail took it in; for imported mail what its `Date` header says.
    pub internal_date: Option<Timestamp>,
    /// About how many bytes it has as a whole.
    pub size_estimate: Option<i64>,
    /// Its first words as plain text.
    pub snippet: Option<String>,
    /// `From`.
    pub from: Vec<Address>,
    /// `To`.
    pub to: Vec<Address>,
    /// `Cc`.
    pub cc: Vec<Address>,
    /// `Reply-To`.
    pub reply_to: Vec<Address>,
    /// `Subject`, decoded.
    pub subject: Option<String>,
    /// `Subject` as it stands, where it does not decode cleanly.
    pub subject_raw: Option<String>,
    /// `Date`, where it is one.
    pub date: Option<Timestamp>,
    /// `Date` as it stands.
    pub date_raw: Option<String>,
    /// `Message-ID` without brackets.
    pub internet_message_id: Option<String>,
    /// The ids of `In-Reply-To`, without brackets.
    pub in_reply_to: Vec<String>,
    /// The ids of `References`, without brackets, the thread's first mail first.
    pub references: Vec<String>,
    /// `List-Id`, decoded.
    pub list_id: Option<String>,
    /// `List-Unsubscribe` as it stands.
    pub list_unsubscribe: Option<String>,
    /// `Precedence`.
    pub precedence: Option<String>,
    /// `Auto-Submitted`.
    pub auto_submitted: Option<String>,
    /// `Authentication-Results`, each of them, topmost first.
    pub authentication_results: Vec<String>,
    /// Every part that is a file, in the mail's order.
    pub attachments: Vec<Attachment>,
    /// The same for copies of one mail in different mailboxes; none where the mail does not say enough to tell.
    pub content_key: Option<String>,
    /// The names, as in the schema, of the fields above that were cut.
    pub truncated_fields: Vec<String>,
}

/// The most bytes of text that all fields of one [`GmailMessageFetched`] hold together: half of what a broker takes
/// as one record by default.
pub const MAX_TEXT: usize = 512 << 10;

impl GmailMessageFetched {
    /// What is announced of a message that Gmail no longer has.
    pub fn gone(discovered: &GmailMessageDiscovered, fetched_at: Timestamp) -> Self {
        Self {
            event_id: discovered.event_id,
            organisation_id: discovered.organisation_id,
            connection_id: discovered.connection_id,
            message_id: discovered.message_id.clone(),
            thread_id: discovered.thread_id.clone(),
            origin: discovered.origin,
            job_id: discovered.job_id,
            discovered_at: discovered.discovered_at,
            fetched_at,
            gone: true,
            history_id: None,
            label_ids: None,
            internal_date: None,
            size_estimate: None,
            snippet: None,
            from: Vec::new(),
            to: Vec::new(),
            cc: Vec::new(),
            reply_to: Vec::new(),
            subject: None,
            subject_raw: None,
            date: None,
            date_raw: None,
            internet_message_id: None,
            in_reply_to: Vec::new(),
            references: Vec::new(),
            list_id: None,
            list_unsubscribe: None,
            precedence: None,
            auto_submitted: None,
            authentication_results: Vec::new(),
            attachments: Vec::new(),
            content_key: None,
            truncated_fields: Vec::new(),
        }
    }
}

impl fmt::Debug for GmailMessageFetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GmailMessageFetched")
            .field("connection_id", &self.connection_id)
            .field("message_id", &self.message_id)
            .field("origin", &self.origin)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

/// One address of a header, or what stood in its place. Does not print: it is somebody's mail.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Address {
    /// The display name, decoded.
    pub name: Option<String>,
    /// The address itself, as it was spelled; none where none could be made out.
    pub address: Option<String>,
    /// The name of the RFC 5322 group that it stands in.
    pub group: Option<String>,
    /// The header's text, where it is no list of addresses or a name in it does not decode.
    pub raw: Option<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

/// One part of a mail that is a file. Prints without its names.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The part's place in the mail, such as `1` or `0.2`. It stays the same; the file is asked for by it.
    pub part_id: String,
    /// Its name, decoded; none where the mail gives none. The sender's word: never a path to write to.
    pub filename: Option<String>,
    /// The name as the header has it, where it does not decode cleanly.
    pub filename_raw: Option<String>,
    /// The media type that the sender gave it, in lower case, without parameters.
    pub mime_type: String,
    /// Bytes of its decoded content, by Gmail's count.
    pub size: i64,
    /// Whether it belongs to the text, such as an image shown in it, rather than stands beside it.
    pub inline: bool,
    /// Its `Content-ID` without brackets.
    pub content_id: Option<String>,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("part_id", &self.part_id)
            .field("size", &self.size)
            .field("inline", &self.inline)
            .finish_non_exhaustive()
    }
}
