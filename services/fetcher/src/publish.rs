//! What is written: messages, dead letters, and how far they are.

use std::sync::Arc;

use bytes::Bytes;
use domain::{FetchPosition, FetchState, GmailMessageFetched, Timestamp};
use events::TraceParent;
use events::headers::{self, Envelope, dead};
use kafka::topics::{Topic, Topics};
use kafka::{Headers, OutRecord, OwnedRecord};

/// Who says so, in CloudEvents.
const SOURCE: &str = "urn:mailtide:fetcher";

/// A dead letter holds no more of its record's value: with its headers it has to fit into what a broker takes.
const LONGEST: usize = 900 << 10;

/// The topics that are written to, and the partition count of those that go by connection.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) fetched: Arc<str>,
    pub(crate) state: Arc<str>,
    pub(crate) dead_letter: Arc<str>,
    pub(crate) partitions: i32,
}

impl Names {
    pub(crate) fn new(topics: &Topics, partitions: i32) -> Self {
        let name = |topic| topics.name(topic).clone();
        Self {
            fetched: name(Topic::Fetched),
            state: name(Topic::FetchState),
            dead_letter: name(Topic::DeadLetter),
            partitions,
        }
    }
}

/// The event that follows from an announcement, in its partition and under its key.
pub(crate) fn fetched(names: &Names, record: &OwnedRecord, fetched: &GmailMessageFetched, at: Timestamp) -> OutRecord {
    let frame = events::encode(fetched);
    let headers = Envelope::new(SOURCE, at, trace(record)).headers(fetched, &frame);
    OutRecord {
        topic: names.fetched.clone(),
        partition: Some(record.partition),
        key: record.key.clone(),
        value: Some(frame),
        headers: headers.into(),
    }
}

/// What follows from a record bears the reading's span where that is of the same trace, and the record's own where it is
/// not: every span that is named has to be told. Where none are told it is a next one.
fn trace(record: &OwnedRecord) -> TraceParent {
    let parent = record.headers.get(headers::TRACE_PARENT).and_then(|value| TraceParent::parse(value).ok());
    let reading = runtime::trace::current().and_then(|reading| reading.parse::<TraceParent>().ok());
    match (parent, reading) {
        (Some(parent), Some(reading)) if parent.trace_id() != reading.trace_id() => parent,
        (_, Some(reading)) => reading,
        (Some(parent), None) => parent.child(rand::random()),
        (None, None) => TraceParent::new(rand::random(), rand::random()),
    }
}

/// An announcement that is of no use: its bytes and headers as they were, and where from and why.
pub(crate) fn dead_letter(names: &Names, record: &OwnedRecord, reason: &str) -> OutRecord {
    let mut headers = record.headers.clone();
    headers.push(dead::TOPIC, record.topic.to_string());
    headers.push(dead::PARTITION, record.partition.to_string());
    headers.push(dead::OFFSET, record.offset.to_string());
    let is_cut = record.value.as_ref().is_some_and(|value| value.len() > LONGEST);
    let reason = if is_cut { format!("{reason} (its value is cut here)") } else { reason.to_owned() };
    headers.push(dead::REASON, reason);
    let value = record.value.as_ref().map(|value| value.slice(..value.len().min(LONGEST)));
    OutRecord { topic: names.dead_letter.clone(), partition: None, key: record.key.clone(), value, headers }
}

/// How far a key is.
pub(crate) fn state(names: &Names, partition: i32, key: Bytes, state: &FetchState) -> OutRecord {
    OutRecord::new(&names.state, key, events::encode(state), Headers::new()).to_partition(partition)
}

/// How far a partition is.
pub(crate) fn position(names: &Names, partition: i32, position: i64) -> OutRecord {
    let value = events::encode(&FetchPosition { partitions: names.partitions, position });
    OutRecord::new(&names.state, Bytes::from_static(FetchPosition::KEY.as_bytes()), value, Headers::new())
        .to_partition(partition)
}
