//! The calls of the REST surface, and what becomes of requests that match none.

mod attachments;
mod backfill;
mod cancel;
mod codes;
mod connections;
mod consent;
mod document;
mod jobs;
mod links;
mod list;
mod page;
mod pages;
mod push;
mod registry;
mod stream;
mod sync;
mod time;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::HeaderName;
use axum::routing::{get, post};
use uuid::Uuid;

use crate::app::App;
use crate::consent::Google;
use crate::downloads::Downloads;
use crate::problem::Code;
use crate::push::Pushes;
use crate::reference::Reference;

/// What the handlers are given.
#[derive(Clone)]
struct Api {
    app: Arc<App>,
    google: Arc<Google>,
    downloads: Arc<Downloads>,
    reference: Arc<Reference>,
}

impl FromRef<Api> for Arc<App> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.app)
    }
}

impl FromRef<Api> for Arc<Google> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.google)
    }
}

impl FromRef<Api> for Arc<Downloads> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.downloads)
    }
}

impl FromRef<Api> for Arc<Reference> {
    fn from_ref(api: &Api) -> Self {
        Self::clone(&api.reference)
    }
}

/// All calls, the path of pushes where they are taken, and those of a schema registry.
pub(crate) fn router(
    app: Arc<App>,
    google: Arc<Google>,
    downloads: Arc<Downloads>,
    header: &HeaderName,
    pushes: Option<Arc<Pushes>>,
) -> Router {
    let document = serde_json::to_value(document::document(header)).expect("the document is plain JSON");
    let reference = Reference::new(&document, &codes::rows());
    let pushes = pushes.map(|pushes| Router::new().route("/push/gmail", post(push::push)).with_state(pushes));
    Router::new()
        .route("/gmail-connections/{id}/sync", post(sync::sync))
        .route("/gmail-connections", get(connections::list).post(consent::connect))
        .route("/gmail-connections/oauth-callback", get(consent::callback))
        .route("/gmail-connections/{id}", get(connections::read).patch(connections::change).delete(connections::delete))
        .route("/gmail-connections/{id}/backfill", post(backfill::backfill))
        .route("/gmail-connections/{id}/jobs", get(list::of_connection))
        .route("/gmail-connections/{id}/messages/{messageId}/attachments/{partId}", get(attachments::read))
        .route("/jobs", get(list::all))
        .route("/jobs/{jobId}", get(jobs::job))
        .route("/jobs/{jobId}/cancel", post(cancel::cancel))
        .route("/jobs/{jobId}/events", get(stream::events))
        .route("/openapi.json", get(document::openapi))
        .route("/docs", get(pages::page))
        .route("/docs/style.css", get(pages::style))
        .route("/docs/try.js", get(pages::script))
        .route("/docs/icon.svg", get(pages::icon))
        .fallback(|| async { Code::PathNotFound })
        .method_not_allowed_fallback(|| async { Code::MethodNotAllowed })
        .with_state(Api { app, google, downloads, reference })
        .merge(pushes.unwrap_or_default())
        .merge(registry::router())
}

/// The UUID that `text` spells: 36 characters as RFC 9562 §4 writes them, in any case. The other spellings that the
/// parser knows (no hyphens, braces, a URN) are not ids of this API.
fn uuid_of(text: &str) -> Option<Uuid> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return None;
    }
    Uuid::try_parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_36_characters_of_a_uuid_are_an_id() {
        let id = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b";
        assert_eq!(uuid_of(id).unwrap().to_string(), id);
        assert_eq!(uuid_of(&id.to_uppercase()).unwrap().to_string(), id);
        for other in
            ["", "x", &id[1..], &id.replace('-', ""), &format!("{{{id}}}"), &format!("urn:uuid:{id}"), "../../jobs"]
        {
            assert_eq!(uuid_of(other), None, "{other}");
        }
    }
}
