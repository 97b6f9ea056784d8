//! One partition under one assignment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{ConnectionId, OrganisationId};
use kafka::lane::{Assignment, DoneSender};

use crate::app::Done;
use crate::catch_up::Log;
use crate::ledger::{Bounds, Ledger, Mark};
use crate::metric;
use crate::restore::{Part, connection};
use crate::work::{Item, Work};

/// Mailboxes that one reading of the log is for.
const KEYS_A_PASS: usize = 64;

/// How long to wait after a reading of the log that did not come to what was wanted, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct Partition {
    pub(crate) assignment: Assignment,
    pub(crate) ledger: Ledger<Item, Work>,
    /// The next offset that the lane reads.
    pub(crate) next: i64,
    /// What the state topic says was committed.
    pub(crate) position: Option<i64>,
    /// Mailboxes that wait for a newer refresh token, those asked about least recently first.
    pub(crate) parked: VecDeque<Bytes>,
    /// Whether Postgres is being asked about some of them.
    pub(crate) is_asking: bool,
    /// Whether the log is being read again.
    is_passing: bool,
    /// Whether that did not come to all that was wanted.
    pub(crate) was_short: bool,
    pause: Duration,
    not_before: Instant,
}

impl Partition {
    /// The partition as it was restored.
    pub(crate) fn new(assignment: Assignment, bounds: Bounds, part: Part) -> Self {
        let Part { states, position } = part;
        let mut ledger = Ledger::new(bounds);
        let mut parked = VecDeque::new();
        let next = position.unwrap_or(0);
        for (key, state) in states {
            let mark = Mark { from: state.from, is_behind: state.behind };
            let work = match (state.organisation_id, state.revoked_version) {
                (Some(organisation), Some(version)) => {
                    parked.push_back(key.clone());
                    Work::parked(organisation, version)
                }
                (organisation, _) => Work { organisation, ..Work::default() },
            };
            ledger.restore(key, mark, next, work);
        }
        Self {
            assignment,
            ledger,
            next,
            position,
            parked,
            is_asking: false,
            is_passing: false,
            was_short: false,
            pause: FIRST_PAUSE,
            not_before: Instant::now(),
        }
    }

    /// Reads the log again for mailboxes that have room for what they left there.
    pub(crate) fn catch_up(&mut self, now: Instant, log: &Log, done: &DoneSender<Done>) {
        if self.is_passing || !self.ledger.has_line() || now < self.not_before {
            return;
        }
        let hungry = self.ledger.hungry(KEYS_A_PASS, |work| !work.is_parked());
        if hungry.is_empty() {
            return;
        }
        metric::pass();
        self.is_passing = true;
        self.was_short = false;
        log.pass(self.assignment, hungry, done.clone());
    }

    /// A reading of the log is over.
    pub(crate) fn pass_ended(&mut self, now: Instant) {
        self.is_passing = false;
        if self.was_short {
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else {
            self.pause = FIRST_PAUSE;
        }
    }

    /// When the log may be read again, if somebody waits for that.
    pub(crate) fn pass_at(&self) -> Option<Instant> {
        (!self.is_passing && self.ledger.has_line() && self.not_before > Instant::now()).then_some(self.not_before)
    }

    /// The next mailboxes that wait for a newer refresh token, at most so many.
    pub(crate) fn next_to_ask(&mut self, most: usize) -> Vec<(Bytes, OrganisationId, ConnectionId)> {
        let mut asked = Vec::new();
        for _ in 0..self.parked.len().min(most) {
            let Some(key) = self.parked.pop_front() else { break };
            let organisation = self.ledger.work(&key).and_then(|work| work.organisation);
            if let (Some(organisation), Some(connection)) = (organisation, connection(&key)) {
                asked.push((key.clone(), organisation, connection));
            }
            self.parked.push_back(key);
        }
        asked
    }
}
