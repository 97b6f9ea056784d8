//! The projector's side: facts from the topics become rows, in one transaction with the offsets of what was read.

use std::collections::BTreeMap;

use domain::{ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, JobState, Timestamp};

use crate::at::At;
use crate::jobs::{self, NO_FACT};
use crate::session::Tx;
use crate::{Error, Store};

/// Where a projection stands in a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The topic, with its prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the first record not yet in the rows.
    pub next_offset: i64,
}

/// The projection that the projector writes: jobs, and what connections are.
pub const JOBS: &str = "jobs";

/// What the projector is listed as among those that read topics: its offsets are here, with what it wrote for them.
pub const READER: &str = "projector (in Postgres)";

/// A step of a projection in a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// The topic, with its prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where the writer believes that the projection stands; none: it has not begun.
    pub expected: Option<i64>,
    /// The offset of the first record after the batch.
    pub next_offset: i64,
}

/// Facts in the order in which they were read, and the offsets that they take the projection to.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Facts about jobs.
    pub jobs: Vec<GmailJobStatusChanged>,
    /// Facts about connections.
    pub connections: Vec<GmailConnectionStatusChanged>,
    /// One for every partition that was read.
    pub moves: Vec<Move>,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Rows of jobs made or changed.
    pub jobs: u64,
    /// Rows of connections made or changed.
    pub connections: u64,
}

/// Where `projection` stands, in every partition that it has begun.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn positions(store: &Store, projection: &str) -> Result<Vec<Position>, Error> {
    let session = store.session("read the projection's positions").await?;
    let rows = session
        .rows(
            "SELECT topic, partition, next_offset FROM projector_offsets WHERE projection = $1
             ORDER BY topic, partition",
            &[&projection],
        )
        .await?;
    Ok(rows.iter().map(|row| Position { topic: row.get(0), partition: row.get(1), next_offset: row.get(2) }).collect())
}

/// Writes a batch: rows and offsets in one transaction. Facts may come twice or out of order; only a later one
/// changes a row, and a job that has ended never changes.
///
/// # Errors
/// [`Error::Fenced`] when the projection does not stand where the batch expects it; nothing is written then.
/// [`Error::Unavailable`] while Postgres is away; whether the batch was written is not known then, so read the
/// positions before going on.
pub async fn apply(store: &Store, projection: &str, batch: Batch) -> Result<Applied, Error> {
    let Batch { jobs, connections, mut moves } = batch;
    // Everything in one order, so that writers that share rows wait for each other and do not deadlock.
    moves.sort_unstable();
    let jobs = fold_jobs(jobs);
    let connections = fold_connections(connections);
    let _span = crate::trace::statement("INSERT jobs connection_states");
    let mut session = store.session("apply a batch of facts").await?;
    let tx = session.transaction().await?;
    move_offsets(&tx, projection, &moves).await?;
    let applied = Applied {
        jobs: if jobs.is_empty() { 0 } else { upsert_jobs(&tx, &jobs).await? },
        connections: if connections.is_empty() { 0 } else { upsert_connections(&tx, &connections).await? },
    };
    tx.commit().await?;
    Ok(applied)
}

/// Forgets what the topics can tell again, so that reading them from their start gives the same rows: positions,
/// the states of connections, and the jobs asked for since `retained_since`, from when on the job topic is whole in
/// every partition. Kept are older jobs (the facts that are left of one cannot change its row), jobs that no fact
/// has reached yet, and connections that were forgotten, whose records are gone. A projector that still runs is
/// fenced.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn wipe(store: &Store, projection: &str, retained_since: Timestamp) -> Result<(), Error> {
    let mut session = store.session("wipe the projection").await?;
    let tx = session.transaction().await?;
    tx.execute("DELETE FROM projector_offsets WHERE projection = $1", &[&projection]).await?;
    tx.execute("DELETE FROM connection_states WHERE state <> $1", &[&ConnectionState::Forgotten.as_str()]).await?;
    tx.execute("DELETE FROM jobs WHERE requested_at >= $1 AND step <> $2", &[&At(retained_since), &NO_FACT]).await?;
    tx.commit().await
}

