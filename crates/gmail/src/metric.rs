//! What is counted here. Labels are bounded.

use std::time::Duration;

use domain::Lane;
use metrics::{counter, gauge, histogram};
use runtime::metric::Metric;

use crate::tariff::Method;

const CALLS: Metric = Metric::counter(
    "mailtide_gmail_calls_total",
    &["method", "outcome"],
    "Calls to Gmail and to Google's token endpoint that ended, by the class of their end",
);
const CALL_SECONDS: Metric =
    Metric::histogram("mailtide_gmail_call_seconds", &["method"], "From the request to the whole body of the answer");
const BATCH_CALLS: Metric = Metric::histogram("mailtide_gmail_batch_calls", &[], "Calls in one batch of reads");
const UNITS: Metric = Metric::counter(
    "mailtide_gmail_units_total",
    &["lane"],
    "Quota units spent, by the priority they were spent under",
);
const IN_FLIGHT: Metric =
    Metric::gauge("mailtide_gmail_calls_in_flight", &[], "Calls under way, a batch as many as it has parts");
const ADMISSION_SECONDS: Metric = Metric::histogram(
    "mailtide_gmail_admission_seconds",
    &["lane"],
    "From a call's asking the gate to its being let through",
);
const PUSHED_BACK: Metric = Metric::counter(
    "mailtide_gmail_pushed_back_total",
    &["scope"],
    "Times that Gmail said that there was too much, by whom it meant",
);
const REFUSED: Metric = Metric::counter("mailtide_gmail_refused_total", &["reason"], "Calls that were not let through");
const HELD_UP: Metric = Metric::counter(
    "mailtide_gmail_held_up_total",
    &["budget"],
    "Looks at calls that had to wait, by what they waited for",
);
const BUDGET_LIMIT: Metric = Metric::gauge(
    "mailtide_gmail_budget_limit_units",
    &["budget"],
    "Units that this process may spend in the budget's window",
);
const BUDGET_LEFT: Metric =
    Metric::gauge("mailtide_gmail_budget_left_units", &["budget"], "Units that could be spent at once");
const WAITING: Metric = Metric::gauge("mailtide_gmail_calls_waiting", &[], "Calls that wait to be let through");
const KNOWN: Metric = Metric::gauge("mailtide_gmail_gate_connections", &[], "Connections that the gate has in memory");
const REFRESHES: Metric =
    Metric::counter("mailtide_gmail_token_refreshes_total", &["outcome"], "Refreshes of access tokens");
const KEYS: Metric =
    Metric::counter("mailtide_gmail_push_keys_total", &["outcome"], "Fetches of the keys that pushes are checked by");

/// All of them.
pub const ALL: &[Metric] = &[
    CALLS,
    CALL_SECONDS,
    BATCH_CALLS,
    UNITS,
    IN_FLIGHT,
    ADMISSION_SECONDS,
    PUSHED_BACK,
    REFUSED,
    HELD_UP,
    BUDGET_LIMIT,
    BUDGET_LEFT,
    WAITING,
    KNOWN,
    REFRESHES,
    KEYS,
];

pub(crate) fn called(method: Method, outcome: &'static str, took: Duration) {
    counter!(CALLS.name, "method" => method.as_str(), "outcome" => outcome).increment(1);
    histogram!(CALL_SECONDS.name, "method" => method.as_str()).record(took);
}

/// A batch of reads came back whole.
pub(crate) fn batch(calls: usize, took: Duration) {
    histogram!(BATCH_CALLS.name).record(calls as f64);
    histogram!(CALL_SECONDS.name, "method" => Method::MessagesGet.as_str()).record(took);
}

/// What came of reading one message.
pub(crate) fn read(outcome: &'static str) {
    counter!(CALLS.name, "method" => Method::MessagesGet.as_str(), "outcome" => outcome).increment(1);
}

pub(crate) fn admitted(lane: Lane, units: u32, waited: Duration) {
    counter!(UNITS.name, "lane" => lane.as_str()).increment(units.into());
    histogram!(ADMISSION_SECONDS.name, "lane" => lane.as_str()).record(waited);
    gauge!(IN_FLIGHT.name).increment(1);
}

pub(crate) fn left() {
    gauge!(IN_FLIGHT.name).decrement(1);
}

pub(crate) fn pushed_back(scope: &'static str) {
    counter!(PUSHED_BACK.name, "scope" => scope).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED.name, "reason" => reason).increment(1);
}

pub(crate) fn held_up(budget: &'static str, times: u64) {
    if times > 0 {
        counter!(HELD_UP.name, "budget" => budget).increment(times);
    }
}

pub(crate) fn budget(budget: &'static str, limit: f64, left: f64) {
    gauge!(BUDGET_LIMIT.name, "budget" => budget).set(limit);
    gauge!(BUDGET_LEFT.name, "budget" => budget).set(left);
}

pub(crate) fn waiting(calls: usize, connections: usize) {
    gauge!(WAITING.name).set(calls as f64);
    gauge!(KNOWN.name).set(connections as f64);
}

pub(crate) fn refreshed(outcome: &'static str) {
    counter!(REFRESHES.name, "outcome" => outcome).increment(1);
}

pub(crate) fn keys(outcome: &'static str) {
    counter!(KEYS.name, "outcome" => outcome).increment(1);
}
