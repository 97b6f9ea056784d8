//! The batch endpoint: up to 100 calls in one `multipart/mixed` request, each with its own verdict.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::ConnectInfo;
use axum::response::Response;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use tower::ServiceExt as _;

use super::asked::{InBatch, Missing, spoiled};
use super::wire::Cut;
use crate::error::ApiError;
use crate::seed::Seed;
use crate::world::World;

/// Calls in one batch at most.
const MAX_PARTS: usize = 100;

/// Bytes of one part's response at most: an attachment of 25 MB in base64, with room.
const MAX_RESPONSE: usize = 64 << 20;

/// One inner call.
#[derive(Debug)]
struct Part {
    content_id: Option<String>,
    request: Request<Body>,
}

/// POST /batch and /batch/gmail/v1; `inner` answers the parts.
pub(crate) async fn batch(
    world: Arc<World>,
    inner: Router,
    cut: Cut,
    uri: Uri,
    head: HeaderMap,
    body: Bytes,
) -> Response {
    let now_ms = world.clock.now_ms();
    let fate = world.faults.fate("batch", None, now_ms);
    if fate.delay_ms > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(fate.delay_ms)).await;
    }
    let response = match fate.fault {
        Some(crate::faults::Fault::Error(refusal)) => refusal.error(now_ms).response(true),
        Some(fault) => spoiled(&fault, b"{}".to_vec(), &cut),
        None => match parts(&uri, &head, &body) {
            Ok(parts) => run(&world, inner, cut, parts).await,
            Err(error) => error.response(true),
        },
    };
    super::dated(&world, response)
}

async fn run(world: &World, inner: Router, cut: Cut, parts: Vec<Part>) -> Response {
    let mut seed = Seed::of(world.seed ^ world.clock.now_ms().cast_unsigned(), "batch");
    // Executed in any order, answered in the order of the request.
    let mut order: Vec<(usize, Part)> = parts.into_iter().enumerate().collect();
    for last in (1..order.len()).rev() {
        let other = usize::try_from(seed.below(last as u64 + 1)).expect("an index of this list fits in a usize");
        order.swap(last, other);
    }
    let calls = order.into_iter().map(|(at, mut part)| {
        let (inner, cut) = (inner.clone(), cut.clone());
        part.request.extensions_mut().insert(InBatch);
        part.request.extensions_mut().insert(ConnectInfo(cut));
        async move {
            let response = inner.oneshot(part.request).await.unwrap_or_else(|never| match never {});
            (at, part.content_id, written(response).await)
        }
    });
    let mut answers = join_all(calls).await;
    answers.sort_unstable_by_key(|(at, ..)| *at);
    let boundary = format!("batch_{:016x}{:016x}", seed.next(), seed.next());
    let mut out = Vec::new();
    for (_, content_id, answer) in answers {
        let Some(answer) = answer else { continue };
        out.extend_from_slice(format!("--{boundary}\r\nContent-Type: application/http\r\n").as_bytes());
        if let Some(id) = content_id {
            out.extend_from_slice(format!("Content-ID: {}\r\n", response_id(&id)).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&answer);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let mut response = Response::new(Body::from(out));
    let kind = HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}"));
    response.headers_mut().insert(header::CONTENT_TYPE, kind.expect("hex digits make a header value"));
    response
}

/// A response as it stands in a part; `None` when it is left out, or broke off.
async fn written(response: Response) -> Option<Vec<u8>> {
    if response.extensions().get::<Missing>().is_some() {
        return None;
    }
    let (head, body) = response.into_parts();
    let body = to_bytes(body, MAX_RESPONSE).await.ok()?;
    let reason = head.status.canonical_reason().unwrap_or("Unknown");
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    Some(out)
}

/// `<x>` becomes `<response-x>`.
fn response_id(id: &str) -> String {
    match id.strip_prefix('<') {
        Some(rest) => format!("<response-{rest}"),
        None => format!("response-{id}"),
    }
}

fn parts(uri: &Uri, head: &HeaderMap, body: &[u8]) -> Result<Vec<Part>, ApiError> {
    let kind = head.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary =
        boundary(kind).ok_or_else(|| ApiError::batch("Failed to parse batch request, error: no boundary"))?;
    let pieces = split(body, &boundary);
    if pieces.is_empty() {
        return Err(ApiError::batch("The batch request could not be processed. It contains no requests."));
    }
    if pieces.len() > MAX_PARTS {
        let received = pieces.len();
        return Err(ApiError::batch(format!(
            "Inner request count exceeds the limit. Received: {received}, Limit: {MAX_PARTS}"
        )));
    }
    let part = |piece| {
        part(uri, head, piece)
            .ok_or_else(|| ApiError::batch("Failed to parse batch request, error: 0. Received batch body: (…)"))
    };
    pieces.into_iter().map(part).collect()
}

fn boundary(kind: &str) -> Option<String> {
    let mut fields = kind.split(';');
    if !fields.next()?.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    fields.find_map(|field| {
        let (name, value) = field.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').to_owned())
    })
}

/// What lies between the lines that begin with the boundary.
fn split<'b>(body: &'b [u8], boundary: &str) -> Vec<&'b [u8]> {
    let mark = format!("--{boundary}");
    let mut pieces = Vec::new();
    let mut open: Option<usize> = None;
    let mut at = 0;
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let text = line.trim_ascii_end();
        let closes = text.strip_prefix(mark.as_bytes()) == Some(b"--");
        if text == mark.as_bytes() || closes {
            if let Some(start) = open.take() {
                pieces.push(&body[start..at]);
            }
            if closes {
                return pieces;
            }
            open = Some(at + line.len());
        }
        at += line.len();
    }
    // The last boundary never came: what there is counts.
    pieces.extend(open.map(|start| &body[start..]).filter(|piece| !piece.trim_ascii().is_empty()));
    pieces
}

