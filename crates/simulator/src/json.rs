//! JSON as Google's front end writes it, straight into bytes: two-space indent and a trailing newline unless
//! `prettyPrint=false`, 64-bit integers as strings, `<` and `>` escaped, and a field mask applied while writing.

use crate::fields::Mask;

/// Writes one JSON document.
#[derive(Debug)]
pub(crate) struct Writer<'m> {
    out: Vec<u8>,
    pretty: bool,
    depth: usize,
    /// Whether the innermost container has an entry already.
    filled: bool,
    mask: &'m Mask,
}

impl<'m> Writer<'m> {
    /// A writer for a document of about `capacity` bytes.
    pub(crate) fn new(capacity: usize, pretty: bool, mask: &'m Mask) -> Self {
        Self { out: Vec::with_capacity(capacity), pretty, depth: 0, filled: false, mask }
    }

    /// The document.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.pretty {
            self.out.push(b'\n');
        }
        self.out
    }

    /// An object with what `write` puts in it.
    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.container(b'{', b'}', write);
    }

    /// An array with an entry for each of `items`.
    pub(crate) fn array<T>(&mut self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.container(b'[', b']', |writer| {
            for item in items {
                writer.next_entry();
                write(writer, item);
            }
        });
    }

    /// An array of strings that `each` hands to its visitor one by one.
    pub(crate) fn strings(&mut self, each: impl FnOnce(&mut dyn FnMut(&str))) {
        self.container(b'[', b']', |writer| {
            each(&mut |text| {
                writer.next_entry();
                writer.string(text);
            });
        });
    }

    /// A member of the present object; skipped when the mask leaves it out.
    pub(crate) fn field(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        let Some(inner) = self.mask.get(name) else { return };
        self.next_entry();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.pretty { b"\": " } else { b"\":" });
        let outer = std::mem::replace(&mut self.mask, inner);
        write(self);
        self.mask = outer;
    }

    /// A string member.
    pub(crate) fn text_field(&mut self, name: &str, text: &str) {
        self.field(name, |writer| writer.string(text));
    }

    /// A 64-bit integer member, which proto3 JSON writes as a string.
    pub(crate) fn long_field(&mut self, name: &str, value: impl std::fmt::Display) {
        self.field(name, |writer| writer.quoted(value));
    }

    /// A 32-bit integer member, a JSON number.
    pub(crate) fn int_field(&mut self, name: &str, value: impl Into<i64>) {
        let value = value.into();
        self.field(name, |writer| writer.display(value));
    }

    /// A message or thread id: 16 lower-case hex digits.
    pub(crate) fn hex_field(&mut self, name: &str, id: u64) {
        self.field(name, |writer| writer.hex(id));
    }

    /// Bytes as base64url, padded as Gmail does.
    pub(crate) fn bytes_field(&mut self, name: &str, bytes: &[u8]) {
        use base64::Engine as _;
        self.field(name, |writer| {
            writer.out.push(b'"');
            let start = writer.out.len();
            let len = bytes.len().div_ceil(3) * 4;
            writer.out.resize(start + len, 0);
            let written = base64::engine::general_purpose::URL_SAFE.encode_slice(bytes, &mut writer.out[start..]);
            writer.out.truncate(
                start + written.expect("a base64 text of n bytes takes four thirds of n, rounded up to four"),
            );
            writer.out.push(b'"');
        });
    }

    /// A string value.
    pub(crate) fn string(&mut self, text: &str) {
        self.out.push(b'"');
        let mut rest = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                b'<' => b"\\u003c",
                b'>' => b"\\u003e",
                0x00..=0x1f | 0x7f => b"",
                _ => continue,
            };
            self.out.extend_from_slice(&text.as_bytes()[rest..at]);
            if escape.is_empty() {
                self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            } else {
                self.out.extend_from_slice(escape);
            }
            rest = at + 1;
        }
        self.out.extend_from_slice(&text.as_bytes()[rest..]);
        self.out.push(b'"');
    }

    /// An integer as a string value.
    pub(crate) fn quoted(&mut self, value: impl std::fmt::Display) {
        self.out.push(b'"');
        self.display(value);
        self.out.push(b'"');
    }

    /// How many bytes were written.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes back everything from `start` on: what was written of one value.
    pub(crate) fn take_back(&mut self, start: usize) -> Vec<u8> {
        self.out.split_off(start)
    }

    /// Bytes that are JSON already, indented for this place; gives them as they were written.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut [u8] {
        let start = self.out.len();
        self.out.extend_from_slice(bytes);
        &mut self.out[start..]
    }

    /// A message or thread id as a value.
    pub(crate) fn hex(&mut self, id: u64) {
        let mut text = [b'"'; 18];
        put_hex(id, &mut text[1..]);
        self.out.extend_from_slice(&text);
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        use std::io::Write as _;
        write!(self.out, "{value}").expect("writing to a vector cannot fail");
    }

    fn container(&mut self, open: u8, close: u8, write: impl FnOnce(&mut Self)) {
        self.out.push(open);
        let outer = std::mem::replace(&mut self.filled, false);
        self.depth += 1;
        write(self);
        self.depth -= 1;
        if self.filled {
            self.new_line();
        }
        self.filled = outer;
        self.out.push(close);
    }

    fn next_entry(&mut self) {
        if self.filled {
            self.out.push(b',');
        }
        self.filled = true;
        self.new_line();
    }

    fn new_line(&mut self) {
        const INDENT: [u8; 65] = {
            let mut bytes = [b' '; 65];
            bytes[0] = b'\n';
            bytes
        };
        if self.pretty {
            let mut missing = self.depth * 2;
            let first = missing.min(INDENT.len() - 1);
            self.out.extend_from_slice(&INDENT[..=first]);
            missing -= first;
            self.out.extend(std::iter::repeat_n(b' ', missing));
        }
    }
}

