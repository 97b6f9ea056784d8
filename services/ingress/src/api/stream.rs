//! `GET /jobs/{jobId}/events`: a job as it goes on, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use domain::JobId;
use futures_util::{Stream, stream};
use store::jobs::Job;
use store::keys::Scope;
use tokio::time::Instant;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::document::ProblemDetails;
use super::jobs::JobResponse;
use super::uuid_of;
use crate::app::App;
use crate::problem::{Code, Problem};
use crate::streams::{Follower, Mark, mark};

/// What a client sends that had a stream before: the id of the last event that it saw.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells proxies not to collect what is to be seen at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How long a client is to wait before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// One event of a stream.
pub(super) struct JobEvent;

impl PartialSchema for JobEvent {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let data = text()
            .description(Some("The job, as a look at it shows it."))
            .content_media_type("application/json")
            .content_schema(Some(Ref::from_schema_name("JobResponse")));
        ObjectBuilder::new()
            .property("event", text().enum_values(Some(["job"])))
            .property("id", text().description(Some("What to send as `Last-Event-ID` to go on after this event.")))
            .property("data", data)
            .required("event")
            .required("id")
            .required("data")
            .into()
    }
}

impl ToSchema for JobEvent {}

/// Follows a job to its end.
#[utoipa::path(
    get,
    path = "/jobs/{jobId}/events",
    operation_id = "followJob",
    tag = "Jobs",
    summary = "Follow a job",
    description = "Server-sent events, each named `job` with the whole job as data: first as it stands, then on every change that was seen, the last one with its final state, after which the stream ends. Comments come in between so that the connection is known to live. A stream ends after a while in any case: connect again with `Last-Event-ID`, as an EventSource does by itself. What was seen is then not sent again; 204 says that the end was seen, and ends an EventSource.",
    params(("jobId" = Uuid, Path), ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen")),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "The events; the schema is that of each", body = JobEvent, content_type = "text/event-stream"),
        (status = 204, description = "The job has ended, and Last-Event-ID is the end"),
        (status = 404, description = "Job.NotFound — job does not exist", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "Job.TooManyStreams — the key follows as many jobs at once as it may; Request.RateLimited", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = i32, description = "Seconds to wait before asking again"))),
    ),
)]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = app.identify(&headers, Scope::Read).await?;
    let id = id.ok().and_then(|Path(text)| uuid_of(&text)).ok_or(Code::JobNotFound)?;
    let id = JobId::from_uuid(id);
    // Before the look, so that nothing is missed between the two.
    let follower = app.streams.follow(&key, id)?;
    let job = app.job(key.organisation_id, id).await?.ok_or(Code::JobNotFound)?;
    let seen = headers.get(LAST_EVENT_ID).and_then(|id| parse_mark(id.to_str().ok()?));
    if job.state.is_terminal() && seen == Some(mark(&job)) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let limits = app.stream_limits;
    let heartbeat = KeepAlive::new().interval(limits.heartbeat);
    let headers = [(X_ACCEL_BUFFERING, HeaderValue::from_static("no"))];
    Ok((headers, Sse::new(all(follower, job, seen, limits.age)).keep_alive(heartbeat)).into_response())
}

/// Everything that is told of a job from now on, for at most `age`.
fn all(
    follower: Follower,
    job: Job,
    seen: Option<Mark>,
    age: Duration,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = (seen != Some(mark(&job))).then(|| Arc::new(job));
    let told = Told { follower, first, seen, is_over: false, until: Instant::now() + age };
    stream::unfold(told, async |mut told| {
        let job = told.next().await?;
        let mut event = Event::default().event("job").id(write_mark(mark(&job)));
        if told.seen.is_none() {
            event = event.retry(RETRY);
        }
        told.seen = Some(mark(&job));
        told.is_over = job.state.is_terminal();
        let event = event.json_data(JobResponse::from(Job::clone(&job))).expect("a job is plain JSON");
        Some((Ok(event), told))
    })
}

/// How far a stream is.
struct Told {
    follower: Follower,
    first: Option<Arc<Job>>,
    seen: Option<Mark>,
    is_over: bool,
    until: Instant,
}

impl Told {
    /// The next state to tell; none at the end.
    async fn next(&mut self) -> Option<Arc<Job>> {
        if self.is_over {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let Follower { newest, welcome, .. } = &mut self.follower;
            tokio::select! {
                changed = newest.changed() => changed.ok()?,
                closed = welcome.changed() => closed.ok()?,
                () = tokio::time::sleep_until(self.until) => return None,
            }
            let job = self.follower.newest.borrow_and_update().clone();
            if let Some(job) = job.filter(|job| self.seen.is_none_or(|seen| seen < mark(job))) {
                return Some(job);
            }
        }
    }
}

/// The id of an event: rank and step of the row, both counted from 0.
fn write_mark((rank, step): Mark) -> String {
    format!("{rank}.{}", step + 1)
}

fn parse_mark(text: &str) -> Option<Mark> {
    let (rank, step) = text.split_once('.')?;
    Some((rank.parse().ok()?, step.parse::<i64>().ok()?.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_mark() {
        for mark in [(0, -1), (1, 7), (2, i64::MAX - 1)] {
            assert_eq!(parse_mark(&write_mark(mark)), Some(mark));
        }
        for text in ["", ".", "1", "x.1", "1.-9223372036854775808", "1.2.3", "99999.1"] {
            assert_eq!(parse_mark(text), None, "{text}");
        }
    }
}
