//! The contents of an attachment out of Gmail's `{"size":…,"data":"…base64url…"}`, as the bytes of it come: what is kept
//! in between is a few bytes, however large the file is.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};

/// Base64url with or without padding; Gmail has sent both.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Members of the answer have short names; of a longer one only so much is kept.
const LONGEST_NAME: usize = 8;

/// Why an answer has no contents. Says nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("Gmail's answer breaks off within the file")]
    BrokeOff,
    #[error("Gmail's answer is not what an attachment comes in")]
    NotJson,
    #[error("the file is no base64 in Gmail's answer")]
    NotBase64,
}

/// Where in the answer the reader is.
#[derive(Debug, Default)]
enum At {
    /// Before the object.
    #[default]
    Begin,
    /// Before a member, or the end of the object.
    Member,
    /// In a member's name; a backslash came.
    Name(Vec<u8>, bool),
    /// Between a name and its value; whether the value is the file.
    Colon(bool),
    /// Before a value.
    Value(bool),
    /// In the file's text.
    Data,
    /// In an escape in it: what came after the backslash.
    Escape(Vec<u8>),
    /// In another value: how deep in lists and objects, whether in a text, whether a backslash came.
    Other { depth: u32, is_text: bool, is_escaped: bool },
    /// After the object.
    End,
}

/// Reads an answer piece by piece.
#[derive(Debug, Default)]
pub(super) struct Contents {
    at: At,
    base64: Base64,
}

impl Contents {
    /// Reads the next piece of the answer and adds what it holds of the file to `out`.
    ///
    /// # Errors
    /// When it is not the answer it should be.
    pub(super) fn read(&mut self, piece: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            if matches!(self.at, At::Data) {
                // Long stretches at once.
                let len = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                self.base64.read(&rest[..len], out)?;
                rest = &rest[len..];
                if let Some((&byte, after)) = rest.split_first() {
                    rest = after;
                    self.at = At::Escape(Vec::new());
                    if byte == b'"' {
                        // Without padding a last group may be short.
                        self.base64.last(out)?;
                        self.at = At::Member;
                    }
                }
                continue;
            }
            rest = after;
            self.step(byte, out)?;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8, out: &mut BytesMut) -> Result<(), Error> {
        let is_space = byte.is_ascii_whitespace();
        let next = match std::mem::take(&mut self.at) {
            At::Begin if is_space => At::Begin,
            At::Begin if byte == b'{' => At::Member,
            At::Member if is_space || byte == b',' => At::Member,
            At::Member if byte == b'"' => At::Name(Vec::new(), false),
            At::Member if byte == b'}' => At::End,
            At::Name(name, false) if byte == b'"' => At::Colon(name == b"data"),
            At::Name(mut name, is_escaped) => {
                if name.len() < LONGEST_NAME {
                    name.push(byte);
                }
                At::Name(name, byte == b'\\' && !is_escaped)
            }
            At::Colon(is_data) if is_space => At::Colon(is_data),
            At::Colon(is_data) if byte == b':' => At::Value(is_data),
            At::Value(is_data) if is_space => At::Value(is_data),
            At::Value(true) if byte == b'"' => At::Data,
            At::Value(true) => return Err(Error::NotJson),
            At::Value(false) => Self::other(0, byte)?,
            At::Escape(mut escape) => {
                escape.push(byte);
                match escaped(&escape)? {
                    None => At::Escape(escape),
                    Some(byte) => {
                        self.base64.read(&[byte], out)?;
                        At::Data
                    }
                }
            }
            At::Other { depth, is_text: true, is_escaped } => {
                let ends = byte == b'"' && !is_escaped;
                let is_escaped = byte == b'\\' && !is_escaped;
                if ends && depth == 0 { At::Member } else { At::Other { depth, is_text: !ends, is_escaped } }
            }
            // A number or a word ends where the next thing begins.
            At::Other { depth: 0, .. } if byte == b',' => At::Member,
            At::Other { depth: 0, .. } if byte == b'}' => At::End,
            At::Other { depth, .. } => Self::other(depth, byte)?,
            At::End if is_space => At::End,
            At::Begin | At::Member | At::Colon(_) | At::End => return Err(Error::NotJson),
            At::Data => At::Data,
        };
        self.at = next;
        Ok(())
    }

