//! Mail as bytes, and as Gmail shows it: a tree of parts with headers in order, decoded bodies, sizes and file
//! names. Nothing is refused: what cannot be parsed is one part of plain text.

use bytes::Bytes;
use mail_parser::{Encoding, Message, MessageParser, MessagePart, MimeHeaders as _, PartType};

/// Mail that was delivered as bytes, parsed once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    raw: Bytes,
    root: Part,
    snippet: String,
    text: String,
    message_id: Option<String>,
    references: Vec<String>,
}

/// One part of a mail.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// `type/subtype` in lower case.
    pub(crate) mime_type: String,
    /// Empty unless the part is a file.
    pub(crate) filename: String,
    /// Names as spelled in the mail; values unfolded, encoded words decoded.
    pub(crate) headers: Vec<(String, String)>,
    /// The decoded content; empty for a container.
    pub(crate) body: Bytes,
    /// Whether the content is fetched by an attachment id, rather than with the message.
    pub(crate) attached: bool,
    /// The parts inside.
    pub(crate) parts: Vec<Part>,
}

/// Nested messages below this depth are kept as files without parts.
const MAX_DEPTH: usize = 16;

/// Characters of a snippet, before it is escaped.
const SNIPPET: usize = 200;

impl Mail {
    /// Mail from bytes of any kind. Bare line feeds become CRLF, as they would on their way to Gmail.
    pub(crate) fn new(raw: &[u8]) -> Self {
        let raw = Bytes::from(with_crlf(raw));
        let parsed = MessageParser::default().parse(&raw).filter(|message| !message.parts.is_empty());
        let (root, message_id, references) = match &parsed {
            Some(message) => (root(message, 0), message.message_id().map(str::to_owned), references(message)),
            None => (plain(&raw), None, Vec::new()),
        };
        let text = readable(&root).unwrap_or_default();
        let snippet = snippet(&text);
        Self { root, snippet, text, message_id, references, raw: raw.clone() }
    }

    /// Mail whose parts are known already: what parsing `raw` would give.
    pub(crate) fn known(raw: Bytes, root: Part, message_id: String) -> Self {
        let text = readable(&root).unwrap_or_default();
        let snippet = snippet(&text);
        Self { raw, root, snippet, text, message_id: Some(message_id), references: Vec::new() }
    }

    /// The mail's bytes.
    pub(crate) fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The tree of parts.
    pub(crate) fn root(&self) -> &Part {
        &self.root
    }

    /// The beginning of what it says, HTML-escaped as Gmail does.
    pub(crate) fn snippet(&self) -> &str {
        &self.snippet
    }

    /// What it says, for search.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Its `Message-ID` without brackets.
    pub(crate) fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// The ids that it answers, nearest last.
    pub(crate) fn references(&self) -> &[String] {
        &self.references
    }

    /// The value of the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.root.header(name)
    }
}

impl Part {
    /// The value of the first header of that name, in any letter case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The part and all that is inside it, outer first.
    pub(crate) fn walk(&self) -> impl Iterator<Item = &Part> {
        let mut stack = vec![self];
        std::iter::from_fn(move || {
            let part = stack.pop()?;
            stack.extend(part.parts.iter().rev());
            Some(part)
        })
    }

    /// The part at a part id such as `1.0`; the root's is empty.
    pub(crate) fn at(&self, part_id: &str) -> Option<&Part> {
        if part_id.is_empty() {
            return Some(self);
        }
        part_id.split('.').try_fold(self, |part, index| part.parts.get(index.parse::<usize>().ok()?))
    }
}

fn root(message: &Message<'_>, depth: usize) -> Part {
    message.parts.first().map_or_else(|| plain(&[]), |first| part(message, first, depth))
}

