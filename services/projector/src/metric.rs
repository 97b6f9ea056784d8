//! Every metric of this service. Labels are bounded: a topic without its prefix.

use std::time::Duration;

use store::projection::Applied;

/// A batch was written.
pub(crate) fn written(records: usize, applied: Applied, took: Duration) {
    metrics::counter!("mailtide_projector_records_total").increment(records as u64);
    metrics::counter!("mailtide_projector_job_rows_total").increment(applied.jobs);
    metrics::counter!("mailtide_projector_connection_rows_total").increment(applied.connections);
    metrics::histogram!("mailtide_projector_batch_seconds").record(took);
    metrics::histogram!("mailtide_projector_batch_records").record(records as f64);
}

/// A record was put in the dead letters.
pub(crate) fn dead_letter() {
    metrics::counter!("mailtide_projector_dead_letters_total").increment(1);
}

/// Another projector was quicker.
pub(crate) fn fenced() {
    metrics::counter!("mailtide_projector_fenced_total").increment(1);
}
