//! Kafka, as Mailtide uses it: the only crate that names the client library.
//!
//! - [`lane`] reads, works and writes exactly once; everything else here is simple next to it.
//! - [`Producer`] writes single records, acknowledged and once; [`Reader`] reads committed ones from given offsets.
//! - [`SoleWriter`] writes transactions of its own; [`groups`] tells where consumer groups stand, and moves them.
//! - [`topics`] names the topics, creates and checks them; [`survey`] looks how they and the brokers are set.

mod client;
mod cluster;
mod error;
mod faults;
pub mod groups;
mod header;
pub mod lane;
mod metrics;
mod murmur2;
mod native;
mod oauth;
pub mod producer;
pub mod reader;
mod record;
pub mod rights;
pub mod scan;
mod security;
mod settings;
pub mod snapshot;
mod statistics;
pub mod survey;
pub mod topics;
pub mod trace;
pub mod writer;

pub use error::Cause;
pub use faults::{Fault, Faults, Point};
pub use header::HeaderView;
pub use metrics::ALL as METRICS;
pub use murmur2::partition_of;
pub use producer::Producer;
pub use reader::Reader;
pub use record::{Headers, InputRecord, OutRecord, OwnedRecord, SharedHeaders};
pub use security::{Mechanism, Protocol, Security};
pub use settings::Settings;
pub use snapshot::read_all;
pub use writer::{IdleGroup, SoleWriter};
