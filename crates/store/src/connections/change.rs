//! What changes a connection: consents, its settings, its end.

use domain::{ConnectionId, OrganisationId, Timestamp};
use secrecy::SecretString;
use uuid::Uuid;

use super::{Connection, Consent, FIND, first_sync, read};
use crate::at::At;
use crate::row::Reader;
use crate::session::Tx;
use crate::token::{Sealed, bound_to};
use crate::{Error, Store};

/// What a consent led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The connection, new or renewed.
    pub connection: Connection,
    /// Whether it is new.
    pub is_new: bool,
}

/// Connects a mailbox for an operator, who knows its address. When the organisation has a living connection of that
/// account its token is renewed, which raises the version and ends `needs_reauth`; else there is a new connection,
/// under an id never used before.
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
    let mut session = store.session(WHAT).await?;
    let tx = session.transaction().await?;
    let connected = put(store, &tx, WHAT, organisation_id, consent, Way::Consent(None), now).await?;
    tx.commit().await?;
    Ok(connected.connection)
}

/// Connects a mailbox whose owner consented. The account is known by `subject`, Google's id of it, and else by its
/// address. The syncs that the consent owes are noted in the same transaction: the first one, reaching back to what
/// `since` says of the connection.
///
/// # Errors
/// As [`add`]; and [`Error::Exists`] when the address belongs to a living connection of another account: it was given
/// to somebody else, whose mailbox must not be taken for the first one's.
pub async fn connect(
    store: &Store,
    organisation_id: OrganisationId,
    consent: &Consent<'_>,
    subject: Option<&str>,
    since: impl Fn(&Connected) -> Option<Timestamp>,
    now: Timestamp,
) -> Result<Connected, Error> {
    const WHAT: &str = "connect a mailbox";
    let mut session = store.session(WHAT).await?;
    let tx = session.transaction().await?;
    let connected = put(store, &tx, WHAT, organisation_id, consent, Way::Consent(subject), now).await?;
    first_sync::owe(&tx, &connected.connection, since(&connected), now).await?;
    tx.commit().await?;
    Ok(connected)
}

/// Connects a mailbox that the administrator of its domain delegated to our service account. As [`add`], but that there
/// is no token: one that was there is forgotten, and a later consent takes the delegation's place.
///
/// # Errors
/// As [`add`].
pub async fn delegate(
    store: &Store,
    organisation_id: OrganisationId,
    address: &str,
    now: Timestamp,
) -> Result<Connection, Error> {
    const WHAT: &str = "add a delegated connection";
    let mut session = store.session(WHAT).await?;
    let tx = session.transaction().await?;
    let consent = Consent { account: address, email: address, refresh_token: &SecretString::from("") };
    let connected = put(store, &tx, WHAT, organisation_id, &consent, Way::Delegation, now).await?;
    tx.commit().await?;
    Ok(connected.connection)
}

/// By which way a mailbox is opened.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// Its owner's; with Google's id of the account, where that is known.
    Consent(Option<&'a str>),
    /// The administrator's of its domain.
    Delegation,
}

