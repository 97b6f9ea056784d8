//! How things stand over all organisations, for whoever runs the installation. What it costs is bounded: where counting
//! would mean to read everything, the count stops or is estimated, and says so.

use domain::{ConnectionId, ConnectionState, Duration, OrganisationId, Timestamp};
use uuid::Uuid;

use crate::at::At;
use crate::row::Reader;
use crate::session::{Session, Tx};
use crate::{Error, Store};

/// Rows that are counted one by one at most.
const COUNTED: i64 = 100_000;

/// Jobs that are looked at, at most.
const JOBS: i64 = 200_000;

/// Pages of a table that are looked at for a sum, at most; more are sampled.
const PAGES: i64 = 1_000;

/// How far a number can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// It is that many.
    Exact,
    /// It is that many or more: counting stopped there.
    AtLeast,
    /// It is about that many.
    Estimate,
}

/// A number, and how far it can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The number.
    pub count: u64,
    /// How far it can be relied on.
    pub precision: Precision,
}

/// The connections that are not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// All of them.
    pub all: Count,
    /// Those that wait for somebody to consent again.
    pub needs_reauth: Count,
    /// Those that were set aside.
    pub quarantined: Count,
}

/// Jobs of one state and trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jobs {
    /// The state's name on the wire.
    pub state: String,
    /// The trigger's name on the wire.
    pub trigger: String,
    /// How many.
    pub count: u64,
}

/// A connection whose jobs took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// Whose it is.
    pub organisation_id: OrganisationId,
    /// Which.
    pub connection_id: ConnectionId,
    /// Its jobs of the time that is looked at.
    pub jobs: u64,
    /// Those of them that have not ended.
    pub open: u64,
    /// How long the longest took, or has taken by now.
    pub longest: Duration,
}

/// The jobs asked for in some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// By state and trigger.
    pub jobs: Vec<Jobs>,
    /// The slowest connections, the slowest first.
    pub slowest: Vec<Slow>,
    /// `AtLeast` where there were more than are looked at.
    pub precision: Precision,
}

/// Counts the connections that are not deleted.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn connections(store: &Store) -> Result<Connections, Error> {
    let session = store.session("count the connections").await?;
    Ok(Connections {
        all: living(&session).await?,
        needs_reauth: amiss(&session, ConnectionState::NeedsReauth).await?,
        quarantined: amiss(&session, ConnectionState::Quarantined).await?,
    })
}

/// The living ones: as many as their index has by the server's statistics, counted where those say few.
async fn living(session: &Session) -> Result<Count, Error> {
    const WHAT: &str = "count the connections";
    let row =
        session.row("SELECT reltuples::int8 AS rows FROM pg_class WHERE oid = 'connections_newest'::regclass", &[]);
    let row = row.await?;
    let estimate = row.map(|row| Reader { what: WHAT, row: &row }.get::<i64>("rows")).transpose()?.unwrap_or(-1);
    if estimate > COUNTED {
        return Ok(Count { count: estimate.unsigned_abs(), precision: Precision::Estimate });
    }
    let sql = "SELECT count(*) AS rows FROM (SELECT 1 FROM connections WHERE revoked_at IS NULL LIMIT $1) AS few";
    let row = session.row(sql, &[&(COUNTED + 1)]).await?.expect("a count is one row");
    Ok(counted(Reader { what: WHAT, row: &row }.get("rows")?))
}

/// Those of a state other than active, which an index has.
async fn amiss(session: &Session, state: ConnectionState) -> Result<Count, Error> {
    let sql = "SELECT count(*) AS rows FROM
               (SELECT 1 FROM connection_states WHERE state <> 'active' AND state = $1 LIMIT $2) AS few";
    let row = session.row(sql, &[&state.as_str(), &(COUNTED + 1)]).await?.expect("a count is one row");
    Ok(counted(Reader { what: "count the connections", row: &row }.get("rows")?))
}

fn counted(rows: i64) -> Count {
    let precision = if rows > COUNTED { Precision::AtLeast } else { Precision::Exact };
    Count { count: rows.min(COUNTED).unsigned_abs(), precision }
}

