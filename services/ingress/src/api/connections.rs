//! `/gmail-connections` and `/gmail-connections/{id}`: what is connected, how it fares, and its end.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::schedule::Schedule;
use domain::{ConnectionId, ConnectionState, Duration, OrganisationId, Timestamp};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use store::connections::{self, Change, Connection};
use store::keys::Scope;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::document::ProblemDetails;
use super::jobs::instant;
use super::uuid_of;
use crate::app::{App, database_problem, now};
use crate::body;
use crate::consent::Google;
use crate::problem::{Code, Problem};

/// Connections that are read at a time: of an organisation that has more, the rest is read while the first are sent.
const AT_A_TIME: u32 = 500;

/// One connected mailbox. What is not known yet is null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GmailConnectionResponse {
    /// The connection.
    #[schema(value_type = Uuid)]
    connection_id: ConnectionId,
    /// The mailbox's address.
    #[schema(examples("payable@example.com"))]
    email_address: String,
    /// Whether it can be synced.
    #[schema(schema_with = states)]
    status: &'static str,
    /// Why it cannot be synced: a dotted code.
    #[schema(required)]
    code: Option<String>,
    /// The history id up to which all is announced.
    #[schema(required)]
    last_history_id: Option<String>,
    /// When the latest sync that came to its end began.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_synced_at: Option<jiff::Timestamp>,
    /// When the schedule syncs it next; null while it does not.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    next_scheduled_at: Option<jiff::Timestamp>,
    /// How often the schedule syncs it, in hours; null: as often as the installation does.
    #[schema(required, minimum = 1, maximum = 24)]
    sync_interval_hours: Option<u8>,
    /// Whether it is left alone: by the schedule, by the daily audits, and when Gmail tells of changes. Syncs and
    /// backfills that are asked for run all the same, and what came meanwhile is announced by the next.
    paused: bool,
    /// Gmail quota units spent on it today, by Pacific standard time.
    #[schema(required)]
    quota_units_today: Option<i64>,
    /// Until when Gmail tells of changes by itself.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    watch_expires_at: Option<jiff::Timestamp>,
    /// When Gmail last did.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_push_at: Option<jiff::Timestamp>,
    /// When it was connected.
    #[schema(value_type = String, format = DateTime)]
    created_at: jiff::Timestamp,
}

/// What can be set of a connection. What is left out stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChangeGmailConnectionRequest {
    /// How often the schedule syncs it, in hours; null: as often as the installation does.
    #[serde(default, deserialize_with = "hours")]
    #[schema(value_type = Option<u8>, minimum = 1, maximum = 24)]
    sync_interval_hours: Option<Option<u8>>,
    /// Whether it is left alone until somebody asks: no scheduled syncs, no audits, none when Gmail tells of changes.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = bool)]
    paused: Option<bool>,
}

/// Tells a member that is null from one that was left out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The same for hours of a day. 12.0 is as whole a number as 12, as JSON Schema has it.
fn hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u8>>, D::Error> {
    let Some(given) = Option::<f64>::deserialize(deserializer)? else { return Ok(Some(None)) };
    let hours = (1..=24).find(|hours| f64::from(*hours).total_cmp(&given).is_eq());
    hours.map(|hours| Some(Some(hours))).ok_or_else(|| D::Error::custom("expected null or 1 to 24"))
}

fn states() -> Object {
    use ConnectionState::{Active, NeedsReauth, Quarantined};
    let names = [Active, NeedsReauth, Quarantined].map(ConnectionState::as_str);
    let description =
        "`active`: syncs run. `needs_reauth`: its owner has to consent again. `quarantined`: an operator has to look.";
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).enum_values(Some(names)).build()
}

/// Lists the organisation's connections.
#[utoipa::path(
    get,
    path = "/gmail-connections",
    operation_id = "listGmailConnections",
    tag = "Gmail",
    summary = "List Gmail connections",
    description = "The organisation's connected mailboxes, newest first, without those that were deleted: all of them, however many.",
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "The connections", body = Vec<GmailConnectionResponse>, content_type = "application/json"),
    ),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    State(google): State<Arc<Google>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let organisation = app.authenticate(&headers, Scope::Read).await?;
    let found = connections::list(&app.store, organisation, None, AT_A_TIME).await;
    let first = Page::of(found.map_err(|error| database_problem(&error))?, &google);
    if first.end.is_none() {
        return Ok(Json(first.connections).into_response());
    }
    let rest = Rest { app, google, organisation, page: Some(first), is_begun: false };
    let body = Body::from_stream(futures_util::stream::try_unfold(rest, Rest::next));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// Some of the connections of a list.
