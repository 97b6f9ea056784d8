//! Avro values as JSON for people and tools that read single records.

use apache_avro::types::Value;
use domain::Timestamp;
use serde_json::Value as Json;

/// The value as JSON, without the names of union branches.
pub(crate) fn of(value: Value) -> Json {
    match value {
        Value::Union(_, inner) => of(*inner),
        Value::Record(fields) => Json::Object(fields.into_iter().map(|(name, value)| (name, of(value))).collect()),
        Value::Map(entries) => Json::Object(entries.into_iter().map(|(key, value)| (key, of(value))).collect()),
        Value::Array(items) => Json::Array(items.into_iter().map(of).collect()),
        Value::Enum(_, symbol) => Json::String(symbol),
        Value::TimestampMillis(ms) => rfc3339(Timestamp::from_millis(ms)).map_or_else(|| ms.into(), Json::String),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => {
            Json::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        // What is left is a scalar, or a logical type that no schema of ours uses: the library's own form of it.
        scalar => Json::try_from(scalar).unwrap_or(Json::Null),
    }
}

/// The instant in RFC 3339, UTC, with milliseconds; none outside the years -9999 to 9999.
pub(crate) fn rfc3339(at: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.as_millis()).ok().map(|at| format!("{at:.3}"))
}
