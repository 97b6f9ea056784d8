//! The schedule's own time: the instant up to which slots are due.
//!
//! It is the clock's time, unless slots were missed: then it runs from where the watermark stood, but no further back
//! than the longest interval that a connection has (each has its latest slot to make up for), and faster than the clock
//! by a factor until it has reached it. So a downtime is made up for evenly and not in one burst. It never goes back
//! when the clock does by a little, and begins anew at the clock when that went back by much: slots that come a second
//! time are the same jobs.

use domain::{Duration, Timestamp};

/// The schedule's own time.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// The longest time between two slots of one connection.
    interval: Duration,
    /// How many times faster than the clock it runs while behind.
    factor: i64,
    /// How far the clock may be behind before it is believed.
    tolerance: Duration,
    /// Where it stands.
    at: Timestamp,
    /// What the clock said then.
    clock: Timestamp,
}

impl Pace {
    /// Begins where the watermark stands, if there is one, when the clock says `now`.
    pub(crate) fn new(
        interval: Duration,
        factor: u32,
        tolerance: Duration,
        watermark: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        // Nothing was missed before the first start; and what lies ahead of the clock was fired by a clock that ran
        // ahead, so that firing it again does nothing.
        let at = watermark.unwrap_or(now).clamp(now - interval, now);
        Self { interval, factor: i64::from(factor), tolerance, at, clock: now }
    }

    /// Where it stands.
    pub(crate) const fn at(&self) -> Timestamp {
        self.at
    }

    /// How far it is behind the clock, as the clock was last read.
    pub(crate) const fn behind(&self) -> Duration {
        self.clock.since(self.at)
    }

    /// Looks back by at least so much from now on.
    pub(crate) fn reach(&mut self, interval: Duration) {
        self.interval = self.interval.max(interval);
    }

    /// Moves to where it stands when the clock says `now`, but not past `limit`.
    pub(crate) fn advance(&mut self, now: Timestamp, limit: Timestamp) {
        if self.at.since(now) > self.tolerance {
            self.at = now;
        }
        // A clock that jumps ahead, or a process that was held: again one interval is all that can be missed.
        let floor = now - self.interval;
        let passed = now.since(self.clock).as_millis();
        let stride = Duration::from_millis(passed.saturating_mul(self.factor));
        self.clock = now;
        self.at = self.at.max((self.at + stride).min(now).min(limit)).max(floor);
    }

    /// Another scheduler has fired up to `watermark`. One that is far ahead of the clock says nothing: it was left by a
    /// clock that ran ahead.
    pub(crate) fn skip_to(&mut self, watermark: Timestamp) {
        if watermark.since(self.clock) <= self.tolerance {
            self.at = self.at.max(watermark.min(self.clock));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const INTERVAL: Duration = Duration::from_hours(12);
    const FACTOR: u32 = 10;
    const TOLERANCE: Duration = Duration::from_minutes(5);

    const fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_770_000_000_000 + ms)
    }

    fn pace(watermark: Option<i64>) -> Pace {
        Pace::new(INTERVAL, FACTOR, TOLERANCE, watermark.map(at), at(0))
    }

    const NEVER: Timestamp = at(1_000_000 * HOUR);

    #[test]
    fn a_first_start_has_missed_nothing() {
        assert_eq!(pace(None).at(), at(0));
    }

    #[test]
    fn a_watermark_ahead_of_the_clock_does_not_stop_the_schedule() {
        assert_eq!(pace(Some(500 * HOUR)).at(), at(0));
    }

    #[test]
    fn after_a_long_downtime_each_connection_has_its_latest_slot_to_make_up_for() {
        let mut pace = pace(Some(-100 * HOUR));
        assert_eq!(pace.at(), at(-12 * HOUR));
        // Twelve hours at ten times the pace: made up for after 12/9 hours, and no sooner.
        pace.advance(at(HOUR), NEVER);
        assert_eq!(pace.at(), at(-2 * HOUR));
        pace.advance(at(HOUR + HOUR / 3), NEVER);
        assert_eq!(pace.behind(), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_goes_back_by_much_is_believed_and_by_little_is_waited_for() {
        let mut pace = pace(None);
        pace.advance(at(HOUR), NEVER);
        pace.advance(at(HOUR - 1_000), NEVER);
        assert_eq!(pace.at(), at(HOUR));
        pace.advance(at(-500 * HOUR), NEVER);
        assert_eq!(pace.at(), at(-500 * HOUR));
    }

    #[test]
    fn what_another_has_fired_is_not_fired_again() {
        let mut pace = pace(Some(-HOUR));
        pace.skip_to(at(-HOUR / 2));
        assert_eq!(pace.at(), at(-HOUR / 2));
        pace.skip_to(at(-HOUR));
        assert_eq!(pace.at(), at(-HOUR / 2));
        pace.skip_to(at(7 * HOUR));
        assert_eq!(pace.at(), at(-HOUR / 2), "what a broken clock left is not believed");
        pace.skip_to(at(1_000));
        assert_eq!(pace.at(), at(0), "never ahead of the clock");
    }

    proptest! {
        #[test]
        fn it_keeps_below_the_clock_and_within_its_factor(
            watermark in prop::option::of(-30 * HOUR..30 * HOUR),
            steps in prop::collection::vec(0_i64..3 * HOUR, 1..50),
        ) {
            let mut pace = pace(watermark);
            let mut now = 0;
            for step in steps {
                now += step;
                let before = pace.at();
                pace.advance(at(now), NEVER);
                prop_assert!(pace.at() <= at(now));
                prop_assert!(pace.at() >= before, "with a clock that does not go back it never does");
                let fair = Duration::from_millis(step * i64::from(FACTOR));
                prop_assert!(pace.at().since(before) <= fair || pace.at() == at(now) - INTERVAL);
            }
        }

        #[test]
        fn it_never_passes_what_is_planned(limit in -12 * HOUR..0, now in 0..HOUR) {
            let mut pace = pace(Some(-12 * HOUR));
            pace.advance(at(now), at(limit));
            prop_assert!(pace.at() <= at(limit) || pace.at() == at(now) - INTERVAL);
        }
    }
}
