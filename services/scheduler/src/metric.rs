//! Every metric of this service.

use domain::Duration;

/// Slots were fired.
pub(crate) fn fired(slots: usize) {
    metrics::counter!("mailtide_scheduler_fired_total").increment(slots as u64);
}

/// A command was not acknowledged and is tried again.
pub(crate) fn retried() {
    metrics::counter!("mailtide_scheduler_retries_total").increment(1);
}

/// How many slots are planned.
pub(crate) fn planned(slots: usize) {
    metrics::gauge!("mailtide_scheduler_planned").set(slots as f64);
}

/// How far the schedule is behind the clock.
pub(crate) fn behind(span: Duration) {
    metrics::gauge!("mailtide_scheduler_behind_seconds").set(span.as_millis() as f64 / 1_000.0);
}
