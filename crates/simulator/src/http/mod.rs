//! The simulator over HTTP: Gmail's and Google's own paths, and `/control`.

mod api;
mod asked;
mod batch;
mod consent;
mod control;
mod history;
mod oauth;
mod params;
mod render;
mod watch;
pub(crate) mod wire;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use crate::clock::http_date;
use crate::error;
use crate::world::World;

/// Bytes of a control request at most: an mbox may be large.
const CONTROL_BODY: usize = 1 << 29;

/// All routes.
pub(crate) fn router(world: Arc<World>) -> Router {
    let user = Router::new()
        .route("/profile", get(api::profile))
        .route("/history", get(api::history))
        .route("/labels", get(api::labels))
        .route("/watch", post(watch::watch))
        .route("/stop", post(watch::stop))
        .route("/messages", get(api::messages))
        .route("/messages/{id}", get(api::message))
        .route("/messages/{id}/attachments/{attachment}", get(api::attachment));
    let gmail = Router::new().nest("/gmail/v1/users/{user}", user);
    let inner = gmail.clone().fallback(nowhere).method_not_allowed_fallback(nowhere).with_state(Arc::clone(&world));
    let batch = move |State(world): State<Arc<World>>, ConnectInfo(cut), uri: Uri, head: HeaderMap, body: Bytes| {
        batch::batch(world, inner, cut, uri, head, body)
    };
    gmail
        .route("/batch", post(batch.clone()))
        .route("/batch/gmail/v1", post(batch))
        .route("/token", post(oauth::token))
        .route("/revoke", post(oauth::revoke))
        .route("/o/oauth2/v2/auth", get(consent::ask).post(consent::decide))
        .route("/oauth2/v3/certs", get(consent::certs))
        .route("/.well-known/openid-configuration", get(consent::configuration))
        .nest("/control", control::router().layer(DefaultBodyLimit::max(CONTROL_BODY)))
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .with_state(world)
}

/// Google answers a page of HTML, not JSON, where there is nothing.
async fn nowhere(State(world): State<Arc<World>>) -> Response {
    dated(&world, error::html(StatusCode::NOT_FOUND))
}

/// The response with the world's time as its `Date`.
fn dated(world: &World, mut response: Response) -> Response {
    if let Ok(date) = HeaderValue::from_str(&http_date(world.clock.now_ms())) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}
