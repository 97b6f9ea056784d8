//! Requests that named themselves by an `Idempotency-Key`.
//!
//! The first request with a key claims it, with the id of what it is about to make. Whoever comes with the same key
//! finds that id: to make the same again when the first died on its way is to make it once.

use domain::{OrganisationId, Timestamp};
use uuid::Uuid;

use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

/// A request and its key, both as SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Of the key.
    pub key_hash: [u8; 32],
    /// Of all that makes the request this one: the call, what it names, its body.
    pub request_hash: [u8; 32],
}

/// What is known under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// This request, or one that is the same.
    Same(Same),
    /// Another request.
    Other,
}

/// What came of the request so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Same {
    /// The id of what it makes.
    pub made_id: Uuid,
    /// Whether there is a job of that id, so that it need not be asked for again.
    pub is_a_job: bool,
    /// The answer that was kept, if one was.
    pub answer: Option<String>,
}

/// Claims a key for a request that makes `fresh_id`, unless it was claimed after `since`: then what was claimed stands.
///
/// # Errors
/// [`Error::Missing`] when there is no such organisation, [`Error::Unavailable`] while Postgres is away.
pub async fn claim(
    store: &Store,
    organisation_id: OrganisationId,
    request: &Request,
    fresh_id: Uuid,
    now: Timestamp,
    since: Timestamp,
) -> Result<Claim, Error> {
    const WHAT: &str = "claim an idempotency key";
    /// The claim that was found may be swept before it is read; a second time it is not.
    const ATTEMPTS: usize = 3;
    for _ in 0..ATTEMPTS {
        let session = store.session(WHAT).await?;
        let claimed = session
            .execute(
                "INSERT INTO idempotency_keys AS k (organisation_id, key_hash, request_hash, made_id, created_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (organisation_id, key_hash) DO UPDATE
                 SET request_hash = excluded.request_hash, made_id = excluded.made_id, answer = NULL,
                     created_at = excluded.created_at
                 WHERE k.created_at < $6",
                &[
                    organisation_id.as_uuid(),
                    &request.key_hash.as_slice(),
                    &request.request_hash.as_slice(),
                    &fresh_id,
                    &At(now),
                    &At(since),
                ],
            )
            .await?;
        if claimed > 0 {
            return Ok(Claim::Same(Same { made_id: fresh_id, is_a_job: false, answer: None }));
        }
        drop(session);
        if let Some(found) = find(store, organisation_id, request, since).await? {
            return Ok(found);
        }
    }
    Err(Error::unavailable(WHAT, "it was claimed and forgotten again and again"))
}

/// What was claimed under the key after `since`.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn find(
    store: &Store,
    organisation_id: OrganisationId,
    request: &Request,
    since: Timestamp,
) -> Result<Option<Claim>, Error> {
    const WHAT: &str = "look for an idempotency key";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "SELECT k.request_hash, k.made_id, k.answer,
                    EXISTS (SELECT 1 FROM jobs j
                            WHERE j.organisation_id = k.organisation_id AND j.job_id = k.made_id) AS is_a_job
             FROM idempotency_keys k
             WHERE k.organisation_id = $1 AND k.key_hash = $2 AND k.created_at >= $3",
            &[organisation_id.as_uuid(), &request.key_hash.as_slice(), &At(since)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let row = Reader { what: WHAT, row: &row };
    if row.get::<&[u8]>("request_hash")? != request.request_hash {
        return Ok(Some(Claim::Other));
    }
    Ok(Some(Claim::Same(Same {
        made_id: row.get("made_id")?,
        is_a_job: row.get("is_a_job")?,
        answer: row.get("answer")?,
    })))
}

/// Keeps the answer to a claimed request; gives the one that is kept, which is the first.
///
/// # Errors
/// [`Error::Missing`] when the claim is not there any more, [`Error::Unavailable`] while Postgres is away.
pub async fn keep_answer(
    store: &Store,
    organisation_id: OrganisationId,
    request: &Request,
    answer: &str,
) -> Result<String, Error> {
    const WHAT: &str = "keep the answer to a request with an idempotency key";
    let session = store.session(WHAT).await?;
    let row = session
        .row(
            "UPDATE idempotency_keys SET answer = coalesce(answer, $4)
             WHERE organisation_id = $1 AND key_hash = $2 AND request_hash = $3
             RETURNING answer",
            &[organisation_id.as_uuid(), &request.key_hash.as_slice(), &request.request_hash.as_slice(), &answer],
        )
        .await?
        .ok_or(Error::Missing { what: WHAT, missing: "idempotency key" })?;
    Reader { what: WHAT, row: &row }.get("answer")
}

/// Forgets at most `limit` keys that were claimed before `before`; how many.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn sweep(store: &Store, before: Timestamp, limit: u32) -> Result<u64, Error> {
    let session = store.session("sweep idempotency keys").await?;
    // What another process sweeps at the same time is left to it.
    session
        .execute(
            "DELETE FROM idempotency_keys WHERE (organisation_id, key_hash) IN (
                 SELECT organisation_id, key_hash FROM idempotency_keys WHERE created_at < $1
                 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&At(before), &i64::from(limit)],
        )
        .await
}
