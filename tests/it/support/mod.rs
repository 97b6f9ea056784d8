//! What the tests stand on.
//!
//! - [`stack`]: Kafka, Postgres and the simulator, one each for the whole process.
//! - [`Place`]: a test's own corner of them.
//! - [`Service`]: a real process of the program, to be killed and started again.
//! - [`committed`]: what a consumer that reads committed records finds in a topic.
//! - [`Swamp`]: a way to Postgres on which everything is lost for a while.
//! - [`Tally`]: a way to Postgres on which statements are counted.
//! - [`clients`]: programs that others wrote, to try ours with; [`apicurio`]: a schema registry.
//! - [`wait_until`], [`wait_for`]: conditions with a deadline, instead of sleeps.

#![allow(dead_code, unused_imports, reason = "not every area of tests needs every tool")]

mod apicurio;
pub(crate) mod clients;
mod place;
mod service;
mod stack;
mod swamp;
mod tally;
mod wait;

pub(crate) use apicurio::apicurio;
pub(crate) use chaos::records::{Record, committed_blocking, until_decided_blocking};
pub(crate) use place::Place;
pub(crate) use service::Service;
pub(crate) use stack::{Stack, committed, stack};
pub(crate) use swamp::Swamp;
pub(crate) use tally::{Counts, Tally};
pub(crate) use wait::{LONG, wait_for, wait_until};
