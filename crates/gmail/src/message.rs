//! A message as `users.messages.get` gives it: its headers and the tree of its parts, without what they hold.

use std::fmt;
use std::sync::LazyLock;

use domain::mailbox::reply::{CallError, Label};
use domain::{HistoryId, MessageId, ThreadId, Timestamp};
use serde::Deserialize;
use serde::de::Deserializer;

use crate::wire::{self, List, Number};

/// Levels of parts that are asked for below the root: masks are not recursive, so each is written out. Mail that nests
/// deeper is read down to here, and its [`Part::is_container`] tells where it goes on.
pub(crate) const DEPTH: usize = 10;

/// How much of a message is read. It costs the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum View {
    /// Headers and the whole tree of parts: attachments have name, type, size and id; nothing of their contents.
    #[default]
    Full,
    /// As [`View::Full`], and the contents of those parts that Gmail gives no attachment id for, in [`Part::data`].
    Contents,
    /// Headers alone: all that a token of the scope `gmail.metadata` may read.
    Headers,
}

impl View {
    /// `format` and `fields`. Written once each: they are long, and asked for with every message.
    pub(crate) fn query(self) -> &'static str {
        const OWN: &str = "id,threadId,labelIds,historyId,internalDate,sizeEstimate,snippet";
        static HEADERS: LazyLock<String> =
            LazyLock::new(|| format!("format=metadata&fields={OWN},payload(mimeType,headers)&prettyPrint=false"));
        static FULL: LazyLock<String> =
            LazyLock::new(|| full(OWN, "partId,filename,mimeType,headers,body(size,attachmentId)"));
        static CONTENTS: LazyLock<String> =
            LazyLock::new(|| full(OWN, "partId,filename,mimeType,headers,body(size,attachmentId,data)"));
        match self {
            Self::Headers => &HEADERS,
            Self::Full => &FULL,
            Self::Contents => &CONTENTS,
        }
    }
}

/// A query for these fields of the message and these of each part.
fn full(own: &str, part: &str) -> String {
    let tree = (0..DEPTH).fold(String::new(), |below, _| match below.as_str() {
        "" => format!("parts({part})"),
        below => format!("parts({part},{below})"),
    });
    format!("format=full&fields={own},payload({part},{tree})&prettyPrint=false")
}

/// A message. Prints without anything of the mail.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Body")]
pub struct Message {
    /// Its id within the mailbox.
    pub id: MessageId,
    /// Its thread.
    pub thread_id: ThreadId,
    /// Its labels now; read mail in the archive has none.
    pub labels: Vec<Label>,
    /// The last history record that changed it.
    pub history_id: Option<HistoryId>,
    /// When Gmail took it in; for imported mail what its `Date` header says.
    pub internal_date: Option<Timestamp>,
    /// About how many bytes it has as a whole.
    pub size_estimate: Option<i64>,
    /// Its first words, with HTML's escapes.
    pub snippet: String,
    /// The root of its parts, with the mail's own headers.
    pub payload: Part,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// A part of a message, without its contents. Prints without anything of the mail.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Its place in the tree: `""` for the root, then `0`, `1`, `1.0`, … Stays the same, unlike attachment ids.
    pub part_id: String,
    /// Its media type.
    pub mime_type: String,
    /// Its file name; empty when it is no attachment.
    pub filename: String,
    /// Its headers in their order, as they were spelled.
    pub headers: Vec<Header>,
    /// Bytes of its contents, decoded; 0 for one that has parts.
    pub size: i64,
    /// What its contents are read by, for a while: it changes from reading to reading.
    pub attachment_id: Option<String>,
    /// Its contents in base64url, where the view asks for them and they have no attachment id.
    pub data: Option<String>,
    /// The parts in it.
    pub parts: Vec<Part>,
}

impl Part {
    /// The first header of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value.as_str())
    }

    /// The values of all headers of this name, in whatever case, topmost first.
    pub fn headers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value.as_str())
    }

    /// Whether it is made of parts, though none may have been read below the depth that is asked for.
    pub fn is_container(&self) -> bool {
        self.mime_type.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
    }

    /// This part and all below it, each before its parts and in their order.
    pub fn walk(&self) -> impl Iterator<Item = &Self> {
        let mut open = vec![self];
        std::iter::from_fn(move || {
            let part = open.pop()?;
            open.extend(part.parts.iter().rev());
            Some(part)
        })
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("part_id", &self.part_id).field("size", &self.size).finish_non_exhaustive()
    }
}

/// A header. Does not print: it is somebody's mail.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Its name as it was spelled.
    pub name: String,
    /// Its value, unfolded, encoded words as they are.
    #[serde(default)]
    pub value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Header(…)")
    }
}

/// Reads the body of a 200.
///
/// # Errors
/// [`CallError::Transient`] when it breaks off or is no JSON, [`CallError::Broken`] with the place where it breaks
/// the schema. The parser refuses what nests deeper than 128 levels.
pub(crate) fn read(body: &[u8]) -> Result<Message, CallError> {
    wire::read(body)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    id: MessageId,
    thread_id: Option<MessageId>,
    #[serde(default)]
    label_ids: List<Label, Label>,
    history_id: Option<HistoryId>,
    internal_date: Option<Number>,
    size_estimate: Option<Number>,
    snippet: Option<String>,
    payload: Option<Part>,
}

