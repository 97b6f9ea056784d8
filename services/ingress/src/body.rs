//! The request's body: none, or JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body::Body as _;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

/// No call of this API takes more, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024;

/// How long a client may take to send a body after its head: less than a request may take in all.
const PATIENCE: Duration = Duration::from_secs(3);

/// Accepts no body, an empty one, or an empty JSON object, and refuses all else: a member that has no meaning here would
/// be taken for one that has.
pub(crate) async fn expect_nothing(headers: &HeaderMap, body: Body) -> Result<(), Problem> {
    let bytes = read(headers, body).await?;
    if bytes.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(members) if members.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err(Problem::from(Code::BodyInvalid)
            .with_detail("This call takes no body; send none, or an empty JSON object.")),
    }
}

/// The bytes of a body that is JSON, or no bytes where there is none.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    // Refused by its announced length, so that nobody sends what nobody reads.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Code::BodyTooLarge.into());
    }
    let whole = tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, MAX_BODY)).await;
    let bytes = whole.map_err(|_| Code::BodyTooSlow)?.map_err(|error| {
        let too_large =
            std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        Problem::from(if too_large { Code::BodyTooLarge } else { Code::BodyInvalid })
    })?;
    if !bytes.is_empty() && !is_json(headers) {
        return Err(Code::MediaTypeUnsupported.into());
    }
    Ok(bytes)
}

/// What a body says; no body says what an empty object does. A member that the call does not know is refused by its
/// name: it would be taken for one that has a meaning.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = if bytes.is_empty() { b"{}" } else { bytes };
    // An array would be read as the members in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("expected a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string() {
        path if path == "." => invalid(&error.inner().to_string()),
        path => invalid(&format!("`{path}`: {}", error.inner())),
    })?;
    json.end().map_err(|error| invalid(&error.to_string()))?;
    Ok(parsed)
}

/// A refusal that says what is wrong, naming the member. The words may repeat what was sent, so they are bounded.
pub(crate) fn invalid(what: &str) -> Problem {
    const MOST: usize = 300;
    let what: String = what.chars().take(MOST).collect();
    Problem::from(Code::BodyInvalid).with_detail(format!("The body is not what this call takes: {what}."))
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

    #[test]
    fn what_is_wrong_with_a_body_is_told_by_the_members_name() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Asked {
            return_url: String,
            #[serde(default)]
            n: Option<u8>,
        }
        let asked = parse::<Asked>(br#" {"returnUrl": "x", "n": 7} "#).unwrap();
        assert_eq!((asked.return_url.as_str(), asked.n), ("x", Some(7)));
        for (body, told) in [
            ("", "`returnUrl`"),
            ("{}", "`returnUrl`"),
            (r#"{"returnUrl": 7}"#, "`returnUrl`"),
            (r#"{"returnUrl": "x", "n": -1}"#, "`n`"),
            (r#"{"returnUrl": "x", "strange": 1}"#, "`strange`"),
            (r#"{"returnUrl": "x", "returnUrl": "y"}"#, "duplicate field `returnUrl`"),
            (r#"["x", 7]"#, "object"),
            (r#"{"returnUrl": "x"} {}"#, "trailing"),
            (r#"{"returnUrl": "x""#, "EOF"),
            ("\u{feff}{}", "object"),
        ] {
            let told_of = format!("{:?}", parse::<Asked>(body.as_bytes()).unwrap_err());
            assert!(told_of.contains(told), "{body}: {told_of}");
        }
        let long = format!(r#"{{"{}": 1}}"#, "x".repeat(10_000));
        assert!(format!("{:?}", parse::<Asked>(long.as_bytes()).unwrap_err()).len() < 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_not_waited_for() {
        let dripping = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(b" ")), ()))
        });
        let status = outcome(Some("application/json"), Body::from_stream(dripping)).await;
        assert_eq!(status, Err(Code::BodyTooSlow.status()));
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
