//! Pages of jobs, newest first.

use domain::{ConnectionId, JobId, JobState, OrganisationId, Timestamp, Trigger};

use tokio_postgres::types::ToSql;

use super::{Job, read, select_jobs};
use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

/// Rows that one page of a filtered list looks at: what bounds its cost where few jobs are of the kind that is asked
/// for. An index on the state would be found faster, but then every step of every job would write to it.
const LOOKED_AT: i64 = 10_000;

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this connection; of all when none is named.
    pub connection_id: Option<ConnectionId>,
    /// In one of these states; in any when none is named.
    pub states: Vec<JobState>,
    /// Set off by one of these; by any when none is named.
    pub triggers: Vec<Trigger>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The jobs, newest first. There may be more though it is not full, or even empty.
    pub jobs: Vec<Job>,
    /// Where the next part begins; none when there is none.
    pub next: Option<(Timestamp, JobId)>,
}

/// At most `limit` jobs of an organisation, after the one that the last page ended with. It costs one range of an index,
/// however many jobs there are. Jobs that are added meanwhile are newer: no page shows one twice or skips one for it.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn list(
    store: &Store,
    organisation_id: OrganisationId,
    filter: &Filter,
    after: Option<(Timestamp, JobId)>,
    limit: u32,
) -> Result<Page, Error> {
    const WHAT: &str = "list jobs";
    let (at, id) = after.unwrap_or((Timestamp::from_millis(i64::MAX), JobId::from_uuid(uuid::Uuid::max())));
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    let triggers: Vec<&str> = filter.triggers.iter().map(|trigger| trigger.as_str()).collect();
    let is_filtered = !states.is_empty() || !triggers.is_empty();
    // One more than is shown tells whether there is more.
    let wanted = i64::from(limit) + 1;
    let looked_at = if is_filtered { LOOKED_AT.max(wanted) } else { wanted };
    let session = store.session(WHAT).await?;
    let organisation = organisation_id.as_uuid();
    let at = At(at);
    let rows = match &filter.connection_id {
        None => {
            let params: [&(dyn ToSql + Sync); 7] =
                [organisation, &at, id.as_uuid(), &looked_at, &states, &triggers, &wanted];
            session.rows(LIST, &params).await?
        }
        Some(connection) => {
            let params: [&(dyn ToSql + Sync); 8] =
                [organisation, &at, id.as_uuid(), &looked_at, &states, &triggers, &wanted, connection.as_uuid()];
            session.rows(LIST_OF_CONNECTION, &params).await?
        }
    };
    let mut jobs = rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect::<Result<Vec<_>, _>>()?;
    let place = |job: &Job| (job.requested_at, job.job_id);
    if jobs.len() > limit as usize {
        jobs.truncate(limit as usize);
        let next = jobs.last().map(place);
        return Ok(Page { jobs, next });
    }
    if !is_filtered {
        return Ok(Page { jobs, next: None });
    }
    // Not full: either there is no more, or it has looked at all that it may.
    let skip = looked_at - 1;
    let row = match &filter.connection_id {
        None => session.row(LAST, &[organisation, &at, id.as_uuid(), &skip]).await?,
        Some(connection) => {
            session.row(LAST_OF_CONNECTION, &[organisation, &at, id.as_uuid(), &skip, connection.as_uuid()]).await?
        }
    };
    let next = row.map(|row| {
        let row = Reader { what: WHAT, row: &row };
        Ok::<_, Error>((row.at("requested_at")?, JobId::from_uuid(row.get("job_id")?)))
    });
    Ok(Page { jobs, next: next.transpose()? })
}

/// The order of the list, as its indexes have it.
macro_rules! newest_first {
    ($columns:literal, $which:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM jobs j WHERE j.organisation_id = $1 ",
            $which,
            "AND (j.requested_at, j.job_id) < ($2, $3) ORDER BY j.requested_at DESC, j.job_id DESC ",
            $rest
        )
    };
}

/// Looks at so many rows of the index, and shows those of the kind.
macro_rules! of_a_kind {
    ($looked_at:expr) => {
        concat!(
            select_jobs!("SELECT", "FROM ("),
            $looked_at,
            ") j WHERE (cardinality($5::text[]) = 0 OR j.state = ANY ($5))
                 AND (cardinality($6::text[]) = 0 OR j.trigger = ANY ($6))
             ORDER BY j.requested_at DESC, j.job_id DESC LIMIT $7"
        )
    };
}

const LIST: &str = of_a_kind!(newest_first!("*", "", "LIMIT $4"));
const LIST_OF_CONNECTION: &str = of_a_kind!(newest_first!("*", "AND j.connection_id = $8 ", "LIMIT $4"));
const LAST: &str = newest_first!("j.requested_at, j.job_id", "", "OFFSET $4 LIMIT 1");
const LAST_OF_CONNECTION: &str =
    newest_first!("j.requested_at, j.job_id", "AND j.connection_id = $5 ", "OFFSET $4 LIMIT 1");