fn part(message: &Message<'_>, source: &MessagePart<'_>, depth: usize) -> Part {
    let filename = source.attachment_name().unwrap_or_default().to_owned();
    let disposed = source.content_disposition().is_some_and(mail_parser::ContentType::is_attachment);
    let headers = headers(message, source);
    let declared = source
        .content_type()
        .map(|kind| format!("{}/{}", kind.c_type, kind.c_subtype.as_deref().unwrap_or("plain")).to_ascii_lowercase());
    let mut part = Part { filename, headers, ..Part::default() };
    match &source.body {
        PartType::Multipart(ids) => {
            part.mime_type = declared.unwrap_or_else(|| "multipart/mixed".to_owned());
            part.parts = ids
                .iter()
                .filter_map(|&id| message.parts.get(usize::try_from(id).ok()?))
                .map(|inner| self::part(message, inner, depth + 1))
                .collect();
        }
        PartType::Text(text) | PartType::Html(text) => {
            let fallback = if matches!(source.body, PartType::Html(_)) { "text/html" } else { "text/plain" };
            // A multipart whose boundary never comes is read as text.
            part.mime_type = declared.filter(|kind| !kind.starts_with("multipart/")).unwrap_or(fallback.to_owned());
            part.attached = disposed || !part.filename.is_empty() || !part.mime_type.starts_with("text/");
            part.body = if part.attached { original(message, source) } else { None }
                .unwrap_or_else(|| Bytes::copy_from_slice(text.as_bytes()));
        }
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => {
            part.mime_type = declared.unwrap_or_else(|| "application/octet-stream".to_owned());
            part.attached = true;
            part.body = Bytes::copy_from_slice(bytes);
        }
        PartType::Message(nested) => {
            part.mime_type = declared.unwrap_or_else(|| "message/rfc822".to_owned());
            part.attached = true;
            part.body =
                original(message, source).unwrap_or_else(|| Bytes::copy_from_slice(nested.raw_message.as_ref()));
            if depth < MAX_DEPTH {
                part.parts = vec![root(nested, depth + 1)];
            }
        }
    }
    part
}

/// The part's content with its transfer encoding undone and its charset left alone.
fn original(message: &Message<'_>, source: &MessagePart<'_>) -> Option<Bytes> {
    let range = usize::try_from(source.offset_body).ok()?..usize::try_from(source.offset_end).ok()?;
    let encoded = message.raw_message.get(range)?;
    let decoded = match source.encoding {
        Encoding::None => encoded.to_vec(),
        Encoding::Base64 => mail_parser::decoders::base64::base64_decode(encoded)?,
        Encoding::QuotedPrintable => mail_parser::decoders::quoted_printable::quoted_printable_decode(encoded)?,
    };
    Some(Bytes::from(decoded))
}

fn headers(message: &Message<'_>, source: &MessagePart<'_>) -> Vec<(String, String)> {
    let raw = message.raw_message.as_ref();
    let slice = |from: u32, to: u32| raw.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?);
    source
        .headers
        .iter()
        .filter_map(|header| {
            let name = slice(header.offset_field, header.offset_start)?;
            let name = String::from_utf8_lossy(name);
            let name = name.trim().trim_end_matches(':').trim_end().to_owned();
            let value = slice(header.offset_start, header.offset_end)?;
            Some((name, unfolded(value)))
        })
        .collect()
}

/// A header's value on one line, its encoded words decoded (RFC 5322 §2.2.3, RFC 2047).
fn unfolded(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let line = text.replace(['\r', '\n'], "");
    let line = line.trim();
    if !line.contains("=?") {
        return line.to_owned();
    }
    let terminated = format!("{line}\n");
    match mail_parser::parsers::MessageStream::new(terminated.as_bytes()).parse_unstructured() {
        mail_parser::HeaderValue::Text(text) => text.into_owned(),
        _ => line.to_owned(),
    }
}

fn references(message: &Message<'_>) -> Vec<String> {
    let list = |value: &mail_parser::HeaderValue<'_>| -> Vec<String> {
        value.as_text_list().unwrap_or_default().iter().map(|id| id.to_string()).collect()
    };
    let mut ids = list(message.references());
    ids.extend(list(message.in_reply_to()));
    ids
}

fn plain(raw: &[u8]) -> Part {
    let text = String::from_utf8_lossy(raw).into_owned();
    Part { mime_type: "text/plain".to_owned(), body: Bytes::from(text), ..Part::default() }
}

/// The text of the first readable part: plain text if there is any, else HTML without its tags.
fn readable(root: &Part) -> Option<String> {
    let shown = |kind: &'static str| root.walk().find(move |part| part.mime_type == kind && !part.attached);
    let text = |part: &Part| String::from_utf8_lossy(&part.body).into_owned();
    let html = |part: &Part| mail_parser::decoders::html::html_to_text(&text(part));
    shown("text/plain").map(text).or_else(|| shown("text/html").map(html))
}

fn snippet(text: &str) -> String {
    let mut snippet = String::new();
    for (n, c) in text.split_whitespace().flat_map(|word| word.chars().chain([' '])).enumerate() {
        if n >= SNIPPET {
            break;
        }
        match c {
            '<' => snippet.push_str("&lt;"),
            '>' => snippet.push_str("&gt;"),
            '&' => snippet.push_str("&amp;"),
            '"' => snippet.push_str("&quot;"),
            '\'' => snippet.push_str("&#39;"),
            other => snippet.push(other),
        }
    }
    snippet.truncate(snippet.trim_end().len());
    snippet
}

