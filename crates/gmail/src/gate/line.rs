//! One connection at the gate, or one account where its connections share a budget: its part of its account's budget, its calls that wait, and how many it may have at a
//! time.

use std::collections::VecDeque;
use std::time::Duration;

use domain::ConnectionId;
use tokio::time::Instant;

use super::bucket::{Amount, Bucket};
use super::turns::{LANES, Turns};
use crate::token::Account;

/// After a push-back one more call at a time is tried this much later, and again.
const GROWTH: Duration = Duration::from_secs(5);
/// What is pushed back within this time was under way together: it shrinks the number once.
const TOGETHER: Duration = Duration::from_secs(1);
/// Google asks for a first pause of at least a second, and for no more than 64.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
/// Who was refused because the credit comes too late finds it for so long after the time it was told.
const HOPE: Duration = Duration::from_secs(60);
/// Without a push-back for so long the pauses begin anew.
const FORGIVEN: Duration = Duration::from_secs(120);

/// How many calls may be under way at a time: halved by a push-back, one more for every few seconds without.
#[derive(Debug, Clone)]
pub(super) struct Ceiling {
    most: u32,
    shrunk_to: u32,
    shrunk_at: Option<Instant>,
}

impl Ceiling {
    pub(super) fn new(most: u32) -> Self {
        Self { most: most.max(1), shrunk_to: most.max(1), shrunk_at: None }
    }

    pub(super) fn now(&self, now: Instant) -> u32 {
        let Some(at) = self.shrunk_at else { return self.most };
        let grown = now.saturating_duration_since(at).as_nanos() / GROWTH.as_nanos();
        self.most.min(self.shrunk_to.saturating_add(u32::try_from(grown).unwrap_or(u32::MAX)))
    }

    pub(super) fn shrink(&mut self, now: Instant) {
        if self.shrunk_at.is_none_or(|at| now.saturating_duration_since(at) >= TOGETHER) {
            self.shrunk_to = (self.now(now) / 2).max(1);
            self.shrunk_at = Some(now);
        }
    }

    /// When it grows by one; none: it is at its most.
    pub(super) fn grows_at(&self, now: Instant) -> Option<Instant> {
        let at = self.shrunk_at?;
        let grown = self.now(now) - self.shrunk_to;
        (self.now(now) < self.most).then(|| at + GROWTH * (grown + 1))
    }

    fn set_most(&mut self, most: u32) {
        self.most = most.max(1);
        self.shrunk_to = self.shrunk_to.min(self.most);
        if self.shrunk_at.is_none() {
            self.shrunk_to = self.most;
        }
    }
}

/// Pauses after push-backs that name no time: each twice the last.
#[derive(Debug, Clone, Default)]
pub(super) struct Pauses {
    last: Option<(Instant, Duration)>,
}

impl Pauses {
    /// How long to pause after a push-back now.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let pause = match self.last {
            // Still in that pause: calls that were under way when it began.
            Some((until, pause)) if now < until => return until.saturating_duration_since(now).min(pause),
            Some((until, pause)) if now < until + FORGIVEN => (pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.last = Some((now + pause, pause));
        pause
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        self.last.is_none_or(|(until, _)| now >= until + FORGIVEN)
    }
}

/// A call that waits. `W` is how its caller is told.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) ticket: u64,
    pub(super) price: Amount,
    pub(super) parts: u32,
    pub(super) deadline: Instant,
    /// The connection that asks: within a priority they take turns.
    pub(super) by: Option<ConnectionId>,
    /// Its turn: after all of earlier rounds, and after those of the same round that came before it.
    pub(super) round: u64,
    pub(super) waker: W,
}

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// Nothing waits.
    Idle,
    /// Its next call could be made: in the queue of that priority, at that place.
    Ready(usize, u64),
    /// Its next call can be made at that time; at that place among those that wait for a time.
    Parked(Instant, u64),
    /// Until a call of its own ends.
    Blocked,
}

/// What keeps a line's next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing waits.
    Nothing,
    /// Nothing: it is of this priority.
    Ready(usize),
    /// The account's budget, until then; after a push-back it is the end of the pause.
    Budget(Option<Instant>),
    /// The calls at one time; there may be one more then.
    Ceiling(Option<Instant>),
    /// It would be too late: this priority's first is refused.
    TooLate(usize, Instant),
}

