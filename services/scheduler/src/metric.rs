//! Every metric of this service.

use domain::Duration;
use runtime::metric::Metric;

use crate::plan::Round;

const FIRED: Metric =
    Metric::counter("mailtide_scheduler_fired_total", &["schedule"], "Slots whose command was acknowledged");
const RETRIES: Metric =
    Metric::counter("mailtide_scheduler_retries_total", &[], "Commands that were not acknowledged and are tried again");
const PLANNED: Metric = Metric::gauge("mailtide_scheduler_planned", &["schedule"], "Slots that are planned");
const BEHIND: Metric =
    Metric::gauge("mailtide_scheduler_behind_seconds", &["schedule"], "Seconds that the schedule is behind the clock");
const LAG: Metric = Metric::gauge(
    "mailtide_consumer_lag",
    &["group", "topic"],
    "Records of a topic that a consumer group has not read yet, of at most a hundred groups",
);

/// All of them.
pub const ALL: &[Metric] = &[FIRED, RETRIES, PLANNED, BEHIND, LAG];

/// Slots were fired; label `schedule`.
pub(crate) fn fired(round: Round, slots: usize) {
    metrics::counter!(FIRED.name, "schedule" => round.name()).increment(slots as u64);
}

/// A command was not acknowledged and is tried again.
pub(crate) fn retried() {
    metrics::counter!(RETRIES.name).increment(1);
}

/// How many slots are planned; label `schedule`.
pub(crate) fn planned(round: Round, slots: usize) {
    metrics::gauge!(PLANNED.name, "schedule" => round.name()).set(slots as f64);
}

/// How far a schedule is behind the clock; label `schedule`.
pub(crate) fn behind(round: Round, span: Duration) {
    metrics::gauge!(BEHIND.name, "schedule" => round.name()).set(span.as_millis() as f64 / 1_000.0);
}

/// How far a consumer group is behind in a topic; labels `group` and `topic`, of at most a hundred groups.
pub(crate) fn lag(group: &str, topic: &'static str, lag: u64) {
    metrics::gauge!(LAG.name, "group" => group.to_owned(), "topic" => topic).set(lag as f64);
}
