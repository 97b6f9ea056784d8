//! Organisations: the tenants.

use domain::{OrganisationId, Timestamp};
use uuid::Uuid;

use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// Its id.
    pub organisation_id: OrganisationId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Makes an organisation under a random id.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn create(store: &Store, name: &str, now: Timestamp) -> Result<Organisation, Error> {
    let id = Uuid::new_v4();
    let session = store.session("create an organisation").await?;
    session
        .execute(
            "INSERT INTO organisations (organisation_id, name, created_at) VALUES ($1, $2, $3)",
            &[&id, &name, &At(now)],
        )
        .await?;
    Ok(Organisation { organisation_id: OrganisationId::from_uuid(id), name: name.to_owned(), created_at: now })
}

/// The organisation with this id.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn find(store: &Store, organisation_id: OrganisationId) -> Result<Option<Organisation>, Error> {
    const WHAT: &str = "find an organisation";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT organisation_id, name, created_at FROM organisations WHERE organisation_id = $1",
            &[organisation_id.as_uuid()],
        )
        .await?;
    row.map(|row| read(&Reader { what: WHAT, row: &row })).transpose()
}

/// At most `limit` organisations, newest first: for operators.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn list(store: &Store, limit: u32) -> Result<Vec<Organisation>, Error> {
    const WHAT: &str = "list organisations";
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT organisation_id, name, created_at FROM organisations
             ORDER BY created_at DESC, organisation_id DESC LIMIT $1",
            &[&i64::from(limit)],
        )
        .await?;
    rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect()
}

fn read(row: &Reader<'_>) -> Result<Organisation, Error> {
    Ok(Organisation {
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        name: row.get("name")?,
        created_at: row.at("created_at")?,
    })
}