/// Two lower-case hex digits for each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// Writes an id over the first 16 bytes of `out`.
pub(crate) fn put_hex(id: u64, out: &mut [u8]) {
    for (byte, digits) in id.to_be_bytes().into_iter().zip(out.as_chunks_mut().0) {
        *digits = HEX[usize::from(byte)];
    }
}

/// Writes a number over the whole of `out`, which is as long as its digits are many.
pub(crate) fn put_decimal(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit fits in a byte");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;

    fn sample(pretty: bool, mask: &Mask) -> String {
        let mut writer = Writer::new(64, pretty, mask);
        writer.object(|o| {
            o.hex_field("id", 0x18d1_c0ff_ee00_1234);
            o.long_field("historyId", u64::MAX);
            o.field("labelIds", |w| w.array(["INBOX", "UNREAD"], |w, id| w.string(id)));
            o.field("payload", |w| {
                w.object(|o| {
                    o.text_field("mimeType", "text/plain");
                    o.field("body", |w| {
                        w.object(|o| {
                            o.int_field("size", 3);
                            o.bytes_field("data", b"\xfb\xff\xfe");
                        })
                    });
                })
            });
            o.text_field("snippet", "<a> \"b\"\n\u{1}ü");
        });
        String::from_utf8(writer.finish()).unwrap()
    }

    #[test]
    fn compact_and_pretty_hold_the_same() {
        let compact = sample(false, &Mask::All);
        assert_eq!(
            compact,
            r#"{"id":"18d1c0ffee001234","historyId":"18446744073709551615","labelIds":["INBOX","UNREAD"],"payload":{"mimeType":"text/plain","body":{"size":3,"data":"-__-"}},"snippet":"\u003ca\u003e \"b\"\n\u0001ü"}"#
        );
        let pretty = sample(true, &Mask::All);
        assert!(pretty.starts_with("{\n  \"id\": \"18d1c0ffee001234\",\n"), "{pretty}");
        assert!(pretty.ends_with("\n}\n"), "{pretty}");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&compact), parse(&pretty));
        assert_eq!(parse(&compact)["snippet"], "<a> \"b\"\n\u{1}ü");
    }

    #[test]
    fn a_mask_leaves_out_what_it_does_not_name() {
        let mask = fields::parse("id,payload(body/size)").unwrap();
        assert_eq!(sample(false, &mask), r#"{"id":"18d1c0ffee001234","payload":{"body":{"size":3}}}"#);
    }
}
