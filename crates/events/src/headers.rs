//! Kafka headers: CloudEvents in binary content mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>) and the trace.

use bytes::Bytes;
use domain::Timestamp;

use crate::json::rfc3339;
use crate::{Event, TraceParent};

/// Headers of one record, in the order in which they are written.
pub type Headers = Vec<(&'static str, Bytes)>;

/// The version of CloudEvents that we speak.
pub const SPEC_VERSION: &str = "ce_specversion";
/// Names the event; with the source it names it for good.
pub const ID: &str = "ce_id";
/// Who says so: a URI.
pub const SOURCE: &str = "ce_source";
/// What kind of event it is.
pub const TYPE: &str = "ce_type";
/// When it happened, in RFC 3339.
pub const TIME: &str = "ce_time";
/// What the value is; by the binding's rule without the prefix.
pub const CONTENT_TYPE: &str = "content-type";
/// The trace that the record belongs to.
pub const TRACE_PARENT: &str = "traceparent";
/// On commands: the job to fail when the value does not decode.
pub const JOB_ID: &str = "jobId";
/// On commands: the tenant of that job.
pub const ORGANISATION_ID: &str = "organisationId";
/// On replayed events: which replay sent them.
pub const REPLAY_ID: &str = "replay-id";

/// What all records of one page or one job have in common; made once for them all, because making it allocates.
#[derive(Debug, Clone)]
pub struct Envelope {
    source: &'static str,
    time: Bytes,
    trace_parent: Bytes,
}

impl Envelope {
    /// An envelope for records that `source` (a URI, such as `urn:mailtide:poller`) writes at `at` as part of a trace.
    pub fn new(source: &'static str, at: Timestamp, trace: TraceParent) -> Self {
        // The format ends with the year 9999; whatever lies beyond is a broken clock, and is written as that year's end.
        const LAST: &str = "9999-12-30T22:00:00.999Z";
        let time = rfc3339(at).map_or_else(|| Bytes::from_static(LAST.as_bytes()), Bytes::from);
        Self { source, time, trace_parent: trace.to_string().into() }
    }

    /// The headers of `record`, whose frame is `frame`.
    pub fn headers<T: Event>(&self, record: &T, frame: &Bytes) -> Headers {
        self.common::<T>().into_iter().chain(own(record, frame)).collect()
    }

    /// Those that every record of this kind has alike, for whoever writes many of them.
    pub fn common<T: Event>(&self) -> [(&'static str, Bytes); 6] {
        [
            (SPEC_VERSION, Bytes::from_static(b"1.0")),
            (SOURCE, Bytes::from_static(self.source.as_bytes())),
            (TYPE, Bytes::from_static(T::TYPE.as_bytes())),
            (TIME, self.time.clone()),
            (CONTENT_TYPE, Bytes::from_static(b"application/avro")),
            (TRACE_PARENT, self.trace_parent.clone()),
        ]
    }
}

/// The headers that are a record's own: with [`Envelope::common`] they are all it has.
pub fn own<T: Event>(record: &T, frame: &Bytes) -> impl Iterator<Item = (&'static str, Bytes)> + use<T> {
    let to_fail = record.job_to_fail().map(|(job, organisation)| {
        [(JOB_ID, job.to_string().into()), (ORGANISATION_ID, organisation.to_string().into())]
    });
    std::iter::once((ID, record.event_id(frame))).chain(to_fail.into_iter().flatten())
}

/// Headers that are added to a record in the dead letters: where it was, and why it is there. A record that is put
/// aside twice, because its reader was killed in between, bears the same place both times.
pub mod dead {
    /// The topic that it was read from, prefix included.
    pub const TOPIC: &str = "source-topic";
    /// The partition that it was read from.
    pub const PARTITION: &str = "source-partition";
    /// Its offset there.
    pub const OFFSET: &str = "source-offset";
    /// Why it could not be worked on.
    pub const REASON: &str = "reason";
    /// Those that say where it was and why it is here: one set, of the last time that it was put aside.
    pub const PLACE: [&str; 4] = [TOPIC, PARTITION, OFFSET, REASON];
    /// On a record that was sent back: how often it was. Its reader hands it on with all other headers.
    pub const ATTEMPT: &str = "redrive-attempt";
    /// On a record that was sent back: an earlier time that it was put aside, as JSON; one for each, oldest first.
    pub const HISTORY: &str = "redrive-history";
    /// Where it was no record of ours but a place at Gmail that could not be read: the method that was asked.
    pub const METHOD: &str = "source-method";
    /// There: the connection.
    pub const CONNECTION_ID: &str = "connectionId";
    /// There: the tenant.
    pub const ORGANISATION_ID: &str = "organisationId";
    /// There: the id of the history record that the unreadable one follows.
    pub const START_HISTORY_ID: &str = "start-history-id";
    /// There: the begin of the time that was owed instead, or of the slice that could not be listed, in RFC 3339.
    pub const SINCE: &str = "since";
    /// There: its end, not inclusive.
    pub const UNTIL: &str = "until";
    /// There: how many records or messages were asked for at a time when it was given up.
    pub const PAGE_SIZE: &str = "page-size";
}
