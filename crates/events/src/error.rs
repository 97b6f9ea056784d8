//! Why bytes from a topic cannot be read.

use apache_avro::error::Details;

/// A reason is cut after so many characters; it travels in a header of the dead letter.
const LONGEST_REASON: usize = 300;

/// Why a frame cannot be read. None of these is cured by trying again: the record belongs in the dead letters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value does not begin with the magic byte and a schema id.
    #[error(
        "the value is no Confluent frame: {len} bytes, where byte 0 and a four-byte schema id were expected first; \
         look at what else writes to this topic"
    )]
    NotFramed {
        /// How many bytes there are.
        len: usize,
    },
    /// The frame names a schema that this build does not have.
    #[error(
        "schema id {id} is not published in this build, nor was it given by its registry; update this service before the \
         one that wrote the record, and start both with the same registry.url"
    )]
    UnknownSchema {
        /// The id in the frame.
        id: u32,
    },
    /// The frame holds another record than was asked for.
    #[error("the frame holds {found} where {expected} was expected; look at what else writes to this topic")]
    OtherRecord {
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The datum does not decode.
    #[error("{record} version {version} does not decode: {reason}")]
    Datum {
        /// The record that the frame names.
        record: &'static str,
        /// The version that it was written with.
        version: u32,
        /// What the decoder found, without the schema.
        reason: Box<str>,
    },
    /// The datum decodes, but bytes follow it.
    #[error("{record} version {version} is followed by {extra} bytes that belong to nothing")]
    TrailingBytes {
        /// The record that the frame names.
        record: &'static str,
        /// The version that it was written with.
        version: u32,
        /// How many bytes are left over.
        extra: usize,
    },
}

/// What the decoder says, in a few words: the library's own text carries the whole schema.
pub(crate) fn reason(error: apache_avro::Error) -> Box<str> {
    let text = match error.into_details() {
        Details::DeserializeSchemaAware { value_type, value, schema: _ } => format!("{value_type}: {value}"),
        details => details.to_string(),
    };
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
