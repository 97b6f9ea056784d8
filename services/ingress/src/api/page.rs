//! Lists that page: the query's parameters, and the cursor.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{JobId, OrganisationId, Timestamp};
use sha2::{Digest, Sha256};
use url::form_urlencoded;
use uuid::Uuid;

use crate::problem::{Code, Problem};

/// Entries of a page when none are asked for, and at most.
pub(super) const DEFAULT_LIMIT: u32 = 50;
pub(super) const MAX_LIMIT: u32 = 200;

/// What a cursor looks like.
pub(super) const CURSOR: &str = "^[A-Za-z0-9_-]{43}$";

/// The parameters of a query, their names in any case, as the API's owner has them elsewhere. What a call does not know
/// it does not look at.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn of(query: Option<&'a str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect())
    }

    /// Every value of a parameter.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
    }

    /// The value of a parameter that is sent once, if at all.
    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() { Err(invalid(name, "was sent twice")) } else { Ok(first) }
    }

    /// `Limit`.
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = self.one("Limit")? else { return Ok(DEFAULT_LIMIT) };
        let limit = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        limit
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| invalid("Limit", &format!("must be a number from 1 to {MAX_LIMIT}")))
    }

    /// `Cursor`.
    pub(super) fn cursor(&self, list: List) -> Result<Option<Place>, Problem> {
        let Some(text) = self.one("Cursor")? else { return Ok(None) };
        let place = Place::read(text, list);
        place.map(Some).ok_or_else(|| invalid("Cursor", "must be the `nextCursor` of a page of this list"))
    }

    /// A parameter that names things of a kind, any number of times.
    pub(super) fn names<T: Copy>(&self, name: &str, known: &[(&str, T)]) -> Result<Vec<T>, Problem> {
        let find = |given: &str| known.iter().find(|(known, _)| *known == given).map(|(_, thing)| *thing);
        let must = || {
            let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            invalid(name, &format!("must be one of {}", known.join(", ")))
        };
        self.all(name).map(|given| find(given).ok_or_else(must)).collect()
    }
}

fn invalid(name: &str, what: &str) -> Problem {
    Problem::from(Code::QueryInvalid).with_detail(format!("The parameter {name} {what}."))
}

/// What a cursor belongs to: one organisation's list of one kind, and of one thing where there is one list for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) organisation: OrganisationId,
    pub(super) of: Option<Uuid>,
}

/// A place in a list of jobs: after this one.
pub(super) type Place = (Timestamp, JobId);

/// A place in a list as its cursor's text, and back.
///
/// The place in eight and sixteen bytes, then a check that binds it to its list, so that a cursor that was cut, changed
/// or taken from elsewhere is told and not followed. It is no secret: whoever forges one reaches another place in a list
/// that is theirs.
pub(super) trait Cursor: Sized {
    /// The text.
    fn write(self, list: List) -> String;
    /// The place, if the text is a cursor of this list.
    fn read(text: &str, list: List) -> Option<Self>;
}

impl Cursor for Place {
    fn write(self, list: List) -> String {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.0.as_millis().to_be_bytes());
        bytes[8..24].copy_from_slice(self.1.as_uuid().as_bytes());
        let check = check(&bytes[..24], list);
        bytes[24..].copy_from_slice(&check);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(text: &str, list: List) -> Option<Self> {
        // Decoded into a buffer of just this size: a longer text is refused before it is decoded.
        let mut bytes = [0; 32];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != bytes.len()
            || bytes[24..] != check(&bytes[..24], list)
        {
            return None;
        }
        let at = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let id = Uuid::from_slice(&bytes[8..24]).ok()?;
        Some((Timestamp::from_millis(at), JobId::from_uuid(id)))
    }
}

fn check(place: &[u8], list: List) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(b"mailtide cursor v1");
    hash.update(list.organisation.as_bytes());
    hash.update(list.of.unwrap_or_default().as_bytes());
    hash.update(place);
    let mut check = [0; 8];
    check.copy_from_slice(&hash.finalize()[..8]);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(organisation: u128, of: Option<u128>) -> List {
        List { organisation: OrganisationId::from_uuid(Uuid::from_u128(organisation)), of: of.map(Uuid::from_u128) }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written_and_in_its_list_only(at: i64, id: u128, organisation: u128, of: Option<u128>) {
            let place = (Timestamp::from_millis(at), JobId::from_uuid(Uuid::from_u128(id)));
            let text = place.write(list(organisation, of));
            prop_assert_eq!(text.len(), 43);
            prop_assert_eq!(Place::read(&text, list(organisation, of)), Some(place));
            prop_assert_eq!(Place::read(&text, list(organisation ^ 1, of)), None);
            prop_assert_eq!(Place::read(&text, list(organisation, Some(of.unwrap_or_default() ^ 1))), None);
        }

        #[test]
        fn any_other_text_is_none(text in ".{0,60}", at: usize, bit in 0..7u8) {
            prop_assert_eq!(Place::read(&text, list(1, None)), None);
            let good = (Timestamp::from_millis(7), JobId::from_uuid(Uuid::from_u128(7))).write(list(1, None));
            let mut bent = good.into_bytes();
            let at = at % bent.len();
            bent[at] ^= 1 << bit;
            prop_assert_eq!(std::str::from_utf8(&bent).ok().and_then(|bent| Place::read(bent, list(1, None))), None);
        }
    }

    #[test]
    fn parameters_are_found_in_any_case_and_once() {
        let limit = |query| Query::of(Some(query)).limit().ok();
        assert_eq!(limit(""), Some(DEFAULT_LIMIT));
        assert_eq!(limit("limit=7&other=1"), Some(7));
        assert_eq!(limit("Limit=%37"), Some(7));
        for wrong in
            ["Limit=", "Limit=0", "Limit=201", "Limit=-1", "Limit=+1", "Limit=1.0", "Limit=x", "Limit=1&limit=1"]
        {
            assert_eq!(limit(wrong), None, "{wrong}");
        }
        let letters = [("a", 1), ("b", 2)];
        let names = |query| Query::of(Some(query)).names("State", &letters).ok();
        assert_eq!(names("State=b&state=a"), Some(vec![2, 1]));
        assert_eq!(names("State=A"), None);
        assert_eq!(names("State="), None);
    }
}