struct Page {
    connections: Vec<GmailConnectionResponse>,
    /// The last one, when there may be more.
    end: Option<(Timestamp, ConnectionId)>,
}

impl Page {
    fn of(found: Vec<Connection>, google: &Google) -> Self {
        let at = now();
        let last = found.last().map(|last| (last.created_at, last.connection_id));
        let end = last.filter(|_| found.len() == AT_A_TIME as usize);
        let connections = found.into_iter().map(|found| GmailConnectionResponse::new(found, google, at)).collect();
        Self { connections, end }
    }
}

/// What is still to be sent of a list: one page of it is in memory at a time, read when the one before it is on its way.
struct Rest {
    app: Arc<App>,
    google: Arc<Google>,
    organisation: OrganisationId,
    page: Option<Page>,
    is_begun: bool,
}

impl Rest {
    /// The next bytes of the array. An error cuts the answer off, which its reader notices: the end of it is missing.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, store::Error> {
        let Some(page) = self.page.take() else { return Ok(None) };
        let array = serde_json::to_vec(&page.connections).expect("connections are text, numbers and times");
        let inside = array.strip_prefix(b"[").and_then(|inside| inside.strip_suffix(b"]")).unwrap_or_default();
        let separator: &[u8] = match (self.is_begun, inside.is_empty()) {
            (false, _) => b"[",
            (true, false) => b",",
            (true, true) => b"",
        };
        let mut bytes = [separator, inside].concat();
        self.is_begun = true;
        match page.end {
            None => bytes.push(b']'),
            Some(end) => {
                let found = connections::list(&self.app.store, self.organisation, Some(end), AT_A_TIME).await;
                let found = found.inspect_err(|error| tracing::warn!(%error, "A list of connections breaks off"))?;
                self.page = Some(Page::of(found, &self.google));
            }
        }
        Ok(Some((bytes.into(), self)))
    }
}

/// Tells how a connection fares.
#[utoipa::path(
    get,
    path = "/gmail-connections/{id}",
    operation_id = "getGmailConnection",
    tag = "Gmail",
    summary = "Read a Gmail connection",
    description = "Whether the mailbox can be synced, when it was, and when it will be.",
    params(("id" = Uuid, Path)),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "The connection", body = GmailConnectionResponse, content_type = "application/json"),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    State(google): State<Arc<Google>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<GmailConnectionResponse>, Problem> {
    let organisation = app.authenticate(&headers, Scope::Read).await?;
    let found = connections::find(&app.store, organisation, connection_id(id)?).await;
    let found = found.map_err(|error| database_problem(&error))?.ok_or(Code::ConnectionNotFound)?;
    Ok(Json(GmailConnectionResponse::new(found, &google, now())))
}

/// Changes a connection's schedule.
#[utoipa::path(
    patch,
    path = "/gmail-connections/{id}",
    operation_id = "changeGmailConnection",
    tag = "Gmail",
    summary = "Change a Gmail connection",
    description = "Sets how often the schedule syncs the mailbox, or pauses all that happens without being asked for: scheduled syncs, daily audits, syncs when Gmail tells of changes. Jobs under way go on, and syncs and backfills can be asked for. Mail that comes while it is paused is announced by the next sync, at the latest after the pause. What is left out stays as it is. The schedule follows within five minutes.",
    params(("id" = Uuid, Path)),
    request_body(content = ChangeGmailConnectionRequest, content_type = "application/json"),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "The connection as it is now", body = GmailConnectionResponse, content_type = "application/json"),
        (status = 400, description = "Request.BodyInvalid — the detail names the member", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    State(google): State<Arc<Google>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<GmailConnectionResponse>, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let organisation = app.authenticate(&headers, Scope::Write).await?;
    let asked: ChangeGmailConnectionRequest = body::parse(&body::read(&headers, body).await?)?;
    let change = Change { sync_interval_hours: asked.sync_interval_hours, paused: asked.paused };
    let changed = connections::change(&app.store, organisation, connection_id(id)?, change).await;
    let changed = changed.map_err(|error| database_problem(&error))?.ok_or(Code::ConnectionNotFound)?;
    Ok(Json(GmailConnectionResponse::new(changed, &google, now())))
}

