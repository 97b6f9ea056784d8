//! What the fetcher counts. Labels are bounded.

use std::time::Duration;

use domain::filter::Rule;
use metrics::{counter, gauge, histogram};
use runtime::metric::Metric;

use crate::reading::{Outcome, Trouble};

const MESSAGES: Metric = Metric::counter(
    "mailtide_fetcher_messages_total",
    &["outcome"],
    "Announced messages brought to their end: fetched, gone, filtered, dead_letter, connection_deleted",
);
const FILTERED: Metric = Metric::counter(
    "mailtide_fetcher_filtered_total",
    &["rule"],
    "Messages that an organisation's filter kept back, by the rule",
);
const READINGS: Metric =
    Metric::counter("mailtide_fetcher_readings_total", &["outcome"], "Readings of several messages of a mailbox");
const READING_SECONDS: Metric = Metric::histogram(
    "mailtide_fetcher_reading_seconds",
    &[],
    "Of one reading, waiting for its turn at the quota included",
);
const MESSAGE_SECONDS: Metric =
    Metric::histogram("mailtide_fetcher_message_seconds", &[], "From the announcement of a message to its end");
const PASSES: Metric = Metric::counter(
    "mailtide_fetcher_log_passes_total",
    &[],
    "Readings of the log for what mailboxes that lag have left in it",
);
const HELD: Metric = Metric::gauge("mailtide_fetcher_records_held", &["lane"], "Announcements in memory");
const PARKED: Metric = Metric::gauge(
    "mailtide_fetcher_mailboxes_parked",
    &["lane"],
    "Mailboxes with messages to fetch that wait for somebody's consent",
);

/// All of them.
pub const ALL: &[Metric] = &[MESSAGES, FILTERED, READINGS, READING_SECONDS, MESSAGE_SECONDS, PASSES, HELD, PARKED];

pub(crate) fn ended(outcome: &Outcome, waited: Option<Duration>) {
    counter!(MESSAGES.name, "outcome" => outcome.as_str()).increment(1);
    if let Outcome::Filtered(rule) = outcome {
        filtered(*rule);
    }
    if let Some(waited) = waited {
        histogram!(MESSAGE_SECONDS.name).record(waited);
    }
}

fn filtered(rule: Rule) {
    counter!(FILTERED.name, "rule" => rule.as_str()).increment(1);
}

pub(crate) fn read(trouble: Option<&Trouble>, took: Duration) {
    let outcome = trouble.map_or("ok", Trouble::as_str);
    counter!(READINGS.name, "outcome" => outcome).increment(1);
    histogram!(READING_SECONDS.name).record(took);
}

pub(crate) fn pass() {
    counter!(PASSES.name).increment(1);
}

pub(crate) fn memory(lane: usize, held: usize, parked: usize) {
    gauge!(HELD.name, "lane" => lane.to_string()).set(held as f64);
    gauge!(PARKED.name, "lane" => lane.to_string()).set(parked as f64);
}