/// The jobs asked for from `since` on, as of `now`, and at most `slowest` connections.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn jobs(store: &Store, since: Timestamp, now: Timestamp, slowest: u32) -> Result<Recent, Error> {
    const WHAT: &str = "look at the latest jobs";
    let mut session = store.session(WHAT).await?;
    let tx = session.transaction().await?;
    // With the limit, reading the table from its begin, its oldest job, may look cheap.
    tx.execute("SET LOCAL enable_seqscan = off", &[]).await?;
    let rows = tx
        .rows(
            "SELECT state, trigger, count(*) AS jobs FROM
             (SELECT state, trigger FROM jobs WHERE requested_at >= $1 LIMIT $2) AS few
             GROUP BY state, trigger ORDER BY state, trigger",
            &[&At(since), &(JOBS + 1)],
        )
        .await?;
    let mut jobs = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = Reader { what: WHAT, row };
        let count = row.get::<i64>("jobs")?.unsigned_abs();
        jobs.push(Jobs { state: row.get("state")?, trigger: row.get("trigger")?, count });
    }
    let is_cut = jobs.iter().map(|jobs| jobs.count).sum::<u64>() > JOBS.unsigned_abs();
    let slowest = slowest_of(&tx, since, now, slowest).await?;
    tx.commit().await?;
    Ok(Recent { jobs, slowest, precision: if is_cut { Precision::AtLeast } else { Precision::Exact } })
}

async fn slowest_of(tx: &Tx<'_>, since: Timestamp, now: Timestamp, most: u32) -> Result<Vec<Slow>, Error> {
    const WHAT: &str = "look for the slowest mailboxes";
    let rows = tx
        .rows(
            "SELECT organisation_id, connection_id, count(*) AS jobs, count(*) FILTER (WHERE ended_at IS NULL) AS open,
                    (extract(epoch FROM max(coalesce(ended_at, $2) - requested_at)) * 1000)::int8 AS longest
             FROM (SELECT organisation_id, connection_id, requested_at, ended_at FROM jobs
                   WHERE requested_at >= $1 LIMIT $3) AS few
             GROUP BY organisation_id, connection_id ORDER BY longest DESC, connection_id LIMIT $4",
            &[&At(since), &At(now), &(JOBS + 1), &i64::from(most)],
        )
        .await?;
    let slow = rows.iter().map(|row| {
        let row = Reader { what: WHAT, row };
        Ok(Slow {
            organisation_id: OrganisationId::from_uuid(row.get::<Uuid>("organisation_id")?),
            connection_id: ConnectionId::from_uuid(row.get::<Uuid>("connection_id")?),
            jobs: row.get::<i64>("jobs")?.unsigned_abs(),
            open: row.get::<i64>("open")?.unsigned_abs(),
            longest: Duration::from_millis(row.get("longest")?),
        })
    });
    slow.collect()
}

/// Quota units that the poller spent on all mailboxes on a day that began after `since`; an estimate from a sample where
/// there are many.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn units(store: &Store, since: Timestamp) -> Result<Count, Error> {
    const WHAT: &str = "add up the units of the day";
    let session = store.session(WHAT).await?;
    let row = session.row("SELECT pg_relation_size('connection_states') / 8192 AS pages", &[]).await?;
    let pages: i64 = row.map(|row| Reader { what: WHAT, row: &row }.get("pages")).transpose()?.unwrap_or(0);
    let part = if pages <= PAGES { 1.0 } else { PAGES as f64 / pages as f64 };
    let row = session
        .row(
            "SELECT coalesce(sum(units_today), 0)::int8 AS units FROM connection_states TABLESAMPLE SYSTEM ($1)
             WHERE units_day > $2",
            &[&((part * 100.0) as f32), &At(since)],
        )
        .await?
        .expect("a sum is one row");
    let units: i64 = Reader { what: WHAT, row: &row }.get("units")?;
    let precision = if pages <= PAGES { Precision::Exact } else { Precision::Estimate };
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "units spent are not negative, and few"
    )]
    Ok(Count { count: (units as f64 / part) as u64, precision })
}
