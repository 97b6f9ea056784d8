//! What is sealed for minutes or a day: moved as well, so that the older key can go at once.

use domain::{OrganisationId, Timestamp};
use uuid::Uuid;

use crate::at::At;
use crate::idempotency::KEPT;
use crate::row::Reader;
use crate::token::Sealed;
use crate::{Error, Store, consents};

/// Where a batch ended: the organisation and the hash that the last row is known by.
type Place = (Uuid, Vec<u8>);

/// What came of all that there was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// It lies under the first key now.
    pub moved: u64,
    /// No key of the settings opens it. It stays as it is, and ends by itself.
    pub unopened: u64,
}

/// Moves the verifiers of the consents that are open, `limit` in a transaction. One that is given meanwhile is gone, and
/// left alone.
///
/// # Errors
/// [`Error::Settings`] without a token key, [`Error::Unavailable`] while Postgres is away: what was moved by then is moved.
pub async fn consents(store: &Store, now: Timestamp, limit: u32) -> Result<Moved, Error> {
    const WHAT: &str = "move consents to another key";
    let keys = store.token_keys()?;
    let mut all = Moved::default();
    let mut after: Place = (Uuid::nil(), Vec::new());
    loop {
        let mut session = store.session(WHAT).await?;
        let tx = session.transaction().await?;
        let rows = tx
            .rows(
                "SELECT organisation_id, state_hash, verifier_ciphertext, verifier_nonce, verifier_key_id FROM consents
                 WHERE verifier_key_id <> $1 AND expires_at > $2 AND (organisation_id, state_hash) > ($3, $4)
                 ORDER BY organisation_id, state_hash LIMIT $5 FOR UPDATE",
                &[&keys.first(), &At(now), &after.0, &after.1, &i64::from(limit)],
            )
            .await?;
        let (mut organisations, mut hashes) = (Vec::new(), Vec::new());
        let (mut ciphertexts, mut nonces) = (Vec::new(), Vec::new());
        for row in &rows {
            let row = Reader { what: WHAT, row };
            let (organisation, hash): Place = (row.get("organisation_id")?, row.get("state_hash")?);
            let sealed = Sealed {
                key_id: row.get("verifier_key_id")?,
                nonce: row.get("verifier_nonce")?,
                ciphertext: row.get("verifier_ciphertext")?,
            };
            let place = consents::bound_to(OrganisationId::from_uuid(organisation), &hash);
            after = (organisation, hash.clone());
            match keys.open(&sealed, &place) {
                Ok(verifier) => {
                    let sealed = keys.seal(&verifier, &place);
                    organisations.push(organisation);
                    hashes.push(hash);
                    ciphertexts.push(sealed.ciphertext);
                    nonces.push(sealed.nonce);
                }
                Err(_) => all.unopened += 1,
            }
        }
        all.moved += tx
            .execute(
                "UPDATE consents c SET verifier_key_id = $1, verifier_ciphertext = u.ciphertext, verifier_nonce = u.nonce
                 FROM unnest($2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[])
                      AS u(organisation_id, state_hash, ciphertext, nonce)
                 WHERE c.organisation_id = u.organisation_id AND c.state_hash = u.state_hash",
                &[&keys.first(), &organisations, &hashes, &ciphertexts, &nonces],
            )
            .await?;
        tx.commit().await?;
        if rows.len() < limit as usize {
            return Ok(all);
        }
    }
}

/// Moves the answers that may still be given again, `limit` in a transaction.
///
/// # Errors
/// As [`consents`].
pub async fn answers(store: &Store, now: Timestamp, limit: u32) -> Result<Moved, Error> {
    const WHAT: &str = "move kept answers to another key";
    let first = store.token_keys()?.first();
    let mut all = Moved::default();
    let mut after: Place = (Uuid::nil(), Vec::new());
    loop {
        let mut session = store.session(WHAT).await?;
        let tx = session.transaction().await?;
        let rows = tx
            .rows(
                "SELECT organisation_id, key_hash, answer FROM idempotency_keys
                 WHERE answer IS NOT NULL AND split_part(answer, ':', 1) <> $1 AND created_at >= $2
                   AND (organisation_id, key_hash) > ($3, $4)
                 ORDER BY organisation_id, key_hash LIMIT $5 FOR UPDATE",
                &[&first, &At(now - KEPT), &after.0, &after.1, &i64::from(limit)],
            )
            .await?;
        let (mut organisations, mut hashes, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for row in &rows {
            let row = Reader { what: WHAT, row };
            let (organisation, hash): Place = (row.get("organisation_id")?, row.get("key_hash")?);
            after = (organisation, hash.clone());
            let whose = OrganisationId::from_uuid(organisation);
            match consents::open_answer(store, whose, row.get("answer")?) {
                Ok(answer) => {
                    answers.push(consents::seal_answer(store, whose, &answer)?);
                    organisations.push(organisation);
                    hashes.push(hash);
                }
                Err(Error::TokenKey { .. } | Error::Unreadable { .. }) => all.unopened += 1,
                Err(error) => return Err(error),
            }
        }
        all.moved += tx
            .execute(
                "UPDATE idempotency_keys k SET answer = u.answer
                 FROM unnest($1::uuid[], $2::bytea[], $3::text[]) AS u(organisation_id, key_hash, answer)
                 WHERE k.organisation_id = u.organisation_id AND k.key_hash = u.key_hash",
                &[&organisations, &hashes, &answers],
            )
            .await?;
        tx.commit().await?;
        if rows.len() < limit as usize {
            return Ok(all);
        }
    }
}
