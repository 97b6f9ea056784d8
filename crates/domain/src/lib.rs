//! The pure core: ids, commands, events, jobs, the schedule, and the mailbox.
//!
//! Nothing here reads a clock, draws a random number, or does IO: time and randomness are arguments. What is
//! decided here is decided the same way every time, which is what makes the laws in the tests worth having.

pub mod command;
pub mod event;
pub mod fetch;
pub mod fetched;
pub mod filter;
pub mod id;
pub mod job;
pub mod mailbox;
pub mod schedule;
pub mod time;

pub use command::{CancelJob, Command, ForgetConnection, PollGmailConnection};
pub use event::{ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, GmailMessageDiscovered, Origin};
pub use fetch::{FetchPosition, FetchState};
pub use fetched::{Address, Attachment, GmailMessageFetched};
pub use filter::FetchFilter;
pub use id::{ConnectionId, EventId, HistoryId, JobId, MessageId, OrganisationId, ThreadId, TokenVersion};
pub use job::{JobState, Lane, Progress, Trigger};
pub use time::{Duration, Timestamp, Window};
