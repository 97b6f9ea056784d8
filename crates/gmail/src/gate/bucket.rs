//! One budget: so many units in any stretch of time as long as its window, whatever is spent when, and whatever came
//! before this process.
//!
//! Three numbers hold it. *Credit* grows steadily. A call takes its price out of the credit, and as long as it is under
//! way the price counts as *in flight*, since Gmail charges it at some moment in between. Credit and what is in flight
//! never exceed the *reserve*, and credit grows at `(limit − reserve) / window`. Whatever Gmail charges in a window was
//! in flight or credit when the window began, or has grown since: at most `reserve + (limit − reserve) = limit`. This
//! holds for windows that slide and for those that are fixed, and however long calls take.
//!
//! A budget begins without credit. So a successor knows nothing of its predecessor and needs not to: what was its
//! credit when a window began plus what has grown since, in both lives, is the same sum.
//!
//! The reserve is small, so that hardly anything of the limit is left idle. A call dearer than that (a *lump*, such as a
//! watch under a small limit) needs a larger one, and growth goes by the largest that was needed in the last window.
//! Since the predecessor may have let a lump through in its last moment, a budget begins as if it had.

use std::time::Duration;

use tokio::time::Instant;

/// The reserve is this part of the limit: some 0.75 s worth of a minute.
const RESERVE_PART: u64 = 80;
/// Servers count in steps, and their clocks are not ours: a window is taken for longer by this part, 0.2 s of a minute.
const SLACK_PART: u32 = 300;

/// Units and thousandths of them, the smallest amount that is reckoned with: shares of budgets are no whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Amount(u64);

impl Amount {
    pub(super) const ZERO: Self = Self(0);

    pub(super) const fn units(units: u32) -> Self {
        Self(units as u64 * 1_000)
    }

    /// `limit · part`, rounded down. Parts are between 0 and 1.
    pub(super) fn part_of(limit: u64, part: f64) -> Self {
        let milli = limit.saturating_mul(1_000).min(1 << 50);
        Self((milli as f64 * part.clamp(0.0, 1.0)) as u64)
    }

    pub(super) const fn milli(self) -> u64 {
        self.0
    }

