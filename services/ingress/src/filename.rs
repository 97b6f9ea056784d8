//! What a file from a mail may be called and be taken for. Both are the sender's word, and end up on somebody's disk and
//! in somebody's browser.

use axum::http::HeaderValue;
use bytes::{BufMut, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Bytes of a name. Most file systems take 255; its user may want to add something.
const LONGEST: usize = 200;
/// Bytes of what follows a name's last dot, as far as it is kept when the name is cut.
const LONGEST_EXTENSION: usize = 16;
/// What a file without a name is called.
const NAMELESS: &str = "attachment";
/// What nothing is done with: the type of a file whose own type is not passed on.
const OPAQUE: &str = "application/octet-stream";

/// What stands for itself in an extended value (RFC 8187 §3.2.1, `attr-char`).
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// A name that is one file's in one folder on every system, and looks like what it is: without separators, controls,
/// characters that some system does not take, and such as turn the direction of text or cannot be seen.
pub(crate) fn safe(name: &str) -> String {
    let cleaned: String =
        name.chars()
            .filter(|c| !is_unseen(*c))
            .map(|c| {
                if c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|') {
                    '_'
                } else {
                    c
                }
            })
            .collect();
    // Leading dots hide a file or leave its folder; Windows drops dots and spaces at the end.
    let cleaned = cleaned.trim_start_matches(|c: char| c == '.' || c.is_whitespace());
    let cleaned = shortened(cleaned.trim_end_matches(|c: char| c == '.' || c.is_whitespace()));
    let cleaned = cleaned.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if cleaned.is_empty() {
        NAMELESS.to_owned()
    } else if is_device(cleaned) {
        format!("_{cleaned}")
    } else {
        cleaned.to_owned()
    }
}

/// Characters that turn the direction of what follows, or are not seen at all.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The name, cut before its extension.
fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let extension = name.rfind('.').map(|dot| &name[dot..]).filter(|it| it.len() <= LONGEST_EXTENSION).unwrap_or("");
    let stem = name.floor_char_boundary(LONGEST - extension.len());
    format!("{}{extension}", &name[..stem])
}

/// Whether Windows takes a file of this name for a device, whatever its extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        let number = stem.strip_prefix(device).unwrap_or_default();
        matches!(number, "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "\u{b9}" | "\u{b2}" | "\u{b3}")
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") || numbered("COM") || numbered("LPT")
}

/// `Content-Disposition` (RFC 6266): a file to be kept, under the safe form of its name, in ASCII for old clients and in
/// UTF-8 (RFC 8187) for all others.
pub(crate) fn disposition(name: Option<&str>) -> HeaderValue {
    let name = safe(name.unwrap_or_default());
    let mut header = BytesMut::with_capacity(64 + 4 * name.len());
    header.put_slice(b"attachment; filename=\"");
    // No percent either: some clients decode it.
    let plain = |c: char| if c.is_ascii_graphic() && c != '%' || c == ' ' { c as u8 } else { b'_' };
    header.extend(name.chars().map(plain));
    header.put_slice(b"\"");
    if !name.chars().all(|c| c.is_ascii_graphic() && c != '%' || c == ' ') {
        header.put_slice(b"; filename*=UTF-8''");
        utf8_percent_encode(&name, ATTR_CHAR).for_each(|text| header.put_slice(text.as_bytes()));
    }
    HeaderValue::from_maybe_shared(header.freeze()).expect("printable ASCII is a header value")
}

