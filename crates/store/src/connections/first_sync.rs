//! Syncs that a consent owes, until a broker has acknowledged their commands.

use domain::{ConnectionId, OrganisationId, Timestamp, TokenVersion};

use super::Connection;
use crate::at::At;
use crate::row::Reader;
use crate::session::Tx;
use crate::{Error, Store};

/// What a consent owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstSync {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The refresh token that the consent gave.
    pub token_version: TokenVersion,
    /// How far back it reaches; none: no further than a sync does by itself.
    pub since: Option<Timestamp>,
}

/// Notes it; what an earlier consent of the connection owed goes on to be owed.
pub(super) async fn owe(
    tx: &Tx<'_>,
    connection: &Connection,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO first_syncs AS f (connection_id, organisation_id, token_version, since, owed_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (connection_id) DO UPDATE SET token_version = excluded.token_version,
             since = least(f.since, excluded.since), owed_at = excluded.owed_at",
        &[
            connection.connection_id.as_uuid(),
            connection.organisation_id.as_uuid(),
            &connection.token_version.0,
            &since.map(At),
            &At(now),
        ],
    )
    .await
    .map(drop)
}

/// Notes that the commands of a first sync are acknowledged; what a newer consent owes stays. Repeatable.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn first_sync_done(store: &Store, done: &FirstSync) -> Result<(), Error> {
    let session = store.session("note a first sync as begun").await?;
    session
        .execute(
            "DELETE FROM first_syncs WHERE organisation_id = $1 AND connection_id = $2 AND token_version <= $3",
            &[done.organisation_id.as_uuid(), done.connection_id.as_uuid(), &done.token_version.0],
        )
        .await
        .map(drop)
}

/// At most `limit` first syncs of living connections of all organisations that are owed since before `before`, longest
/// first: those whose commands a broker never acknowledged.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn first_syncs_owed(store: &Store, before: Timestamp, limit: u32) -> Result<Vec<FirstSync>, Error> {
    const WHAT: &str = "list first syncs that are owed";
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT f.connection_id, f.organisation_id, f.token_version, f.since FROM first_syncs f
             JOIN connections c USING (organisation_id, connection_id)
             WHERE f.owed_at < $1 AND c.revoked_at IS NULL ORDER BY f.owed_at LIMIT $2",
            &[&At(before), &i64::from(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let row = Reader { what: WHAT, row };
            Ok(FirstSync {
                connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
                organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
                token_version: TokenVersion(row.get("token_version")?),
                since: row.at_opt("since")?,
            })
        })
        .collect()
}
