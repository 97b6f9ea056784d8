//! Connections: the mailboxes of an organisation and their refresh tokens.

mod change;
mod first_sync;

use std::fmt;
use std::ops::ControlFlow;

use domain::{ConnectionId, ConnectionState, HistoryId, OrganisationId, Timestamp, TokenVersion};
use secrecy::SecretString;

use crate::at::At;
use crate::row::Reader;
use crate::token::{Sealed, bound_to};
use crate::{Error, Store};

pub use change::{Change, Connected, Leaving, add, change, connect, delegate, delete, forget, last_grant, leaving};
pub use first_sync::{FirstSync, first_sync_done, first_syncs_owed};

/// A connection as it stands: what was set up, and what the topics say of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// Google's account, whose quota its calls spend.
    pub account: String,
    /// Its address.
    pub email: String,
    /// How it fares. `Active` as soon as the token was renewed, though the poller has not seen it yet.
    pub state: ConnectionState,
    /// Counts its refresh tokens.
    pub token_version: TokenVersion,
    /// The head of the newest complete walk.
    pub last_history_id: Option<HistoryId>,
    /// When the newest complete walk began.
    pub last_synced_at: Option<Timestamp>,
    /// The dotted code of what is wrong, if something is.
    pub code: Option<String>,
    /// How often it is synced without being asked, in hours; none: as often as the installation says.
    pub sync_interval_hours: Option<u8>,
    /// Whether the schedule leaves it alone.
    pub paused: bool,
    /// Until when Gmail pushes its changes.
    pub watch_expires_at: Option<Timestamp>,
    /// When its last push was taken in.
    pub last_push_at: Option<Timestamp>,
    /// Quota units that the poller spent on it on a day, and when that day began: midnight Pacific standard time.
    pub units: Option<(i64, Timestamp)>,
    /// When it was connected.
    pub created_at: Timestamp,
}

/// Addresses stay out of logs.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("connection_id", &self.connection_id)
            .field("organisation_id", &self.organisation_id)
            .field("state", &self.state)
            .field("token_version", &self.token_version)
            .finish_non_exhaustive()
    }
}

/// A consent: whose mailbox, and the refresh token that opens it.
pub struct Consent<'a> {
    /// Google's account, whose quota is counted: its address, in any case. Two consents with the same one are one mailbox.
    pub account: &'a str,
    /// The mailbox's address.
    pub email: &'a str,
    /// The refresh token.
    pub refresh_token: &'a SecretString,
}

/// A refresh token as the poller needs it.
pub struct Grant {
    /// Google's account.
    pub account: String,
    /// The mailbox's address.
    pub email: String,
    /// The refresh token; empty where the mailbox is delegated.
    pub refresh_token: SecretString,
    /// Whether a service account reads the mailbox for its domain, and there is no refresh token.
    pub is_delegated: bool,
    /// Which of the connection's tokens it is.
    pub token_version: TokenVersion,
    /// How the connection fares.
    pub state: ConnectionState,
    /// How many living connections, of all organisations, share the account: each has 1/n of its budget.
    pub shares: u32,
}

/// Neither the token nor the address prints.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("token_version", &self.token_version)
            .field("state", &self.state)
            .field("shares", &self.shares)
            .finish_non_exhaustive()
    }
}

/// What whoever writes commands needs to know of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// Which refresh token it has.
    pub token_version: TokenVersion,
    /// How it fares.
    pub state: ConnectionState,
    /// How often it is synced; none: as often as the installation says.
    pub interval: Option<domain::Duration>,
}

/// The organisation's living connection with this id.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn find(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
) -> Result<Option<Connection>, Error> {
    const WHAT: &str = "find a connection";
    let session = store.session(WHAT).await?;
    let row = session.row(FIND, &[organisation_id.as_uuid(), connection_id.as_uuid()]).await?;
    row.map(|row| read(&Reader { what: WHAT, row: &row })).transpose()
}

