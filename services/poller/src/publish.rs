//! What a mailbox wants done, as records.

use std::sync::Arc;

use bytes::Bytes;
use domain::mailbox::record::MailboxChunk;
use domain::{
    ConnectionId, GmailConnectionStatusChanged, GmailJobStatusChanged, GmailMessageDiscovered, OrganisationId,
    Timestamp,
};
use events::headers::{self, Envelope};
use events::{Event, TraceParent};
use kafka::lane::{Assignment, Outbox};
use kafka::topics::{Topic, Topics};
use kafka::{Headers, InputRecord, OutRecord};

use crate::key;

/// Header of a state record: the offset after the last command that it has taken in.
pub(crate) const ABSORBED: &str = "absorbed";
/// Header of a state record: the partition count of its topic.
pub(crate) const PARTITIONS: &str = "partitions";
/// Header of a state record whose mailbox has work under way.
pub(crate) const ACTIVE: &str = "active";

/// Headers of a dead letter: where the record was, and why it is here.
pub(crate) mod dead {
    pub(crate) const TOPIC: &str = "source-topic";
    pub(crate) const PARTITION: &str = "source-partition";
    pub(crate) const OFFSET: &str = "source-offset";
    pub(crate) const REASON: &str = "reason";
}

/// Who says so, in CloudEvents.
const SOURCE: &str = "urn:mailtide:poller";

/// Turns what one input led to into records of one partition.
pub(crate) struct Publisher<'a> {
    pub(crate) topics: &'a Topics,
    pub(crate) assignment: Assignment,
    pub(crate) out: &'a mut Outbox,
    pub(crate) at: Timestamp,
    envelope: Option<(Option<Arc<str>>, Envelope)>,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(topics: &'a Topics, assignment: Assignment, out: &'a mut Outbox, at: Timestamp) -> Self {
        Self { topics, assignment, out, at, envelope: None }
    }

    /// The headers of a record; what the records of one trace have in common is made once.
    fn headers<T: Event>(&mut self, record: &T, frame: &Bytes, trace: Option<&Arc<str>>) -> Headers {
        if !matches!(&self.envelope, Some((known, _)) if known.as_ref() == trace) {
            let parent = trace.and_then(|trace| trace.parse::<TraceParent>().ok());
            let span = match parent {
                Some(parent) => parent.child(rand::random()),
                None => TraceParent::new(rand::random(), rand::random()),
            };
            self.envelope = Some((trace.cloned(), Envelope::new(SOURCE, self.at, span)));
        }
        let (_, envelope) = self.envelope.as_ref().expect("it was made just now");
        envelope.headers(record, frame).into()
    }

    fn push<T: Event>(
        &mut self,
        topic: Topic,
        key: Bytes,
        record: &T,
        trace: Option<&Arc<str>>,
        by_key: bool,
    ) -> Bytes {
        let frame = events::encode(record);
        let headers = self.headers(record, &frame, trace);
        let partition = (!by_key).then_some(self.assignment.partition);
        let record = OutRecord {
            topic: self.topics.name(topic).clone(),
            partition,
            key: Some(key),
            value: Some(frame.clone()),
            headers,
        };
        self.out.push(self.assignment, record);
        frame
    }

    pub(crate) fn discovered(&mut self, key: Bytes, event: &GmailMessageDiscovered, trace: Option<&Arc<str>>) {
        self.push(Topic::Discovered, key, event, trace, false);
    }

    pub(crate) fn job(&mut self, event: &GmailJobStatusChanged, trace: Option<&Arc<str>>) {
        let key = event.job_id.to_string().into();
        self.push(Topic::JobStatus, key, event, trace, true);
    }

    pub(crate) fn connection(&mut self, key: Bytes, event: &GmailConnectionStatusChanged) {
        self.push(Topic::ConnectionStatus, key, event, None, false);
    }

    /// Writes a chunk; returns its frame.
    pub(crate) fn chunk(&mut self, chunk: &MailboxChunk) -> Bytes {
        let key = key::of_chunk(chunk.connection_id, chunk.number);
        let frame = events::encode(chunk);
        self.state_record(key, Some(frame.clone()), Headers::new());
        frame
    }

    pub(crate) fn drop_chunk(&mut self, connection: ConnectionId, number: i64) {
        self.state_record(key::of_chunk(connection, number), None, Headers::new());
    }

    /// Writes a mailbox's state. The headers say what restoring has to know without decoding it.
    pub(crate) fn state(&mut self, key: Bytes, frame: Bytes, partitions: i32, absorbed: i64, is_active: bool) {
        let mut headers = Headers::new();
        headers.push(PARTITIONS, partitions.to_string());
        headers.push(ABSORBED, absorbed.to_string());
        if is_active {
            headers.push(ACTIVE, Bytes::from_static(b"1"));
        }
        self.state_record(key, Some(frame), headers);
    }

    pub(crate) fn forget(&mut self, key: Bytes) {
        self.state_record(key, None, Headers::new());
    }

    fn state_record(&mut self, key: Bytes, value: Option<Bytes>, headers: Headers) {
        let topic = self.topics.name(Topic::State).clone();
        let partition = Some(self.assignment.partition);
        self.out.push(self.assignment, OutRecord { topic, partition, key: Some(key), value, headers });
    }

    /// Puts a record of the input aside: its bytes and headers as they were, and where from and why.
    pub(crate) fn dead_letter(&mut self, record: &InputRecord<'_>, reason: &str) {
        let mut headers = record.headers.to_headers();
        headers.push(dead::TOPIC, record.topic.to_owned());
        headers.push(dead::PARTITION, record.partition.to_string());
        headers.push(dead::OFFSET, record.offset.to_string());
        headers.push(dead::REASON, reason.to_owned());
        let topic = self.topics.name(Topic::DeadLetter).clone();
        let key = record.key.map(Bytes::copy_from_slice);
        let value = record.value.map(Bytes::copy_from_slice);
        self.out.push(self.assignment, OutRecord { topic, partition: None, key, value, headers });
    }
}

/// The tenant that a command's headers name.
pub(crate) fn organisation(record: &InputRecord<'_>) -> Option<OrganisationId> {
    record.headers.text(headers::ORGANISATION_ID).and_then(|text| text.parse().ok())
}

/// The trace that a command was asked for under.
pub(crate) fn trace(record: &InputRecord<'_>) -> Option<Arc<str>> {
    let text = record.headers.text(headers::TRACE_PARENT)?;
    text.parse::<TraceParent>().ok().map(|parent| parent.to_string().into())
}
