//! Gmail's JSON, read straight into the mailbox's types.
//!
//! No field is promised by the schema: absent lists are empty, 64-bit numbers come as strings or as numbers, labels
//! may be missing. What names a message or a position, though, must be there: without it a message would be lost
//! silently, so its absence is an error that says where.

use std::fmt;
use std::marker::PhantomData;

use domain::mailbox::reply::{
    CallError, HistoryPage, HistoryRecord, Label, LabelChange, ListPage, MessageRef, PageToken, Profile, Reply,
    Request, Watching,
};
use domain::{HistoryId, MessageId, Timestamp};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// Reads the body of a 200.
pub(crate) fn reply(request: &Request, body: &[u8]) -> Result<Reply, CallError> {
    match request {
        Request::Profile => read::<ProfileBody>(body).map(|body| Reply::Profile(Profile { head: body.history_id })),
        Request::History { .. } => read::<HistoryBody>(body).map(|body| {
            Reply::History(HistoryPage {
                records: body.history.0,
                next: token(body.next_page_token),
                head: body.history_id,
            })
        }),
        Request::List { .. } => read::<ListBody>(body)
            .map(|body| Reply::List(ListPage { messages: body.messages.0, next: token(body.next_page_token) })),
        Request::Watch => read::<WatchBody>(body)
            .map(|body| Reply::Watch(Watching { expires_at: Timestamp::from_millis(body.expiration.0) })),
        Request::Stop => Ok(Reply::Stopped),
    }
}

/// An empty token is none.
fn token(text: Option<String>) -> Option<PageToken> {
    text.filter(|text| !text.is_empty()).map(PageToken)
}

/// Reads a body; one that breaks the schema is an error that says where.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| complaint::<T>(body, &error))
}

/// What is wrong with a body. It is read once more for the place; values are not repeated, for they are somebody's
/// mail.
fn complaint<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> CallError {
    if !body.trim_ascii_start().starts_with(b"{") {
        return CallError::Transient { detail: "Gmail answered 200 with something that is no JSON object".to_owned() };
    }
    if error.is_eof() {
        return CallError::Transient { detail: format!("Gmail's answer breaks off after {} bytes", body.len()) };
    }
    let place = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(body))
        .err()
        .map(|error| error.path().to_string())
        .unwrap_or_default();
    let text = error.to_string();
    let wish = match text.split_once(", expected ") {
        Some((_, wish)) => format!("expected {wish}"),
        None if text.starts_with("missing field") => text,
        None => format!("malformed at line {} column {}", error.line(), error.column()),
    };
    CallError::Broken { detail: format!("{place}: {wish}") }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileBody {
    history_id: HistoryId,
}

#[derive(Deserialize)]
struct WatchBody {
    /// Milliseconds since the epoch.
    expiration: Number,
}

/// A whole number; 64-bit ones come as strings by the schema, and as numbers by accident.
pub(crate) struct Number(pub(crate) i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(|_| E::invalid_type(Unexpected::Other("some text"), &self))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                let value = i64::try_from(value).map_err(|_| E::invalid_type(Unexpected::Unsigned(value), &self))?;
                Ok(Number(value))
            }
        }
        deserializer.deserialize_any(Digits)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HistoryBody {
    #[serde(default)]
    history: List<Record, HistoryRecord>,
    next_page_token: Option<String>,
    history_id: HistoryId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListBody {
    #[serde(default)]
    messages: List<Message, MessageRef>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    id: HistoryId,
    #[serde(default)]
    messages_added: List<Added, MessageRef>,
    #[serde(default)]
    labels_added: List<Change, LabelChange>,
    #[serde(default)]
    labels_removed: List<Change, LabelChange>,
}

impl From<Record> for HistoryRecord {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            added: record.messages_added.0,
            labels_added: record.labels_added.0,
            labels_removed: record.labels_removed.0,
        }
    }
}

#[derive(Deserialize)]
struct Added {
    message: Message,
}

impl From<Added> for MessageRef {
    fn from(added: Added) -> Self {
        added.message.into()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    message: Message,
    #[serde(default)]
    label_ids: List<Label, Label>,
}

impl From<Change> for LabelChange {
    fn from(change: Change) -> Self {
        Self { message: change.message.into(), labels: change.label_ids.0 }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    id: MessageId,
    thread_id: Option<MessageId>,
    label_ids: Option<List<Label, Label>>,
}

impl From<Message> for MessageRef {
    fn from(message: Message) -> Self {
        Self {
            // The thread of a message on its own has its id.
            thread_id: message.thread_id.unwrap_or_else(|| message.id.clone()),
            id: message.id,
            labels: message.label_ids.map(|labels| labels.0),
        }
    }
}

/// A list whose elements are `W` on the wire and `T` to us, made in one go; `null` is an empty one.
pub(crate) struct List<W, T>(pub(crate) Vec<T>, PhantomData<fn() -> W>);

impl<W, T> Default for List<W, T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<'de, W: Deserialize<'de> + Into<T>, T> Deserialize<'de> for List<W, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<W, T>(PhantomData<fn() -> (W, T)>);
        impl<'de, W: Deserialize<'de> + Into<T>, T> Visitor<'de> for Elements<W, T> {
            type Value = List<W, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element::<W>()? {
                    list.push(element.into());
                }
                Ok(List(list, PhantomData))
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: Request = Request::History { start: HistoryId::new(1), token: None, max: 500 };

