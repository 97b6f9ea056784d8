//! What the fetcher has to know of connections and their organisations.

use domain::{ConnectionId, FetchFilter, OrganisationId, TokenVersion};
use uuid::Uuid;

use crate::row::Reader;
use crate::{Error, Store};

/// What the fetcher reads a connection's messages by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What its organisation wants fetched.
    pub filter: FetchFilter,
    /// Which refresh token it has.
    pub token_version: TokenVersion,
}

/// By what an organisation's living connection is read; none where there is no such connection.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away, [`Error::Unreadable`] when the filter is none.
pub async fn terms(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
) -> Result<Option<Terms>, Error> {
    const WHAT: &str = "read what of a connection is to be fetched";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT o.fetch_filter::text AS fetch_filter, c.token_version
             FROM connections c JOIN organisations o USING (organisation_id)
             WHERE c.organisation_id = $1 AND c.connection_id = $2 AND c.revoked_at IS NULL",
            &[organisation_id.as_uuid(), connection_id.as_uuid()],
        )
        .await?;
    let read = |row| {
        let row = Reader { what: WHAT, row: &row };
        Ok(Terms { filter: read(&row)?, token_version: TokenVersion(row.get("token_version")?) })
    };
    row.map(read).transpose()
}

/// What an organisation wants fetched; none where there is no such organisation.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away, [`Error::Unreadable`] when the filter is none.
pub async fn filter(store: &Store, organisation_id: OrganisationId) -> Result<Option<FetchFilter>, Error> {
    const WHAT: &str = "read an organisation's filter";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT fetch_filter::text AS fetch_filter FROM organisations WHERE organisation_id = $1",
            &[organisation_id.as_uuid()],
        )
        .await?;
    row.map(|row| read(&Reader { what: WHAT, row: &row })).transpose()
}

/// Says what an organisation wants fetched; false where there is no such organisation.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn set_filter(store: &Store, organisation_id: OrganisationId, filter: &FetchFilter) -> Result<bool, Error> {
    let session = store.session("change an organisation's filter").await?;
    let text = serde_json::to_string(filter).expect("a filter is made of texts");
    let text = (!filter.is_empty()).then_some(text);
    let changed = session
        .execute(
            "UPDATE organisations SET fetch_filter = $2::text::jsonb WHERE organisation_id = $1",
            &[organisation_id.as_uuid(), &text],
        )
        .await?;
    Ok(changed > 0)
}

/// Which refresh tokens these connections have now; those that live no more are left out.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn token_versions(
    store: &Store,
    connections: &[(OrganisationId, ConnectionId)],
) -> Result<Vec<(ConnectionId, TokenVersion)>, Error> {
    const WHAT: &str = "read the versions of refresh tokens";
    let (organisations, ids): (Vec<Uuid>, Vec<Uuid>) =
        connections.iter().map(|(organisation, id)| (*organisation.as_uuid(), *id.as_uuid())).unzip();
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT c.connection_id, c.token_version
             FROM unnest($1::uuid[], $2::uuid[]) AS wanted(organisation_id, connection_id)
             JOIN connections c USING (organisation_id, connection_id)
             WHERE c.revoked_at IS NULL",
            &[&organisations, &ids],
        )
        .await?;
    let read = |row: &tokio_postgres::Row| {
        let row = Reader { what: WHAT, row };
        Ok((ConnectionId::from_uuid(row.get("connection_id")?), TokenVersion(row.get("token_version")?)))
    };
    rows.iter().map(read).collect()
}

fn read(row: &Reader<'_>) -> Result<FetchFilter, Error> {
    match row.get::<Option<&str>>("fetch_filter")? {
        None => Ok(FetchFilter::default()),
        Some(text) => serde_json::from_str(text).map_err(|error| row.unreadable("fetch_filter", error)),
    }
}
