//! Every metric of this service. Labels are bounded: routes as declared, statuses.

use std::time::Duration;

use axum::http::StatusCode;

/// A request was answered.
pub(crate) fn answered(route: &str, status: StatusCode, took: Duration) {
    let route = route.to_owned();
    metrics::histogram!("mailtide_http_request_seconds", "route" => route.clone()).record(took);
    metrics::counter!("mailtide_http_requests_total", "route" => route, "status" => status.as_u16().to_string())
        .increment(1);
}

/// One insert brought the `queued` rows of this many requests to Postgres.
pub(crate) fn rows_inserted(rows: usize, took: Duration) {
    metrics::counter!("mailtide_ingress_rows_total").increment(rows as u64);
    metrics::histogram!("mailtide_ingress_insert_seconds").record(took);
}