#[derive(Debug)]
pub(super) struct Line<W> {
    pub(super) account: Account,
    pub(super) connection: Option<ConnectionId>,
    pub(super) shares: u32,
    pub(super) bucket: Bucket,
    pub(super) waiting: [VecDeque<Waiter<W>>; LANES],
    pub(super) turns: Turns,
    /// The round of the last call that was let through, by priority.
    rounds: [u64; LANES],
    /// What somebody was told to come again for, and until when that is kept ready.
    hoped: Option<(Amount, Instant)>,
    /// Calls under way; each part of a batch is one.
    pub(super) running: u32,
    pub(super) ceiling: Ceiling,
    pub(super) pauses: Pauses,
    pub(super) stand: Stand,
    /// It is in the queue of those that may be forgotten.
    pub(super) is_leaving: bool,
    pub(super) since: Instant,
}

impl<W> Line<W> {
    pub(super) fn new(account: Account, connection: Option<ConnectionId>, bucket: Bucket, now: Instant) -> Self {
        Self {
            account,
            connection,
            shares: 1,
            bucket,
            waiting: [const { VecDeque::new() }; LANES],
            turns: Turns::default(),
            rounds: [0; LANES],
            hoped: None,
            running: 0,
            ceiling: Ceiling::new(1),
            pauses: Pauses::default(),
            stand: Stand::Idle,
            is_leaving: false,
            since: now,
        }
    }

    /// The account is connected so many times.
    pub(super) fn share(&mut self, now: Instant, shares: u32, limit: Amount, most_at_once: u32) {
        self.shares = shares;
        self.bucket.set_limit(now, limit);
        self.ceiling.set_most(most_at_once);
    }

    /// A call waits from now on. One connection's calls stay in their order, and those of several take turns, so that
    /// one with many keeps another's by one call at most.
    pub(super) fn queue(&mut self, lane: usize, waiter: Waiter<W>) {
        let waiting = &mut self.waiting[lane];
        let own = waiting.iter().rev().find(|other| other.by == waiter.by).map_or(0, |other| other.round);
        let round = own.max(self.rounds[lane]) + 1;
        let at = waiting.iter().rposition(|other| other.round <= round).map_or(0, |before| before + 1);
        waiting.insert(at, Waiter { round, ..waiter });
    }

    /// Somebody was told that there will be credit for a call of this price at `until`: it is saved up for whoever
    /// comes then. Without this, what nobody waits for would not grow beyond the least reserve, and a small budget never
    /// come to one dear call.
    pub(super) fn hope(&mut self, price: Amount, until: Instant) {
        let (most, last) = self.hoped.unwrap_or((price, until));
        self.hoped = Some((most.max(price), last.max(until + HOPE)));
    }

    /// What is saved up for those that were told to come again.
    fn hoped(&mut self, now: Instant) -> Amount {
        let Some((price, until)) = self.hoped else { return Amount::ZERO };
        if now < until {
            return price;
        }
        self.hoped = None;
        if self.waiting.iter().all(VecDeque::is_empty) {
            // Whenever somebody looks, it was over then.
            self.bucket.expect(until, Amount::ZERO);
        }
        Amount::ZERO
    }

    /// What is next, and what keeps it.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let hoped = self.hoped(now);
        let Some(lane) = self.turns.next(|lane| !self.waiting[lane].is_empty()) else {
            self.bucket.expect(now, hoped);
            return Next::Nothing;
        };
        let Some(first) = self.waiting[lane].front() else { return Next::Nothing };
        let (price, parts, deadline) = (first.price, first.parts, first.deadline);
        self.bucket.expect(now, price.max(hoped));
        let at = self.bucket.ready_at(price);
        if let Some(at) = at.filter(|at| *at > deadline) {
            return Next::TooLate(lane, self.bucket.surely_at(price).max(at));
        }
        if self.running > 0 && self.running.saturating_add(parts) > self.ceiling.now(now) {
            return Next::Ceiling(self.ceiling.grows_at(now));
        }
        match at {
            Some(at) if at <= now => Next::Ready(lane),
            at => Next::Budget(at),
        }
    }

    /// Lets its first call of that priority through.
    pub(super) fn pop(&mut self, lane: usize) -> Option<Waiter<W>> {
        let waiter = self.waiting[lane].pop_front()?;
        self.turns.took(lane, waiter.price.milli());
        self.rounds[lane] = waiter.round;
        self.hoped = self.hoped.filter(|(price, _)| waiter.price < *price);
        self.bucket.take(waiter.price);
        self.running = self.running.saturating_add(waiter.parts);
        Some(waiter)
    }

    /// Whether a line made anew would be the same.
    pub(super) fn is_as_new(&mut self, now: Instant, born: Instant) -> bool {
        self.hoped(now) == Amount::ZERO
            && self.stand == Stand::Idle
            && self.running == 0
            && self.ceiling.now(now) == self.ceiling.most
            && self.pauses.is_forgiven(now)
            && self.bucket.is_as_new(now, born)
    }
}
