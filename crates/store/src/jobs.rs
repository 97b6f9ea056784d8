//! Jobs, as the topics tell of them.

mod list;
mod open;

use domain::{ConnectionId, JobId, JobState, OrganisationId, PollGmailConnection, Progress, Timestamp, Trigger};
use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

pub use list::{Filter, Page, list};
pub use open::{of_connections, orphaned};

/// The step of a row that no fact has reached yet; every fact's step is at least 0.
pub(crate) const NO_FACT: i64 = -1;

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The job.
    pub job_id: JobId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// What set it off.
    pub trigger: Trigger,
    /// Where it stands.
    pub state: JobState,
    /// The step of the fact that the row tells; −1 while no fact has reached it.
    pub step: i64,
    /// What it has done so far.
    pub progress: Progress,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When its first call to Gmail was made.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When it fails if it has not ended.
    pub deadline: Timestamp,
    /// The dotted code of the failure.
    pub code: Option<String>,
    /// One sentence on the failure and what to do about it.
    pub detail: Option<String>,
    /// When the fact was written.
    pub changed_at: Timestamp,
}

/// Puts the rows of commands that were just accepted, many in one go, so that a look-up right after finds them. A
/// row that is there already stays as it is: the projector may have been faster. Repeatable.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn insert_queued(store: &Store, commands: &[PollGmailConnection]) -> Result<(), Error> {
    // In the order of their ids, like the projector's: two batches that share jobs must not lock crosswise.
    let mut commands: Vec<&PollGmailConnection> = commands.iter().collect();
    commands.sort_unstable_by_key(|command| command.job_id);
    let column = |of: fn(&PollGmailConnection) -> Uuid| commands.iter().map(|command| of(command)).collect::<Vec<_>>();
    let time = |of: fn(&PollGmailConnection) -> Timestamp| commands.iter().map(|c| At(of(c))).collect::<Vec<_>>();
    let triggers: Vec<&str> = commands.iter().map(|command| command.trigger.as_str()).collect();
    let progress: Vec<Json<Progress>> =
        commands.iter().map(|command| Json(Progress { window: command.window, ..Progress::default() })).collect();
    let session = store.session("insert queued jobs").await?;
    session
        .execute(
            "INSERT INTO jobs (job_id, organisation_id, connection_id, trigger, state, rank, step, progress,
                               requested_at, deadline, changed_at)
             SELECT u.job_id, u.organisation_id, u.connection_id, u.trigger, $8, $9, $10, u.progress,
                    u.requested_at, u.deadline, u.requested_at
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::jsonb[], $6::timestamptz[],
                         $7::timestamptz[])
                  AS u(job_id, organisation_id, connection_id, trigger, progress, requested_at, deadline)
             ON CONFLICT (job_id) DO NOTHING",
            &[
                &column(|c| *c.job_id.as_uuid()),
                &column(|c| *c.organisation_id.as_uuid()),
                &column(|c| *c.connection_id.as_uuid()),
                &triggers,
                &progress,
                &time(|c| c.requested_at),
                &time(|c| c.deadline),
                &JobState::Queued.as_str(),
                &JobState::Queued.rank(),
                &NO_FACT,
            ],
        )
        .await
        .map(drop)
}

/// The columns that [`read`] reads, and what goes around them.
macro_rules! select_jobs {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " j.job_id, j.organisation_id, j.connection_id, j.trigger, j.state, j.step, j.progress, j.requested_at,
              j.started_at, j.ended_at, j.deadline, j.code, j.detail, j.changed_at ",
            $after
        )
    };
}
use select_jobs;

/// The organisation's job with this id.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn find(store: &Store, organisation_id: OrganisationId, job_id: JobId) -> Result<Option<Job>, Error> {
    const WHAT: &str = "find a job";
    const FIND: &str = select_jobs!("SELECT", "FROM jobs j WHERE j.organisation_id = $1 AND j.job_id = $2");
    let session = store.session(WHAT).await?;
    let row = session.row(FIND, &[organisation_id.as_uuid(), job_id.as_uuid()]).await?;
    row.map(|row| read(&Reader { what: WHAT, row: &row })).transpose()
}

/// Many jobs in one go, each of the organisation named beside it. What does not exist is left out.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn find_many(store: &Store, jobs: &[(OrganisationId, JobId)]) -> Result<Vec<Job>, Error> {
    const WHAT: &str = "find jobs";
    const FIND: &str = select_jobs!(
        "SELECT",
        "FROM unnest($1::uuid[], $2::uuid[]) AS u(organisation_id, job_id) JOIN jobs j USING (organisation_id, job_id)"
    );
    let organisations: Vec<Uuid> = jobs.iter().map(|(organisation, _)| *organisation.as_uuid()).collect();
    let ids: Vec<Uuid> = jobs.iter().map(|(_, job)| *job.as_uuid()).collect();
    let session = store.session(WHAT).await?;
    let rows = session.rows(FIND, &[&organisations, &ids]).await?;
    rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect()
}

fn read(row: &Reader<'_>) -> Result<Job, Error> {
    Ok(Job {
        job_id: JobId::from_uuid(row.get("job_id")?),
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
        trigger: row.named("trigger")?,
        state: row.named("state")?,
        step: row.get("step")?,
        progress: from_json(row.get("progress")?).map_err(|error| row.unreadable("progress", error))?,
        requested_at: row.at("requested_at")?,
        started_at: row.at_opt("started_at")?,
        ended_at: row.at_opt("ended_at")?,
        deadline: row.at("deadline")?,
        code: row.get("code")?,
        detail: row.get("detail")?,
        changed_at: row.at("changed_at")?,
    })
}

pub(crate) fn to_json(progress: &Progress) -> Value {
    serde_json::to_value(progress).expect("progress is numbers and names")
}

/// A row may be older than a field: what it lacks is the default.
fn from_json(stored: Value) -> Result<Progress, serde_json::Error> {
    let mut whole = to_json(&Progress::default());
    if let (Value::Object(whole), Value::Object(stored)) = (&mut whole, stored) {
        whole.extend(stored);
    }
    serde_json::from_value(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_an_older_version_reads() {
        let progress = from_json(serde_json::json!({"pages": 3, "since removed": true})).unwrap();
        assert_eq!(progress, Progress { pages: 3, ..Progress::default() });
    }
}
