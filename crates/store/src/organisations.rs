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
    /// Hosts that a consent may send the browser back to, in lower case and order.
    pub return_hosts: Vec<String>,
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
    Ok(Organisation {
        organisation_id: OrganisationId::from_uuid(id),
        name: name.to_owned(),
        return_hosts: Vec::new(),
        created_at: now,
    })
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
            "SELECT organisation_id, name, return_hosts, created_at FROM organisations WHERE organisation_id = $1",
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
            "SELECT organisation_id, name, return_hosts, created_at FROM organisations
             ORDER BY created_at DESC, organisation_id DESC LIMIT $1",
            &[&i64::from(limit)],
        )
        .await?;
    rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect()
}

/// Allows and disallows hosts that a consent may send the browser back to; gives the organisation as it stands then,
/// or none when there is no such. A host in both is disallowed.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn change_return_hosts(
    store: &Store,
    organisation_id: OrganisationId,
    allow: &[String],
    disallow: &[String],
) -> Result<Option<Organisation>, Error> {
    const WHAT: &str = "change an organisation's return hosts";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "UPDATE organisations SET return_hosts = ARRAY(
                 SELECT DISTINCT lower(host) FROM unnest(return_hosts || $2::text[]) AS u(host)
                 WHERE lower(host) NOT IN (SELECT lower(gone) FROM unnest($3::text[]) AS v(gone)) ORDER BY 1)
             WHERE organisation_id = $1
             RETURNING organisation_id, name, return_hosts, created_at",
            &[organisation_id.as_uuid(), &allow, &disallow],
        )
        .await?;
    row.map(|row| read(&Reader { what: WHAT, row: &row })).transpose()
}

fn read(row: &Reader<'_>) -> Result<Organisation, Error> {
    Ok(Organisation {
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        name: row.get("name")?,
        return_hosts: row.get("return_hosts")?,
        created_at: row.at("created_at")?,
    })
}
