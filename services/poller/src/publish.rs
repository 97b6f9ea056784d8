//! What a mailbox wants done, as records.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use domain::mailbox::DeadLetter;
use domain::mailbox::record::MailboxChunk;
use domain::{
    ConnectionId, GmailConnectionStatusChanged, GmailJobStatusChanged, GmailMessageDiscovered, OrganisationId,
    Timestamp,
};
use events::headers::{self, Envelope, dead};
use events::{Event, TraceParent};
use kafka::lane::{Assignment, Outbox};
use kafka::topics::{Topic, Topics};
use kafka::{Headers, InputRecord, OutRecord, SharedHeaders};

use crate::key;

/// Header of a state record: the offset after the last command that it has taken in.
pub(crate) const ABSORBED: &str = "absorbed";
/// Header of a state record: the partition count of its topic.
pub(crate) const PARTITIONS: &str = "partitions";
/// Header of a state record whose mailbox has work under way.
pub(crate) const ACTIVE: &str = "active";
/// Header of a state record whose mailbox is forgotten: when it may go, in milliseconds since the epoch.
pub(crate) const DECAYS: &str = "decays";

/// Who says so, in CloudEvents.
const SOURCE: &str = "urn:mailtide:poller";

/// The size of the allocations that announcements share.
const FRAMES: usize = 64 << 10;

/// What restoring has to know of a state without decoding it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamps {
    /// The partition count of the state topic.
    pub(crate) partitions: i32,
    /// The offset after the last command that it has taken in.
    pub(crate) absorbed: i64,
    /// Whether work is under way.
    pub(crate) is_active: bool,
    /// When it may go, where its connection is forgotten.
    pub(crate) decays_at: Option<Timestamp>,
}

impl Stamps {
    /// As headers of a record.
    pub(crate) fn headers(&self) -> Headers {
        let mut headers = Headers::new();
        headers.push(PARTITIONS, self.partitions.to_string());
        headers.push(ABSORBED, self.absorbed.to_string());
        if self.is_active {
            headers.push(ACTIVE, Bytes::from_static(b"1"));
        }
        if let Some(at) = self.decays_at {
            headers.push(DECAYS, at.as_millis().to_string());
        }
        headers
    }
}

/// Turns what one input led to into records of one partition.
pub(crate) struct Publisher<'a> {
    pub(crate) topics: &'a Topics,
    pub(crate) assignment: Assignment,
    pub(crate) out: &'a mut Outbox,
    pub(crate) at: Timestamp,
    envelope: Option<Common>,
}

/// What the records of one trace have in common.
struct Common {
    trace: Option<Arc<str>>,
    envelope: Envelope,
    /// The headers that its announcements share; there are many.
    discovered: Option<SharedHeaders>,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(topics: &'a Topics, assignment: Assignment, out: &'a mut Outbox, at: Timestamp) -> Self {
        Self { topics, assignment, out, at, envelope: None }
    }

    /// What the records of a trace have in common, made once.
    fn common(&mut self, trace: Option<&Arc<str>>) -> &mut Common {
        let known = self.envelope.take().filter(|known| known.trace.as_ref() == trace);
        let Self { at, assignment, ref mut out, .. } = *self;
        self.envelope.insert(known.unwrap_or_else(|| {
            let recorded = out.trace(assignment, trace.map(Arc::as_ref));
            let span = recorded.and_then(|span| span.parse().ok()).unwrap_or_else(|| unrecorded(trace));
            Common { trace: trace.cloned(), envelope: Envelope::new(SOURCE, at, span), discovered: None }
        }))
    }

    fn headers<T: Event>(&mut self, record: &T, frame: &Bytes, trace: Option<&Arc<str>>) -> Headers {
        self.common(trace).envelope.headers(record, frame).into()
    }

    /// Puts a record out, to the partition that is worked on or, without one, to the one that the key hashes to.
    fn push(&mut self, topic: Topic, partition: Option<i32>, key: Bytes, frame: Bytes, headers: Headers) {
        let topic = self.topics.name(topic).clone();
        self.out.push(self.assignment, OutRecord { topic, partition, key: Some(key), value: Some(frame), headers });
    }

    /// Announces a message. There are many: their frames share the allocations of `buffer`.
    pub(crate) fn discovered(
        &mut self,
        key: Bytes,
        event: &GmailMessageDiscovered,
        trace: Option<&Arc<str>>,
        buffer: &mut BytesMut,
    ) {
        if buffer.capacity() == 0 {
            buffer.reserve(FRAMES);
        }
        let frame = events::encode_into(event, buffer);
        let common = self.common(trace);
        let shared = common.discovered.get_or_insert_with(|| {
            let all = common.envelope.common::<GmailMessageDiscovered>();
            Headers::from_iter(all).into_shared()
        });
        let mut headers = Headers::sharing(shared);
        headers::own(event, &frame).for_each(|(name, value)| headers.push(name, value));
        self.push(Topic::Discovered, Some(self.assignment.partition), key, frame, headers);
    }

    pub(crate) fn job(&mut self, event: &GmailJobStatusChanged, trace: Option<&Arc<str>>) {
        let frame = events::encode(event);
        let headers = self.headers(event, &frame, trace);
        self.push(Topic::JobStatus, None, event.job_id.to_string().into(), frame, headers);
    }

    pub(crate) fn connection(&mut self, key: Bytes, event: &GmailConnectionStatusChanged) {
        let frame = events::encode(event);
        let headers = self.headers(event, &frame, None);
        self.push(Topic::ConnectionStatus, Some(self.assignment.partition), key, frame, headers);
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

    /// Writes a mailbox's state.
    pub(crate) fn state(&mut self, key: Bytes, frame: Bytes, stamps: &Stamps) {
        self.state_record(key, Some(frame), stamps.headers());
    }

    pub(crate) fn forget(&mut self, key: Bytes) {
        self.state_record(key, None, Headers::new());
    }

    fn state_record(&mut self, key: Bytes, value: Option<Bytes>, headers: Headers) {
        let topic = self.topics.name(Topic::State).clone();
        let partition = Some(self.assignment.partition);
        self.out.push(self.assignment, OutRecord { topic, partition, key: Some(key), value, headers });
    }

    /// Puts a place at Gmail that cannot be read aside, by name.
    pub(crate) fn unreadable(
        &mut self,
        key: Bytes,
        connection: ConnectionId,
        organisation: OrganisationId,
        letter: &DeadLetter,
    ) {
        let (value, headers) = events::unreadable(connection, organisation, letter);
        let topic = self.topics.name(Topic::DeadLetter).clone();
        let (key, value, headers) = (Some(key), Some(value), headers.into());
        self.out.push(self.assignment, OutRecord { topic, partition: None, key, value, headers });
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

/// What a record bears whose span nobody records: the next one of its trace, or one of a trace of its own.
fn unrecorded(trace: Option<&Arc<str>>) -> TraceParent {
    match trace.and_then(|trace| trace.parse::<TraceParent>().ok()) {
        Some(parent) => parent.child(rand::random()),
        // Where traces are told, one without a beginning is none to follow.
        None => TraceParent::new(rand::random(), rand::random()).sampled(!runtime::trace::is_on()),
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
