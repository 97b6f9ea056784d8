//! `GET /jobs/{jobId}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use domain::{ConnectionId, JobId, JobState, Lane, Progress, Timestamp, Trigger, Window};
use serde::Serialize;
use store::jobs::Job;
use store::keys::Scope;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::document::ProblemDetails;
use super::uuid_of;
use crate::app::App;
use crate::problem::{Code, Problem};

/// One job: what was asked for, how far it is, and how it ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobResponse {
    /// The job.
    #[schema(value_type = Uuid)]
    job_id: JobId,
    /// The mailbox.
    #[schema(value_type = Uuid)]
    connection_id: ConnectionId,
    /// What set it off.
    #[schema(schema_with = triggers)]
    trigger: &'static str,
    /// Where it stands. The first of `succeeded`, `failed` and `cancelled` is final.
    #[schema(schema_with = states)]
    state: &'static str,
    /// What it has done so far.
    progress: JobProgress,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    requested_at: jiff::Timestamp,
    /// When its first call to Gmail was made.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    started_at: Option<jiff::Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    ended_at: Option<jiff::Timestamp>,
    /// When it fails if it has not ended.
    #[schema(value_type = String, format = DateTime)]
    deadline: jiff::Timestamp,
    /// Why it failed: a dotted code.
    #[schema(required)]
    code: Option<String>,
    /// Why it failed and what to do: a sentence.
    #[schema(required)]
    detail: Option<String>,
}

/// What a job has done so far. Counts never fall.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobProgress {
    /// Pages read from Gmail.
    pages: i64,
    /// History records or list items seen.
    records_seen: i64,
    /// Messages announced.
    discovered: i64,
    /// Messages recognised as announced before.
    duplicates_skipped: i64,
    /// Messages kept back by policy: drafts, chats, spam, trash.
    withheld: i64,
    /// Records set aside because no attempt could read them.
    dead_lettered: i64,
    /// Quota units spent.
    quota_units: i64,
    /// The window being listed, when the job lists one.
    #[schema(required)]
    window: Option<JobWindow>,
    /// The priority in which its calls to Gmail are made.
    #[schema(schema_with = lanes, required)]
    lane: Option<&'static str>,
}

/// A span of time, from `since` (inclusive) to `until` (exclusive).
#[derive(Serialize, ToSchema)]
pub(super) struct JobWindow {
    /// The first instant inside.
    #[schema(value_type = String, format = DateTime)]
    since: jiff::Timestamp,
    /// The first instant after it.
    #[schema(value_type = String, format = DateTime)]
    until: jiff::Timestamp,
}

/// Everything that sets off jobs.
pub(super) const TRIGGERS: [Trigger; 7] = {
    use Trigger::{Api, Audit, Backfill, Connect, Gap, Push, Schedule};
    [Api, Connect, Schedule, Push, Backfill, Gap, Audit]
};

/// Where a job may stand.
pub(super) const STATES: [JobState; 5] = {
    use JobState::{Cancelled, Failed, Queued, Running, Succeeded};
    [Queued, Running, Succeeded, Failed, Cancelled]
};

pub(super) fn triggers() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("What set it off."))
        .enum_values(Some(TRIGGERS.map(Trigger::as_str)))
        .build()
}

pub(super) fn states() -> Object {
    let description = "Where it stands. The first of `succeeded`, `failed` and `cancelled` is final.";
    let names = STATES.map(JobState::as_str);
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).enum_values(Some(names)).build()
}

fn lanes() -> Object {
    use Lane::{Audit, Backfill, CatchUp, Fetch, Live};
    let names = [Live, CatchUp, Fetch, Backfill, Audit].map(|lane| Some(lane.as_str()));
    let description = "The priority in which its calls to Gmail are made, once it has made one.";
    ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::SchemaType::Array(vec![Type::String, Type::Null]))
        .description(Some(description))
        .enum_values(Some(names.into_iter().chain([None])))
        .build()
}

/// Tells how a job fares.
#[utoipa::path(
    get,
    path = "/jobs/{jobId}",
    operation_id = "getJob",
    tag = "Jobs",
    summary = "Read a job",
    description = "The job's state, progress and timings. A job that was answered with 202 can be read at once, and ends by its deadline.",
    params(("jobId" = Uuid, Path)),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "The job", body = JobResponse, content_type = "application/json"),
        (status = 404, description = "Job.NotFound — job does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn job(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<JobResponse>, Problem> {
    let organisation = app.authenticate(&headers, Scope::Read).await?;
    let id = id.ok().and_then(|Path(text)| uuid_of(&text)).ok_or(Code::JobNotFound)?;
    let job = app.job(organisation, JobId::from_uuid(id)).await?.ok_or(Code::JobNotFound)?;
    Ok(Json(job.into()))
}

impl From<Job> for JobResponse {
    fn from(job: Job) -> Self {
        Self {
            job_id: job.job_id,
            connection_id: job.connection_id,
            trigger: job.trigger.as_str(),
            state: job.state.as_str(),
            progress: job.progress.into(),
            requested_at: instant(job.requested_at),
            started_at: job.started_at.map(instant),
            ended_at: job.ended_at.map(instant),
            deadline: instant(job.deadline),
            code: job.code,
            detail: job.detail,
        }
    }
}

impl From<Progress> for JobProgress {
    fn from(progress: Progress) -> Self {
        Self {
            pages: progress.pages,
            records_seen: progress.records_seen,
            discovered: progress.discovered,
            duplicates_skipped: progress.duplicates_skipped,
            withheld: progress.withheld,
            dead_lettered: progress.dead_lettered,
            quota_units: progress.quota_units,
            window: progress
                .window
                .map(|Window { since, until }| JobWindow { since: instant(since), until: instant(until) }),
            lane: progress.lane.map(Lane::as_str),
        }
    }
}

/// RFC 3339 in UTC. What lies outside the years that it can write is shown as the nearest that it can.
pub(super) fn instant(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(if at.as_millis() < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    })
}