/// Forgets where a projection stands in these topics, so that they are read from their start. The rows stay: facts that
/// were read before change nothing. A projector that still runs is fenced.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn forget_positions(store: &Store, projection: &str, topics: &[String]) -> Result<(), Error> {
    let session = store.session("forget where the projection stands").await?;
    session
        .execute("DELETE FROM projector_offsets WHERE projection = $1 AND topic = ANY($2)", &[&projection, &topics])
        .await
        .map(drop)
}

/// Compares and moves. A partition that another writer has moved meanwhile is told by name.
async fn move_offsets(tx: &Tx<'_>, projection: &str, moves: &[Move]) -> Result<(), Error> {
    let topics: Vec<&str> = moves.iter().map(|step| step.topic.as_str()).collect();
    let partitions: Vec<i32> = moves.iter().map(|step| step.partition).collect();
    let expected: Vec<Option<i64>> = moves.iter().map(|step| step.expected).collect();
    let next: Vec<i64> = moves.iter().map(|step| step.next_offset).collect();
    // A conflicting insert waits for the other writer to end and then finds its row; a row that the update waited
    // for is compared again as it stands then (read committed).
    let moved = tx
        .rows(
            "WITH step AS (
                 SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[])
                     AS u(topic, partition, expected, next_offset)),
             begun AS (
                 INSERT INTO projector_offsets (projection, topic, partition, next_offset)
                 SELECT $1, topic, partition, next_offset FROM step WHERE expected IS NULL
                 ON CONFLICT DO NOTHING
                 RETURNING topic, partition),
             moved AS (
                 UPDATE projector_offsets o SET next_offset = step.next_offset FROM step
                 WHERE o.projection = $1 AND o.topic = step.topic AND o.partition = step.partition
                   AND o.next_offset = step.expected
                 RETURNING o.topic, o.partition)
             SELECT topic, partition FROM begun UNION ALL SELECT topic, partition FROM moved",
            &[&projection, &topics, &partitions, &expected, &next],
        )
        .await?;
    let moved: Vec<(&str, i32)> = moved.iter().map(|row| (row.get(0), row.get(1))).collect();
    let lost = moves.iter().find(|step| !moved.contains(&(step.topic.as_str(), step.partition)));
    match lost {
        None => Ok(()),
        Some(step) => Err(Error::Fenced {
            projection: projection.to_owned(),
            topic: step.topic.clone(),
            partition: step.partition,
            expected: step.expected,
        }),
    }
}

async fn upsert_jobs(tx: &Tx<'_>, jobs: &[GmailJobStatusChanged]) -> Result<u64, Error> {
    fn column<'a, T>(jobs: &'a [GmailJobStatusChanged], of: impl Fn(&'a GmailJobStatusChanged) -> T) -> Vec<T> {
        jobs.iter().map(of).collect()
    }
    tx.execute(
        "INSERT INTO jobs AS j (job_id, organisation_id, connection_id, trigger, state, rank, step, progress,
                                requested_at, started_at, ended_at, deadline, code, detail, changed_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::smallint[], $7::bigint[],
                              $8::jsonb[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[],
                              $12::timestamptz[], $13::text[], $14::text[], $15::timestamptz[])
         ON CONFLICT (job_id) DO UPDATE SET
             trigger = excluded.trigger, state = excluded.state, rank = excluded.rank, step = excluded.step,
             progress = excluded.progress, requested_at = excluded.requested_at, started_at = excluded.started_at,
             ended_at = excluded.ended_at, deadline = excluded.deadline, code = excluded.code,
             detail = excluded.detail, changed_at = excluded.changed_at
         WHERE j.organisation_id = excluded.organisation_id
           AND j.rank < $16 AND (j.rank, j.step) < (excluded.rank, excluded.step)",
        &[
            &column(jobs, |job| job.job_id.as_uuid()),
            &column(jobs, |job| job.organisation_id.as_uuid()),
            &column(jobs, |job| job.connection_id.as_uuid()),
            &column(jobs, |job| job.trigger.as_str()),
            &column(jobs, |job| job.state.as_str()),
            &column(jobs, |job| job.state.rank()),
            &column(jobs, |job| job.step),
            &column(jobs, |job| jobs::to_json(&job.progress)),
            &column(jobs, |job| At(job.requested_at)),
            &column(jobs, |job| job.started_at.map(At)),
            &column(jobs, |job| job.ended_at.map(At)),
            &column(jobs, |job| At(job.deadline)),
            &column(jobs, |job| job.code.as_deref().map(storable)),
            &column(jobs, |job| job.detail.as_deref().map(storable)),
            &column(jobs, |job| At(job.at)),
            &JobState::Succeeded.rank(),
        ],
    )
    .await
}

