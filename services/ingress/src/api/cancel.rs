//! `POST /jobs/{jobId}/cancel`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use domain::{CancelJob, JobId};
use store::keys::Scope;

use super::document::{ProblemDetails, SyncStartedResponse};
use super::sync::accepted;
use super::uuid_of;
use crate::app::{App, now, trace};
use crate::body;
use crate::problem::{Code, Problem};

/// Asks for a job's end. Answers when Kafka has acknowledged the command.
#[utoipa::path(
    post,
    path = "/jobs/{jobId}/cancel",
    operation_id = "cancelJob",
    tag = "Jobs",
    summary = "Cancel a job",
    description = "Asks for an end to the job without its work being finished. What the mailbox owes is not given up: the next sync announces it. The job may still end otherwise before the cancellation reaches it; the first of its final states stands.",
    params(("jobId" = Uuid, Path)),
    security(("ApiKey" = [])),
    responses(
        (status = 202, description = "Accepted", body = SyncStartedResponse, content_type = "application/json",
            headers(("Location" = String, description = "The path of the job"))),
        (status = 400, description = "Request.BodyInvalid — the call takes no body", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "Job.NotFound — job does not exist", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "Job.AlreadyFinished — the job has ended", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let organisation_id = app.authenticate(&headers, Scope::Write).await?;
    body::expect_nothing(&headers, body).await?;
    let job_id = id.ok().and_then(|Path(text)| uuid_of(&text)).ok_or(Code::JobNotFound)?;
    let job_id = JobId::from_uuid(job_id);
    let job = app.job(organisation_id, job_id).await?.ok_or(Code::JobNotFound)?;
    if job.state.is_terminal() {
        return Err(Code::JobAlreadyFinished.into());
    }
    let at = now();
    let command = CancelJob { job_id, organisation_id, connection_id: job.connection_id, requested_at: at };
    app.produce(&command, job.connection_id, at, trace(&headers)).await?;
    Ok(accepted(job_id))
}
