//! Whether Postgres is away, and since when: what lets syncs go on without it, and look-ups not answer wrongly after it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use domain::{JobId, Timestamp};

use crate::app::now;

/// How long after an outage rows may be missing whose jobs were accepted: they are inserted at once, but by each
/// instance for itself.
const SETTLES: domain::Duration = domain::Duration::from_secs(10);

/// What one instance has seen of Postgres.
#[derive(Debug)]
pub(crate) struct Outage {
    is_on: AtomicBool,
    /// When the newest outage began and when it was last seen, as milliseconds of the wall clock.
    began: AtomicI64,
    seen: AtomicI64,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self { is_on: AtomicBool::new(false), began: AtomicI64::new(i64::MIN), seen: AtomicI64::new(i64::MIN) }
    }

    /// Whether it is on, as far as is known: what can do without Postgres does not ask it then.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Postgres did not answer.
    pub(crate) fn went_on(&self) {
        self.went_on_at(now());
    }

    /// Postgres answered.
    pub(crate) fn ended(&self) {
        if self.is_on() {
            self.is_on.store(false, Ordering::Relaxed);
        }
    }

    fn went_on_at(&self, at: Timestamp) {
        let seen = self.seen.fetch_max(at.as_millis(), Ordering::Relaxed);
        if seen < (at - SETTLES).as_millis() {
            self.began.store(at.as_millis(), Ordering::Relaxed);
        }
        if !self.is_on.swap(true, Ordering::Relaxed) {
            tracing::warn!("Postgres is away; syncs of known keys and connections go on for a while");
        }
    }

    /// Whether a job that has no row may have been accepted, here or by another instance: one whose id is of the time of
    /// an outage that is hardly over. Whether there is such a job makes no difference to the answer.
    pub(crate) fn may_hide(&self, job: JobId) -> bool {
        self.may_hide_at(job, now())
    }

    fn may_hide_at(&self, job: JobId, at: Timestamp) -> bool {
        if self.seen.load(Ordering::Relaxed) < (at - SETTLES).as_millis() {
            return false;
        }
        // Another instance may have noticed earlier, and its clock be another.
        let began = Timestamp::from_millis(self.began.load(Ordering::Relaxed)) - SETTLES;
        made_at(job).is_some_and(|made| made >= began && made <= at + SETTLES)
    }
}

/// The time in an id of version 7.
fn made_at(job: JobId) -> Option<Timestamp> {
    let uuid = job.as_uuid();
    (uuid.get_version_num() == 7).then(|| {
        let millis = uuid.as_u128() >> 80;
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn made(seconds: u64) -> JobId {
        JobId::from_uuid(uuid::Builder::from_unix_timestamp_millis(seconds * 1000, &[7; 10]).into_uuid())
    }

    #[test]
    fn an_outage_hides_the_jobs_of_its_time_until_it_has_settled() {
        let outage = Outage::new();
        assert!(!outage.may_hide_at(made(1000), at(1000)));
        outage.went_on_at(at(1000));
        outage.went_on_at(at(1005));
        assert!(outage.is_on());
        outage.ended();
        assert!(!outage.is_on());
        assert!(outage.may_hide_at(made(1003), at(1014)));
        assert!(outage.may_hide_at(made(995), at(1014)), "another instance may have noticed first");
        assert!(!outage.may_hide_at(made(900), at(1014)), "made before it");
        assert!(!outage.may_hide_at(made(2000), at(1014)), "not made yet");
        assert!(!outage.may_hide_at(made(1003), at(1016)), "settled");
        assert!(!outage.may_hide_at(JobId::from_uuid(uuid::Uuid::from_u128(7)), at(1010)), "no id of ours");
        outage.went_on_at(at(5000));
        assert!(!outage.may_hide_at(made(1003), at(5000)), "of an outage long over");
    }
}
