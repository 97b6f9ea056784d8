//! `GET /docs`: the API document as a page to read and to try calls from, and the document itself, as they are sent.
//!
//! Everything the page needs is compiled in and served from here. It is written out once, when the service starts, so
//! that it can be read without a script; the script only adds the trying of calls. Its content security policy lets it
//! load and ask nothing but this service.

mod example;
mod fields;
mod page;
mod text;

use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Nothing but ours, nothing inline, nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
);

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// A file that is sent as it is, to anybody, and not again to whoever has it.
#[derive(Debug, Clone)]
pub(crate) struct Asset {
    bytes: Bytes,
    content_type: HeaderValue,
    tag: HeaderValue,
}

impl Asset {
    fn new(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = Sha256::digest(&bytes);
        let tag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::try_from(format!("\"{tag}\"")).expect("hexadecimal digits are a header value");
        Self { bytes, content_type: HeaderValue::from_static(content_type), tag }
    }

    /// The answer to a request with these headers: 304 where the client has it.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> Response {
        let common = [
            (ETAG, self.tag.clone()),
            // It may be kept, and is asked for anew each time: who runs a new version sees its page.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (OPENER_POLICY, HeaderValue::from_static("same-origin")),
        ];
        if headers.get_all(IF_NONE_MATCH).iter().any(|tags| self.is_among(tags)) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        (common, [(CONTENT_TYPE, self.content_type.clone())], self.bytes.clone()).into_response()
    }

    /// RFC 9110 §13.1.2: compared weakly, so without the W/ that a proxy may have put there.
    fn is_among(&self, tags: &HeaderValue) -> bool {
        let own = self.tag.as_bytes();
        tags.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == own
        })
    }
}

/// The document and the page, with what the page loads.
#[derive(Debug)]
pub(crate) struct Reference {
    /// `/openapi.json`.
    pub(crate) document: Asset,
    /// `/docs`.
    pub(crate) page: Asset,
    /// `/docs/style.css`.
    pub(crate) style: Asset,
    /// `/docs/try.js`.
    pub(crate) script: Asset,
    /// `/docs/icon.svg`.
    pub(crate) icon: Asset,
}

impl Reference {
    /// Writes the page of this document. `codes` are all that a caller may meet.
    pub(crate) fn new(document: &Value, codes: &[CodeRow]) -> Arc<Self> {
        Arc::new(Self {
            document: Asset::new("application/json", document.to_string()),
            page: Asset::new("text/html; charset=utf-8", page::page(document, codes)),
            style: Asset::new("text/css; charset=utf-8", include_str!("style.css")),
            script: Asset::new("text/javascript; charset=utf-8", include_str!("try.js")),
            icon: Asset::new("image/svg+xml", include_str!("icon.svg")),
        })
    }
}

/// A dotted code, as the table of them has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeRow {
    /// The status it comes with; none for a code of jobs that failed.
    pub(crate) status: Option<StatusCode>,
    /// The code.
    pub(crate) code: &'static str,
    /// What happened.
    pub(crate) meaning: &'static str,
    /// What to do.
    pub(crate) remedy: &'static str,
}

impl CodeRow {
    /// Where on the page it is told.
    fn anchor(&self) -> String {
        let family = if self.status.is_some() { "code" } else { "job-code" };
        format!("{family}-{}", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_is_not_sent_it_again() {
        let asset = Asset::new("text/plain", "text");
        let tag = asset.tag.to_str().unwrap().to_owned();
        let status = |sent: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(IF_NONE_MATCH, value.parse().unwrap());
            }
            asset.answer(&headers).status()
        };
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            assert_eq!(status(&[&known]), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(status(&["\"x\"", &tag]), StatusCode::NOT_MODIFIED);
        for other in ["", "\"x\"", &tag[1..], "W/", ",,"] {
            assert_eq!(status(&[other]), StatusCode::OK, "{other}");
        }
        assert_ne!(Asset::new("text/plain", "other").tag, asset.tag);
    }
}
