//! `POST /gmail-connections/{id}/sync`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, BytesMut};
use domain::{ConnectionId, JobId, Trigger};
use store::keys::Scope;

use super::document::{self, ProblemDetails, SyncStartedResponse};
use super::uuid_of;
use crate::app::{App, Wanted};
use crate::body;
use crate::idempotency::Keyed;
use crate::problem::{Code, Problem};

/// Asks for a sync. Answers when Kafka has acknowledged the command and the job can be read.
#[utoipa::path(
    post,
    path = "/gmail-connections/{id}/sync",
    operation_id = "triggerGmailSync",
    tag = "Gmail",
    summary = "Trigger a Gmail sync",
    description = "Publishes a PollGmailConnection message so the background consumer walks Gmail's history since LastHistoryId (or falls back to a 24-hour catch-up window). Same pipeline runs on the 12-hour scheduler.",
    params(("id" = Uuid, Path), document::IdempotencyKey),
    security(("ApiKey" = [])),
    responses(
        (status = 202, description = "Accepted", body = SyncStartedResponse, content_type = "application/json",
            headers(("Location" = String, description = "The path of the job"))),
        (status = 400, description = "Request.BodyInvalid — the call takes no body; Request.IdempotencyKeyInvalid", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn sync(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let organisation = app.authenticate(&headers, Scope::Write).await?;
    body::expect_nothing(&headers, body).await?;
    // A malformed id is answered like any id that names nothing of the caller's.
    let connection = id.ok().and_then(|Path(text)| uuid_of(&text)).ok_or(Code::ConnectionNotFound)?;
    let keyed = Keyed::read(&headers, &[b"sync", connection.as_bytes()])?;
    let wanted = Wanted { trigger: Trigger::Api, window: None };
    let job = app.start_job(organisation, ConnectionId::from_uuid(connection), wanted, keyed, &headers).await?;
    Ok(accepted(job))
}

/// 202 with the job's id, written straight into the bytes that are sent.
pub(super) fn accepted(job: JobId) -> Response {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = job.as_uuid().as_hyphenated().encode_lower(&mut text);
    let mut location = BytesMut::with_capacity(6 + id.len());
    location.put_slice(b"/jobs/");
    location.put_slice(id.as_bytes());
    let location = HeaderValue::from_maybe_shared(location.freeze()).expect("a UUID's text is a header value");
    let mut body = BytesMut::with_capacity(12 + id.len());
    body.put_slice(br#"{"jobId":""#);
    body.put_slice(id.as_bytes());
    body.put_slice(br#""}"#);
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (LOCATION, location)];
    (StatusCode::ACCEPTED, headers, body.freeze()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_is_the_published_one() {
        let job: JobId = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b".parse().unwrap();
        let response = accepted(job);
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()[LOCATION], format!("/jobs/{job}"));
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(body, format!(r#"{{"jobId":"{job}"}}"#));
    }
}
