//! `GET /docs`: the API to read and to try, for anybody, as `openapi.json` is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::reference::Reference;

/// The page.
pub(super) async fn page(State(reference): State<Arc<Reference>>, headers: HeaderMap) -> Response {
    reference.page.answer(&headers)
}

/// How it looks.
pub(super) async fn style(State(reference): State<Arc<Reference>>, headers: HeaderMap) -> Response {
    reference.style.answer(&headers)
}

/// What sends the calls that are tried on it.
pub(super) async fn script(State(reference): State<Arc<Reference>>, headers: HeaderMap) -> Response {
    reference.script.answer(&headers)
}

/// Its icon.
pub(super) async fn icon(State(reference): State<Arc<Reference>>, headers: HeaderMap) -> Response {
    reference.icon.answer(&headers)
}
