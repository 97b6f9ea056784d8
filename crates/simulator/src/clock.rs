//! The simulator's time: the machine's, or one that tests move. `internalDate`, the `Date` header, expiry of
//! tokens and history, lags and quota windows all come from here.

use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that runs, stands, or is moved. Milliseconds since the Unix epoch.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Runs from `from_ms`, which was at `at`. Monotonic: a step of the machine's clock does not show.
    Runs { from_ms: i64, at: Instant },
    /// Stands at this time until moved.
    Stands { ms: i64 },
}

impl Default for Clock {
    fn default() -> Self {
        Self { state: Mutex::new(State::Runs { from_ms: machine_ms(), at: Instant::now() }) }
    }
}

impl Clock {
    /// The time now, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        match *self.lock() {
            State::Runs { from_ms, at } => from_ms.saturating_add(millis_since(at)),
            State::Stands { ms } => ms,
        }
    }

    /// Stops the clock at `ms`.
    pub fn stand_at(&self, ms: i64) {
        *self.lock() = State::Stands { ms };
    }

    /// Moves the clock by `ms`, backwards if negative; it goes on running or standing as before.
    pub fn advance(&self, ms: i64) {
        let mut state = self.lock();
        *state = match *state {
            State::Runs { from_ms, at } => State::Runs { from_ms: from_ms.saturating_add(ms), at },
            State::Stands { ms: old } => State::Stands { ms: old.saturating_add(ms) },
        };
    }

    /// Lets the clock run from `ms`.
    pub fn run_from(&self, ms: i64) {
        *self.lock() = State::Runs { from_ms: ms, at: Instant::now() };
    }

    /// Lets the clock run from the machine's time.
    pub fn run_from_machine(&self) {
        self.run_from(machine_ms());
    }

    /// Whether the clock stands.
    pub fn stands(&self) -> bool {
        matches!(*self.lock(), State::Stands { .. })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn machine_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn millis_since(at: Instant) -> i64 {
    i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// `ms` as an HTTP date (RFC 9110 §5.6.7), as in the `Date` header.
pub(crate) fn http_date(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 GMT".to_owned())
}

/// `ms` in RFC 3339 with milliseconds, as in Gmail's "Retry after".
pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_else(|_| "1970-01-01T00:00:00.000Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_runs_and_moves() {
        let clock = Clock::default();
        clock.stand_at(1_000);
        clock.advance(500);
        assert_eq!(clock.now_ms(), 1_500);
        assert!(clock.stands());
        clock.advance(-1_500);
        assert_eq!(clock.now_ms(), 0);
        clock.run_from(10_000);
        assert!(clock.now_ms() >= 10_000 && !clock.stands());
    }

    #[test]
    fn dates_are_spelled_as_on_the_wire() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(rfc3339(1_789_156_800_000), "2026-09-11T20:00:00.000Z");
    }
}
