//! `POST /push/gmail`: Cloud Pub/Sub's, and nobody else's.
//!
//! Pub/Sub sends again whatever is not answered with 2xx, for as long as the subscription retains. So what can never be
//! taken, though it comes from the right sender, is acknowledged and counted, and 5xx is for what may go well later.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use crate::app::trace;
use crate::body::MAX_BODY;
use crate::metrics;
use crate::problem::Problem;
use crate::push::{Notice, Pushes};

/// Takes a push. 204 once every connection of its address has a command that Kafka acknowledged, and for an address that
/// nobody connected: whoever has a token learns nothing here.
pub(super) async fn push(State(pushes): State<Arc<Pushes>>, request: Request) -> Result<StatusCode, Problem> {
    let (parts, body) = request.into_parts();
    pushes.authenticate(bearer(&parts.headers)).await?;
    let notice = to_bytes(body, MAX_BODY).await.ok().and_then(|body| Notice::read(&body));
    let Some(notice) = notice else {
        metrics::pushed("malformed");
        tracing::warn!("A push in the subscription's name is no notice of Gmail's; it was acknowledged and dropped");
        return Ok(StatusCode::NO_CONTENT);
    };
    tracing::debug!(?notice, "Pushed");
    pushes.take(notice, trace(&parts.headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
