//! `POST /gmail-connections/{id}/backfill`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use domain::{ConnectionId, Timestamp, Trigger, Window};
use serde::Deserialize;
use store::keys::Scope;
use utoipa::ToSchema;

use super::document::{self, ProblemDetails, SyncStartedResponse};
use super::sync::accepted;
use super::{time, uuid_of};
use crate::app::{App, Wanted, now};
use crate::body;
use crate::consent::REACH;
use crate::idempotency::Keyed;
use crate::problem::{Code, Problem};

/// The window of a backfill.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BackfillRequest {
    /// The first instant inside, from 2004-04-01T00:00:00Z on; 30 days before `until` when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime, examples("2026-01-01T00:00:00Z"))]
    since: Option<String>,
    /// The first instant after it, not in the future; now when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime, examples("2026-02-01T00:00:00Z"))]
    until: Option<String>,
}

impl BackfillRequest {
    fn window(&self, now: Timestamp) -> Result<Window, String> {
        let until = self.until.as_deref().map_or(Ok(now), |text| time::past("until", text, now))?;
        let since = match self.since.as_deref() {
            Some(text) => time::past("since", text, now)?,
            None => (until - REACH).max(time::FIRST),
        };
        let window = Window { since, until };
        if window.is_empty() { Err("`since`: is not before `until`".to_owned()) } else { Ok(window) }
    }
}

/// Asks for a window to be listed. Answers when Kafka has acknowledged the command and the job can be read.
#[utoipa::path(
    post,
    path = "/gmail-connections/{id}/backfill",
    operation_id = "backfillGmail",
    tag = "Gmail",
    summary = "Backfill a Gmail mailbox",
    description = "Lists the mailbox's messages of a window of time, by default the 30 days until now, and announces those that are in the mailbox. It runs beside syncs and delays none. A message that was announced before is announced again under the same `eventId`, with the origin `backfill`.",
    params(("id" = Uuid, Path), document::IdempotencyKey),
    request_body(content = BackfillRequest, content_type = "application/json", description = "No body means the 30 days until now"),
    security(("ApiKey" = [])),
    responses(
        (status = 202, description = "Accepted", body = SyncStartedResponse, content_type = "application/json",
            headers(("Location" = String, description = "The path of the job"))),
        (status = 400, description = "Request.BodyInvalid — the window makes no sense; the detail names the member. Request.IdempotencyKeyInvalid", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn backfill(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let organisation = app.authenticate(&headers, Scope::Write).await?;
    let sent = body::read(&headers, body).await?;
    let asked: BackfillRequest = body::parse(&sent)?;
    let window = asked.window(now()).map_err(|wrong| body::invalid(&wrong))?;
    let connection = id.ok().and_then(|Path(text)| uuid_of(&text)).ok_or(Code::ConnectionNotFound)?;
    let keyed = Keyed::read(&headers, &[b"backfill", connection.as_bytes(), &sent])?;
    let wanted = Wanted { trigger: Trigger::Backfill, window: Some(window) };
    let job = app.start_job(organisation, ConnectionId::from_uuid(connection), wanted, keyed, &headers).await?;
    Ok(accepted(job))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(since: Option<&str>, until: Option<&str>) -> Result<(i64, i64), String> {
        let now = time::rfc3339("2026-01-31T00:00:00Z").unwrap();
        let asked = BackfillRequest { since: since.map(str::to_owned), until: until.map(str::to_owned) };
        let days = |at: Timestamp| now.since(at).as_millis() / 86_400_000;
        asked.window(now).map(|window| (days(window.since), days(window.until)))
    }

    #[test]
    fn the_window_is_the_last_thirty_days_unless_said_otherwise() {
        assert_eq!(window(None, None), Ok((30, 0)));
        assert_eq!(window(None, Some("2026-01-21T00:00:00Z")), Ok((40, 10)));
        assert_eq!(window(Some("2026-01-21T00:00:00Z"), None), Ok((10, 0)));
        // Near Gmail's birth there are no thirty days.
        assert!(window(None, Some("2004-04-02T00:00:00Z")).is_ok());
    }

    #[test]
    fn windows_that_make_no_sense_are_refused_by_name() {
        let same = Some("2026-01-21T00:00:00Z");
        for (since, until, member) in [
            (same, same, "`since`"),
            (Some("2026-01-22T00:00:00Z"), same, "`since`"),
            (Some("2026-01-31T00:00:00Z"), None, "`since`"),
            (Some("2027-01-01T00:00:00Z"), None, "`since`"),
            (None, Some("2027-01-01T00:00:00Z"), "`until`"),
            (Some("1999-01-01T00:00:00Z"), None, "`since`"),
            (None, Some("2004-04-01T00:00:00Z"), "`since`"),
            (Some("yesterday"), None, "`since`"),
        ] {
            assert!(window(since, until).unwrap_err().starts_with(member), "{since:?} {until:?}");
        }
    }
}