async fn upsert_connections(tx: &Tx<'_>, facts: &[GmailConnectionStatusChanged]) -> Result<u64, Error> {
    fn column<'a, T>(
        facts: &'a [GmailConnectionStatusChanged],
        of: impl Fn(&'a GmailConnectionStatusChanged) -> T,
    ) -> Vec<T> {
        facts.iter().map(of).collect()
    }
    tx.execute(
        "INSERT INTO connection_states AS s (connection_id, organisation_id, state, step, last_history_id,
                                             last_synced_at, token_version, code, changed_at, watch_expires_at,
                                             last_push_at, units_today, units_day)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[],
                              $7::bigint[], $8::text[], $9::timestamptz[], $11::timestamptz[], $12::timestamptz[],
                              $13::bigint[], $14::timestamptz[])
         ON CONFLICT (connection_id) DO UPDATE SET
             state = excluded.state, step = excluded.step, last_history_id = excluded.last_history_id,
             last_synced_at = excluded.last_synced_at, token_version = excluded.token_version, code = excluded.code,
             changed_at = excluded.changed_at, watch_expires_at = excluded.watch_expires_at,
             last_push_at = excluded.last_push_at, units_today = excluded.units_today, units_day = excluded.units_day
         WHERE s.organisation_id = excluded.organisation_id AND s.state <> $10
           AND (s.state = $10, s.step) < (excluded.state = $10, excluded.step)",
        &[
            &column(facts, |fact| fact.connection_id.as_uuid()),
            &column(facts, |fact| fact.organisation_id.as_uuid()),
            &column(facts, |fact| fact.status.as_str()),
            &column(facts, |fact| fact.step),
            &column(facts, |fact| fact.last_history_id.map(|id| id.to_string())),
            &column(facts, |fact| fact.last_synced_at.map(At)),
            &column(facts, |fact| fact.token_version.0),
            &column(facts, |fact| fact.code.as_deref().map(storable)),
            &column(facts, |fact| At(fact.at)),
            &ConnectionState::Forgotten.as_str(),
            &column(facts, |fact| fact.watch_expires_at.map(At)),
            &column(facts, |fact| fact.last_push_at.map(At)),
            &column(facts, |fact| fact.units_today),
            &column(facts, |fact| fact.units_day.map(At)),
        ],
    )
    .await
}

/// One fact for each job, by the rule of the rows, in the order of ids.
fn fold_jobs(facts: Vec<GmailJobStatusChanged>) -> Vec<GmailJobStatusChanged> {
    let mut folded = BTreeMap::new();
    for fact in facts {
        let rank = |fact: &GmailJobStatusChanged| (fact.state.rank(), fact.step);
        match folded.entry(fact.job_id) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(fact);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let stands: &GmailJobStatusChanged = entry.get();
                if !stands.state.is_terminal() && rank(stands) < rank(&fact) {
                    entry.insert(fact);
                }
            }
        }
    }
    folded.into_values().collect()
}

/// One fact for each connection, by the rule of the rows, in the order of ids.
fn fold_connections(facts: Vec<GmailConnectionStatusChanged>) -> Vec<GmailConnectionStatusChanged> {
    let mut folded: BTreeMap<_, GmailConnectionStatusChanged> = BTreeMap::new();
    for fact in facts {
        let rank = |fact: &GmailConnectionStatusChanged| (fact.status == ConnectionState::Forgotten, fact.step);
        match folded.get(&fact.connection_id) {
            Some(stands) if stands.status == ConnectionState::Forgotten || rank(stands) >= rank(&fact) => {}
            _ => {
                folded.insert(fact.connection_id, fact);
            }
        }
    }
    folded.into_values().collect()
}

/// Postgres's text holds every character but NUL; a fact with one must not stop the projection.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
