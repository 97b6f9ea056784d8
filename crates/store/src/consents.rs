//! Consent pages that somebody was sent to, until the browser comes back.
//!
//! The state that comes back is known by its hash alone, and the verifier lies sealed: who reads the table can neither
//! answer for a browser nor exchange a code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::{OrganisationId, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::at::At;
use crate::row::Reader;
use crate::token::Sealed;
use crate::{Error, Store};

/// A consent that is asked for.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The tenant that asks.
    pub organisation_id: OrganisationId,
    /// The verifier of PKCE.
    pub verifier: SecretString,
    /// Where the browser goes in the end.
    pub return_url: String,
    /// How far back the first sync is to reach, when that was said.
    pub since: Option<Timestamp>,
}

/// Keeps it under its state until `expires_at`, unless the organisation has `most` open by now: then it is not kept.
/// Those that ask at the very same time may each see one less.
///
/// # Errors
/// [`Error::Missing`] when there is no such organisation, [`Error::Settings`] without a token key,
/// [`Error::Unavailable`] while Postgres is away.
pub async fn put(
    store: &Store,
    state: &SecretString,
    pending: &Pending,
    expires_at: Timestamp,
    now: Timestamp,
    most: u32,
) -> Result<bool, Error> {
    let hash = hash(state.expose_secret());
    let keys = store.token_keys()?;
    let sealed = keys.seal(&pending.verifier, &bound_to(pending.organisation_id, &hash));
    let session = store.session("keep a consent that is asked for").await?;
    session
        .execute(
            "INSERT INTO consents (state_hash, organisation_id, verifier_ciphertext, verifier_nonce, verifier_key_id,
                                   return_url, since, expires_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE (SELECT count(*) FROM (SELECT 1 FROM consents WHERE organisation_id = $2 AND expires_at > $9
                                          LIMIT $10) AS open) < $10",
            &[
                &hash.as_slice(),
                pending.organisation_id.as_uuid(),
                &sealed.ciphertext,
                &sealed.nonce,
                &sealed.key_id,
                &pending.return_url,
                &pending.since.map(At),
                &At(expires_at),
                &At(now),
                &i64::from(most),
            ],
        )
        .await
        .map(|kept| kept > 0)
}

/// Takes out what was asked under a state: once, whoever comes at the same time, and not when its time is past.
///
/// # Errors
/// [`Error::TokenKey`] when the settings' keys do not open it, [`Error::Settings`] without a token key,
/// [`Error::Unavailable`] while Postgres is away.
pub async fn take(store: &Store, state: &str, now: Timestamp) -> Result<Option<Pending>, Error> {
    const WHAT: &str = "take a consent";
    let hash = hash(state);
    let keys = store.token_keys()?;
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "DELETE FROM consents WHERE state_hash = $1
             RETURNING organisation_id, verifier_ciphertext, verifier_nonce, verifier_key_id, return_url, since,
                       expires_at",
            &[&hash.as_slice()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let row = Reader { what: WHAT, row: &row };
    if row.at("expires_at")? <= now {
        return Ok(None);
    }
    let organisation_id = OrganisationId::from_uuid(row.get("organisation_id")?);
    let sealed = Sealed {
        key_id: row.get("verifier_key_id")?,
        nonce: row.get("verifier_nonce")?,
        ciphertext: row.get("verifier_ciphertext")?,
    };
    let verifier = keys
        .open(&sealed, &bound_to(organisation_id, &hash))
        .map_err(|reason| Error::TokenKey { what: WHAT, reason })?;
    Ok(Some(Pending { organisation_id, verifier, return_url: row.get("return_url")?, since: row.at_opt("since")? }))
}

/// Drops what nobody came back for; tells how many that were.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn sweep(store: &Store, now: Timestamp) -> Result<u64, Error> {
    let session = store.session("drop consents whose time is past").await?;
    session.execute("DELETE FROM consents WHERE expires_at <= $1", &[&At(now)]).await
}

/// Seals the answer to a request that named itself, which is to be given again: the state is in it.
///
/// # Errors
/// [`Error::Settings`] without a token key.
pub fn seal_answer(store: &Store, organisation_id: OrganisationId, answer: &SecretString) -> Result<String, Error> {
    let Sealed { key_id, nonce, ciphertext } = store.token_keys()?.seal(answer, &answer_of(organisation_id));
    Ok(format!("{key_id}:{}:{}", STANDARD.encode(nonce), STANDARD.encode(ciphertext)))
}

/// Opens what [`seal_answer`] sealed for the same organisation.
///
/// # Errors
/// [`Error::TokenKey`] when the settings' keys do not open it, [`Error::Unreadable`] when it is none,
/// [`Error::Settings`] without a token key.
pub fn open_answer(store: &Store, organisation_id: OrganisationId, sealed: &str) -> Result<SecretString, Error> {
    const WHAT: &str = "open a sealed answer";
    let mut parts = sealed.splitn(3, ':').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let (key_id, nonce, ciphertext) = (part(), part(), part());
    let bytes = |text: String| {
        let unreadable =
            |error: base64::DecodeError| Error::Unreadable { what: WHAT, column: "answer", detail: error.to_string() };
        STANDARD.decode(text).map_err(unreadable)
    };
    let sealed = Sealed { key_id, nonce: bytes(nonce)?, ciphertext: bytes(ciphertext)? };
    let opened = store.token_keys()?.open(&sealed, &answer_of(organisation_id));
    opened.map_err(|reason| Error::TokenKey { what: WHAT, reason })
}

fn answer_of(organisation_id: OrganisationId) -> Vec<u8> {
    [b"mailtide consent answer v1" as &[u8], organisation_id.as_bytes()].concat()
}

fn hash(state: &str) -> [u8; 32] {
    Sha256::digest(state).into()
}

/// What a verifier is bound to.
pub(crate) fn bound_to(organisation_id: OrganisationId, state_hash: &[u8]) -> Vec<u8> {
    [b"mailtide consent verifier v1" as &[u8], organisation_id.as_bytes(), state_hash].concat()
}
