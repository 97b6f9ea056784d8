//! Gmail and Google's OAuth over HTTP: calls, tokens, consents, and what errors mean. The only crate that makes HTTP requests.
//!
//! - [`Client::call`] carries out what the mailbox asks ([`domain::mailbox::reply::Call`]) and brings back its
//!   answer. It never retries on its own but once after a 401: when to try again is the mailbox's decision.
//! - [`Client::get_messages`] reads messages in batches, each with its own verdict.
//! - [`Client::download`] reads one file of a message as it comes.
//! - [`fetched`] is what is announced of a message that was read.
//! - Every call passes the [`Gate`], which is told account, priority, price and deadline.
//! - Errors are decided on Gmail's *reason*, never on the status alone ([`verdict`]).
//! - [`probe`] asks whether Google knows us, for whoever looks for what is wrong.
//! - Access tokens are kept by connection and refreshed ahead of their end, once however many calls wait.

mod client;
pub mod consent;
mod content;
mod delegate;
pub mod gate;
mod jwt;
mod message;
mod metric;
mod multipart;
mod oauth;
pub mod oidc;
pub mod probe;
mod query;
mod settings;
pub mod tariff;
pub mod token;
mod trace;
mod transport;
mod verdict;
mod wire;

pub use client::{Asking, Client, Download, Error, Mailbox, Read, Reading};
pub use content::fetched;
pub use gate::{Gate, Service};
pub use message::{Header, Message, Part, View};
pub use metric::ALL as METRICS;
pub use settings::{Quota, Settings};
pub use tariff::Tariff;
pub use token::{Account, Credential, Grant, TokenSource, TokenSourceError};
