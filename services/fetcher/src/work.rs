//! What is going on with one mailbox.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{OrganisationId, TokenVersion};
use kafka::OwnedRecord;

use crate::reading::{Due, Outcome, Tries, Trouble, now};
use crate::readings::Sequel;

/// Messages of one reading at first, and at most: what a batch may hold.
const CHUNK: usize = 25;
/// A reading that takes longer is followed by a smaller one, so that what is read is soon written.
const LONG: Duration = Duration::from_millis(1_500);
/// A reading that takes less is followed by a larger one.
const SHORT: Duration = Duration::from_millis(500);

/// The longest pause between attempts (Gmail's error guide: 32 or 64 s).
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
/// The longest pause where single messages fail: not found yet, they may be any moment.
const LONGEST_SINGLE: Duration = Duration::from_secs(30);
/// The longest pause where somebody has to mend something at Google.
const LONGEST_REFUSED: Duration = Duration::from_secs(600);
/// Gmail's "Retry after" is sometimes far off; longer than this is not believed.
const LONGEST_THROTTLE: Duration = Duration::from_secs(30 * 60);

/// Outcomes that wait for an earlier one of their mailbox, counted by their bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Budget(Rc<Cell<usize>>);

impl Budget {
    /// How many bytes are kept.
    pub(crate) fn kept(&self) -> usize {
        self.0.get()
    }
}

/// An outcome that is kept.
#[derive(Debug)]
struct Kept {
    outcome: Outcome,
    bytes: usize,
    budget: Budget,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() - self.bytes);
    }
}

/// A record of the ledger.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) record: Arc<OwnedRecord>,
    pub(crate) tries: Tries,
    kept: Option<Kept>,
}

impl Item {
    pub(crate) fn new(record: Arc<OwnedRecord>) -> Self {
        Self { record, tries: Tries::default(), kept: None }
    }

    /// What a reading is told of it.
    pub(crate) fn due(&self) -> Due {
        Due { record: self.record.clone(), tries: self.tries }
    }

    /// Keeps an outcome until those before it are there.
    pub(crate) fn keep(&mut self, outcome: Outcome, budget: &Budget) {
        let bytes = outcome.bytes();
        budget.0.set(budget.0.get() + bytes);
        self.kept = Some(Kept { outcome, bytes, budget: budget.clone() });
    }

    /// Whether its outcome is there.
    pub(crate) const fn is_done(&self) -> bool {
        self.kept.is_some()
    }

    /// Lets its outcome go: it is read again.
    pub(crate) fn let_go(&mut self) {
        self.kept = None;
    }

    /// The record and its outcome, if that is there.
    pub(crate) fn into_outcome(self) -> Option<(Arc<OwnedRecord>, Outcome)> {
        let mut kept = self.kept?;
        // What is left of it counts until it is dropped here.
        Some((self.record, std::mem::replace(&mut kept.outcome, Outcome::Deleted)))
    }
}

/// Where a mailbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Nothing is to be read, or it has not been noticed yet.
    #[default]
    Idle,
    /// It waits for a place.
    Ready,
    /// It is being read.
    Reading,
    /// It waits until then.
    Paused(Instant),
    /// It waits for a newer refresh token than this one.
    Parked(TokenVersion),
}

/// What is going on with a mailbox.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) phase: Phase,
    /// The oldest refresh token that may be used.
    pub(crate) oldest: TokenVersion,
    /// The tenant, once it is known.
    pub(crate) organisation: Option<OrganisationId>,
    /// How many messages to read at a time.
    pub(crate) chunk: usize,
    /// Readings in a row that brought trouble.
    pub(crate) failures: u32,
    /// What its reading goes on with, and the last offset that it was given.
    pub(crate) sequel: Option<(Sequel, i64)>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            oldest: TokenVersion::default(),
            organisation: None,
            chunk: CHUNK,
            failures: 0,
            sequel: None,
        }
    }
}

impl Work {
    /// One that waits for a newer refresh token.
    pub(crate) fn parked(organisation: OrganisationId, version: TokenVersion) -> Self {
        Self { phase: Phase::Parked(version), organisation: Some(organisation), oldest: version, ..Self::default() }
    }

