//! The lane: reads, works and writes exactly once.
//!
//! One thread owns one consumer (classic protocol, cooperative-sticky, committed reads) and one transactional
//! producer, and drives an [`App`]. A process runs one or more lanes, all in one group.

mod app;
mod done;
mod outbox;

pub use app::{App, Assignment, NoState, Refused, Restore, Restored};
pub use done::{DoneSender, LaneGone, LaneHandle};
pub use outbox::Outbox;
