//! What is known of the living connections, for whoever has to make anew what the topics held.

use domain::mailbox::record::{Head, NeedsReauth};
use domain::{ConnectionId, ConnectionState, HistoryId, OrganisationId, Timestamp, TokenVersion};
use uuid::Uuid;

use crate::row::Reader;
use crate::{Error, Store};

/// A living connection and what was last projected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    /// The connection.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// When it was made.
    pub created_at: Timestamp,
    /// The version of its refresh token.
    pub token_version: TokenVersion,
    /// The step of its last status; −1: there was none.
    pub step: i64,
    /// The cursor that was last told of, and when Gmail gave it.
    pub synced: Option<Head>,
    /// Set where the last status was that somebody has to consent again.
    pub needs_reauth: Option<NeedsReauth>,
    /// When the last push was taken in.
    pub last_push_at: Option<Timestamp>,
}

/// The next `limit` living connections of all organisations by id, after `after`.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn page(store: &Store, after: Option<ConnectionId>, limit: u32) -> Result<Vec<Living>, Error> {
    const WHAT: &str = "page through living connections";
    let session = store.session(WHAT).await?;
    // No id is nil: they are random.
    let after = after.map_or(Uuid::nil(), |id| *id.as_uuid());
    let rows = session
        .rows(
            "SELECT c.connection_id, c.organisation_id, c.created_at, c.token_version, s.state, s.step,
                    s.last_history_id, s.last_synced_at, s.token_version AS state_token_version, s.changed_at,
                    s.last_push_at
             FROM connections c
             LEFT JOIN connection_states s
               ON s.connection_id = c.connection_id AND s.organisation_id = c.organisation_id AND s.connection_id > $1
             WHERE c.connection_id > $1 AND c.revoked_at IS NULL
             ORDER BY c.connection_id LIMIT $2",
            &[&after, &i64::from(limit)],
        )
        .await?;
    rows.iter().map(|row| living(&Reader { what: WHAT, row })).collect()
}

fn living(row: &Reader<'_>) -> Result<Living, Error> {
    let state: Option<ConnectionState> = row.named_opt("state")?;
    let head = row.get::<Option<&str>>("last_history_id")?.map(str::parse::<HistoryId>).transpose();
    let head = head.map_err(|error| row.unreadable("last_history_id", error))?;
    let synced = head.zip(row.at_opt("last_synced_at")?).map(|(head, taken_at)| Head { head, taken_at });
    let refused = (state == Some(ConnectionState::NeedsReauth)).then(|| -> Result<NeedsReauth, Error> {
        Ok(NeedsReauth {
            token_version: TokenVersion(row.get("state_token_version")?),
            cause: "the grant was gone before the state was lost".to_owned(),
            at: row.at("changed_at")?,
        })
    });
    Ok(Living {
        connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        created_at: row.at("created_at")?,
        token_version: TokenVersion(row.get("token_version")?),
        step: row.get::<Option<i64>>("step")?.unwrap_or(-1),
        synced,
        needs_reauth: refused.transpose()?,
        last_push_at: row.at_opt("last_push_at")?,
    })
}
