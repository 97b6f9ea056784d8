//! Query parameters as Google's front end reads them.

use std::borrow::Cow;

use crate::error::ApiError;
use crate::fields::{self, Mask, Shape};

/// The parameters of one request, in order.
#[derive(Debug, Default)]
pub(crate) struct Params<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

/// How many entries a page has when nobody says, and at most.
const DEFAULT_RESULTS: usize = 100;
const MAX_RESULTS: usize = 500;

impl<'q> Params<'q> {
    /// Reads a query string.
    pub(crate) fn parse(query: &'q str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).collect())
    }

    /// The last value of `name`: of a repeated parameter the last counts.
    pub(crate) fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// Every value of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// Whether errors carry `errors[]`; false only for `$.xgafv=2`.
    pub(crate) fn legacy_errors(&self) -> bool {
        self.last("$.xgafv") != Some("2")
    }

    /// Checks `$.xgafv`, before anything else.
    pub(crate) fn check_error_format(&self) -> Result<(), ApiError> {
        match self.last("$.xgafv") {
            None | Some("" | "1" | "2") => Ok(()),
            Some(other) => Err(ApiError::invalid_type("$.xgafv", "TYPE_ENUM", other)),
        }
    }

    /// Whether the response is indented.
    pub(crate) fn pretty(&self) -> bool {
        !matches!(self.last("prettyPrint"), Some("false" | "0"))
    }

    /// The field mask, checked against what the response has.
    pub(crate) fn mask(&self, shape: &Shape) -> Result<Mask, ApiError> {
        let Some(text) = self.last("fields") else { return Ok(Mask::All) };
        let mask = fields::parse(text).and_then(|mask| mask.check(shape).map(|()| mask));
        mask.map_err(|error| ApiError::invalid_fields(&error.path))
    }

    /// `maxResults` as a 32-bit number, before it is known who asks.
    pub(crate) fn max_results_number(&self) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.last("maxResults").filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ApiError::invalid_type("max_results", "TYPE_UINT32", text))
    }

    /// The page's size: 500 is the most, whatever is asked.
    pub(crate) fn max_results(&self) -> Result<usize, ApiError> {
        match self.max_results_number()? {
            None => Ok(DEFAULT_RESULTS),
            Some(0 | 0x8000_0000..) => Err(ApiError::invalid_argument("Invalid maxResults")),
            Some(number) => Ok(usize::try_from(number).unwrap_or(MAX_RESULTS).min(MAX_RESULTS)),
        }
    }

    /// The page's position: any number of up to 20 digits, whoever made it. `None` is the first page.
    pub(crate) fn page_token(&self) -> Result<Option<u64>, ApiError> {
        match self.last("pageToken") {
            None | Some("") => Ok(None),
            Some(text) if text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Some(text.parse().unwrap_or(u64::MAX)))
            }
            Some(_) => Err(ApiError::invalid_argument("Invalid pageToken")),
        }
    }

    /// A switch that is off when absent.
    pub(crate) fn flag(&self, name: &str, field: &str) -> Result<bool, ApiError> {
        match self.last(name) {
            None | Some("" | "false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(ApiError::invalid_type(field, "TYPE_BOOL", other)),
        }
    }
}

/// A message id: up to 16 hex digits, below 2⁶³.
pub(crate) fn message_id(text: &str) -> Result<u64, ApiError> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .filter(|id| id >> 63 == 0)
        .ok_or_else(|| ApiError::invalid_argument("Invalid id value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tokens_follow_what_was_measured() {
        let size = |query| Params::parse(query).max_results();
        assert_eq!(size(""), Ok(100));
        assert_eq!(size("maxResults=3&maxResults=501"), Ok(500));
        assert_eq!(size("maxResults=0").unwrap_err().message, "Invalid maxResults");
        assert_eq!(size("maxResults=2147483648").unwrap_err().message, "Invalid maxResults");
        assert_eq!(size("maxResults=x").unwrap_err().message, "Invalid value at 'max_results' (TYPE_UINT32), \"x\"");
        let token = |query| Params::parse(query).page_token();
        assert_eq!(token("pageToken="), Ok(None));
        assert_eq!(token("pageToken=99999999999999999999"), Ok(Some(u64::MAX)));
        assert!(token("pageToken=123456789012345678901").is_err());
        assert!(token("pageToken=a1").is_err());
    }

    #[test]
    fn ids_are_hex_below_two_to_the_63() {
        assert_eq!(message_id("7fffffffffffffff"), Ok((1 << 63) - 1));
        for wrong in ["8000000000000000", "xyz", "", "+1", "18d1c0ffee00123411"] {
            assert_eq!(message_id(wrong).unwrap_err().message, "Invalid id value", "{wrong}");
        }
    }
}
