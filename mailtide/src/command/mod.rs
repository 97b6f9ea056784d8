//! The operator's commands.

pub(crate) mod admin;
pub(crate) mod ask;
pub(crate) mod connections;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod lag;
pub(crate) mod log_level;
pub(crate) mod organisations;
pub(crate) mod replay;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod status;
mod stopped;
pub(crate) mod sync;
pub(crate) mod tail;
pub(crate) mod tokens;
pub(crate) mod topics;
pub(crate) mod verify;
pub(crate) mod when;

use domain::Timestamp;

/// The time.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// RFC 3339, as people and programs read it.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(|_| at.as_millis().to_string(), |at| at.to_string())
}
