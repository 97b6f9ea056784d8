//! The header `Idempotency-Key`: whoever does not know whether a request arrived sends it again, with the same key, and
//! no more comes of it than of one.

use axum::http::{HeaderMap, HeaderName};
use domain::{OrganisationId, Timestamp};
use sha2::{Digest, Sha256};
use store::idempotency::{self, Claim, KEPT, Request, Same, Wanted};
use uuid::Uuid;

use crate::app::{App, database_problem};
use crate::claims::Unclaimed;
use crate::problem::{Code, Problem};

/// The header (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Characters of a key at most.
const MAX_KEY: usize = 255;

/// A request that carries a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyed(Request);

impl Keyed {
    /// The key of a request, if it carries one. `request` is all that makes the request this one: the call, what it
    /// names, its body.
    ///
    /// # Errors
    /// [`Code::IdempotencyKeyInvalid`] when what it carries is no key.
    pub(crate) fn read(headers: &HeaderMap, request: &[&[u8]]) -> Result<Option<Self>, Problem> {
        let mut sent = headers.get_all(HEADER).iter();
        let Some(key) = sent.next() else { return Ok(None) };
        let key = key.as_bytes();
        let is_key = (1..=MAX_KEY).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if !is_key || sent.next().is_some() {
            return Err(Code::IdempotencyKeyInvalid.into());
        }
        let mut hash = Sha256::new();
        for part in request {
            // The length before each part, so that no two requests run together into the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Ok(Some(Self(Request { key_hash: Sha256::digest(key).into(), request_hash: hash.finalize().into() })))
    }
}

impl App {
    /// Claims the key for its request, which is to make `fresh_id`; what stands under it then.
    ///
    /// # Errors
    /// [`Code::IdempotencyKeyReused`] when it stands for another request.
    pub(crate) async fn claim(
        &self,
        organisation: OrganisationId,
        keyed: &Keyed,
        fresh_id: Uuid,
    ) -> Result<Same, Problem> {
        match self.claims.claim(Wanted { organisation_id: organisation, request: keyed.0, fresh_id }).await {
            Ok(Claim::Same(same)) => Ok(same),
            Ok(Claim::Other) => Err(Code::IdempotencyKeyReused.into()),
            Err(Unclaimed::Away) => Err(Code::DatabaseUnavailable.into()),
            Err(Unclaimed::Refused) => Err(Code::Internal.into()),
        }
    }

    /// What stands under the key, without claiming it: for a request that would be refused had it not been answered
    /// before.
    ///
    /// # Errors
    /// [`Code::IdempotencyKeyReused`] when it stands for another request.
    pub(crate) async fn recall(
        &self,
        organisation: OrganisationId,
        keyed: &Keyed,
        now: Timestamp,
    ) -> Result<Option<Same>, Problem> {
        let since = now - KEPT;
        match idempotency::find(&self.store, organisation, &keyed.0, since).await {
            Ok(Some(Claim::Same(same))) => Ok(Some(same)),
            Ok(Some(Claim::Other)) => Err(Code::IdempotencyKeyReused.into()),
            Ok(None) => Ok(None),
            Err(error) => Err(database_problem(&error)),
        }
    }

    /// Keeps the answer to a claimed request, where the id of what it made does not tell it; gives the answer that
    /// whoever sends the request gets, which is the first that was kept.
    pub(crate) async fn keep_answer(
        &self,
        organisation: OrganisationId,
        keyed: &Keyed,
        answer: &str,
    ) -> Result<String, Problem> {
        idempotency::keep_answer(&self.store, organisation, &keyed.0, answer)
            .await
            .map_err(|error| database_problem(&error))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(keys: &[&[u8]], request: &[&[u8]]) -> Result<Option<Keyed>, Problem> {
        let mut headers = HeaderMap::new();
        for key in keys {
            headers.append(HEADER, HeaderValue::from_bytes(key).unwrap());
        }
        Keyed::read(&headers, request)
    }

    #[test]
    fn a_key_is_bounded_visible_ascii_sent_once() {
        assert!(read(&[], &[]).unwrap().is_none());
        for key in ["x", "8e03978e-40d5-43dd-bc93-6894a57f9324", &"k".repeat(255)] {
            assert!(read(&[key.as_bytes()], &[]).unwrap().is_some(), "{key}");
        }
        let long = vec![b'k'; 256];
        for keys in [&[b"" as &[u8]] as &[&[u8]], &[b"a b"], &[b"\xff"], &[b"a\tb"], &[&long], &[b"a", b"a"]] {
            assert!(read(keys, &[]).is_err(), "{keys:?}");
        }
    }

    #[test]
    fn requests_that_differ_do_not_run_together() {
        let of = |request: &[&[u8]]| read(&[b"k"], request).unwrap().unwrap().0.request_hash;
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"ab"]), of(&[b"ab", b""]));
    }
}
