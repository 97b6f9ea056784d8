//! Spans of what is sent and worked on, as OpenTelemetry's semantic conventions for messaging and Kafka name them.

use std::borrow::Cow;
use std::time::SystemTime;

use runtime::trace::{Beginning, Kind, Link, Parent, Span, is_on};

use crate::record::{Headers, InputRecord};

/// The header that a record's trace travels in.
pub const TRACE_PARENT: &str = "traceparent";

/// A record on its way to a topic, given by its full name, until it is acknowledged. The record's header has to name this
/// span, so that what is done with it belongs to it.
pub fn send(topic: &str, parent: Parent<'_>) -> Span {
    if !is_on() {
        return Span::default();
    }
    let span = with(Kind::Producer, format!("send {topic}"), parent, None, Vec::new());
    operation(&span, "send", "send");
    span.set("messaging.destination.name", topic.to_owned());
    span
}

/// Work on a record that was read.
pub fn process(record: &InputRecord<'_>) -> Span {
    if !is_on() {
        return Span::default();
    }
    let parent = Parent::Remote(record.headers.text(TRACE_PARENT));
    let span = with(Kind::Consumer, format!("process {}", record.topic), parent, None, Vec::new());
    operation(&span, "process", "process");
    span.set("messaging.destination.name", record.topic.to_owned());
    span.set("messaging.destination.partition.id", record.partition.to_string());
    span.set("messaging.kafka.offset", record.offset);
    span
}

/// Work on several records of one topic. It belongs to what the first of `parents` (`traceparent`s) names and points at
/// the others.
pub fn process_all<'a>(
    topic: &str,
    records: usize,
    parents: impl IntoIterator<Item = &'a str>,
    at: Option<SystemTime>,
) -> Span {
    if !is_on() {
        return Span::default();
    }
    let mut parents = parents.into_iter();
    let parent = parents.next();
    let links = parents.filter_map(Link::remote).collect();
    let span = with(Kind::Consumer, format!("process {topic}"), Parent::Remote(parent), at, links);
    operation(&span, "process", "process");
    span.set("messaging.destination.name", topic.to_owned());
    span.set_with("messaging.batch.message_count", || i64::try_from(records).unwrap_or(i64::MAX));
    span
}

/// The `traceparent` of a record that was copied, if that is text.
pub fn parent_of(headers: &Headers) -> Option<&str> {
    std::str::from_utf8(headers.get(TRACE_PARENT)?).ok()
}

pub(crate) fn with(
    kind: Kind,
    name: impl Into<Cow<'static, str>>,
    parent: Parent<'_>,
    at: Option<SystemTime>,
    links: Vec<Link>,
) -> Span {
    Span::with(Beginning { kind, name: name.into(), parent, at, links })
}

pub(crate) fn operation(span: &Span, name: &'static str, kind: &'static str) {
    span.set("messaging.system", "kafka");
    span.set("messaging.operation.name", name);
    span.set("messaging.operation.type", kind);
}