/// Ends a connection.
#[utoipa::path(
    delete,
    path = "/gmail-connections/{id}",
    operation_id = "deleteGmailConnection",
    tag = "Gmail",
    summary = "Delete a Gmail connection",
    description = "Cancels the mailbox's jobs, forgets all that is known of it and its token, and revokes the consent at Google if no other connection uses that account. Repeatable: a connection that was deleted before is answered the same. Connecting the address again makes a new connection.",
    params(("id" = Uuid, Path)),
    security(("ApiKey" = [])),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    State(google): State<Arc<Google>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let organisation = app.authenticate(&headers, Scope::Write).await?;
    let id = connection_id(id)?;
    let leaving = connections::delete(&app.store, organisation, id, now()).await;
    let leaving = leaving.map_err(|error| database_problem(&error))?.ok_or(Code::ConnectionNotFound)?;
    app.connection_changed(organisation, id).await;
    app.finish_deletion(&google, &leaving).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether `now` is on the quota day that began at `day`.
fn is_today(day: Timestamp, now: Timestamp) -> bool {
    day <= now && now.since(day) < Duration::from_hours(24)
}

/// A malformed id is answered like any id that names nothing of the caller's.
fn connection_id(id: Result<Path<String>, PathRejection>) -> Result<ConnectionId, Code> {
    let id = id.ok().and_then(|Path(text)| uuid_of(&text));
    id.map(ConnectionId::from_uuid).ok_or(Code::ConnectionNotFound)
}

impl GmailConnectionResponse {
    fn new(connection: Connection, google: &Google, now: Timestamp) -> Self {
        let own = connection.sync_interval_hours.map(|hours| Duration::from_hours(hours.into()));
        let schedule = Schedule::every(own.unwrap_or(google.sync_interval)).unwrap_or_default();
        let is_scheduled = connection.state == ConnectionState::Active && !connection.paused;
        Self {
            connection_id: connection.connection_id,
            email_address: connection.email,
            status: connection.state.as_str(),
            code: connection.code,
            last_history_id: connection.last_history_id.map(|id| id.to_string()),
            last_synced_at: connection.last_synced_at.map(instant),
            next_scheduled_at: is_scheduled.then(|| instant(schedule.next(connection.connection_id, now))),
            sync_interval_hours: connection.sync_interval_hours,
            paused: connection.paused,
            quota_units_today: connection.units.map(|(units, day)| if is_today(day, now) { units } else { 0 }),
            watch_expires_at: connection.watch_expires_at.map(instant),
            last_push_at: connection.last_push_at.map(instant),
            created_at: instant(connection.created_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_whole_numbers_of_a_day_however_they_are_written() {
        let hours = |text: &str| {
            let body = format!(r#"{{"syncIntervalHours": {text}}}"#);
            body::parse::<ChangeGmailConnectionRequest>(body.as_bytes()).map(|asked| asked.sync_interval_hours)
        };
        for (text, read) in [("null", None), ("1", Some(1)), ("24", Some(24)), ("12.0", Some(12)), ("1.2e1", Some(12))]
        {
            assert_eq!(hours(text).unwrap(), Some(read), "{text}");
        }
        for text in ["0", "25", "-1", "1.5", "-0.0", "1e300", "18446744073709551616", "\"12\"", "true", "[]", "{}"] {
            let wrong = format!("{:?}", hours(text).unwrap_err());
            assert!(wrong.contains("`syncIntervalHours`"), "{text}: {wrong}");
        }
        let nothing = body::parse::<ChangeGmailConnectionRequest>(b"{}").unwrap();
        assert_eq!(nothing.sync_interval_hours, None);
    }
}
