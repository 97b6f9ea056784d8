//! Every metric of this service. Labels are bounded: routes as declared, statuses as answered.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Gauge, Histogram};
use runtime::metric::Metric;

const REQUEST_SECONDS: Metric =
    Metric::histogram("mailtide_http_request_seconds", &["route"], "From a request's head to its answer's");
const REQUESTS: Metric = Metric::counter("mailtide_http_requests_total", &["route", "status"], "Requests answered");
const ROWS: Metric = Metric::counter("mailtide_ingress_rows_total", &[], "Rows of queued jobs brought to Postgres");
const INSERT_SECONDS: Metric =
    Metric::histogram("mailtide_ingress_insert_seconds", &[], "One insert for many requests");
const PUSHES: Metric = Metric::counter(
    "mailtide_pushes_total",
    &["outcome"],
    "Gmail's pushes: `told`, `unknown`, `malformed`, `refused`, `keys_away` or `failed`",
);
const PUSH_COMMANDS: Metric = Metric::counter("mailtide_push_commands_total", &[], "Commands that pushes became");
const ROWS_KEPT: Metric =
    Metric::gauge("mailtide_ingress_rows_kept", &[], "Rows of queued jobs that wait for Postgres");
const KEYS_CLAIMED: Metric =
    Metric::counter("mailtide_ingress_keys_claimed_total", &[], "Requests whose Idempotency-Key was claimed");
const CLAIM_SECONDS: Metric =
    Metric::histogram("mailtide_ingress_claim_seconds", &[], "One statement that claims for many requests");
const IN_FLIGHT: Metric = Metric::gauge(
    "mailtide_http_requests_in_flight",
    &[],
    "Requests worked on; at `ingress.max_in_flight` more are refused",
);

/// All of them.
pub const ALL: &[Metric] = &[
    REQUEST_SECONDS,
    REQUESTS,
    ROWS,
    INSERT_SECONDS,
    PUSHES,
    PUSH_COMMANDS,
    ROWS_KEPT,
    KEYS_CLAIMED,
    CLAIM_SECONDS,
    IN_FLIGHT,
];

/// The routes, as they are declared, the busiest first.
pub(crate) const ROUTES: &[&str] = &[
    "/gmail-connections/{id}/sync",
    "/jobs/{jobId}",
    "/push/gmail",
    "/jobs/{jobId}/events",
    "/gmail-connections/{id}/jobs",
    "/jobs",
    "/openapi.json",
    "/gmail-connections",
    "/gmail-connections/oauth-callback",
    "/gmail-connections/{id}",
    "/gmail-connections/{id}/backfill",
    ATTACHMENT,
    "/jobs/{jobId}/cancel",
    "/docs",
    "/docs/style.css",
    "/docs/try.js",
    "/docs/icon.svg",
    "/schemas/ids/{id}",
    "/schemas/ids/{id}/schema",
    "/schemas/ids/{id}/versions",
    "/schemas/ids/{id}/subjects",
    "/schemas/types",
    "/subjects",
    "/subjects/{subject}",
    "/subjects/{subject}/versions",
    "/subjects/{subject}/versions/{version}",
    "/subjects/{subject}/versions/{version}/schema",
    "/config",
    "/config/{subject}",
];

/// The route of attachments.
const ATTACHMENT: &str = "/gmail-connections/{id}/messages/{messageId}/attachments/{partId}";

/// What matches none.
const UNMATCHED: &str = "unmatched";

/// The statuses from 100 to 599.
const STATUSES: usize = 500;

/// The metrics of one route. Looked up once each: the look-up costs more than the counting.
struct Route {
    name: &'static str,
    seconds: OnceLock<Histogram>,
    requests: Vec<OnceLock<Counter>>,
}

static BY_ROUTE: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let route =
        |name| Route { name, seconds: OnceLock::new(), requests: (0..STATUSES).map(|_| OnceLock::new()).collect() };
    ROUTES.iter().copied().chain([UNMATCHED]).map(route).collect()
});

