//! `Content-Disposition` and `Content-Type` with their parameters, in all forms that a file's name comes in: RFC 2231
//! with its continuations and charsets, RFC 2047 where it has no place, and plain.

use percent_encoding::percent_decode_str;

use super::measure::LINE;
use super::words::{self, Decoded, from_charset};

/// Pieces that one parameter may be in.
const SECTIONS: usize = 100;
/// Bytes of a header that are looked at.
const LONGEST: usize = 8 * LINE;

/// A header's value and its parameters.
#[derive(Debug)]
pub(super) struct Parameters {
    /// What stands before the parameters, in lower case.
    pub(super) value: String,
    /// Names in lower case, with their stars; values without quotes.
    list: Vec<(String, String)>,
}

/// A parameter's text, and how it stands in the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) decoded: Decoded,
    pub(super) raw: String,
}

impl Parameters {
    /// Reads a header. Nothing is refused.
    pub(super) fn read(header: &str) -> Self {
        let header = &header[..header.floor_char_boundary(LONGEST)];
        let (value, mut rest) = header.split_once(';').unwrap_or((header, ""));
        let mut list = Vec::new();
        while !rest.trim_start().is_empty() {
            let (parameter, after) = parameter(rest);
            list.extend(parameter);
            rest = after;
        }
        Self { value: value.trim().to_ascii_lowercase(), list }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The text of a parameter: by RFC 2231 where that decodes, since who writes both means it.
    pub(super) fn text(&self, name: &str) -> Option<Named> {
        let extended = self.extended(name);
        if extended.as_ref().is_some_and(|extended| extended.decoded.clean) {
            return extended;
        }
        let plain = self.get(name).map(|raw| Named { decoded: words::decode(raw), raw: raw.to_owned() });
        match (plain, extended) {
            (Some(plain), Some(extended)) => Some(if plain.decoded.clean { plain } else { extended }),
            (plain, extended) => plain.or(extended),
        }
    }

    fn extended(&self, name: &str) -> Option<Named> {
        if let Some(whole) = self.get(&format!("{name}*")) {
            return Some(joined(&[(true, whole)]));
        }
        let section = |n: usize| {
            let plain = self.get(&format!("{name}*{n}")).map(|text| (false, text));
            plain.or_else(|| self.get(&format!("{name}*{n}*")).map(|text| (true, text)))
        };
        let sections: Vec<_> = (0..SECTIONS).map_while(section).collect();
        (!sections.is_empty()).then(|| joined(&sections))
    }
}

/// Puts sections together before they are decoded: a character may be split between two.
fn joined(sections: &[(bool, &str)]) -> Named {
    let raw: String = sections.iter().map(|(_, text)| *text).collect();
    let (mut charset, mut bytes, mut is_encoded) = ("", Vec::new(), false);
    for (n, (encoded, text)) in sections.iter().enumerate() {
        let mut text = *text;
        if *encoded && n == 0 {
            // charset'language'text
            let mut parts = text.splitn(3, '\'');
            if let (Some(named), Some(_), Some(rest)) = (parts.next(), parts.next(), parts.next()) {
                (charset, text) = (named, rest);
            }
        }
        is_encoded |= encoded;
        if *encoded {
            bytes.extend(percent_decode_str(text));
        } else {
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    if !is_encoded {
        return Named { decoded: words::decode(&raw), raw };
    }
    let charset = if charset.is_empty() { "utf-8" } else { charset };
    let decoded = from_charset(charset, bytes).unwrap_or_else(|| Decoded::new(&raw, false));
    Named { decoded, raw }
}

/// The first parameter of `text`, if it is one, and what follows it.
fn parameter(text: &str) -> (Option<(String, String)>, &str) {
    let name_end = text.find(['=', ';']).unwrap_or(text.len());
    let name = text[..name_end].trim();
    let Some(rest) = text[name_end..].strip_prefix('=') else {
        return (None, text.get(name_end + 1..).unwrap_or_default());
    };
    let rest = rest.trim_start();
    let (value, after) = match rest.strip_prefix('"') {
        Some(rest) => {
            let (value, after) = unquoted(rest);
            // What stands between the quote and the next parameter belongs to nothing.
            (value, after.split_once(';').map_or("", |(_, after)| after))
        }
        None => {
            let (value, after) = rest.split_once(';').unwrap_or((rest, ""));
            (value.trim().to_owned(), after)
        }
    };
    let named = (!name.is_empty()).then(|| (name.to_ascii_lowercase(), value));
    (named, after)
}

/// Text up to the closing quote, and what follows it. A backslash before anything but a quote or another is a backslash:
/// names with a Windows path in them are not escaped by those who write them.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push(c),
            },
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filename(header: &str) -> Option<(String, bool)> {
        Parameters::read(header).text("filename").map(|named| (named.decoded.text, named.decoded.clean))
    }

    #[test]
    fn names_come_in_every_form() {
        let cases = [
            ("attachment; filename=\"a b.pdf\"", "a b.pdf"),
            ("attachment; filename=a.pdf", "a.pdf"),
            ("attachment; filename=my file.pdf ; size=3", "my file.pdf"),
            ("ATTACHMENT;FileName=\"say \\\"hi\\\".pdf\"", "say \"hi\".pdf"),
            ("attachment; filename=\"C:\\temp\\a.pdf\"", "C:\\temp\\a.pdf"),
            ("attachment; x=\";filename=no\"; filename=\"a;b.pdf\"", "a;b.pdf"),
            ("attachment; filename*=utf-8''Rechnung%20%C3%BC.pdf", "Rechnung ü.pdf"),
            ("attachment; filename*=iso-8859-1'de'%FC.pdf", "ü.pdf"),
            ("attachment; filename=\"u.pdf\"; filename*=UTF-8''%C3%BC.pdf", "ü.pdf"),
            ("attachment; filename*0=\"a very \"; filename*1=\"long name.pdf\"", "a very long name.pdf"),
            ("attachment; filename*1*=%AC.pdf; filename*0*=utf-8''%E2%82", "€.pdf"),
            ("attachment; filename*0*=iso-8859-1''%FC; filename*1=x; filename*2*=%FC", "üxü"),
            ("attachment; filename=\"=?utf-8?B?w7w=?= =?utf-8?B?LnBkZg==?=\"", "ü.pdf"),
            ("attachment; filename==?utf-8?Q?=C3=BC?=.pdf", "ü.pdf"),
            ("attachment; filename*0=\"=?utf-8?B?w7w=?=\"; filename*1=\".pdf\"", "ü.pdf"),
        ];
        for (header, expected) in cases {
            assert_eq!(filename(header), Some((expected.to_owned(), true)), "{header}");
        }
        assert_eq!(Parameters::read("InLine ; filename=x").value, "inline");
        assert_eq!(filename("attachment"), None);
    }

    #[test]
    fn a_name_that_does_not_decode_is_told_and_its_raw_form_kept() {
        let named = Parameters::read("attachment; filename*=x-no-such''%FC.pdf").text("filename").unwrap();
        assert_eq!((named.decoded.text.as_str(), named.decoded.clean), ("x-no-such''%FC.pdf", false));
        assert_eq!(named.raw, "x-no-such''%FC.pdf");
        // Of two, the one that decodes.
        let header = "attachment; filename=plain.pdf; filename*=utf-8''%FF";
        assert_eq!(filename(header), Some(("plain.pdf".to_owned(), true)));
    }

    proptest! {
        #[test]
        fn nothing_panics(header in "[a-c;=\"\\\\*'% 0-9?QüF\u{0}]{0,80}", more: String) {
            for header in [header.clone(), more.clone(), format!("a; filename={header}"), format!("a; filename*0*={more}")] {
                let _ = filename(&header);
            }
        }

        #[test]
        fn what_is_written_by_the_rules_is_read_back(name in "[^\\p{Cc}\u{fffd}]{1,40}") {
            let encoded = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
            let read = filename(&format!("attachment; filename*=utf-8''{encoded}"));
            prop_assert_eq!(read, Some((name.trim().to_owned(), true)));
        }
    }
}
