//! API keys. A key is shown once, when it is made; only a hash of it is kept.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{OrganisationId, Timestamp};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

/// What every key begins with, so that scanners for leaked secrets can know one.
const MARK: &str = "mt_";
/// Characters of a key that may be shown: the mark and 9 random bytes.
const PREFIX: usize = MARK.len() + 12;
/// Characters of a whole key: the prefix, a point and 32 random bytes.
const LENGTH: usize = PREFIX + 1 + 43;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Look at connections and jobs.
    Read,
    /// Connect, sync, backfill, cancel, disconnect.
    Write,
}

impl Scope {
    /// The name that is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err(format!("expected read or write, got `{text}`")),
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIdentity {
    /// The key.
    pub key_id: Uuid,
    /// The tenant that it speaks for.
    pub organisation_id: OrganisationId,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// A key as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's id, by which it is revoked.
    pub key_id: Uuid,
    /// What people call it.
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last known to be used.
    pub last_used_at: Option<Timestamp>,
}

/// Makes a key. Its text is in the answer and nowhere else ever again.
///
/// # Errors
/// [`Error::Missing`] when there is no such organisation, [`Error::Unavailable`] while Postgres is away.
pub async fn create(
    store: &Store,
    organisation_id: OrganisationId,
    name: &str,
    scopes: &[Scope],
    now: Timestamp,
) -> Result<(ApiKey, SecretString), Error> {
    let (prefix, text) = generate();
    let key_id = Uuid::new_v4();
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let session = store.session("create an API key").await?;
    session
        .execute(
            "INSERT INTO api_keys (key_id, organisation_id, name, prefix, hash, scopes, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[&key_id, organisation_id.as_uuid(), &name, &prefix, &hash(&text).as_slice(), &names, &At(now)],
        )
        .await?;
    let key = ApiKey {
        key_id,
        name: name.to_owned(),
        prefix,
        scopes: scopes.to_vec(),
        created_at: now,
        revoked_at: None,
        last_used_at: None,
    };
    Ok((key, SecretString::from(text.as_str())))
}

/// Whom a key's text speaks for; none when it is no key, unknown or revoked. What differs is compared in constant
/// time, and text that cannot be a key costs no query.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn authenticate(store: &Store, text: &str) -> Result<Option<KeyIdentity>, Error> {
    const WHAT: &str = "check an API key";
    if !is_key_shaped(text) {
        return Ok(None);
    }
    let session = store.session(WHAT).await?;
    // By the prefix, which is no secret: an index on the hash would compare secret bytes one by one.
    let row = session
        .row(
            "SELECT key_id, organisation_id, scopes, hash FROM api_keys WHERE prefix = $1 AND revoked_at IS NULL",
            &[&&text[..PREFIX]],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let row = Reader { what: WHAT, row: &row };
    if !bool::from(hash(text).as_slice().ct_eq(row.get("hash")?)) {
        return Ok(None);
    }
    Ok(Some(KeyIdentity {
        key_id: row.get("key_id")?,
        organisation_id: OrganisationId::from_uuid(row.get("organisation_id")?),
        scopes: scopes(&row)?,
    }))
}

/// Those of the keys that live.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn living(store: &Store, keys: &[(OrganisationId, Uuid)]) -> Result<HashSet<Uuid>, Error> {
    const WHAT: &str = "look which API keys live";
    let organisations: Vec<Uuid> = keys.iter().map(|(organisation, _)| *organisation.as_uuid()).collect();
    let ids: Vec<Uuid> = keys.iter().map(|(_, key)| *key).collect();
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT k.key_id FROM unnest($1::uuid[], $2::uuid[]) AS u(organisation_id, key_id)
             JOIN api_keys k USING (organisation_id, key_id) WHERE k.revoked_at IS NULL",
            &[&organisations, &ids],
        )
        .await?;
    rows.iter().map(|row| Reader { what: WHAT, row }.get("key_id")).collect()
}

/// Notes that keys were used, many in one go. A time that goes back is ignored.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn record_use(store: &Store, uses: &[(KeyIdentity, Timestamp)]) -> Result<(), Error> {
    let session = store.session("note the use of API keys").await?;
    let keys: Vec<Uuid> = uses.iter().map(|(key, _)| key.key_id).collect();
    let organisations: Vec<Uuid> = uses.iter().map(|(key, _)| *key.organisation_id.as_uuid()).collect();
    let times: Vec<At> = uses.iter().map(|(_, at)| At(*at)).collect();
    session
        .execute(
            "UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, u.at)
             FROM (SELECT key_id, organisation_id, max(at) AS at
                   FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS t(key_id, organisation_id, at)
                   GROUP BY key_id, organisation_id) u
             WHERE k.key_id = u.key_id AND k.organisation_id = u.organisation_id",
            &[&keys, &organisations, &times],
        )
        .await
        .map(drop)
}

/// All keys of an organisation, revoked ones too, newest first.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn list(store: &Store, organisation_id: OrganisationId) -> Result<Vec<ApiKey>, Error> {
    const WHAT: &str = "list API keys";
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT key_id, name, prefix, scopes, created_at, revoked_at, last_used_at FROM api_keys
             WHERE organisation_id = $1 ORDER BY created_at DESC, key_id DESC",
            &[organisation_id.as_uuid()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let row = Reader { what: WHAT, row };
            Ok(ApiKey {
                key_id: row.get("key_id")?,
                name: row.get("name")?,
                prefix: row.get("prefix")?,
                scopes: scopes(&row)?,
                created_at: row.at("created_at")?,
                revoked_at: row.at_opt("revoked_at")?,
                last_used_at: row.at_opt("last_used_at")?,
            })
        })
        .collect()
}

/// Revokes a key; whether there was a living one. Repeatable.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn revoke(
    store: &Store,
    organisation_id: OrganisationId,
    key_id: Uuid,
    now: Timestamp,
) -> Result<bool, Error> {
    let session = store.session("revoke an API key").await?;
    let changed = session
        .execute(
            "UPDATE api_keys SET revoked_at = $3
             WHERE organisation_id = $1 AND key_id = $2 AND revoked_at IS NULL",
            &[organisation_id.as_uuid(), &key_id, &At(now)],
        )
        .await?;
    Ok(changed > 0)
}

fn scopes(row: &Reader<'_>) -> Result<Vec<Scope>, Error> {
    let names: Vec<&str> = row.get("scopes")?;
    names.into_iter().map(|name| name.parse().map_err(|error| row.unreadable("scopes", error))).collect()
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn generate() -> (String, Zeroizing<String>) {
    let secret = Zeroizing::new(rand::random::<[u8; 32]>());
    let prefix = format!("{MARK}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 9]>()));
    let text = Zeroizing::new(format!("{prefix}.{}", URL_SAFE_NO_PAD.encode(secret.as_slice())));
    (prefix, text)
}

fn is_key_shaped(text: &str) -> bool {
    text.len() == LENGTH
        && text.starts_with(MARK)
        && text.bytes().enumerate().all(|(index, byte)| match byte {
            b'.' => index == PREFIX,
            b'-' | b'_' => index != PREFIX,
            _ => index != PREFIX && byte.is_ascii_alphanumeric(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_generated_key_is_key_shaped_and_begins_with_its_prefix() {
        for _ in 0..100 {
            let (prefix, text) = generate();
            assert!(is_key_shaped(&text) && text.starts_with(&prefix) && prefix.len() == PREFIX);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at_without_harm(text in "(mt_)?.{0,80}") {
            if is_key_shaped(&text) {
                prop_assert!(text.is_ascii() && text.is_char_boundary(PREFIX));
            }
        }
    }
}
