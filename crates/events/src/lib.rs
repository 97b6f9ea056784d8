//! What travels on the topics: Avro schemas ↔ the domain's types.
//!
//! Every value on every topic is a Confluent frame (magic byte 0, schema id in four bytes, Avro datum), so that
//! every Kafka tool can read it. The ids come from `schemas/manifest.json` and are fixed for ever, or from a schema
//! registry whose ids were adopted ([`adopt`]); a published schema never changes, a new version of it must be readable by, and able to read, every version before it.
//!
//! - [`encode`] and [`decode`] for each record, [`encode_command`] and [`decode_command`] for the union of commands;
//! - [`to_json`] for any frame, whatever its record;
//! - [`headers`]: CloudEvents in binary mode, and the trace ([`TraceParent`]);
//! - [`registry`]: the published schemas as data, to answer the reads of a schema registry;
//! - [`compatibility`]: what an edit of a schema may do;
//! - [`examples`]: one value of each shape of each record, from which the golden bytes are made.

mod codec;
pub mod compatibility;
mod discovered;
mod error;
pub mod examples;
mod frame;
pub mod headers;
mod json;
mod record;
pub mod registry;
mod trace;
mod unreadable;
mod wire;

use bytes::{Bytes, BytesMut};
use domain::{CancelJob, Command, ForgetConnection, PollGmailConnection};

pub use error::Error;
pub use frame::{frame_id, unframe};
pub use record::{Event, Record};
pub use registry::Registry;
pub use trace::{InvalidTraceParent, TraceParent};
pub use unreadable::unreadable;
pub use wire::{AdoptError, adopt, published, written_id};

use codec::codecs;

/// The frame of one record.
pub fn encode<T: Event>(record: &T) -> Bytes {
    encode_into(record, &mut BytesMut::with_capacity(512))
}

/// The frame of one record, cut from `buffer`, which is empty afterwards: records encoded one after another into the
/// same buffer share its allocation, and each keeps all of it alive. What the buffer held before is lost.
pub fn encode_into<T: Event>(record: &T, buffer: &mut BytesMut) -> Bytes {
    buffer.clear();
    codecs().of(T::RECORD).encode(record, buffer);
    buffer.split().freeze()
}

/// The record that a frame holds, which must be a `T` of any published version.
///
/// # Errors
/// When the bytes are no frame, name a schema that this build does not know or another record's, do not decode, or
/// go on after the datum. Also when an enum holds a symbol that this build has no variant for.
pub fn decode<T: Event>(frame: &[u8]) -> Result<T, Error> {
    let (id, datum) = unframe(frame)?;
    let (codec, version) = codecs().by_id(id)?;
    if codec.record() != T::RECORD {
        return Err(Error::OtherRecord { expected: T::RECORD.name(), found: codec.record().name() });
    }
    codec.decode(version, datum)
}

/// The frame of a command.
pub fn encode_command(command: &Command) -> Bytes {
    match command {
        Command::Poll(command) => encode(command),
        Command::Cancel(command) => encode(command),
        Command::Forget(command) => encode(command),
    }
}

/// The command that a frame of `gmail.connection.poll` holds.
///
/// # Errors
/// As [`decode`]; a frame of a record that is no command is [`Error::OtherRecord`].
pub fn decode_command(frame: &[u8]) -> Result<Command, Error> {
    let (id, datum) = unframe(frame)?;
    let (codec, version) = codecs().by_id(id)?;
    match codec.record() {
        Record::PollGmailConnection => codec.decode::<PollGmailConnection>(version, datum).map(Command::Poll),
        Record::CancelJob => codec.decode::<CancelJob>(version, datum).map(Command::Cancel),
        Record::ForgetConnection => codec.decode::<ForgetConnection>(version, datum).map(Command::Forget),
        found @ (Record::GmailMessageDiscovered
        | Record::GmailJobStatusChanged
        | Record::GmailConnectionStatusChanged
        | Record::MailboxState
        | Record::MailboxChunk
        | Record::GmailMessageFetched
        | Record::FetchState
        | Record::FetchPosition) => Err(Error::OtherRecord { expected: "a command", found: found.name() }),
    }
}

/// Any of our frames as JSON, in the version that it was written with: UUIDs, enums and history ids as text, times as
/// RFC 3339 in UTC with milliseconds, bytes as lowercase hex.
///
/// # Errors
/// As [`decode`], but for the type.
pub fn to_json(frame: &[u8]) -> Result<serde_json::Value, Error> {
    let (id, datum) = unframe(frame)?;
    let (codec, version) = codecs().by_id(id)?;
    codec.value(version, datum).map(json::of)
}

/// The record whose frame this is.
///
/// # Errors
/// When the bytes are no frame, or name a schema that this build does not know.
pub fn record_of(frame: &[u8]) -> Result<Record, Error> {
    let (id, _) = unframe(frame)?;
    codecs().by_id(id).map(|(codec, _)| codec.record())
}
