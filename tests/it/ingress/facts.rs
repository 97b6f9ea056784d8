//! Jobs as the poller tells of them, put in Postgres without one.

use domain::{ConnectionId, GmailJobStatusChanged, JobId, JobState, OrganisationId, Progress, Timestamp, Trigger};
use store::projection::{self, Batch};
use uuid::Uuid;

use super::api::{Api, now};

/// A job of the tenant's connection, asked for at `requested_at`.
pub(super) fn fact(api: &Api, state: JobState, trigger: Trigger, requested_at: Timestamp) -> GmailJobStatusChanged {
    of(api.tenant.organisation, api.tenant.connection, state, trigger, requested_at)
}

/// A job of anybody's.
pub(super) fn of(
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    state: JobState,
    trigger: Trigger,
    requested_at: Timestamp,
) -> GmailJobStatusChanged {
    GmailJobStatusChanged {
        job_id: JobId::from_uuid(Uuid::new_v4()),
        organisation_id,
        connection_id,
        trigger,
        state,
        step: 0,
        progress: Progress::default(),
        requested_at,
        started_at: None,
        ended_at: state.is_terminal().then_some(requested_at),
        deadline: requested_at + domain::Duration::from_hours(1),
        at: now(),
        code: None,
        detail: None,
    }
}

/// Puts them in the rows, as the projector does.
pub(super) async fn project(api: &Api, jobs: &[GmailJobStatusChanged]) {
    let batch = Batch { jobs: jobs.to_vec(), ..Batch::default() };
    projection::apply(&api.store, "tests", batch).await.unwrap();
}
