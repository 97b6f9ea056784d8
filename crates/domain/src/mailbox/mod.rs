//! The mailbox.
pub mod reply;
