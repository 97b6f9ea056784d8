//! Health: named checks that the parts of a process keep up to date. [`crate::admin`] tells them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metric;

/// The checks of a process. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<String, Known>>>,
}

#[derive(Debug)]
struct Known {
    /// Tells a check from the one that took its name over.
    serial: u64,
    state: Result<Instant, String>,
    /// Set for a check that must be renewed: it counts for liveness.
    max_age: Option<Duration>,
}

impl Known {
    /// What is wrong now, if anything.
    fn fault(&self, now: Instant) -> Option<String> {
        match (&self.state, self.max_age) {
            (Err(reason), _) => Some(reason.clone()),
            (Ok(at), Some(max)) if now.duration_since(*at) > max => {
                Some(format!("no sign of life for {} s", now.duration_since(*at).as_secs()))
            }
            (Ok(_), _) => None,
        }
    }
}

/// One part's say in the health of the process. When it is dropped the check fails: a part that
/// ended, maybe by a panic, is not well. Registering the name again replaces it.
#[derive(Debug)]
pub struct Check {
    name: String,
    serial: u64,
    health: Health,
}

impl Health {
    /// A process without checks, alive and ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a check for `/readyz`. It fails until [`Check::pass`].
    #[must_use = "dropping the check fails it"]
    pub fn readiness(&self, name: impl Into<String>) -> Check {
        self.register(name.into(), Err("starting".to_owned()), None)
    }

    /// Registers a check for `/livez` and `/readyz` that must be renewed by [`Check::pass`]
    /// within every `max_age`. It passes at first.
    #[must_use = "dropping the check fails it"]
    pub fn liveness(&self, name: impl Into<String>, max_age: Duration) -> Check {
        self.register(name.into(), Ok(Instant::now()), Some(max_age))
    }

    /// What keeps the process from being ready, by check. Empty when it is.
    #[must_use]
    pub fn not_ready(&self) -> BTreeMap<String, String> {
        self.faults(Instant::now(), |_| true)
    }

    /// What keeps the process from counting as alive, by check. Empty when it does.
    #[must_use]
    pub fn not_alive(&self) -> BTreeMap<String, String> {
        self.not_alive_at(Instant::now())
    }

    fn not_alive_at(&self, now: Instant) -> BTreeMap<String, String> {
        self.faults(now, |known| known.max_age.is_some())
    }

    fn faults(&self, now: Instant, counts: impl Fn(&Known) -> bool) -> BTreeMap<String, String> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = checks.iter().filter(|(_, known)| counts(known));
        counted.filter_map(|(name, known)| Some((name.clone(), known.fault(now)?))).collect()
    }

    fn register(&self, name: String, state: Result<Instant, String>, max_age: Option<Duration>) -> Check {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let serial = checks.get(&name).map_or(0, |known| known.serial + 1);
        checks.insert(name.clone(), Known { serial, state, max_age });
        drop(checks);
        Check { name, serial, health: self.clone() }
    }
}

impl Check {
    /// The part is well, as of now.
    pub fn pass(&self) {
        self.set(Ok(Instant::now()));
    }

    /// The part is not well. The reason is shown on the admin port: no secrets, no addresses.
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    fn set(&self, state: Result<Instant, String>) {
        let ready = if state.is_ok() { 1.0 } else { 0.0 };
        let mut checks = self.health.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = checks.get_mut(&self.name).filter(|known| known.serial == self.serial) {
            known.state = state;
            metrics::gauge!(metric::READY.name, "check" => self.name.clone()).set(ready);
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.fail("has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readiness_check_fails_until_it_passes() {
        let health = Health::new();
        let kafka = health.readiness("kafka");
        assert_eq!(health.not_ready()["kafka"], "starting");
        kafka.pass();
        assert!(health.not_ready().is_empty());
        kafka.fail("no broker answers");
        assert_eq!(health.not_ready()["kafka"], "no broker answers");
        assert!(health.not_alive().is_empty(), "a broker that is away is no reason to restart");
    }

    #[test]
    fn a_part_that_stops_beating_is_not_alive() {
        let health = Health::new();
        let lane = health.liveness("lane-0", Duration::from_secs(30));
        lane.pass();
        let beat = Instant::now();
        assert!(health.not_alive_at(beat + Duration::from_secs(29)).is_empty());
        assert_eq!(health.not_alive_at(beat + Duration::from_secs(32))["lane-0"], "no sign of life for 32 s");
    }

    #[test]
    fn a_part_that_ended_is_not_well_until_it_is_built_anew() {
        let health = Health::new();
        let first = health.liveness("lane-0", Duration::from_secs(30));
        let second = health.liveness("lane-0", Duration::from_secs(30));
        drop(first);
        assert!(health.not_alive().is_empty(), "the old part has no say any more");
        drop(second);
        assert_eq!(health.not_alive()["lane-0"], "has ended");
    }
}
