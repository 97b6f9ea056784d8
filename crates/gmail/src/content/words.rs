//! Text in headers: encoded words (RFC 2047) as they come, also where they break the rules.
//!
//! Gmail hands out most headers decoded, and some as they were sent; both pass through here.

use std::ops::Range;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;

/// An encoded word is looked for within so many bytes. The RFC allows 75; whole subjects in one word are common.
const LONGEST: usize = 4 << 10;
/// Charsets have names of so many bytes at most.
const LONGEST_CHARSET: usize = 40;

/// Decoded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The text, without control characters.
    pub(super) text: String,
    /// Whether all of it was understood; else what was not stands in it as it came.
    pub(super) clean: bool,
}

impl Decoded {
    /// Text that is what it says.
    pub(super) fn new(text: &str, understood: bool) -> Self {
        Self { text: printable(text), clean: understood && !text.contains(char::REPLACEMENT_CHARACTER) }
    }
}

/// A stretch of a header.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Text as it stands.
    Text(&'a str),
    /// Encoded words with nothing but space between them, which is no part of the text (RFC 2047 §6.2).
    Words(Words<'a>),
}

/// Encoded words next to each other.
#[derive(Debug)]
pub(super) struct Words<'a> {
    words: Vec<Word<'a>>,
    /// Where they stand.
    span: Range<usize>,
    header: &'a str,
}

#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    charset: &'a str,
    is_base64: bool,
    text: &'a str,
}

impl Words<'_> {
    /// What they say. Words of one charset are put together before they are decoded: a character is often split
    /// between two.
    pub(super) fn decode(&self) -> Decoded {
        let mut text = String::new();
        let mut clean = true;
        let mut words = self.words.as_slice();
        while let Some(first) = words.first() {
            let alike = words.iter().take_while(|word| word.charset.eq_ignore_ascii_case(first.charset)).count();
            let (run, rest) = words.split_at(alike);
            words = rest;
            let bytes: Option<Vec<Vec<u8>>> = run.iter().map(Word::bytes).collect();
            match bytes.and_then(|bytes| from_charset(first.charset, bytes.concat())) {
                Some(decoded) => {
                    clean &= decoded.clean;
                    text.push_str(&decoded.text);
                }
                None => return Decoded::new(self.raw(), false),
            }
        }
        Decoded { text, clean }
    }

    /// How they stand in the header.
    pub(super) fn raw(&self) -> &str {
        &self.header[self.span.clone()]
    }
}

impl Word<'_> {
    fn bytes(&self) -> Option<Vec<u8>> {
        if self.is_base64 { base64_decode(self.text.as_bytes()) } else { quoted(self.text) }
    }
}

/// The "Q" encoding (RFC 2047 §4.2).
fn quoted(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'_' => bytes.push(b' '),
            b'=' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit()? * 16 + digit()?;
                bytes.push(u8::try_from(value).ok()?);
            }
            other => bytes.push(other),
        }
    }
    Some(bytes)
}

/// The text of bytes in a charset; none where nothing is known of it and they are no UTF-8 either.
pub(super) fn from_charset(charset: &str, bytes: Vec<u8>) -> Option<Decoded> {
    if charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8") {
        return Some(Decoded::new(&String::from_utf8_lossy(&bytes), true));
    }
    match charset_decoder(charset.as_bytes()) {
        Some(decoder) => Some(Decoded::new(&decoder(&bytes), true)),
        None => String::from_utf8(bytes).ok().map(|text| Decoded::new(&text, false)),
    }
}

/// A header's text, decoded.
pub(super) fn decode(header: &str) -> Decoded {
    if !header.contains("=?") {
        return Decoded::new(header, true);
    }
    let mut text = String::with_capacity(header.len());
    let mut clean = true;
    for piece in pieces(header) {
        match piece {
            Piece::Text(plain) => {
                clean &= !plain.contains("=?") && !plain.contains(char::REPLACEMENT_CHARACTER);
                text.push_str(plain);
            }
            Piece::Words(words) => {
                let decoded = words.decode();
                clean &= decoded.clean;
                text.push_str(&decoded.text);
            }
        }
    }
    Decoded { text: printable(&text), clean }
}

