//! Jobs that have not ended, for whoever has to see to it that they do.

use domain::{ConnectionId, JobId, JobState, OrganisationId};
use uuid::Uuid;

use super::{Job, read, select_jobs};
use crate::row::Reader;
use crate::{Error, Store};

/// The jobs of these connections that have not ended, in the order in which they were asked for.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn of_connections(store: &Store, of: &[(OrganisationId, ConnectionId)]) -> Result<Vec<Job>, Error> {
    const WHAT: &str = "find open jobs";
    const FIND: &str = select_jobs!(
        "SELECT",
        "FROM unnest($1::uuid[], $2::uuid[]) AS u(organisation_id, connection_id)
         JOIN jobs j USING (organisation_id, connection_id) WHERE j.rank < $3 ORDER BY j.requested_at, j.job_id"
    );
    let organisations: Vec<Uuid> = of.iter().map(|(organisation, _)| *organisation.as_uuid()).collect();
    let connections: Vec<Uuid> = of.iter().map(|(_, connection)| *connection.as_uuid()).collect();
    let session = store.session(WHAT).await?;
    let rows = session.rows(FIND, &[&organisations, &connections, &JobState::Succeeded.rank()]).await?;
    rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect()
}

/// The next `limit` jobs by id, after `after`, that have not ended and whose connection lives no more.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn orphaned(store: &Store, after: Option<JobId>, limit: u32) -> Result<Vec<Job>, Error> {
    const WHAT: &str = "find open jobs of connections that are gone";
    const FIND: &str = select_jobs!(
        "SELECT",
        "FROM jobs j WHERE j.job_id > $1 AND j.rank < $2
             AND NOT EXISTS (SELECT FROM connections c
                             WHERE c.connection_id = j.connection_id AND c.organisation_id = j.organisation_id
                               AND c.revoked_at IS NULL)
         ORDER BY j.job_id LIMIT $3"
    );
    // No id is nil: they are random, or derived by a hash.
    let after = after.map_or(Uuid::nil(), |id| *id.as_uuid());
    let session = store.session(WHAT).await?;
    let rows = session.rows(FIND, &[&after, &JobState::Succeeded.rank(), &i64::from(limit)]).await?;
    rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect()
}