fn with_crlf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32);
    let mut last = 0;
    for &byte in raw {
        if byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        last = byte;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NESTED: &str = "From: =?ISO-8859-1?Q?J=F6rg?= <j@example.org>\n\
        Subject: =?utf-8?B?UmVjaG51bmcgw7ZmZm5lbg==?=\n =?utf-8?Q?_jetzt?=\n\
        Message-ID: <1@example.org>\nReferences: <a@x> <b@x>\nx-ODD-case:   kept \n\
        Content-Type: multipart/mixed; boundary=B\n\n\
        --B\nContent-Type: multipart/alternative; boundary=C\n\n\
        --C\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe <b> & 'so'\n\
        --C\nContent-Type: text/html\n\n<p>Gr&uuml;&szlig;e</p>\n--C--\n\
        --B\nContent-Type: application/pdf; name=\"r.pdf\"\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\nJVBERg==\n\
        --B\nContent-Type: message/rfc822\n\nSubject: inner\n\nhello\n--B--\n";

    #[test]
    fn a_nested_mail_becomes_gmails_tree() {
        let mail = Mail::new(NESTED.as_bytes());
        let root = mail.root();
        assert_eq!(root.mime_type, "multipart/mixed");
        let names: Vec<&str> = root.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["From", "Subject", "Message-ID", "References", "x-ODD-case", "Content-Type"]);
        assert_eq!(mail.header("SUBJECT"), Some("Rechnung öffnen jetzt"));
        assert_eq!(mail.header("from"), Some("Jörg <j@example.org>"));
        assert_eq!(mail.header("X-odd-CASE"), Some("kept"));
        let text = root.at("0.0").unwrap();
        assert_eq!((text.mime_type.as_str(), text.attached), ("text/plain", false));
        assert_eq!(text.body.trim_ascii_end(), "Grüße <b> & 'so'".as_bytes());
        assert_eq!(root.at("0.1").unwrap().mime_type, "text/html");
        let pdf = root.at("1").unwrap();
        assert_eq!((pdf.filename.as_str(), &pdf.body[..], pdf.attached), ("r.pdf", &b"%PDF"[..], true));
        assert_eq!(root.at("2.0").unwrap().header("subject"), Some("inner"));
        assert!(root.at("3").is_none() && root.at("x").is_none());
        assert_eq!(mail.snippet(), "Grüße &lt;b&gt; &amp; &#39;so&#39;");
        assert_eq!(mail.message_id(), Some("1@example.org"));
        assert_eq!(mail.references(), ["a@x", "b@x"]);
        assert_eq!(root.walk().count(), 7);
    }

    #[test]
    fn nothing_is_refused() {
        let wild: [&[u8]; 8] = [
            b"",
            b"\n\n\n",
            b"no header at all",
            b"\xff\xfe\x00\x01\n\x80",
            b"Content-Type: multipart/mixed; boundary=never\n\ntext",
            b"Content-Type: text/plain; charset=klingon\nContent-Transfer-Encoding: base64\n\n!!!",
            b"Content-Type: ;;;=\nDate: yesterday\n\nbody",
            b"Subject: =?x?Q?=ZZ?= =?utf-8?B?%%%?=\n\nbody",
        ];
        for raw in wild {
            let mail = Mail::new(raw);
            assert_eq!(mail.raw().iter().filter(|&&b| b == b'\n').count(), raw.iter().filter(|&&b| b == b'\n').count());
            assert!(!mail.root().mime_type.is_empty(), "{raw:?}");
        }
    }

    #[test]
    fn line_ends_become_crlf_once() {
        assert_eq!(with_crlf(b"a\nb\r\nc\n"), b"a\r\nb\r\nc\r\n");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_mail_and_an_mbox(
            bytes in proptest::collection::vec(proptest::sample::select(b"From :-=?\n\r\"/;ab\xff\0Content-Type: multipart/mixed; boundary=b--".to_vec()), 0..200),
        ) {
            let mail = Mail::new(&bytes);
            proptest::prop_assert!(!mail.root().mime_type.is_empty());
            let kept: usize = crate::import::mbox(&bytes).iter().map(Vec::len).sum();
            proptest::prop_assert!(kept <= bytes.len());
        }
    }
}
