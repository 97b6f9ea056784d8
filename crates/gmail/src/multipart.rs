//! The batch endpoint's wire form: requests in one `multipart/mixed` body, and the answers in another.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{EMPTY_HEADER, Status};
use memchr::memmem;

/// Parts the requests. They hold ids in percent-encoding and constants, so it cannot come up in them.
const BOUNDARY: &str = "mailtide-batch";
/// The `Content-Type` of what [`request`] makes.
pub(crate) const CONTENT_TYPE: &str = "multipart/mixed; boundary=mailtide-batch";
/// Header lines of one part, or of one answer, at most.
const MAX_HEADERS: usize = 64;

/// One answer of a batch.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Which of the requests it is for.
    pub(crate) index: usize,
    pub(crate) status: StatusCode,
    /// Read only when there is an error to judge.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The body of a batch of GETs, one for each path.
pub(crate) fn request(paths: impl Iterator<Item = String>) -> String {
    let mut body = String::new();
    for (index, path) in paths.enumerate() {
        let index = index.to_string();
        let pieces = [
            "--",
            BOUNDARY,
            "\r\nContent-Type: application/http\r\nContent-ID: <",
            &index,
            ">\r\n\r\nGET ",
            &path,
            " HTTP/1.1\r\n\r\n\r\n",
        ];
        body.extend(pieces);
    }
    body.extend(["--", BOUNDARY, "--\r\n"]);
    body
}

/// The boundary that `Content-Type` names; none when this is no batch's answer.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let (essence, parameters) = kind.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then(|| value.to_owned())
    })
}

/// The answers in `body`, as far as they are whole: what breaks off, or is no answer, or names no request is left out.
/// The answers' bodies are pieces of `body`, not copies.
pub(crate) fn answers(body: &Bytes, boundary: &str) -> Vec<Answer> {
    let mark = format!("--{boundary}");
    let finder = memmem::Finder::new(&mark);
    let mut answers = Vec::new();
    let mut open: Option<usize> = None;
    for at in finder.find_iter(body) {
        // A boundary begins a line and ends it (RFC 2046 §5.1.1); elsewhere it is somebody's text.
        let rest = &body[at + mark.len()..];
        let closes = rest.starts_with(b"--");
        let ends = closes || rest.trim_ascii_start().len() != rest.len();
        if !(at == 0 || body[at - 1] == b'\n') || !ends {
            continue;
        }
        if let Some(from) = open.take() {
            answers.extend(answer(&body.slice(from..at)));
        }
        if closes {
            break;
        }
        let Some(line) = memchr::memchr(b'\n', rest) else { break };
        open = Some(at + mark.len() + line + 1);
    }
    answers
}

fn answer(part: &Bytes) -> Option<Answer> {
    let mut lines = [EMPTY_HEADER; MAX_HEADERS];
    let Ok(Status::Complete((inner, lines))) = httparse::parse_headers(part, &mut lines) else { return None };
    let id = lines.iter().find(|line| line.name.eq_ignore_ascii_case("content-id"))?;
    let index = index(id.value)?;
    let mut lines = [EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut lines);
    let Ok(Status::Complete(head)) = response.parse(&part[inner..]) else { return None };
    let status = StatusCode::from_u16(response.code?).ok()?;
    let mut headers = HeaderMap::new();
    if status != StatusCode::OK {
        for line in response.headers.iter() {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(line.name.as_bytes()), HeaderValue::from_bytes(line.value))
            {
                headers.append(name, value);
            }
        }
    }
    Some(Answer { index, status, headers, body: part.slice(inner + head..) })
}

/// `<response-7>` answers `<7>`.
fn index(content_id: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(content_id).ok()?.trim().trim_start_matches('<').trim_end_matches('>');
    text.strip_prefix("response-").unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> Option<String> {
        let headers = [(http::header::CONTENT_TYPE, HeaderValue::from_str(text).unwrap())];
        boundary(&HeaderMap::from_iter(headers))
    }

    fn text(end: &str) -> String {
        let lines = [
            "preamble",
            "--b",
            "Content-Type: application/http",
            "Content-ID: <response-1>",
            "",
            "HTTP/1.1 200 OK",
            "Content-Type: application/json; charset=UTF-8",
            "",
            r#"{"id": "--b", "x":"#,
            r#"  "--b"}"#,
            "--bc",
            "",
            "--b",
            "content-id: response-0",
            "",
            "HTTP/1.1 429 Too Many Requests",
            "Retry-After: 7",
            "",
            "{}",
            "--b--",
            "--b",
            "epilogue",
        ];
        lines.join(end)
    }

    #[test]
    fn answers_are_found_by_their_ids_whatever_the_line_ends() {
        for end in ["\n", "\r\n"] {
            let answers = answers(&text(end).into(), "b");
            let ids: Vec<_> = answers.iter().map(|answer| (answer.index, answer.status.as_u16())).collect();
            assert_eq!(ids, [(1, 200), (0, 429)]);
            assert_eq!(answers[1].headers["retry-after"], "7");
            assert_eq!(answers[1].body.trim_ascii(), b"{}");
            assert!(answers[0].body.ends_with(format!(r#""--b"}}{end}--bc{end}{end}"#).as_bytes()));
        }
    }

    #[test]
    fn only_a_multipart_answer_has_a_boundary() {
        assert_eq!(kind("multipart/mixed; boundary=batch_x"), Some("batch_x".to_owned()));
        assert_eq!(kind("Multipart/Mixed; charset=x; Boundary=\"a b\""), Some("a b".to_owned()));
        for other in ["text/html", "multipart/mixed", "application/json; boundary=x", "multipart/mixed; boundary="] {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn what_breaks_off_is_left_out() {
        let whole = text("\r\n");
        let second = whole.find("--b\r\ncontent-id").unwrap();
        let closing = whole.find("--b--").unwrap();
        for length in 0..=whole.len() {
            let found = answers(&Bytes::copy_from_slice(&whole.as_bytes()[..length]), "b").len();
            let most = usize::from(length > second + 3) + usize::from(length > closing + 3);
            assert!(found <= most, "{found} answers in {:?}", &whole[..length]);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_breaks_the_parser(body: Vec<u8>, boundary in "[a-z=-]{1,3}") {
            answers(&body.into(), &boundary);
        }

        #[test]
        fn every_answer_is_found(bodies in prop::collection::vec("[ -~]{0,40}", 0..20)) {
            let mut text = String::new();
            for (index, body) in bodies.iter().enumerate() {
                text += &format!("--zz\r\nContent-ID: <response-{index}>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{body}\r\n");
            }
            text += "--zz--";
            let found = answers(&text.into(), "zz");
            prop_assert_eq!(found.len(), bodies.len());
            for (index, answer) in found.iter().enumerate() {
                prop_assert_eq!(answer.index, index);
                prop_assert_eq!(answer.body.clone(), format!("{}\r\n", bodies[index]));
            }
        }
    }
}
