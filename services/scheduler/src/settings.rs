//! What can be set about the schedule.

use std::time::Duration;

use domain::schedule::Schedule;
use runtime::settings::Source;

use crate::plan::Round;

/// Settings of the scheduler.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often each connection is synced without being asked. The same for all schedulers of an installation.
    pub interval: Duration,
    /// How often each connection is audited. The same for all schedulers of an installation.
    pub audit_interval: Duration,
    /// How often it is measured how far consumer groups are behind; zero: never.
    pub lag_interval: Duration,
    /// How far ahead of the clock connections are looked up; as long a deleted connection may still be synced once.
    pub look_ahead: Duration,
    /// How many times faster than the clock missed slots are made up for after a downtime.
    pub catch_up: u32,
    /// How long a scheduled job may take before it fails.
    pub job_deadline: Duration,
    /// Connections read from Postgres at a time.
    pub page: u16,
    /// Commands under way to Kafka at a time.
    pub in_flight: usize,
    /// The broker that commands go to.
    pub kafka: kafka::Settings,
    /// The database of connections.
    pub store: store::Settings,
}

impl Settings {
    /// Reads the settings `scheduler.*` and those of what the service stands on.
    pub fn read(source: &mut Source) -> Self {
        let settings = Self {
            interval: source.duration(
                "scheduler.interval",
                Duration::from_secs(12 * 3600),
                "How often each connection is synced without being asked; the same for all schedulers",
            ),
            audit_interval: source.duration(
                "scheduler.audit_interval",
                Duration::from_secs(24 * 3600),
                "How often what arrived is compared with what was announced; the same for all schedulers",
            ),
            lag_interval: source.duration(
                "scheduler.lag_interval",
                Duration::from_secs(30),
                "How often it is measured how far consumer groups are behind; 0s for never",
            ),
            look_ahead: source.duration(
                "scheduler.look_ahead",
                Duration::from_secs(300),
                "How far ahead of the clock connections are looked up; as long may a deleted one be synced once more",
            ),
            catch_up: source.read(
                "scheduler.catch_up",
                10,
                "How many times faster than the clock missed slots are made up for after a downtime",
            ),
            job_deadline: source.duration(
                "scheduler.job_deadline",
                Duration::from_secs(6 * 3600),
                "How long a scheduled job may take before it fails",
            ),
            page: source.read("scheduler.page", 5_000, "Connections read from Postgres at a time"),
            in_flight: source.read("scheduler.in_flight", 256, "Commands under way to Kafka at a time"),
            kafka: kafka::Settings::read(source),
            store: store::Settings::read(source),
        };
        settings.check(source);
        settings
    }

    fn check(&self, source: &mut Source) {
        if !(Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3600)).contains(&self.interval) {
            source.error("scheduler.interval", "must be from 1s to 744h");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3600)).contains(&self.audit_interval) {
            source.error("scheduler.audit_interval", "must be from 1s to 744h");
        }
        if self.look_ahead < Duration::from_millis(100) || self.look_ahead > self.interval.min(self.audit_interval) {
            source.error("scheduler.look_ahead", "must be at least 100ms and at most each of scheduler's intervals");
        }
        if !(2..=1_000).contains(&self.catch_up) {
            source.error("scheduler.catch_up", "must be from 2 to 1000, or what was missed is never made up for");
        }
        if self.job_deadline < Duration::from_secs(1) {
            source.error("scheduler.job_deadline", "must be at least 1s");
        }
        if self.page == 0 {
            source.error("scheduler.page", "must be from 1 to 65535");
        }
        if self.store.max_connections < 3 {
            source
                .error("database.max_connections", "must be at least 3 for a scheduler: both its passes may hold one");
        }
        if !(1..=10_000).contains(&self.in_flight) {
            source.error("scheduler.in_flight", "must be from 1 to 10000");
        }
    }

    pub(crate) fn schedule(&self, round: Round) -> Schedule {
        let interval = match round {
            Round::Sync => self.interval,
            Round::Audit => self.audit_interval,
        };
        Schedule::every(millis(interval)).expect("the settings were checked: an interval is at least 1s")
    }
}

/// A span in the domain's whole milliseconds.
pub(crate) fn millis(span: Duration) -> domain::Duration {
    domain::Duration::from_millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
