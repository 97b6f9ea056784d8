//! Requests that named themselves by an `Idempotency-Key`.
//!
//! The first request with a key claims it, with the id of what it is about to make. Whoever comes with the same key
//! finds that id: to make the same again when the first died on its way is to make it once.

use std::collections::{BTreeMap, HashSet};

use domain::{Duration, OrganisationId, Timestamp};
use uuid::Uuid;

use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

/// How long a key stands for its request.
pub const KEPT: Duration = Duration::from_hours(24);

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

/// A key that is to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Whose key it is.
    pub organisation_id: OrganisationId,
    /// The request and its key.
    pub request: Request,
    /// The id of what it is about to make.
    pub fresh_id: Uuid,
}

/// Claims keys, many in one go, each for a request that makes its `fresh_id`, unless it was claimed after `since`: then
/// what was claimed stands. Of two that claim one key at the same time the first has it. Gives what stands then, in the
/// order of `wanted`; none for a key that was claimed and forgotten again and again meanwhile.
///
/// # Errors
/// [`Error::Missing`] when there is no such organisation, [`Error::Unavailable`] while Postgres is away.
pub async fn claim_all(
    store: &Store,
    wanted: &[Wanted],
    now: Timestamp,
    since: Timestamp,
) -> Result<Vec<Option<Claim>>, Error> {
    /// A claim that was found may be swept before it is read; a second time it is not.
    const ATTEMPTS: usize = 3;
    let mut claims: Vec<Option<Claim>> = vec![None; wanted.len()];
    for _ in 0..ATTEMPTS {
        let open: Vec<usize> = (0..wanted.len()).filter(|index| claims[*index].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let ours = insert(store, &open.iter().map(|index| wanted[*index]).collect::<Vec<_>>(), now, since).await?;
        let (ours, others): (Vec<usize>, Vec<usize>) =
            open.into_iter().partition(|index| ours.contains(&wanted[*index].fresh_id));
        for index in ours {
            let made_id = wanted[index].fresh_id;
            claims[index] = Some(Claim::Same(Same { made_id, is_a_job: false, answer: None }));
        }
        if others.is_empty() {
            break;
        }
        let asked: Vec<_> =
            others.iter().map(|index| (wanted[*index].organisation_id, wanted[*index].request)).collect();
        for (index, found) in others.into_iter().zip(find_all(store, &asked, since).await?) {
            claims[index] = found;
        }
    }
    Ok(claims)
}

/// Inserts those that are not there, or there for too long; the `fresh_id` of each that was.
async fn insert(store: &Store, wanted: &[Wanted], now: Timestamp, since: Timestamp) -> Result<HashSet<Uuid>, Error> {
    const WHAT: &str = "claim idempotency keys";
    // Each key once, since one statement must not touch a row twice; in one order, so that two batches that share keys
    // wait for each other and do not deadlock.
    let mut first: BTreeMap<(OrganisationId, [u8; 32]), &Wanted> = BTreeMap::new();
    for wanted in wanted {
        first.entry((wanted.organisation_id, wanted.request.key_hash)).or_insert(wanted);
    }
    let organisations: Vec<&Uuid> = first.values().map(|wanted| wanted.organisation_id.as_uuid()).collect();
    let keys: Vec<&[u8]> = first.values().map(|wanted| wanted.request.key_hash.as_slice()).collect();
    let requests: Vec<&[u8]> = first.values().map(|wanted| wanted.request.request_hash.as_slice()).collect();
    let ids: Vec<Uuid> = first.values().map(|wanted| wanted.fresh_id).collect();
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "INSERT INTO idempotency_keys AS k (organisation_id, key_hash, request_hash, made_id, created_at)
             SELECT u.organisation_id, u.key_hash, u.request_hash, u.made_id, $5
             FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::uuid[])
                  AS u(organisation_id, key_hash, request_hash, made_id)
             ON CONFLICT (organisation_id, key_hash) DO UPDATE
             SET request_hash = excluded.request_hash, made_id = excluded.made_id, answer = NULL,
                 created_at = excluded.created_at
             WHERE k.created_at < $6
             RETURNING k.made_id",
            &[&organisations, &keys, &requests, &ids, &At(now), &At(since)],
        )
        .await?;
    rows.iter().map(|row| Reader { what: WHAT, row }.get("made_id")).collect()
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
    Ok(find_all(store, &[(organisation_id, *request)], since).await?.pop().flatten())
}

/// The same for many keys, each of the organisation named beside it, in their order.
async fn find_all(
    store: &Store,
    asked: &[(OrganisationId, Request)],
    since: Timestamp,
) -> Result<Vec<Option<Claim>>, Error> {
    const WHAT: &str = "look for idempotency keys";
    let organisations: Vec<&Uuid> = asked.iter().map(|(organisation, _)| organisation.as_uuid()).collect();
    let keys: Vec<&[u8]> = asked.iter().map(|(_, request)| request.key_hash.as_slice()).collect();
    let session = store.session(WHAT).await?;
    let rows = session
        .rows(
            "SELECT u.number, k.request_hash, k.made_id, k.answer,
                    EXISTS (SELECT 1 FROM jobs j
                            WHERE j.organisation_id = k.organisation_id AND j.job_id = k.made_id) AS is_a_job
             FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS u(organisation_id, key_hash, number)
             JOIN idempotency_keys k ON k.organisation_id = u.organisation_id AND k.key_hash = u.key_hash
             WHERE k.created_at >= $3",
            &[&organisations, &keys, &At(since)],
        )
        .await?;
    let mut found = vec![None; asked.len()];
    for row in &rows {
        let row = Reader { what: WHAT, row };
        let index = usize::try_from(row.get::<i64>("number")? - 1).expect("numbers begin at one");
        found[index] = Some(if row.get::<&[u8]>("request_hash")? == asked[index].1.request_hash {
            Claim::Same(Same {
                made_id: row.get("made_id")?,
                is_a_job: row.get("is_a_job")?,
                answer: row.get("answer")?,
            })
        } else {
            Claim::Other
        });
    }
    Ok(found)
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