    fn history(body: &str) -> HistoryPage {
        match reply(&HISTORY, body.as_bytes()).unwrap() {
            Reply::History(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn error(body: &str) -> CallError {
        reply(&HISTORY, body.as_bytes()).unwrap_err()
    }

    fn message(id: &str, labels: Option<&[&str]>) -> MessageRef {
        let labels = labels.map(|labels| labels.iter().map(|label| Label::new(label)).collect());
        MessageRef { id: MessageId::new(id), thread_id: MessageId::new(id), labels }
    }

    #[test]
    fn a_page_is_read_whole() {
        let page = history(
            r#"{"history":[
                {"id":"18446744073709551615","messages":[{"id":"18d1c0ffee001234"}],"messagesAdded":[
                    {"message":{"id":"18d1c0ffee001234","threadId":"18d1c0ffee001234","labelIds":["UNREAD","INBOX"]}},
                    {"message":{"id":"a","threadId":"a"}}],
                 "messagesDeleted":[{"message":{"id":"b"}}]},
                {"id":12347,"labelsAdded":[{"message":{"id":"c"},"labelIds":["SPAM"]}],
                 "labelsRemoved":[{"message":{"id":"c","labelIds":[]}}]},
                {"id":"12348","messages":[{"id":"d"}]}],
               "nextPageToken":"7","historyId":"12350","unknown":{"deep":[1]}}"#,
        );
        let change = |id, labels: Option<&[&str]>, changed: &[&str]| LabelChange {
            message: message(id, labels),
            labels: changed.iter().map(|label| Label::new(label)).collect(),
        };
        assert_eq!(
            page,
            HistoryPage {
                records: vec![
                    HistoryRecord {
                        id: HistoryId::new(u64::MAX),
                        added: vec![message("18d1c0ffee001234", Some(&["UNREAD", "INBOX"])), message("a", None)],
                        ..HistoryRecord::default()
                    },
                    HistoryRecord {
                        id: HistoryId::new(12_347),
                        labels_added: vec![change("c", None, &["SPAM"])],
                        labels_removed: vec![change("c", Some(&[]), &[])],
                        ..HistoryRecord::default()
                    },
                    HistoryRecord { id: HistoryId::new(12_348), ..HistoryRecord::default() },
                ],
                next: Some(PageToken("7".to_owned())),
                head: HistoryId::new(12_350),
            }
        );
    }

    #[test]
    fn nothing_new_is_a_page_without_records() {
        for body in [r#"{"historyId":"1710"}"#, r#"{"history":null,"nextPageToken":"","historyId":1710}"#] {
            assert_eq!(history(body), HistoryPage { head: HistoryId::new(1_710), ..HistoryPage::default() });
        }
        let page = history(r#"{"nextPageToken":"9","historyId":"1710"}"#);
        assert_eq!((page.records.len(), page.next), (0, Some(PageToken("9".to_owned()))));
    }

    #[test]
    fn a_listing_is_read() {
        let window = domain::Window { since: Default::default(), until: Default::default() };
        let request = Request::List { window, held_only: false, token: None, max: 500 };
        let body = br#"{"messages":[{"id":"a","threadId":"b"}],"resultSizeEstimate":1}"#;
        let Reply::List(page) = reply(&request, body).unwrap() else { panic!() };
        assert_eq!(page.messages[0].thread_id, MessageId::new("b"));
        let empty = reply(&request, br#"{"resultSizeEstimate":0}"#).unwrap();
        assert_eq!(empty, Reply::List(ListPage::default()));
    }

    #[test]
    fn a_body_that_breaks_the_schema_says_where_and_repeats_no_value() {
        for (body, place) in [
            (r#"{"history":[{"id":"1"},{"id":"x secret"}],"historyId":"5"}"#, "history[1].id"),
            (r#"{"history":[{"id":"1","messagesAdded":[{"message":{}}]}],"historyId":"5"}"#, "missing field `id`"),
            (r#"{"history":[{"id":"1","messagesAdded":[{}]}],"historyId":"5"}"#, "missing field `message`"),
            (r#"{"history":{"secret":1},"historyId":"5"}"#, "history: expected a list"),
            (r#"{"history":[]}"#, "missing field `historyId`"),
            (
                r#"{"history":[{"id":"1","messagesAdded":[{"message":{"id":7}}]}],"historyId":"5"}"#,
                "message.id: expected",
            ),
            (r#"{"history":[}"#, "malformed at line 1"),
        ] {
            match error(body) {
                CallError::Broken { detail } => {
                    assert!(detail.contains(place) && !detail.contains("secret"), "{body} gave {detail}");
                }
                other => panic!("{body} gave {other:?}"),
            }
        }
    }

    #[test]
    fn what_breaks_off_or_is_no_json_passes() {
        let whole = r#"{"history":[{"id":"1","messagesAdded":[{"message":{"id":"a"}}]}],"historyId":"5"}"#;
        for length in 0..whole.len() {
            assert!(matches!(error(&whole[..length]), CallError::Transient { .. }), "{}", &whole[..length]);
        }
        assert!(matches!(error("<html><body>502</body></html>"), CallError::Transient { .. }));
    }
}
