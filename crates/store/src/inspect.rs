//! Whether the server, the schema and the token keys are as this version needs them, for whoever looks for what is wrong.
//! Nothing is written.

use std::collections::BTreeMap;

use domain::Timestamp;

use crate::row::Reader;
use crate::{Error, Store, migrate, token};

pub use crate::token::{Examined, Use};

/// The server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its version in its own words.
    pub version: String,
    /// Its version as a number: 170002 is 17.2.
    pub version_number: i32,
    /// Whether it is a standby, which takes no writes.
    pub is_standby: bool,
    /// Its clock.
    pub clock: Timestamp,
    /// How many connections it takes from all of its clients.
    pub max_connections: i32,
    /// Whether our schema is there, and we may make tables in it; none: it is not there.
    pub may_create: Option<bool>,
}

/// How the schema compares with this version's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrations {
    /// How many of this version's are in.
    pub applied: usize,
    /// Those of this version that are not, by name.
    pub pending: Vec<String>,
    /// Those that are in and that this version does not know: a later one's.
    pub unknown: Vec<String>,
    /// Those that went in as something else than this version knows under the same number.
    pub changed: Vec<String>,
}

/// Asks the server what it is.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn server(store: &Store) -> Result<Server, Error> {
    const WHAT: &str = "ask what the server is";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int4 AS number,
                    pg_is_in_recovery() AS is_standby, clock_timestamp() AS clock,
                    current_setting('max_connections')::int4 AS max_connections,
                    (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1) AS may_create",
            &[&store.schema()],
        )
        .await?
        .expect("what is asked without a table is one row");
    let row = Reader { what: WHAT, row: &row };
    Ok(Server {
        version: row.get("version")?,
        version_number: row.get("number")?,
        is_standby: row.get("is_standby")?,
        clock: row.at("clock")?,
        max_connections: row.get("max_connections")?,
        may_create: row.get("may_create")?,
    })
}

/// Compares the migrations that are in with those of this version.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn migrations(store: &Store) -> Result<Migrations, Error> {
    const WHAT: &str = "look at the migrations";
    let session = store.session(WHAT).await?;
    let there = session.row("SELECT to_regclass('refinery_schema_history') IS NOT NULL AS is_there", &[]).await?;
    let is_there = there.map(|row| Reader { what: WHAT, row: &row }.get::<bool>("is_there")).transpose()?;
    let mut applied: BTreeMap<i64, (String, String)> = BTreeMap::new();
    if is_there == Some(true) {
        let rows =
            session.rows("SELECT version::int8 AS version, name, checksum FROM refinery_schema_history", &[]).await?;
        for row in &rows {
            let row = Reader { what: WHAT, row };
            applied.insert(row.get("version")?, (row.get("name")?, row.get("checksum")?));
        }
    }
    let mut found = Migrations::default();
    for migration in
        migrate::known().map_err(|source| Error::Migration { schema: store.schema().to_owned(), source })?
    {
        let (version, named) = (i64::from(migration.version()), migration.to_string());
        match applied.remove(&version) {
            None => found.pending.push(named),
            Some((name, checksum)) if name == migration.name() && checksum == migration.checksum().to_string() => {
                found.applied += 1;
            }
            Some(_) => found.changed.push(named),
        }
    }
    found.unknown = applied.into_iter().map(|(version, (name, _))| format!("V{version}__{name}")).collect();
    Ok(found)
}

/// Looks whether the token keys of the settings open what lies under them; none where there are none.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away, [`Error::Refused`] where the schema is not up to date.
pub async fn token_keys(store: &Store) -> Result<Option<Examined>, Error> {
    match &store.token_keys {
        Some(keys) => token::examine(store, keys).await.map(Some),
        None => Ok(None),
    }
}
