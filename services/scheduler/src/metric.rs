//! Every metric of this service.

use domain::Duration;

use crate::plan::Round;

/// Slots were fired; label `schedule`.
pub(crate) fn fired(round: Round, slots: usize) {
    metrics::counter!("mailtide_scheduler_fired_total", "schedule" => round.name()).increment(slots as u64);
}

/// A command was not acknowledged and is tried again.
pub(crate) fn retried() {
    metrics::counter!("mailtide_scheduler_retries_total").increment(1);
}

/// How many slots are planned; label `schedule`.
pub(crate) fn planned(round: Round, slots: usize) {
    metrics::gauge!("mailtide_scheduler_planned", "schedule" => round.name()).set(slots as f64);
}

/// How far a schedule is behind the clock; label `schedule`.
pub(crate) fn behind(round: Round, span: Duration) {
    metrics::gauge!("mailtide_scheduler_behind_seconds", "schedule" => round.name())
        .set(span.as_millis() as f64 / 1_000.0);
}