fn part(outer: &Uri, outer_head: &HeaderMap, piece: &[u8]) -> Option<Part> {
    let (head, inner) = lines_until_blank(piece);
    let content_id = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-id").then(|| value.trim().to_owned())
    });
    let (lines, body) = lines_until_blank(inner);
    let mut lines = lines.into_iter();
    let first = lines.next()?;
    let mut words = first.split_whitespace();
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let target = words.next()?;
    let mut request =
        Request::builder().method(method).uri(with_outer_query(target, outer)?).body(Body::from(body.to_vec())).ok()?;
    for (name, value) in outer_head {
        let own = name.as_str().starts_with("content-") || name == header::HOST || name == header::CONNECTION;
        if !own {
            request.headers_mut().insert(name, value.clone());
        }
    }
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        request.headers_mut().insert(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(Part { content_id, request })
}

/// The path and query of an inner call, with the outer call's parameters in front: the inner ones count.
fn with_outer_query(target: &str, outer: &Uri) -> Option<Uri> {
    let target: Uri = target.parse().ok()?;
    let query: Vec<&str> = [outer.query(), target.query()].into_iter().flatten().filter(|q| !q.is_empty()).collect();
    let path = target.path();
    let joined = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
    joined.parse().ok()
}

/// Lines up to the first blank one, and what follows. Line ends may be LF or CRLF.
fn lines_until_blank(bytes: &[u8]) -> (Vec<String>, &[u8]) {
    let mut lines = Vec::new();
    let mut at = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        if text.is_empty() {
            if lines.is_empty() {
                continue;
            }
            break;
        }
        lines.push(text);
    }
    (lines, &bytes[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_whatever_the_line_ends() {
        for end in ["\n", "\r\n"] {
            let text = [
                "--b",
                "Content-Type: application/http",
                "Content-ID: <u + 1>",
                "",
                "GET /gmail/v1/users/me/profile?a=1 HTTP/1.1",
                "Authorization: Bearer x",
                "",
                "",
                "--b",
                "Content-Type: application/http",
                "",
                "GET /x",
                "",
                "--b--",
                "",
            ]
            .join(end);
            let uri: Uri = "/batch?fields=id".parse().unwrap();
            let mut head = HeaderMap::new();
            head.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/mixed; boundary=\"b\""));
            head.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer outer"));
            let parts = parts(&uri, &head, text.as_bytes()).unwrap();
            assert_eq!(parts.len(), 2);
            assert_eq!(parts[0].content_id.as_deref(), Some("<u + 1>"));
            assert_eq!(parts[0].request.uri(), "/gmail/v1/users/me/profile?fields=id&a=1");
            assert_eq!(parts[0].request.headers()[header::AUTHORIZATION], "Bearer x");
            assert_eq!(parts[1].request.headers()[header::AUTHORIZATION], "Bearer outer");
            assert!(parts[1].request.headers().get(header::CONTENT_TYPE).is_none());
        }
    }

    #[test]
    fn ids_are_echoed_as_google_does() {
        assert_eq!(response_id("<u + 1>"), "<response-u + 1>");
        assert_eq!(response_id("1"), "response-1");
    }
}
