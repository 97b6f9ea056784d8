//! The admin port, for whoever runs the process and nobody else.
//!
//! `/livez` fails when a part that must beat has not for too long: the process is to be
//! restarted. `/readyz` fails while a part cannot do its work: no traffic, please. `/metrics` is
//! what Prometheus scrapes. `/log-level` tells what is logged, and changes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::health::Health;
use crate::settings::Source;
use crate::telemetry::{LogFilter, Metrics, Telemetry};

/// How often histograms are folded, see [`Metrics::upkeep`].
const UPKEEP: Duration = Duration::from_secs(5);

/// No filter is longer, in bytes.
const MAX_FILTER: usize = 4 * 1024;

/// Where the admin port is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the admin server; port 0 takes a free one.
    pub address: SocketAddr,
}

impl Settings {
    /// Reads `admin.*`.
    pub fn read(source: &mut Source) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 9464));
        let doc = "Address of /livez, /readyz, /metrics and /log-level; reachable from outside only where you say so";
        Self { address: source.read("admin.address", default, doc) }
    }
}

/// Why the admin port is not there.
#[derive(Debug, thiserror::Error)]
#[error("binding the admin port to {address}: {source}; choose another by admin.address")]
pub struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

/// The admin server. It answers until it is dropped, so that the end of everything else can be
/// watched through it.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Admin {
    /// Binds the port and serves.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(settings: &Settings, health: Health, telemetry: Telemetry) -> Result<Self, Error> {
        let address = settings.address;
        let failed = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let upkeep = tokio::spawn({
            let metrics = telemetry.metrics.clone();
            async move {
                let mut ticks = tokio::time::interval(UPKEEP);
                loop {
                    ticks.tick().await;
                    metrics.upkeep();
                }
            }
        });
        let router = router(health, telemetry);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "The admin port ended");
            }
        });
        tracing::info!(%address, "Admin port open");
        Ok(Self { address, tasks: [server, upkeep] })
    }

    /// The address it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn router(health: Health, Telemetry { metrics, log }: Telemetry) -> Router {
    let log_level = get(told).put(changed).layer(DefaultBodyLimit::max(MAX_FILTER));
    Router::new()
        .route("/livez", get(async |State(health): State<Health>| answer(health.not_alive())))
        .route("/readyz", get(async |State(health): State<Health>| answer(health.not_ready())))
        .with_state(health)
        .merge(Router::new().route("/metrics", get(scrape)).with_state(metrics))
        .merge(Router::new().route("/log-level", log_level).with_state(log))
}

fn answer(faults: BTreeMap<String, String>) -> Response {
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Json(json!({ "status": if faults.is_empty() { "ok" } else { "failing" }, "failing": faults }));
    (status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
}

async fn scrape(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn told(State(log): State<LogFilter>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "filter": log.current() }))).into_response()
}

/// The body is the filter. A bad one changes nothing.
async fn changed(State(log): State<LogFilter>, filter: String) -> Response {
    match log.set(filter.trim()) {
        Ok(before) => Json(json!({ "before": before, "filter": log.current() })).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_named_in_the_answer() {
        assert_eq!(answer(BTreeMap::new()).status(), StatusCode::OK);
        let faults = BTreeMap::from([("kafka".to_owned(), "starting".to_owned())]);
        assert_eq!(answer(faults).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