/// At most `limit` living connections of an organisation, newest first, after the one that a page ended with.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn list(
    store: &Store,
    organisation_id: OrganisationId,
    after: Option<(Timestamp, ConnectionId)>,
    limit: u32,
) -> Result<Vec<Connection>, Error> {
    const WHAT: &str = "list connections";
    let session = store.session(WHAT).await?;
    let organisation = organisation_id.as_uuid();
    let rows = match after {
        None => session.rows(LIST, &[organisation, &i64::from(limit)]).await?,
        Some((created_at, id)) => {
            session.rows(LIST_AFTER, &[organisation, &i64::from(limit), &At(created_at), id.as_uuid()]).await?
        }
    };
    rows.iter().map(|row| read(&Reader { what: WHAT, row })).collect()
}

/// The refresh token of a living connection.
///
/// # Errors
/// [`Error::TokenKey`] when the settings' keys do not open it, [`Error::Settings`] without a token key,
/// [`Error::Unavailable`] while Postgres is away.
pub async fn refresh_token(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
) -> Result<Option<Grant>, Error> {
    const WHAT: &str = "read a refresh token";
    let keys = store.token_keys()?;
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT c.account, c.email, c.token_version, c.token_ciphertext, c.token_nonce, c.token_key_id,
                    c.is_delegated, s.state,
                    s.token_version AS state_token_version,
                    (SELECT count(*) FROM connections o WHERE o.account = c.account AND o.revoked_at IS NULL) AS shares
             FROM connections c
             LEFT JOIN connection_states s USING (organisation_id, connection_id)
             WHERE c.organisation_id = $1 AND c.connection_id = $2 AND c.revoked_at IS NULL",
            &[organisation_id.as_uuid(), connection_id.as_uuid()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let row = Reader { what: WHAT, row: &row };
    let sealed = Sealed {
        key_id: row.get("token_key_id")?,
        nonce: row.get("token_nonce")?,
        ciphertext: row.get("token_ciphertext")?,
    };
    let refresh_token = keys
        .open(&sealed, &bound_to(organisation_id, connection_id))
        .map_err(|reason| Error::TokenKey { what: WHAT, reason })?;
    let token_version = TokenVersion(row.get("token_version")?);
    Ok(Some(Grant {
        account: row.get("account")?,
        email: row.get("email")?,
        refresh_token,
        is_delegated: row.get("is_delegated")?,
        token_version,
        state: state(&row, token_version)?,
        shares: u32::try_from(row.get::<i64>("shares")?).unwrap_or(u32::MAX),
    }))
}

/// Brings every living connection of all organisations that is not paused, once each and in no order, to `each`, at most
/// `limit` at a time, until it breaks off: the scheduler's pass. All are as they were when it began.
///
/// The rows are read in the order in which they lie on the disk, by one statement whose answer is fetched in parts. Ids are
/// random, so that going through them in order would jump about in both tables for every single one, and cost the more the
/// less of them Postgres holds in memory. Each part is a statement of its own to the time-out.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn pass(store: &Store, limit: u16, mut each: impl FnMut(&[Due]) -> ControlFlow<()>) -> Result<(), Error> {
    const WHAT: &str = "pass over the connections";
    let mut session = store.session(WHAT).await?;
    let transaction = session.transaction().await?;
    let answer = transaction
        .bind(
            "SELECT c.connection_id, c.organisation_id, c.token_version, c.sync_interval_hours, s.state,
                    s.token_version AS state_token_version
             FROM connections c LEFT JOIN connection_states s USING (connection_id, organisation_id)
             WHERE c.revoked_at IS NULL AND NOT c.paused",
            &[],
        )
        .await?;
    let mut connections = Vec::with_capacity(limit.into());
    loop {
        let rows = transaction.fetch(&answer, limit).await?;
        for row in &rows {
            connections.push(due(&Reader { what: WHAT, row })?);
        }
        if each(&connections).is_break() || rows.len() < usize::from(limit) {
            return transaction.commit().await;
        }
        connections.clear();
    }
}

/// The living connections of an address, of all organisations, that are not paused: whom a push concerns. At most
/// `limit`, the oldest first.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn of_address(store: &Store, address: &str, limit: u32) -> Result<Vec<Due>, Error> {
    const WHAT: &str = "find the connections of an address";
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT c.connection_id, c.organisation_id, c.token_version, c.sync_interval_hours, s.state,
                    s.token_version AS state_token_version
             FROM connections c
             LEFT JOIN connection_states s USING (organisation_id, connection_id)
             WHERE c.account = lower($1) AND c.revoked_at IS NULL AND NOT c.paused
             ORDER BY c.created_at, c.connection_id LIMIT $2",
            &[&address, &i64::from(limit)],
        )
        .await?;
    rows.iter().map(|row| due(&Reader { what: WHAT, row })).collect()
}