/// A header taken apart into text and encoded words, wherever in it they stand: many senders put them where the RFC
/// has none, such as between quotes or within a word.
pub(super) fn pieces(header: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = header[at..].find("=?") {
        let start = at + found;
        let Some((word, len)) = word(&header[start..]) else {
            at = start + 2;
            continue;
        };
        let end = start + len;
        let between = &header[from..start];
        match pieces.last_mut() {
            Some(Piece::Words(words)) if between.trim_ascii().is_empty() => {
                words.words.push(word);
                words.span.end = end;
            }
            _ => {
                if !between.is_empty() {
                    pieces.push(Piece::Text(between));
                }
                pieces.push(Piece::Words(Words { words: vec![word], span: start..end, header }));
            }
        }
        (from, at) = (end, end);
    }
    if from < header.len() {
        pieces.push(Piece::Text(&header[from..]));
    }
    pieces
}

/// The encoded word that `text` begins with, and its length.
fn word(text: &str) -> Option<(Word<'_>, usize)> {
    let window = &text[..text.floor_char_boundary(LONGEST)];
    let rest = window.strip_prefix("=?")?;
    let charset_end = rest.bytes().take(LONGEST_CHARSET).position(|byte| byte == b'?')?;
    let (charset, rest) = (rest.get(..charset_end)?, rest.get(charset_end + 1..)?);
    // A language may follow (RFC 2231 §5).
    let charset = charset.split('*').next().unwrap_or_default();
    let is_base64 = match rest.as_bytes() {
        [b'b' | b'B', b'?', ..] => true,
        [b'q' | b'Q', b'?', ..] => false,
        _ => return None,
    };
    let rest = &rest[2..];
    let len = rest.find("?=")?;
    let named = !charset.is_empty() && charset.bytes().all(|byte| byte.is_ascii_graphic());
    let end = window.len() - rest.len() + len + 2;
    named.then_some((Word { charset, is_base64, text: &rest[..len] }, end))
}

/// The text with each control character, such as a line end that was hidden in an encoded word, made a space, and
/// none at its ends.
pub(super) fn printable(text: &str) -> String {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    if text.contains(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> (String, bool) {
        let Decoded { text, clean } = decode(header);
        (text, clean)
    }

    #[test]
    fn words_are_decoded_wherever_they_stand() {
        let cases = [
            ("plain text", "plain text", true),
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße", true),
            ("Re: =?iso-8859-1?q?Gr=FC=DFe_an?= alle", "Re: Grüße an alle", true),
            // The space between words is none of the text; within a word it is.
            ("=?utf-8?B?UmVjaG51bmcg?=   =?utf-8?Q?=C3=B6ffnen?=", "Rechnung öffnen", true),
            // A character split between two words.
            ("=?utf-8?B?4oI=?= =?utf-8?B?rA==?=", "€", true),
            ("=?UTF-8?Q?=E2=82?=\t=?utf-8?q?=AC_100?=", "€ 100", true),
            ("=?utf-8*de?Q?=C3=BC?=", "ü", true),
            ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本", true),
            ("=?gb2312?B?t6LGsQ==?=", "发票", true),
            ("=?koi8-r?B?8NLJ18XU?=", "Привет", true),
            // Against the rules, and seen every day.
            ("\"=?utf-8?Q?a=C3=BC?=\"", "\"aü\"", true),
            ("x=?utf-8?Q?=C3=BC?=y", "xüy", true),
            ("=?utf-8?Q?two words?=", "two words", true),
            ("=?utf-8?B?w7w?=", "ü", true),
            ("schon dekodiert: ü €", "schon dekodiert: ü €", true),
        ];
        for (header, text, clean) in cases {
            assert_eq!(read(header), (text.to_owned(), clean), "{header}");
        }
    }

    #[test]
    fn what_does_not_decode_stands_as_it_came_and_is_told() {
        let cases = [
            ("=?x-no-such?Q?na=EFve?=", "=?x-no-such?Q?na=EFve?="),
            ("=?x-no-such?Q?plain?=", "plain"),
            ("=?utf-8?B?////?=", "\u{fffd}\u{fffd}\u{fffd}"),
            ("=?utf-8?Q?=ZZ?=", "=?utf-8?Q?=ZZ?="),
            ("=?utf-8?Q?open", "=?utf-8?Q?open"),
            ("Gr\u{fffd}\u{fffd}e", "Gr\u{fffd}\u{fffd}e"),
            ("=??Q?a?=", "=??Q?a?="),
            ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ];
        for (header, text) in cases {
            assert_eq!(read(header), (text.to_owned(), false), "{header}");
        }
    }

    #[test]
    fn no_line_ends_come_out_of_a_word() {
        assert_eq!(read("=?utf-8?Q?a=0D=0ABcc:_x=00?="), ("a  Bcc: x".to_owned(), true));
    }
}
