//! The request's body, for calls that take none.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body::Body as _;

use crate::problem::{Code, Problem};

/// No call of this API takes more, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024;

/// Accepts no body, an empty one, or an empty JSON object, and refuses all else: a member that has no meaning here would
/// be taken for one that has.
pub(crate) async fn expect_nothing(headers: &HeaderMap, body: Body) -> Result<(), Problem> {
    if body.is_end_stream() {
        return Ok(());
    }
    // Refused by its announced length, so that nobody sends what nobody reads.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Code::BodyTooLarge.into());
    }
    let bytes = axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        let too_large =
            std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        Problem::from(if too_large { Code::BodyTooLarge } else { Code::BodyInvalid })
    })?;
    if bytes.is_empty() {
        return Ok(());
    }
    if !is_json(headers) {
        return Err(Code::MediaTypeUnsupported.into());
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(members) if members.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err(Problem::from(Code::BodyInvalid)
            .with_detail("This call takes no body; send none, or an empty JSON object.")),
    }
}

/// Whether the body is announced as `application/json` (RFC 9110 §8.3.1: type and subtype in any case, parameters allowed).
fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    async fn outcome(content_type: Option<&'static str>, body: impl Into<Body>) -> Result<(), axum::http::StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        expect_nothing(&headers, body.into())
            .await
            .map_err(|problem| axum::response::IntoResponse::into_response(problem).status())
    }

    #[tokio::test]
    async fn no_body_and_an_empty_object_are_fine() {
        assert_eq!(outcome(None, "").await, Ok(()));
        assert_eq!(outcome(Some("text/plain"), "").await, Ok(()));
        assert_eq!(outcome(Some("application/json"), "{}").await, Ok(()));
        assert_eq!(outcome(Some("Application/JSON; charset=utf-8"), " { } ").await, Ok(()));
    }

    #[tokio::test]
    async fn all_else_is_refused_by_what_is_wrong_with_it() {
        assert_eq!(outcome(Some("text/plain"), "{}").await, Err(Code::MediaTypeUnsupported.status()));
        assert_eq!(outcome(None, "{}").await, Err(Code::MediaTypeUnsupported.status()));
        for body in ["{", "[]", "null", r#"{"since":1}"#, "{}{}", "\u{0}"] {
            assert_eq!(outcome(Some("application/json"), body).await, Err(Code::BodyInvalid.status()), "{body}");
        }
        assert_eq!(outcome(None, vec![b' '; MAX_BODY + 1]).await, Err(Code::BodyTooLarge.status()));
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_read_only_up_to_the_limit() {
        let endless =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 1024])));
        assert_eq!(
            outcome(Some("application/json"), Body::from_stream(endless)).await,
            Err(Code::BodyTooLarge.status())
        );
    }
}