fn due(row: &Reader<'_>) -> Result<Due, Error> {
    let token_version = TokenVersion(row.get("token_version")?);
    Ok(Due {
        connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        token_version,
        state: state(row, token_version)?,
        interval: hours(row)?.map(|hours| domain::Duration::from_hours(hours.into())),
    })
}

/// The longest interval that a living connection has of its own: the scheduler must not look back by less.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn longest_interval(store: &Store) -> Result<Option<domain::Duration>, Error> {
    const WHAT: &str = "read the longest interval";
    let session = store.session(WHAT).await?;
    let sql = "SELECT max(sync_interval_hours) AS sync_interval_hours FROM connections
               WHERE revoked_at IS NULL AND sync_interval_hours IS NOT NULL";
    let row = session.row(sql, &[]).await?;
    let hours = row.map(|row| hours(&Reader { what: WHAT, row: &row })).transpose()?.flatten();
    Ok(hours.map(|hours| domain::Duration::from_hours(hours.into())))
}

macro_rules! select_connections {
    ($rest:literal) => {
        concat!(
            "SELECT c.connection_id, c.organisation_id, c.account, c.email, c.token_version, c.sync_interval_hours,
                    c.paused, c.created_at, s.state, s.token_version AS state_token_version, s.last_history_id,
                    s.last_synced_at, s.code, s.watch_expires_at, s.last_push_at, s.units_today, s.units_day
             FROM connections c
             LEFT JOIN connection_states s USING (organisation_id, connection_id)
             WHERE c.organisation_id = $1 AND c.revoked_at IS NULL ",
            $rest
        )
    };
}

const FIND: &str = select_connections!("AND c.connection_id = $2");
const LIST: &str = select_connections!("ORDER BY c.created_at DESC, c.connection_id DESC LIMIT $2");
const LIST_AFTER: &str = select_connections!(
    "AND (c.created_at, c.connection_id) < ($3, $4) ORDER BY c.created_at DESC, c.connection_id DESC LIMIT $2"
);

fn read(row: &Reader<'_>) -> Result<Connection, Error> {
    let token_version = TokenVersion(row.get("token_version")?);
    let state = state(row, token_version)?;
    let last_history_id = row.get::<Option<&str>>("last_history_id")?.map(str::parse).transpose();
    Ok(Connection {
        connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        account: row.get("account")?,
        email: row.get("email")?,
        state,
        token_version,
        last_history_id: last_history_id.map_err(|error| row.unreadable("last_history_id", error))?,
        last_synced_at: row.at_opt("last_synced_at")?,
        code: if state == ConnectionState::Active { None } else { row.get("code")? },
        sync_interval_hours: hours(row)?,
        paused: row.get("paused")?,
        watch_expires_at: row.at_opt("watch_expires_at")?,
        last_push_at: row.at_opt("last_push_at")?,
        units: row.get::<Option<i64>>("units_today")?.zip(row.at_opt("units_day")?),
        created_at: row.at("created_at")?,
    })
}

/// A connection's own interval.
fn hours(row: &Reader<'_>) -> Result<Option<u8>, Error> {
    let hours: Option<i16> = row.get("sync_interval_hours")?;
    hours.map(u8::try_from).transpose().map_err(|error| row.unreadable("sync_interval_hours", error))
}

/// How a connection fares: what the poller said, unless it said so of an earlier token.
fn state(row: &Reader<'_>, token_version: TokenVersion) -> Result<ConnectionState, Error> {
    let said: Option<ConnectionState> = row.named_opt("state")?;
    let of = row.get::<Option<i64>>("state_token_version")?.map(TokenVersion);
    Ok(match said {
        Some(ConnectionState::NeedsReauth) if of < Some(token_version) => ConnectionState::Active,
        Some(said) => said,
        None => ConnectionState::Active,
    })
}
