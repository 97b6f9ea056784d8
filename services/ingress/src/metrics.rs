//! Every metric of this service. Labels are bounded: routes as declared, statuses as answered.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Histogram};

/// The routes, as they are declared, and what matches none.
const ROUTES: [&str; 4] = ["/gmail-connections/{id}/sync", "/jobs/{jobId}", "/openapi.json", "unmatched"];

/// The statuses from 100 to 599.
const STATUSES: usize = 500;

/// The metrics of one route. Looked up once each: the look-up costs more than the counting.
struct Route {
    name: &'static str,
    seconds: OnceLock<Histogram>,
    requests: Vec<OnceLock<Counter>>,
}

static BY_ROUTE: LazyLock<[Route; 4]> = LazyLock::new(|| {
    ROUTES.map(|name| Route {
        name,
        seconds: OnceLock::new(),
        requests: (0..STATUSES).map(|_| OnceLock::new()).collect(),
    })
});

/// Which of [`ROUTES`] a path is.
fn route_of(path: &str) -> usize {
    let is_one = |rest: &str| !rest.contains('/');
    if path.strip_prefix("/gmail-connections/").and_then(|rest| rest.strip_suffix("/sync")).is_some_and(is_one) {
        0
    } else if path.strip_prefix("/jobs/").is_some_and(is_one) {
        1
    } else if path == "/openapi.json" {
        2
    } else {
        3
    }
}

/// A request was answered.
pub(crate) fn answered(path: &str, status: StatusCode, took: Duration) {
    let route = &BY_ROUTE[route_of(path)];
    let seconds =
        route.seconds.get_or_init(|| metrics::histogram!("mailtide_http_request_seconds", "route" => route.name));
    seconds.record(took);
    let Some(requests) = route.requests.get(usize::from(status.as_u16()).wrapping_sub(100)) else { return };
    let requests = requests.get_or_init(|| {
        metrics::counter!("mailtide_http_requests_total", "route" => route.name, "status" => status.as_str().to_owned())
    });
    requests.increment(1);
}

/// One insert brought the `queued` rows of this many requests to Postgres.
pub(crate) fn rows_inserted(rows: usize, took: Duration) {
    metrics::counter!("mailtide_ingress_rows_total").increment(rows as u64);
    metrics::histogram!("mailtide_ingress_insert_seconds").record(took);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_for_its_route_and_no_id_is_a_label() {
        for (path, route) in [
            ("/gmail-connections/0a9f/sync", ROUTES[0]),
            ("/gmail-connections//sync", ROUTES[0]),
            ("/gmail-connections/a/b/sync", "unmatched"),
            ("/gmail-connections/a", "unmatched"),
            ("/jobs/0a9f", ROUTES[1]),
            ("/jobs/a/b", "unmatched"),
            ("/openapi.json", ROUTES[2]),
            ("/", "unmatched"),
        ] {
            assert_eq!(ROUTES[route_of(path)], route, "{path}");
        }
    }
}