    pub(crate) const fn is_parked(&self) -> bool {
        matches!(self.phase, Phase::Parked(_))
    }

    /// Learns from how long a reading of a whole chunk took.
    pub(crate) fn paced(&mut self, took: Duration) {
        if took > LONG {
            self.chunk = (self.chunk / 2).max(1);
        } else if took < SHORT {
            self.chunk = (self.chunk * 2).min(CHUNK);
        }
    }

    /// All went well.
    pub(crate) const fn recovered(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after trouble; `has_moved`: something was brought to its end all the same. `jitter` is from 0
    /// to 1.
    pub(crate) fn pause(&mut self, trouble: &Trouble, has_moved: bool, jitter: f64) -> Duration {
        self.failures = if has_moved { 1 } else { self.failures.saturating_add(1) };
        let doubled = |longest: Duration| {
            let pause = Duration::from_secs(1) * (1 << (self.failures - 1).min(10));
            pause.min(longest)
        };
        let jitter = Duration::from_secs_f64(jitter.clamp(0.0, 1.0));
        match trouble {
            Trouble::Single => doubled(LONGEST_SINGLE) + jitter,
            Trouble::Throttled(Some(until)) => {
                let told = u64::try_from(until.since(now()).as_millis()).unwrap_or(0);
                Duration::from_millis(told).min(LONGEST_THROTTLE) + jitter
            }
            Trouble::Throttled(None) | Trouble::Failing(_) | Trouble::Revoked(_) => doubled(LONGEST_PAUSE) + jitter,
            Trouble::Refused(..) => LONGEST_PAUSE.max(doubled(LONGEST_REFUSED)) + jitter * 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_longest_and_begin_anew_when_something_moved() {
        let mut work = Work::default();
        let failing = Trouble::Failing(String::new());
        let pauses: Vec<_> = (0..8).map(|_| work.pause(&failing, false, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(work.pause(&Trouble::Single, false, 0.5).as_millis(), 30_500);
        assert_eq!(work.pause(&failing, true, 0.0).as_secs(), 1);
        work.recovered();
        let refused = Trouble::Refused(String::new(), String::new());
        assert_eq!(work.pause(&refused, false, 0.0).as_secs(), 64);
        assert!((0..20).all(|_| work.pause(&refused, false, 1.0) <= Duration::from_secs(610)));
    }

    #[test]
    fn gmails_own_time_is_kept_unless_it_is_absurd() {
        let mut work = Work::default();
        let until = |seconds| Trouble::Throttled(Some(now() + domain::Duration::from_secs(seconds)));
        let pause = work.pause(&until(20), false, 0.0);
        assert!(pause > Duration::from_secs(15) && pause <= Duration::from_secs(20), "{pause:?}");
        assert_eq!(work.pause(&until(100_000), false, 0.0), LONGEST_THROTTLE);
    }

    #[test]
    fn a_reading_grows_while_it_is_quick() {
        let mut work = Work::default();
        (0..9).for_each(|_| work.paced(LONG * 2));
        assert_eq!(work.chunk, 1);
        work.paced((LONG + SHORT) / 2);
        assert_eq!(work.chunk, 1);
        (0..9).for_each(|_| work.paced(SHORT / 2));
        assert_eq!(work.chunk, CHUNK);
    }

    #[test]
    fn what_is_kept_is_counted_until_it_goes() {
        let budget = Budget::default();
        let record = OwnedRecord {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            value: None,
            headers: kafka::Headers::new(),
        };
        let out = kafka::OutRecord::new(&Arc::from("t"), "k", "12345", kafka::Headers::new());
        let mut item = Item::new(Arc::new(record));
        item.keep(Outcome::Fetched(out.clone()), &budget);
        assert_eq!(budget.kept(), 5);
        item.keep(Outcome::Gone(out), &budget);
        assert_eq!(budget.kept(), 5, "one takes the other's place");
        item.let_go();
        assert_eq!(budget.kept(), 0);
    }
}