    /// In whole and broken units, for people.
    pub(super) fn as_units(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    pub(super) const fn half(self) -> Self {
        Self(self.0 / 2)
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// A budget. All times it is told must not go back; an earlier one counts as the latest it knows.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// In nanoseconds.
    window: u64,
    limit: Amount,
    /// The dearest lump that somebody may have been granted.
    dearest: Amount,
    /// What credit and calls in flight may come to just now; calls in flight may be more.
    cap: Amount,
    /// The largest reserve needed since the last turn, and from that back to the turn before: together at least those of
    /// the last window.
    needed: [Amount; 2],
    /// The next turn, at least a window after the last.
    turns_at: Instant,
    /// In thousandths of a unit times the window's nanoseconds, so that growth is a whole number.
    credit: i128,
    in_flight: Amount,
    /// Until when credit has grown. In the future: none grows before.
    at: Instant,
}

impl Bucket {
    /// A budget of `limit` in any `window`, without credit at `born`. No single call costs more than `dearest`, in this
    /// life or the one before.
    pub(super) fn new(limit: Amount, window: Duration, dearest: Amount, born: Instant) -> Self {
        let window = window + window / SLACK_PART;
        Self {
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            limit,
            dearest,
            cap: reserve(limit),
            needed: [lump(limit, dearest), Amount::ZERO],
            turns_at: born + window,
            credit: 0,
            in_flight: Amount::ZERO,
            at: born,
        }
    }

    /// The reserve when no lump is about.
    fn least_reserve(&self) -> Amount {
        reserve(self.limit)
    }

    /// The reserve that growth goes by: the largest that was needed in the last window.
    fn reserve(&self) -> Amount {
        self.needed[0].max(self.needed[1]).max(self.least_reserve())
    }

    fn need(&mut self, reserve: Amount) {
        self.needed[0] = self.needed[0].max(reserve);
    }

    pub(super) fn limit(&self) -> Amount {
        self.limit
    }

    /// What could be spent at once.
    pub(super) fn left(&self) -> Amount {
        Amount(u64::try_from(self.credit / i128::from(self.window)).unwrap_or(0))
    }

    fn worth(&self, amount: Amount) -> i128 {
        i128::from(amount.0) * i128::from(self.window)
    }

    fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// Lets credit grow until `now`.
    fn settle(&mut self, now: Instant) {
        while now > self.at {
            let until = now.min(self.turns_at.max(self.at));
            let rate = self.limit.minus(self.reserve());
            self.credit += nanos(until.saturating_duration_since(self.at)) * i128::from(rate.0);
            self.credit = self.credit.min(self.worth(self.cap.minus(self.in_flight)));
            self.at = until;
            if self.at >= self.turns_at {
                self.needed = [self.cap.max(self.in_flight), self.needed[0]];
                self.turns_at = self.at + self.window();
            }
        }
        self.credit = self.credit.min(self.worth(self.cap.minus(self.in_flight)));
    }

    /// A call of this price is the next one; zero: there is none.
    pub(super) fn expect(&mut self, now: Instant, price: Amount) {
        self.settle(now);
        self.cap = price.max(self.least_reserve());
        self.need(self.cap);
        self.settle(now);
    }

    /// When there is credit for the call that is expected. None: not before calls in flight have ended, or never.
    pub(super) fn ready_at(&self, price: Amount) -> Option<Instant> {
        if price > self.cap.minus(self.in_flight) {
            return None;
        }
        let missing = self.worth(price) - self.credit;
        if missing <= 0 {
            return Some(self.at);
        }
        // It grows so until the next turn, after which it may grow faster: who asks again then hears.
        let rate = i128::from(self.limit.minus(self.reserve()).0);
        let is_turning = self.turns_at <= self.at;
        let by_turn = nanos(self.turns_at.saturating_duration_since(self.at)) * rate;
        if rate > 0 && (is_turning || by_turn >= missing) {
            return Some(self.at + duration(missing, rate));
        }
        (self.limit > Amount::ZERO).then(|| self.turns_at.max(self.at + Duration::from_millis(1)))
    }

    /// When there is credit for the call that is expected, at the latest: [`Bucket::ready_at`] is when to look again, for
    /// growth may be faster from then on.
    pub(super) fn surely_at(&self, price: Amount) -> Instant {
        let missing = (self.worth(price) - self.credit).max(0);
        match i128::from(self.limit.minus(self.reserve()).0) {
            0 => self.at,
            rate => self.at + duration(missing, rate),
        }
    }

    /// Spends. The caller has seen that [`Bucket::ready_at`] is not in the future.
    pub(super) fn take(&mut self, price: Amount) {
        self.credit -= self.worth(price);
        self.in_flight = self.in_flight.plus(price);
        debug_assert!(self.credit >= 0, "a price was taken that there was no credit for");
    }

    /// A call has ended: Gmail has charged it.
    pub(super) fn finish(&mut self, now: Instant, price: Amount) {
        self.settle(now);
        self.in_flight = self.in_flight.minus(price);
    }

    /// A call was not made after all.
    pub(super) fn refund(&mut self, now: Instant, price: Amount) {
        self.finish(now, price);
        self.credit += self.worth(price);
        self.settle(now);
    }

    /// Another limit. What is gained begins without credit; what is lost is given up at once.
    pub(super) fn set_limit(&mut self, now: Instant, limit: Amount) {
        self.settle(now);
        if limit == self.limit {
            return;
        }
        let was = self.limit;
        self.limit = limit;
        if limit > was {
            // Whoever had the gained part may have just let a lump through.
            let gained = lump(limit.minus(was), self.dearest);
            let kept = self.needed[0].max(self.needed[1]).max(reserve(was));
            self.need(kept.plus(gained));
            self.turns_at = self.at + self.window();
        } else {
            let share = |needed: Amount| {
                let kept = u128::from(needed.0) * u128::from(limit.0) / u128::from(was.0);
                Amount(u64::try_from(kept).unwrap_or(u64::MAX))
            };
            self.needed = self.needed.map(share);
        }
        self.cap = self.least_reserve();
        self.settle(now);
    }

    /// No credit until `until`, and none saved up by then.
    pub(super) fn freeze(&mut self, now: Instant, until: Instant) {
        self.settle(now);
        self.credit = 0;
        self.at = self.at.max(until);
    }

    /// No call is let through before then: the end of a freeze.
    pub(super) fn frozen_until(&self) -> Instant {
        self.at
    }

    /// Whether one that is made anew, born at `born`, would be no different, or have less.
    pub(super) fn is_as_new(&mut self, now: Instant, born: Instant) -> bool {
        self.expect(now, Amount::ZERO);
        let newborn = Self::new(self.limit, Duration::ZERO, self.dearest, born);
        let is_newborn = self.turns_at <= born + self.window() && self.reserve() <= newborn.reserve();
        let is_calm = is_newborn || self.reserve() == self.least_reserve();
        self.at <= now && is_calm && self.in_flight == Amount::ZERO && self.credit == self.worth(self.least_reserve())
    }
}

/// What credit and calls in flight may come to under `limit` when no lump is about.
pub(super) fn reserve(limit: Amount) -> Amount {
    Amount(limit.0 / RESERVE_PART)
}

/// The most that one call may cost under `limit`, if none costs more than `dearest`.
pub(super) fn lump(limit: Amount, dearest: Amount) -> Amount {
    // With half of the limit kept for one lump there is still growth.
    dearest.min(limit.half()).max(reserve(limit))
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// The nanoseconds that `credit` takes to grow at `rate` for each, rounded up.
fn duration(credit: i128, rate: i128) -> Duration {
    let nanos = (credit + rate - 1) / rate;
    // A hundred years are soon enough for what may never come.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).min(3_000_000_000_000_000_000))
}
