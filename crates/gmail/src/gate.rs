//! The one place that every call to Gmail passes.
//!
//! It is told whose quota a call spends, how urgent and how dear it is and how long its caller waits. It counts, and
//! bounds the calls in flight of the process; budgets belong here and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use domain::Lane;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::metric;
use crate::token::Account;

/// Lets calls through. Cheap to clone; clones are one gate.
#[derive(Debug, Clone)]
pub struct Gate {
    in_flight: Arc<Semaphore>,
}

/// A call that wants through.
#[derive(Debug, Clone, Copy)]
pub struct Admission<'a> {
    /// Whose quota it spends.
    pub account: &'a Account,
    /// How many connections share the account: each has one part of its budget.
    pub shares: u32,
    /// Its priority.
    pub lane: Lane,
    /// Its price in quota units.
    pub units: u32,
    /// When nobody waits for it any more.
    pub deadline: Instant,
}

/// Leave to make one call, until dropped.
#[derive(Debug)]
pub struct Permit {
    _in_flight: OwnedSemaphorePermit,
}

/// How far a push-back of Gmail's reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The user's units of the minute.
    User,
    /// The user's calls at one time.
    Concurrency,
    /// The project's units of the minute.
    Project,
    /// The project's units of the day.
    Day,
    /// Gmail did not say.
    Unknown,
}

impl Reach {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Concurrency => "concurrency",
            Self::Project => "project",
            Self::Day => "day",
            Self::Unknown => "unknown",
        }
    }
}

/// The deadline passed before the call was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The deadline passed after {waited:?} of waiting to be let through to Gmail")]
pub struct Late {
    /// How long it waited.
    pub waited: Duration,
}

impl Gate {
    /// A gate that has at most `in_flight` calls under way.
    pub fn new(in_flight: u16) -> Self {
        Self { in_flight: Arc::new(Semaphore::new(in_flight.into())) }
    }

    /// Waits until the call may be made.
    ///
    /// # Errors
    /// [`Late`] when its deadline comes first.
    pub async fn admit(&self, admission: Admission<'_>) -> Result<Permit, Late> {
        let began = Instant::now();
        let turn = Arc::clone(&self.in_flight).acquire_owned();
        let Ok(permit) = tokio::time::timeout_at(admission.deadline, turn).await else {
            return Err(Late { waited: began.elapsed() });
        };
        let permit = permit.expect("the gate's semaphore is never closed");
        metric::admitted(admission.lane, admission.units, began.elapsed());
        Ok(Permit { _in_flight: permit })
    }

    /// Takes note that Gmail pushed a call of `account` back.
    pub fn pushed_back(&self, account: &Account, reach: Reach) {
        tracing::debug!(?account, reach = reach.as_str(), "Gmail pushed a call back");
        metric::pushed_back(reach.as_str());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        metric::left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_gate_holds_a_call_until_its_deadline_or_a_place() {
        let gate = Gate::new(1);
        let account = Account::new("a");
        let within = |ms| Admission {
            account: &account,
            shares: 1,
            lane: Lane::Live,
            units: 2,
            deadline: Instant::now() + Duration::from_millis(ms),
        };
        let first = gate.admit(within(10)).await.unwrap();
        assert_eq!(gate.admit(within(10)).await.unwrap_err().waited, Duration::from_millis(10));
        drop(first);
        gate.admit(within(10)).await.unwrap();
    }
}
