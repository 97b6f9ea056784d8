//! Kafka, as Mailtide uses it: the only crate that names the client library.

mod header;
pub mod lane;
mod murmur2;
mod record;

pub use header::HeaderView;
pub use murmur2::partition_of;
pub use record::{Headers, InputRecord, OutRecord, OwnedRecord};