/// `Content-Type`: the sender's, unless a browser could be made to run or to show as a page what is of that type.
pub(crate) fn content_type(mime_type: &str) -> HeaderValue {
    let lower = mime_type.to_ascii_lowercase();
    let is_token =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let is_passive = match lower.split_once('/') {
        Some((kind, subtype)) if is_token(kind) && is_token(subtype) && lower.len() <= 255 => {
            let is_active =
                ["xml", "html", "script", "svg", "flash", "xsl", "hta"].iter().any(|it| subtype.contains(it));
            match kind {
                // The formats of office programs are zip files, and only called after XML.
                "application" => !is_active || subtype.starts_with("vnd.openxmlformats-") && !subtype.ends_with("+xml"),
                "image" | "audio" | "video" | "font" => !is_active,
                "text" => matches!(subtype, "plain" | "csv" | "calendar" | "tab-separated-values"),
                _ => false,
            }
        }
        _ => false,
    };
    let text = if is_passive { lower } else { OPAQUE.to_owned() };
    HeaderValue::try_from(text).expect("tokens are a header value")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_made_safe_and_stay_what_they_are() {
        let cases = [
            ("invoice.pdf", "invoice.pdf"),
            ("Rechnung 4711 – März.pdf", "Rechnung 4711 – März.pdf"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("C:\\temp\\a.pdf", "C__temp_a.pdf"),
            ("a\r\nSet-Cookie: x=1", "a__Set-Cookie_ x=1"),
            ("say \"hi\".pdf", "say _hi_.pdf"),
            // Shown as "annexe.pdf" it would be a program.
            ("ann\u{202e}fdp.exe", "annfdp.exe"),
            ("in\u{200b}voice\u{feff}.pdf", "invoice.pdf"),
            (".htaccess", "htaccess"),
            ("name. . ", "name"),
            ("", "attachment"),
            (" .. ", "attachment"),
            ("con.txt", "_con.txt"),
            ("LPT1", "_LPT1"),
            ("COM10.txt", "COM10.txt"),
        ];
        for (name, expected) in cases {
            assert_eq!(safe(name), expected, "{name:?}");
        }
        let long = format!("{}.pdf", "ü".repeat(500));
        assert!(safe(&long).len() <= LONGEST && safe(&long).ends_with("ü.pdf"));
    }

    #[test]
    fn a_disposition_has_both_forms_where_they_differ() {
        let header = |name: &str| disposition(Some(name)).to_str().unwrap().to_owned();
        assert_eq!(header("invoice 1.pdf"), "attachment; filename=\"invoice 1.pdf\"");
        assert_eq!(header("März.pdf"), "attachment; filename=\"M_rz.pdf\"; filename*=UTF-8''M%C3%A4rz.pdf");
        assert_eq!(header("100%.pdf"), "attachment; filename=\"100_.pdf\"; filename*=UTF-8''100%25.pdf");
        assert_eq!(disposition(None).to_str().unwrap(), "attachment; filename=\"attachment\"");
    }

    #[test]
    fn what_a_browser_would_run_is_given_no_type() {
        let office = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for passive in ["application/pdf", "image/png", "text/csv", "application/zip", "Audio/MPEG", office] {
            assert_eq!(content_type(passive).to_str().unwrap(), passive.to_ascii_lowercase(), "{passive}");
        }
        for active in [
            "text/html",
            "application/xhtml+xml",
            "image/svg+xml",
            "text/javascript",
            "application/ecmascript",
            "text/xml",
            "application/xml",
            "message/rfc822",
            "multipart/mixed",
            "text/css",
            "x/y",
            "",
            "application/",
            "a b/c",
            "application/pdf; charset=x",
            "image/png\r\nX: y",
            "application/vnd.openxmlformats-x+xml",
        ] {
            assert_eq!(content_type(active).to_str().unwrap(), OPAQUE, "{active}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_unsafe(name in prop_oneof![any::<String>(), "[./\\\\:\"%\u{202e}\u{0}\r\nA-Cüö ]{0,40}", "(con|nul|com1)[. ]?[a-z]{0,3}"]) {
            let safe = safe(&name);
            prop_assert!(!safe.is_empty() && safe.len() <= LONGEST + 1);
            prop_assert!(!safe.contains(|c: char| c.is_control() || is_unseen(c) || matches!(c, '/' | '\\' | '"')));
            prop_assert!(!safe.starts_with('.') && !safe.ends_with(['.', ' ']));
            prop_assert!(!is_device(&safe));
            prop_assert_eq!(&super::safe(&safe), &safe, "what is safe stays");
            let header = disposition(Some(&name));
            let header = header.to_str().unwrap();
            prop_assert_eq!(header.matches('"').count(), 2);
            if let Some((_, extended)) = header.split_once("filename*=UTF-8''") {
                let decoded = percent_encoding::percent_decode_str(extended).decode_utf8().unwrap();
                prop_assert_eq!(decoded, safe);
            }
        }

        #[test]
        fn no_type_is_a_page(mime_type in prop_oneof![any::<String>(), "(text|application|image)/(x-)?(html|svg|xml|pdf|plain)(\\+xml)?"]) {
            let given = content_type(&mime_type);
            let given = given.to_str().unwrap();
            prop_assert!(!["html", "svg", "script", ";"].iter().any(|it| given.contains(it)), "{given}");
        }
    }
}
