//! The simulator over HTTP, asked as a client asks it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod consent;
mod control;
mod errors;
mod faults;
mod mail;
mod push;
mod sync;