/// Which of [`ROUTES`] a path is; the number after the last for none.
fn route_of(path: &str) -> usize {
    ROUTES.iter().position(|route| is_of(route, path)).unwrap_or(ROUTES.len())
}

/// The route that a path is counted for, as it is declared; none for what matches none.
pub(crate) fn route(path: &str) -> Option<&'static str> {
    ROUTES.get(route_of(path)).copied()
}

/// Whether a path is counted for a route of its own.
#[cfg(test)]
pub(crate) fn is_known(path: &str) -> bool {
    route(path).is_some()
}

/// Whether a path is an attachment's.
pub(crate) fn is_attachment(path: &str) -> bool {
    is_of(ATTACHMENT, path)
}

/// Whether a path is of a route: part by part the same, where the route names no parameter.
fn is_of(route: &str, path: &str) -> bool {
    let mut path = path.split('/');
    route.split('/').all(|part| path.next().is_some_and(|given| part.starts_with('{') || part == given))
        && path.next().is_none()
}

/// A request was answered.
pub(crate) fn answered(path: &str, status: StatusCode, took: Duration) {
    let route = &BY_ROUTE[route_of(path)];
    let seconds = route.seconds.get_or_init(|| metrics::histogram!(REQUEST_SECONDS.name, "route" => route.name));
    seconds.record(took);
    let Some(requests) = route.requests.get(usize::from(status.as_u16()).wrapping_sub(100)) else { return };
    let requests = requests.get_or_init(
        || metrics::counter!(REQUESTS.name, "route" => route.name, "status" => status.as_str().to_owned()),
    );
    requests.increment(1);
}

/// One insert brought the `queued` rows of this many requests to Postgres.
pub(crate) fn rows_inserted(rows: usize, took: Duration) {
    metrics::counter!(ROWS.name).increment(rows as u64);
    metrics::histogram!(INSERT_SECONDS.name).record(took);
}

/// One statement claimed the idempotency keys of this many requests.
pub(crate) fn keys_claimed(keys: usize, took: Duration) {
    metrics::counter!(KEYS_CLAIMED.name).increment(keys as u64);
    metrics::histogram!(CLAIM_SECONDS.name).record(took);
}

/// So many requests are worked on.
pub(crate) fn in_flight(requests: usize) {
    static GAUGE: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!(IN_FLIGHT.name));
    GAUGE.set(u32::try_from(requests).unwrap_or(u32::MAX));
}

/// What came of a push: `told`, `unknown` (nobody's address, or none that syncs now), `malformed`, `refused`,
/// `keys_away`, `failed`.
pub(crate) fn pushed(outcome: &'static str) {
    metrics::counter!(PUSHES.name, "outcome" => outcome).increment(1);
}

/// Pushes became a command.
pub(crate) fn push_command() {
    metrics::counter!(PUSH_COMMANDS.name).increment(1);
}

/// So many `queued` rows wait for Postgres.
pub(crate) fn rows_kept(rows: usize) {
    metrics::gauge!(ROWS_KEPT.name).set(u32::try_from(rows).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_for_its_route_and_no_id_is_a_label() {
        for (path, route) in [
            ("/gmail-connections/0a9f/sync", "/gmail-connections/{id}/sync"),
            ("/gmail-connections//sync", "/gmail-connections/{id}/sync"),
            ("/gmail-connections/a/b/sync", UNMATCHED),
            ("/gmail-connections/a/nothing", UNMATCHED),
            ("/gmail-connections/oauth-callback", "/gmail-connections/oauth-callback"),
            ("/gmail-connections/0a9f", "/gmail-connections/{id}"),
            ("/jobs/0a9f", "/jobs/{jobId}"),
            ("/jobs/a/b", UNMATCHED),
            ("/openapi.json", "/openapi.json"),
            ("/openapi.json/", UNMATCHED),
            ("/", UNMATCHED),
            ("", UNMATCHED),
        ] {
            assert_eq!(BY_ROUTE[route_of(path)].name, route, "{path}");
        }
    }
}