    fn other(depth: u32, byte: u8) -> Result<At, Error> {
        Ok(match byte {
            b'"' => At::Other { depth, is_text: true, is_escaped: false },
            b'{' | b'[' => At::Other { depth: depth + 1, is_text: false, is_escaped: false },
            b'}' | b']' => match depth.checked_sub(1) {
                None => return Err(Error::NotJson),
                Some(0) => At::Member,
                Some(depth) => At::Other { depth, is_text: false, is_escaped: false },
            },
            _ => At::Other { depth, is_text: false, is_escaped: false },
        })
    }

    /// The answer is over. How many bytes the file has.
    ///
    /// # Errors
    /// When it is over too early.
    pub(super) fn end(&self) -> Result<u64, Error> {
        if matches!(self.at, At::End) { Ok(self.base64.decoded) } else { Err(Error::BrokeOff) }
    }
}

/// The byte that an escape (RFC 8259 §7) stands for, after its backslash; none while it is not whole. Base64 is ASCII.
fn escaped(escape: &[u8]) -> Result<Option<u8>, Error> {
    match escape {
        [b'/'] => Ok(Some(b'/')),
        [b'u', digits @ ..] if digits.len() == 4 => {
            let digits = std::str::from_utf8(digits).map_err(|_| Error::NotJson)?;
            let code = u32::from_str_radix(digits, 16).map_err(|_| Error::NotJson)?;
            u8::try_from(code).map(Some).map_err(|_| Error::NotBase64)
        }
        [b'u', ..] => Ok(None),
        _ => Err(Error::NotBase64),
    }
}

/// Base64 of either alphabet that comes in pieces.
#[derive(Debug, Default)]
struct Base64 {
    /// The digits of a group of four that is not whole.
    group: [u8; 4],
    len: usize,
    is_padded: bool,
    decoded: u64,
}

impl Base64 {
    fn read(&mut self, mut digits: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        // Padding ends it.
        if let Some(padding) = memchr::memchr(b'=', digits) {
            let (text, padding) = digits.split_at(padding);
            self.read(text, out)?;
            self.is_padded = true;
            return if padding.iter().all(|byte| *byte == b'=') { self.last(out) } else { Err(Error::NotBase64) };
        }
        if self.is_padded && !digits.is_empty() {
            return Err(Error::NotBase64);
        }
        while self.len > 0 && self.len < 4 {
            let Some((&digit, after)) = digits.split_first() else { return Ok(()) };
            (self.group[self.len], self.len, digits) = (digit, self.len + 1, after);
        }
        if self.len == 4 {
            let group = self.group;
            self.len = 0;
            self.decode(&group, out)?;
        }
        let (whole, rest) = digits.split_at(digits.len() / 4 * 4);
        self.decode(whole, out)?;
        self.group[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
        Ok(())
    }

    /// What is left of a last group.
    fn last(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        let (group, len) = (self.group, std::mem::take(&mut self.len));
        self.decode(&group[..len], out)
    }

    fn decode(&mut self, digits: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        out.resize(start + base64::decoded_len_estimate(digits.len()), 0);
        let space = &mut out[start..];
        let decoded = if memchr::memchr2(b'+', b'/', digits).is_some() {
            let url_safe = |byte: &u8| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            };
            TOLERANT.decode_slice(digits.iter().map(url_safe).collect::<Vec<u8>>(), space)
        } else {
            TOLERANT.decode_slice(digits, space)
        };
        let decoded = decoded.map_err(|_| Error::NotBase64)?;
        out.truncate(start + decoded);
        self.decoded += decoded as u64;
        Ok(())
    }
}