async fn put(
    store: &Store,
    tx: &Tx<'_>,
    what: &'static str,
    organisation_id: OrganisationId,
    consent: &Consent<'_>,
    way: Way<'_>,
    now: Timestamp,
) -> Result<Connected, Error> {
    let (subject, is_delegated) = match way {
        Way::Consent(subject) => (subject, false),
        Way::Delegation => (None, true),
    };
    let keys = store.token_keys()?;
    let organisation = organisation_id.as_uuid();
    // One consent of an organisation at a time: whoever comes second finds what the first one made.
    let there =
        tx.row("SELECT 1 FROM organisations WHERE organisation_id = $1 FOR NO KEY UPDATE", &[organisation]).await?;
    there.ok_or(Error::Missing { what, missing: "organisation" })?;
    let account = consent.account.to_lowercase();
    let living = tx
        .row(
            "SELECT connection_id, subject FROM connections
             WHERE organisation_id = $1 AND revoked_at IS NULL AND (subject = $2 OR account = $3)
             ORDER BY (subject = $2) IS TRUE DESC LIMIT 1 FOR UPDATE",
            &[organisation, &subject, &account],
        )
        .await?;
    let known = living.as_ref().map(|row| Reader { what, row });
    let (connection_id, is_new) = match known {
        None => (ConnectionId::from_uuid(Uuid::new_v4()), true),
        Some(row) => {
            let stands: Option<&str> = row.get("subject")?;
            if stands.is_some() && subject.is_some() && stands != subject {
                return Err(Error::Exists { what, constraint: "connections_living".to_owned() });
            }
            (ConnectionId::from_uuid(row.get("connection_id")?), false)
        }
    };
    let sealed = keys.seal(consent.refresh_token, &bound_to(organisation_id, connection_id));
    let (id, Sealed { key_id, nonce, ciphertext }) = (connection_id.as_uuid(), &sealed);
    if is_new {
        tx.execute(
            "INSERT INTO connections (connection_id, organisation_id, account, email, token_version, token_ciphertext,
                                      token_nonce, token_key_id, created_at, subject, is_delegated)
             VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $10)",
            &[id, organisation, &account, &consent.email, ciphertext, nonce, key_id, &At(now), &subject, &is_delegated],
        )
        .await?;
    } else {
        // An account that changed its address takes the new one, unless another connection has that.
        tx.execute(
            "UPDATE connections SET token_version = token_version + 1, token_ciphertext = $5, token_nonce = $6,
                                    token_key_id = $7, email = $4, subject = coalesce($8, subject),
                                    is_delegated = $9,
                                    account = CASE WHEN EXISTS (
                                        SELECT 1 FROM connections o
                                        WHERE o.organisation_id = $2 AND o.account = $3 AND o.revoked_at IS NULL
                                          AND o.connection_id <> $1) THEN account ELSE $3 END
             WHERE organisation_id = $2 AND connection_id = $1",
            &[id, organisation, &account, &consent.email, ciphertext, nonce, key_id, &subject, &is_delegated],
        )
        .await?;
    }
    let row = tx.row(FIND, &[organisation, id]).await?.ok_or(Error::Missing { what, missing: "connection" })?;
    Ok(Connected { connection: read(&Reader { what, row: &row })?, is_new })
}

/// What an organisation may set of a connection; none: as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// How often it is synced without being asked, in hours, from 1 to 24; the inner none: as often as the
    /// installation says.
    pub sync_interval_hours: Option<Option<u8>>,
    /// Whether the schedule leaves it alone.
    pub paused: Option<bool>,
}

/// Changes a living connection, and gives it as it stands then.
///
/// # Errors
/// [`Error::Refused`] for an interval out of bounds, [`Error::Unavailable`] while Postgres is away.
pub async fn change(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    change: Change,
) -> Result<Option<Connection>, Error> {
    const WHAT: &str = "change a connection";
    let session = store.session(WHAT).await?;
    let hours = change.sync_interval_hours.flatten().map(i16::from);
    let (organisation, id) = (organisation_id.as_uuid(), connection_id.as_uuid());
    session
        .execute(
            "UPDATE connections SET sync_interval_hours = CASE WHEN $3 THEN $4 ELSE sync_interval_hours END,
                                    paused = coalesce($5, paused)
             WHERE organisation_id = $1 AND connection_id = $2 AND revoked_at IS NULL",
            &[organisation, id, &change.sync_interval_hours.is_some(), &hours, &change.paused],
        )
        .await?;
    let row = session.row(FIND, &[organisation, id]).await?;
    row.map(|row| read(&Reader { what: WHAT, row: &row })).transpose()
}

/// A deleted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// When it was deleted.
    pub deleted_at: Timestamp,
    /// Whether nothing is left to do: its state is forgotten, and its token gone.
    pub is_forgotten: bool,
}