impl From<Body> for Message {
    fn from(body: Body) -> Self {
        Self {
            // The thread of a message on its own has its id.
            thread_id: body.thread_id.unwrap_or_else(|| body.id.clone()),
            id: body.id,
            labels: body.label_ids.0,
            history_id: body.history_id,
            internal_date: body.internal_date.map(|Number(ms)| Timestamp::from_millis(ms)),
            size_estimate: body.size_estimate.map(|Number(bytes)| bytes),
            snippet: body.snippet.unwrap_or_default(),
            payload: body.payload.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartBody {
    part_id: Option<String>,
    mime_type: Option<String>,
    filename: Option<String>,
    #[serde(default)]
    headers: List<Header, Header>,
    body: Option<Contents>,
    #[serde(default)]
    parts: List<Part, Part>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Contents {
    size: Option<Number>,
    attachment_id: Option<String>,
    data: Option<String>,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = PartBody::deserialize(deserializer)?;
        let contents = part.body.unwrap_or_default();
        Ok(Self {
            part_id: part.part_id.unwrap_or_default(),
            mime_type: part.mime_type.unwrap_or_default(),
            filename: part.filename.unwrap_or_default(),
            headers: part.headers.0,
            size: contents.size.map_or(0, |Number(size)| size),
            attachment_id: contents.attachment_id.filter(|id| !id.is_empty()),
            data: contents.data.filter(|data| !data.is_empty()),
            parts: part.parts.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_with_its_tree() {
        let body = r#"{"id":"18d1c0ffee001234","threadId":"18d1c0ffee000001","labelIds":["INBOX","Label_7"],
            "snippet":"a &lt; b","sizeEstimate":1234,"historyId":"12346","internalDate":"1700000000123",
            "payload":{"partId":"","mimeType":"Multipart/mixed","filename":"","body":{"size":0},
              "headers":[{"name":"SUBJECT","value":"x"},{"name":"Received","value":"1"},{"name":"received","value":"2"}],
              "parts":[{"partId":"0","mimeType":"multipart/alternative","parts":[{"partId":"0.0","body":{"size":5}}]},
                {"partId":"1","mimeType":"application/pdf","filename":"a.pdf","body":{"size":9,"attachmentId":"ANG"}}]}}"#;
        let message = read(body.as_bytes()).unwrap();
        assert_eq!(message.thread_id, MessageId::new("18d1c0ffee000001"));
        assert_eq!(message.internal_date, Some(Timestamp::from_millis(1_700_000_000_123)));
        assert_eq!((message.size_estimate, message.history_id), (Some(1234), Some(HistoryId::new(12346))));
        assert_eq!(message.labels, [Label::new("INBOX"), Label::new("Label_7")]);
        assert_eq!((message.payload.header("subject"), message.payload.header("Received")), (Some("x"), Some("1")));
        assert!(message.payload.is_container());
        let parts: Vec<_> = message.payload.walk().map(|part| (part.part_id.as_str(), part.size)).collect();
        assert_eq!(parts, [("", 0), ("0", 0), ("0.0", 5), ("1", 9)]);
        assert_eq!(message.payload.parts[1].attachment_id.as_deref(), Some("ANG"));
    }

    #[test]
    fn nothing_but_the_id_is_promised() {
        let message =
            read(br#"{"id":"a","labelIds":null,"payload":{"headers":null,"body":{}},"new":{"x":[1]}}"#).unwrap();
        assert_eq!((message.thread_id, message.labels.len()), (MessageId::new("a"), 0));
        assert!(matches!(read(b"{}"), Err(CallError::Broken { detail }) if detail.contains("missing field `id`")));
    }

    #[test]
    fn what_breaks_the_schema_is_placed_and_not_quoted() {
        let body = br#"{"id":"a","payload":{"parts":[{},{"body":{"size":"secret"}}]}}"#;
        let Err(CallError::Broken { detail }) = read(body) else { panic!() };
        assert!(detail.starts_with("payload.parts[1].body.size: expected") && !detail.contains("secret"), "{detail}");
    }

    #[test]
    fn nesting_without_an_end_is_refused_and_not_followed() {
        let deep = format!(r#"{{"id":"a","payload":{}{}}}"#, r#"{"parts":["#.repeat(5_000), "]}".repeat(5_000));
        assert!(matches!(read(deep.as_bytes()), Err(CallError::Broken { .. })));
    }

    #[test]
    fn nothing_of_the_mail_prints() {
        let body = br#"{"id":"a","snippet":"secret","payload":{"filename":"secret","headers":[{"name":"a","value":"secret"}]}}"#;
        let message = read(body).unwrap();
        assert!(!format!("{message:?} {:?} {:?}", message.payload, message.payload.headers).contains("secret"));
    }

    #[test]
    fn the_mask_is_written_out() {
        let full = View::Full.query();
        assert_eq!(full.matches("parts(").count(), DEPTH);
        assert_eq!(full.matches('(').count(), full.matches(')').count());
    }
}