/// The bytes of a whole text.
pub(super) fn decode(text: &str) -> Result<Bytes, Error> {
    let mut out = BytesMut::with_capacity(text.len() / 4 * 3 + 3);
    let mut base64 = Base64::default();
    base64.read(text.as_bytes(), &mut out)?;
    base64.last(&mut out)?;
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE as PADDED, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    /// Reads an answer in pieces of these lengths.
    fn read(answer: &[u8], lengths: &[usize]) -> Result<(Vec<u8>, u64), Error> {
        let (mut contents, mut out) = (Contents::default(), BytesMut::new());
        let (mut rest, mut lengths) = (answer, lengths.iter().cycle());
        while !rest.is_empty() {
            let len = lengths.next().map_or(rest.len(), |len| (*len).clamp(1, rest.len()));
            contents.read(&rest[..len], &mut out)?;
            rest = &rest[len..];
        }
        let end = contents.end()?;
        Ok((out.to_vec(), end))
    }

    #[test]
    fn the_file_is_found_wherever_it_stands_in_the_answer() {
        for answer in [
            r#"{"data":"aGk_"}"#,
            "{\n  \"size\": 3,\n  \"data\": \"aGk_\"\n}\n",
            r#"{"data":"aGk_","size":3}"#,
            r#"{"x":{"data":["b\"}"]},"y":"data","z":[1,{}],"data":"aGk_","w":null}"#,
            r#"{"data":"aGk\u005f"}"#,
            r#"{"data":"aGk/"}"#,
            r#"{"data":"aGk\/"}"#,
        ] {
            assert_eq!(read(answer.as_bytes(), &[]), Ok((b"hi?".to_vec(), 3)), "{answer}");
        }
        assert_eq!(read(br#"{"data":"aGk\u003d"}"#, &[1]), Ok((b"hi".to_vec(), 2)));
        for empty in ["{}", r#"{"size":0}"#, r#"{"data":""}"#, r#"{"data_":"aGk_"}"#] {
            assert_eq!(read(empty.as_bytes(), &[]), Ok((Vec::new(), 0)), "{empty}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_never_a_shorter_file() {
        let whole = br#"{"size":3,"data":"aGk_aGk_"}"#;
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end], &[]), Err(Error::BrokeOff), "{end}");
        }
        for (answer, error) in [
            ("<html>", Error::NotJson),
            (r#"{"data":7}"#, Error::NotJson),
            (r#"{"data":"a b"}"#, Error::NotBase64),
            (r#"{"data":"aGk_=aGk_"}"#, Error::NotBase64),
            (r#"{"data":"aGk_a"}"#, Error::NotBase64),
            (r#"{"data":"\n"}"#, Error::NotBase64),
            (r#"{"data":"aGk_"} x"#, Error::NotJson),
        ] {
            assert_eq!(read(answer.as_bytes(), &[]), Err(error), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn any_file_in_any_pieces_is_read_whole(
            file in prop::collection::vec(any::<u8>(), 0..600), form in 0..3, lengths in prop::collection::vec(1_usize..40, 1..6),
        ) {
            let data = match form {
                0 => PADDED.encode(&file),
                1 => URL_SAFE_NO_PAD.encode(&file),
                _ => STANDARD.encode(&file).replace('=', "\\u003d").replace('/', "\\/"),
            };
            let answer = format!("{{\"size\": {}, \"data\": \"{data}\"}}", file.len());
            prop_assert_eq!(read(answer.as_bytes(), &lengths), Ok((file.clone(), file.len() as u64)));
            if form < 2 {
                prop_assert_eq!(decode(&data).unwrap(), file);
            }
        }

        #[test]
        fn nothing_that_comes_panics(answer in "[{}\\[\\]\":,\\\\ua0-9=_/ d\n]{0,80}", lengths in prop::collection::vec(1_usize..9, 1..4)) {
            let _ = read(answer.as_bytes(), &lengths);
            let _ = read(format!("{{\"data\":\"{answer}").as_bytes(), &lengths);
            let _ = decode(&answer);
        }
    }
}
