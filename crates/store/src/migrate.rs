//! Brings the schema up to date, one process at a time.

use std::time::Duration;

use refinery::{Migration, Runner};
use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::Error;
use crate::settings::Target;

/// Every migration ever released, in order. What is released never changes; a change is a new file.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__first", include_str!("../migrations/V1__first.sql")),
    ("V2__consents", include_str!("../migrations/V2__consents.sql")),
    ("V3__idempotency", include_str!("../migrations/V3__idempotency.sql")),
    ("V4__watch_and_quota", include_str!("../migrations/V4__watch_and_quota.sql")),
    ("V6__delegation", include_str!("../migrations/V6__delegation.sql")),
    ("V7__sealed", include_str!("../migrations/V7__sealed.sql")),
    ("V8__fetch_filter", include_str!("../migrations/V8__fetch_filter.sql")),
    ("V9__overview", include_str!("../migrations/V9__overview.sql")),
];

/// How long one migration may work, and how long a process waits for another's.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(target: &Target) -> Result<(), Error> {
    const WHAT: &str = "open the connection that migrates";
    // A connection of its own: outside of the pool's time-outs, and its lock goes when it goes.
    let (mut client, connection) =
        target.config.connect(target.tls.clone()).await.map_err(|error| Error::of(WHAT, error))?;
    let connection = tokio::spawn(connection);
    let result = under_lock(&mut client, target).await;
    drop(client);
    // The connection ends when its client is gone; what it has to say, the client has said.
    connection.await.ok();
    result
}

async fn under_lock(client: &mut Client, target: &Target) -> Result<(), Error> {
    const WHAT: &str = "wait for the lock on the migrations";
    let patience = format!("SET statement_timeout = {}", PATIENCE.as_millis());
    client.batch_execute(&patience).await.map_err(|error| Error::of(WHAT, error))?;
    // A lock of the session, in the database's one space of numbers: the number is made from a name.
    client
        .execute("SELECT pg_advisory_lock($1)", &[&lock_number(&target.schema)])
        .await
        .map_err(|error| Error::of(WHAT, error))?;
    make_schema(client, &target.schema).await?;
    let failed = |source: refinery::Error| Error::Migration { schema: target.schema.clone(), source: source.into() };
    let migrations = known().map_err(|source| Error::Migration { schema: target.schema.clone(), source })?;
    let report = Runner::new(&migrations)
        .set_abort_divergent(true)
        // An instance of the previous version that restarts during an upgrade finds migrations it does not know.
        .set_abort_missing(false)
        .run_async(client)
        .await
        .map_err(failed)?;
    for migration in report.applied_migrations() {
        tracing::info!(schema = target.schema, version = migration.version(), name = migration.name(), "Migrated");
    }
    Ok(())
}

/// Every migration of this version, in order.
pub(crate) fn known() -> Result<Vec<Migration>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(MIGRATIONS.iter().map(|(name, sql)| Migration::unapplied(name, sql)).collect::<Result<_, _>>()?)
}

/// Asks before it makes: `CREATE SCHEMA IF NOT EXISTS` wants the right to create even where there is nothing to do.
async fn make_schema(client: &Client, schema: &str) -> Result<(), Error> {
    const WHAT: &str = "make the schema";
    let there = client
        .query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .map_err(|error| Error::of(WHAT, error))?;
    if there.is_none() {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(|error| Error::of(WHAT, error))?;
    }
    Ok(())
}

fn lock_number(schema: &str) -> i64 {
    let hash = Sha256::digest(format!("mailtide migrations of {schema}"));
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}
