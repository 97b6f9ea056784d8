//! Every metric of this service. Labels are bounded: a topic without its prefix.

use std::time::Duration;

use runtime::metric::Metric;
use store::projection::Applied;

const RECORDS: Metric = Metric::counter("mailtide_projector_records_total", &[], "Records folded into rows");
const JOB_ROWS: Metric = Metric::counter("mailtide_projector_job_rows_total", &[], "Rows of jobs written");
const CONNECTION_ROWS: Metric =
    Metric::counter("mailtide_projector_connection_rows_total", &[], "Rows of connections written");
const BATCH_SECONDS: Metric =
    Metric::histogram("mailtide_projector_batch_seconds", &[], "Writing one batch to Postgres");
const BATCH_RECORDS: Metric = Metric::histogram("mailtide_projector_batch_records", &[], "Records of one batch");
const DEAD_LETTERS: Metric = Metric::counter(
    "mailtide_projector_dead_letters_total",
    &[],
    "Records that do not decode, put aside as dead letters. Anything above 0 wants an operator",
);
const FENCED: Metric =
    Metric::counter("mailtide_projector_fenced_total", &[], "Batches that another projector had written already");

/// All of them.
pub const ALL: &[Metric] = &[RECORDS, JOB_ROWS, CONNECTION_ROWS, BATCH_SECONDS, BATCH_RECORDS, DEAD_LETTERS, FENCED];

/// A batch was written.
pub(crate) fn written(records: usize, applied: Applied, took: Duration) {
    metrics::counter!(RECORDS.name).increment(records as u64);
    metrics::counter!(JOB_ROWS.name).increment(applied.jobs);
    metrics::counter!(CONNECTION_ROWS.name).increment(applied.connections);
    metrics::histogram!(BATCH_SECONDS.name).record(took);
    metrics::histogram!(BATCH_RECORDS.name).record(records as f64);
}

/// A record was put in the dead letters.
pub(crate) fn dead_letter() {
    metrics::counter!(DEAD_LETTERS.name).increment(1);
}

/// Another projector was quicker.
pub(crate) fn fenced() {
    metrics::counter!(FENCED.name).increment(1);
}
