//! The names of what is counted here, and their labels, all of them bounded.

use std::time::Duration;

use domain::Lane;
use metrics::{counter, gauge, histogram};

use crate::tariff::Method;

/// Calls that ended; labels `method`, `outcome`.
const CALLS: &str = "mailtide_gmail_calls_total";
/// Seconds from the request to the whole body; label `method`.
const CALL_SECONDS: &str = "mailtide_gmail_call_seconds";
/// Calls in one batch.
const BATCH_CALLS: &str = "mailtide_gmail_batch_calls";
/// Quota units spent; label `lane`.
const UNITS: &str = "mailtide_gmail_units_total";
/// Calls under way.
const IN_FLIGHT: &str = "mailtide_gmail_calls_in_flight";
/// Seconds that a call waited to be admitted; label `lane`.
const ADMISSION_SECONDS: &str = "mailtide_gmail_admission_seconds";
/// Push-backs of Gmail's; label `scope`.
const PUSHED_BACK: &str = "mailtide_gmail_pushed_back_total";
/// Calls that were not let through; label `reason`.
const REFUSED: &str = "mailtide_gmail_refused_total";
/// Looks at calls that had to wait, by what they waited for; label `budget`.
const HELD_UP: &str = "mailtide_gmail_held_up_total";
/// Units that this process may spend in the budget's window; label `budget`.
const BUDGET_LIMIT: &str = "mailtide_gmail_budget_limit_units";
/// Units that could be spent at once; label `budget`.
const BUDGET_LEFT: &str = "mailtide_gmail_budget_left_units";
/// Calls that wait to be let through.
const WAITING: &str = "mailtide_gmail_calls_waiting";
/// Connections that the gate has in memory.
const KNOWN: &str = "mailtide_gmail_gate_connections";
/// Refreshes of access tokens; label `outcome`.
const REFRESHES: &str = "mailtide_gmail_token_refreshes_total";
/// Fetches of the keys that pushes are checked by; label `outcome`.
const KEYS: &str = "mailtide_gmail_push_keys_total";

pub(crate) fn called(method: Method, outcome: &'static str, took: Duration) {
    counter!(CALLS, "method" => method.as_str(), "outcome" => outcome).increment(1);
    histogram!(CALL_SECONDS, "method" => method.as_str()).record(took);
}

/// A batch of reads came back whole.
pub(crate) fn batch(calls: usize, took: Duration) {
    histogram!(BATCH_CALLS).record(calls as f64);
    histogram!(CALL_SECONDS, "method" => Method::MessagesGet.as_str()).record(took);
}

/// What came of reading one message.
pub(crate) fn read(outcome: &'static str) {
    counter!(CALLS, "method" => Method::MessagesGet.as_str(), "outcome" => outcome).increment(1);
}

pub(crate) fn admitted(lane: Lane, units: u32, waited: Duration) {
    counter!(UNITS, "lane" => lane.as_str()).increment(units.into());
    histogram!(ADMISSION_SECONDS, "lane" => lane.as_str()).record(waited);
    gauge!(IN_FLIGHT).increment(1);
}

pub(crate) fn left() {
    gauge!(IN_FLIGHT).decrement(1);
}

pub(crate) fn pushed_back(scope: &'static str) {
    counter!(PUSHED_BACK, "scope" => scope).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn held_up(budget: &'static str, times: u64) {
    if times > 0 {
        counter!(HELD_UP, "budget" => budget).increment(times);
    }
}

pub(crate) fn budget(budget: &'static str, limit: f64, left: f64) {
    gauge!(BUDGET_LIMIT, "budget" => budget).set(limit);
    gauge!(BUDGET_LEFT, "budget" => budget).set(left);
}

pub(crate) fn waiting(calls: usize, connections: usize) {
    gauge!(WAITING).set(calls as f64);
    gauge!(KNOWN).set(connections as f64);
}

pub(crate) fn refreshed(outcome: &'static str) {
    counter!(REFRESHES, "outcome" => outcome).increment(1);
}

pub(crate) fn keys(outcome: &'static str) {
    counter!(KEYS, "outcome" => outcome).increment(1);
}
