//! Connections: the mailboxes of an organisation and their refresh tokens.

use std::fmt;

use domain::{ConnectionId, ConnectionState, HistoryId, OrganisationId, Timestamp, TokenVersion};
use secrecy::SecretString;
use uuid::Uuid;

use crate::at::At;
use crate::row::Reader;
use crate::token::{Sealed, bound_to};
use crate::{Error, Store};

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
    /// Google's account: the id by which quota is counted. Two consents with the same one are one mailbox.
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
    /// The refresh token.
    pub refresh_token: SecretString,
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

/// What the scheduler needs to know of a connection.
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
}

/// Connects a mailbox. When the organisation has a living connection of that account its token is renewed, which
/// raises the version and ends `needs_reauth`; else there is a new connection, under an id never used before.
///
/// # Errors
/// [`Error::Missing`] when there is no such organisation, [`Error::Settings`] without a token key,
/// [`Error::Unavailable`] while Postgres is away.
pub async fn add(
    store: &Store,
    organisation_id: OrganisationId,
    consent: &Consent<'_>,
    now: Timestamp,
) -> Result<Connection, Error> {
    const WHAT: &str = "add a connection";
    let keys = store.token_keys()?;
    let mut session = store.session(WHAT).await?;
    let tx = session.transaction().await?;
    // Inserted under a new id, or the living row is locked and told: the token is bound to the id, so the id comes
    // first. Whoever comes second waits for the first to commit and then finds its row.
    let fresh = Uuid::new_v4();
    let sealed = keys.seal(consent.refresh_token, &bound_to(organisation_id, ConnectionId::from_uuid(fresh)));
    let row = tx
        .row(
            "INSERT INTO connections AS c (connection_id, organisation_id, account, email, token_version,
                                           token_ciphertext, token_nonce, token_key_id, created_at)
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8)
             ON CONFLICT (organisation_id, account) WHERE revoked_at IS NULL
             DO UPDATE SET email = excluded.email, token_version = c.token_version + 1
             RETURNING c.connection_id",
            &[
                &fresh,
                organisation_id.as_uuid(),
                &consent.account,
                &consent.email,
                &sealed.ciphertext,
                &sealed.nonce,
                &sealed.key_id,
                &At(now),
            ],
        )
        .await?
        .expect("an upsert without a condition returns its row");
    let connection_id = ConnectionId::from_uuid(Reader { what: WHAT, row: &row }.get("connection_id")?);
    if *connection_id.as_uuid() != fresh {
        let sealed = keys.seal(consent.refresh_token, &bound_to(organisation_id, connection_id));
        tx.execute(
            "UPDATE connections SET token_ciphertext = $3, token_nonce = $4, token_key_id = $5
             WHERE organisation_id = $1 AND connection_id = $2",
            &[organisation_id.as_uuid(), connection_id.as_uuid(), &sealed.ciphertext, &sealed.nonce, &sealed.key_id],
        )
        .await?;
    }
    let row = tx
        .row(FIND, &[organisation_id.as_uuid(), connection_id.as_uuid()])
        .await?
        .ok_or(Error::Missing { what: WHAT, missing: "connection" })?;
    let connection = read(&Reader { what: WHAT, row: &row })?;
    tx.commit().await?;
    Ok(connection)
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
            "SELECT c.account, c.email, c.token_version, c.token_ciphertext, c.token_nonce, c.token_key_id, s.state,
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
        token_version,
        state: state(&row, token_version)?,
        shares: u32::try_from(row.get::<i64>("shares")?).unwrap_or(u32::MAX),
    }))
}

/// The next `limit` living connections of all organisations by id, after `after`: the scheduler's pass. It costs one
/// index range, however many connections there are.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn page(store: &Store, after: Option<ConnectionId>, limit: u32) -> Result<Vec<Due>, Error> {
    const WHAT: &str = "page through connections";
    let session = store.session(WHAT).await?;
    // No id is nil: they are random.
    let after = after.map_or(Uuid::nil(), |id| *id.as_uuid());
    // The state's id is bounded too: a merge join would else read the states from their beginning for every page.
    let rows = session
        .rows(
            "SELECT c.connection_id, c.organisation_id, c.token_version, s.state,
                    s.token_version AS state_token_version
             FROM connections c
             LEFT JOIN connection_states s
               ON s.connection_id = c.connection_id AND s.organisation_id = c.organisation_id AND s.connection_id > $1
             WHERE c.connection_id > $1 AND c.revoked_at IS NULL
             ORDER BY c.connection_id LIMIT $2",
            &[&after, &i64::from(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let row = Reader { what: WHAT, row };
            let token_version = TokenVersion(row.get("token_version")?);
            Ok(Due {
                connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
                organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
                token_version,
                state: state(&row, token_version)?,
            })
        })
        .collect()
}

macro_rules! select_connections {
    ($rest:literal) => {
        concat!(
            "SELECT c.connection_id, c.organisation_id, c.account, c.email, c.token_version, c.created_at, s.state,
                    s.token_version AS state_token_version, s.last_history_id, s.last_synced_at, s.code
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
        created_at: row.at("created_at")?,
    })
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
