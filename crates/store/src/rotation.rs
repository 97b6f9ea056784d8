//! What lies sealed moved from older token keys to the first of the settings, batch by batch, while everything runs:
//! refresh tokens, the verifiers of consents that are open, and answers that are kept for an `Idempotency-Key`.
//!
//! Which key a secret lies under is written beside it, so there is nothing else to keep: whoever begins again goes on
//! where the last one stopped, and two at once share the work.

mod transient;

use domain::{ConnectionId, OrganisationId, Timestamp};
use uuid::Uuid;

use crate::at::At;
use crate::idempotency::KEPT;
use crate::row::Reader;
use crate::token::{Sealed, bound_to};
use crate::{Error, Store, TokenKeyError};

pub use transient::{Moved, answers, consents};

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Tokens that lie under the first key now.
    pub moved: u64,
    /// Tokens that no key of the settings opens, and why. They stay as they are.
    pub unopened: Vec<(ConnectionId, TokenKeyError)>,
    /// Where the next batch begins; none when this was the last.
    pub next: Option<ConnectionId>,
}

/// What lies under other keys than the first of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Refresh tokens.
    pub tokens: u64,
    /// Consents that somebody was asked for and may still give.
    pub consents: u64,
    /// Answers that may still be given again.
    pub answers: u64,
}

/// What is left to do.
///
/// # Errors
/// [`Error::Settings`] without a token key, [`Error::Unavailable`] while Postgres is away.
pub async fn left(store: &Store, now: Timestamp) -> Result<Left, Error> {
    const WHAT: &str = "count what lies under older keys";
    let first = store.token_keys()?.first();
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT (SELECT count(*) FROM connections WHERE token_key_id NOT IN ($1, '')) AS tokens,
                    (SELECT count(*) FROM consents WHERE verifier_key_id <> $1 AND expires_at > $2) AS consents,
                    (SELECT count(*) FROM idempotency_keys
                     WHERE answer IS NOT NULL AND split_part(answer, ':', 1) <> $1 AND created_at >= $3) AS answers",
            &[&first, &At(now), &At(now - KEPT)],
        )
        .await?
        .expect("a count is one row");
    let row = Reader { what: WHAT, row: &row };
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(Left {
        tokens: count(row.get("tokens")?),
        consents: count(row.get("consents")?),
        answers: count(row.get("answers")?),
    })
}

/// Moves at most `limit` tokens of connections after `after`, in one transaction. A token that is renewed meanwhile is
/// waited for, and left alone if it lies under the first key then.
///
/// # Errors
/// [`Error::Settings`] without a token key, [`Error::Unavailable`] while Postgres is away.
pub async fn batch(store: &Store, after: Option<ConnectionId>, limit: u32) -> Result<Batch, Error> {
    const WHAT: &str = "move tokens to another key";
    let keys = store.token_keys()?;
    let first = keys.first();
    let after = after.map_or(Uuid::nil(), |id| *id.as_uuid());
    let mut session = store.session(WHAT).await?;
    let tx = session.transaction().await?;
    let rows = tx
        .rows(
            "SELECT connection_id, organisation_id, token_key_id, token_nonce, token_ciphertext FROM connections
             WHERE connection_id > $1 AND token_key_id NOT IN ($2, '') ORDER BY connection_id LIMIT $3 FOR UPDATE",
            &[&after, &first, &i64::from(limit)],
        )
        .await?;
    let mut next = None;
    let mut unopened = Vec::new();
    let (mut ids, mut organisations, mut nonces, mut ciphertexts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let row = Reader { what: WHAT, row };
        let connection_id = ConnectionId::from_uuid(row.get("connection_id")?);
        let organisation_id = OrganisationId::from_uuid(row.get("organisation_id")?);
        next = Some(connection_id);
        let sealed = Sealed {
            key_id: row.get("token_key_id")?,
            nonce: row.get("token_nonce")?,
            ciphertext: row.get("token_ciphertext")?,
        };
        let place = bound_to(organisation_id, connection_id);
        match keys.open(&sealed, &place) {
            Ok(token) => {
                let sealed = keys.seal(&token, &place);
                ids.push(*connection_id.as_uuid());
                organisations.push(*organisation_id.as_uuid());
                nonces.push(sealed.nonce);
                ciphertexts.push(sealed.ciphertext);
            }
            Err(reason) => unopened.push((connection_id, reason)),
        }
    }
    let moved = tx
        .execute(
            "UPDATE connections c SET token_key_id = $1, token_nonce = u.nonce, token_ciphertext = u.ciphertext
             FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::bytea[])
                  AS u(connection_id, organisation_id, nonce, ciphertext)
             WHERE c.connection_id = u.connection_id AND c.organisation_id = u.organisation_id",
            &[&first, &ids, &organisations, &nonces, &ciphertexts],
        )
        .await?;
    tx.commit().await?;
    let is_full = rows.len() == limit as usize;
    Ok(Batch { moved, unopened, next: next.filter(|_| is_full) })
}
