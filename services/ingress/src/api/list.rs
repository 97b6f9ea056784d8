//! `GET /jobs` and `GET /gmail-connections/{id}/jobs`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use domain::{ConnectionId, OrganisationId};
use serde::Serialize;
use store::jobs::{Filter, Page};
use store::keys::Scope;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use super::document::ProblemDetails;
use super::jobs::{self, JobResponse};
use super::page::{self, Cursor as _, List, Query};
use super::uuid_of;
use crate::app::App;
use crate::problem::{Code, Problem};

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobList {
    /// The jobs. There may be more though there are fewer than asked for: a page of a filtered list ends after a bounded
    /// search.
    data: Vec<JobResponse>,
    /// What to send as `Cursor` for the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Whether there is a next page.
    has_more: bool,
}

/// The query of a list of jobs.
pub(super) struct JobQuery;

impl IntoParams for JobQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = |name: &str, description: &str| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(description))
        };
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(page::MAX_LIMIT))
            .default(Some(page::DEFAULT_LIMIT.into()));
        let cursor = ObjectBuilder::new().schema_type(Type::String).pattern(Some(page::CURSOR));
        vec![
            parameter("Cursor", "The `nextCursor` of the page before; none for the first page.")
                .schema(Some(cursor))
                .build(),
            parameter("Limit", "Jobs of a page at most.").schema(Some(limit)).build(),
            parameter("State", "Only jobs in this state; several times for several states.")
                .schema(Some(ArrayBuilder::new().items(jobs::states())))
                .build(),
            parameter("Trigger", "Only jobs that this set off; several times for several triggers.")
                .schema(Some(ArrayBuilder::new().items(jobs::triggers())))
                .build(),
        ]
    }
}

/// Lists the organisation's jobs.
#[utoipa::path(
    get,
    path = "/jobs",
    operation_id = "listJobs",
    tag = "Jobs",
    summary = "List jobs",
    description = "Every job of the organisation, newest first. Jobs that come meanwhile shift no page.",
    params(JobQuery),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "A page of jobs", body = JobList, content_type = "application/json"),
        (status = 400, description = "Request.QueryInvalid — the detail names the parameter", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn all(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<JobList>, Problem> {
    let organisation = app.authenticate(&headers, Scope::Read).await?;
    list(&app, organisation, None, query.as_deref()).await
}

/// Lists a connection's jobs.
#[utoipa::path(
    get,
    path = "/gmail-connections/{id}/jobs",
    operation_id = "listGmailConnectionJobs",
    tag = "Gmail",
    summary = "List a connection's jobs",
    description = "Every job of the mailbox, newest first. Jobs that come meanwhile shift no page.",
    params(("id" = Uuid, Path), JobQuery),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "A page of jobs", body = JobList, content_type = "application/json"),
        (status = 400, description = "Request.QueryInvalid — the detail names the parameter", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn of_connection(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<JobList>, Problem> {
    let organisation = app.authenticate(&headers, Scope::Read).await?;
    let id = id.ok().and_then(|Path(text)| uuid_of(&text)).ok_or(Code::ConnectionNotFound)?;
    let connection = ConnectionId::from_uuid(id);
    if !app.is_connected(organisation, connection).await? {
        return Err(Code::ConnectionNotFound.into());
    }
    list(&app, organisation, Some(connection), query.as_deref()).await
}

async fn list(
    app: &App,
    organisation: OrganisationId,
    connection_id: Option<ConnectionId>,
    query: Option<&str>,
) -> Result<Json<JobList>, Problem> {
    let query = Query::of(query);
    let list = List { organisation, of: connection_id.map(|id| *id.as_uuid()) };
    let filter = Filter {
        connection_id,
        states: query.names("State", &jobs::STATES.map(|state| (state.as_str(), state)))?,
        triggers: query.names("Trigger", &jobs::TRIGGERS.map(|trigger| (trigger.as_str(), trigger)))?,
    };
    let (cursor, limit) = (query.cursor(list)?, query.limit()?);
    let Page { jobs, next } = app.jobs(organisation, &filter, cursor, limit).await?;
    Ok(Json(JobList {
        data: jobs.into_iter().map(JobResponse::from).collect(),
        next_cursor: next.map(|place| place.write(list)),
        has_more: next.is_some(),
    }))
}