/// Ends a connection: from now on it does not exist but for [`last_grant`] and [`forget`], which finish it. None when
/// the organisation never had it. Repeatable.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn delete(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    now: Timestamp,
) -> Result<Option<Leaving>, Error> {
    const WHAT: &str = "delete a connection";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "UPDATE connections SET revoked_at = coalesce(revoked_at, $3)
             WHERE organisation_id = $1 AND connection_id = $2
             RETURNING connection_id, organisation_id, revoked_at, forgotten_at IS NOT NULL AS forgotten",
            &[organisation_id.as_uuid(), connection_id.as_uuid(), &At(now)],
        )
        .await?;
    row.map(|row| read_leaving(&Reader { what: WHAT, row: &row })).transpose()
}

/// The refresh token of a deleted connection whose account has no living one any more, of any organisation: the grant
/// to end at Google. None when there is another, or when all is done already.
///
/// # Errors
/// [`Error::TokenKey`] when the settings' keys do not open it, [`Error::Settings`] without a token key,
/// [`Error::Unavailable`] while Postgres is away.
pub async fn last_grant(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
) -> Result<Option<SecretString>, Error> {
    const WHAT: &str = "read the last grant of an account";
    let keys = store.token_keys()?;
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT c.token_ciphertext, c.token_nonce, c.token_key_id FROM connections c
             WHERE c.organisation_id = $1 AND c.connection_id = $2
               AND c.revoked_at IS NOT NULL AND c.forgotten_at IS NULL AND NOT c.is_delegated
               AND NOT EXISTS (SELECT 1 FROM connections o WHERE o.account = c.account AND o.revoked_at IS NULL)
               AND NOT EXISTS (SELECT 1 FROM connections o WHERE o.subject = c.subject AND o.revoked_at IS NULL)",
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
    let opened = keys.open(&sealed, &bound_to(organisation_id, connection_id));
    opened.map(Some).map_err(|reason| Error::TokenKey { what: WHAT, reason })
}

/// Wipes what a deleted connection held: its token and whose mailbox it was. What remains is an id that is never used
/// again. Repeatable.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn forget(
    store: &Store,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    now: Timestamp,
) -> Result<(), Error> {
    let session = store.session("forget a connection").await?;
    session
        .execute(
            "WITH owed AS (DELETE FROM first_syncs WHERE organisation_id = $1 AND connection_id = $2)
             UPDATE connections SET forgotten_at = coalesce(forgotten_at, $3), account = '', email = '', subject = NULL,
                                    token_ciphertext = '', token_nonce = decode(repeat('00', 24), 'hex'), token_key_id = ''
             WHERE organisation_id = $1 AND connection_id = $2 AND revoked_at IS NOT NULL",
            &[organisation_id.as_uuid(), connection_id.as_uuid(), &At(now)],
        )
        .await
        .map(drop)
}

/// At most `limit` connections of all organisations that were deleted before `before` and are not forgotten yet,
/// longest first: those whose deletion broke off.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn leaving(store: &Store, before: Timestamp, limit: u32) -> Result<Vec<Leaving>, Error> {
    const WHAT: &str = "list deletions that broke off";
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT connection_id, organisation_id, revoked_at, false AS forgotten FROM connections
             WHERE revoked_at < $1 AND revoked_at IS NOT NULL AND forgotten_at IS NULL ORDER BY revoked_at LIMIT $2",
            &[&At(before), &i64::from(limit)],
        )
        .await?;
    rows.iter().map(|row| read_leaving(&Reader { what: WHAT, row })).collect()
}

fn read_leaving(row: &Reader<'_>) -> Result<Leaving, Error> {
    Ok(Leaving {
        connection_id: ConnectionId::from_uuid(row.get("connection_id")?),
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        deleted_at: row.at("revoked_at")?,
        is_forgotten: row.get("forgotten")?,
    })
}
