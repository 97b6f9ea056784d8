//! An exact encoder of `GmailMessageDiscovered`, the one record that is written by the million.
//!
//! The general encoder looks every field up by name and formats every UUID through a string. This one knows version 1
//! of the schema by heart. A property test holds it to the general encoder byte for byte.

use bytes::{BufMut, BytesMut};
use domain::{GmailMessageDiscovered, Origin};
use uuid::Uuid;

/// The length of a UUID's text, and that length as Avro writes it.
pub(crate) const UUID_TEXT: usize = 36;
const UUID_LENGTH: u8 = 72;

/// Writes the datum as version 1 of the schema says.
pub(crate) fn write(event: &GmailMessageDiscovered, out: &mut BytesMut) {
    // All but the labels fits without growing again.
    out.reserve(4 * (UUID_TEXT + 2) + 128);
    put_uuid(event.event_id.as_uuid(), out);
    put_uuid(event.organisation_id.as_uuid(), out);
    put_uuid(event.connection_id.as_uuid(), out);
    event.message_id.with_str(|text| put_str(text, out));
    event.thread_id.with_str(|text| put_str(text, out));
    match &event.label_ids {
        None => out.put_u8(NULL),
        Some(labels) => {
            out.put_u8(VALUE);
            // One block with a count, unless it would be empty: an empty array is its terminator alone.
            if !labels.is_empty() {
                put_long(length(labels.len()), out);
                labels.iter().for_each(|label| put_str(label.as_str(), out));
            }
            out.put_u8(0);
        }
    }
    match event.history_id {
        None => out.put_u8(NULL),
        Some(id) => {
            out.put_u8(VALUE);
            put_decimal(id.get(), out);
        }
    }
    out.put_u8(symbol(event.origin));
    match &event.job_id {
        None => out.put_u8(NULL),
        Some(id) => {
            out.put_u8(VALUE);
            put_uuid(id.as_uuid(), out);
        }
    }
    put_long(event.discovered_at.as_millis(), out);
}

/// Indices into the union `["null", T]`, as zigzag numbers.
const NULL: u8 = 0;
const VALUE: u8 = 2;

/// The index of the origin's symbol as a zigzag number; symbol 0 is `unknown`.
const fn symbol(origin: Origin) -> u8 {
    match origin {
        Origin::Live => 2,
        Origin::CatchUp => 4,
        Origin::Gap => 6,
        Origin::Backfill => 8,
        Origin::Audit => 10,
        Origin::Replay => 12,
    }
}

fn put_uuid(uuid: &Uuid, out: &mut BytesMut) {
    let mut text = [UUID_LENGTH; 1 + UUID_TEXT];
    uuid.as_hyphenated().encode_lower(&mut text[1..]);
    out.put_slice(&text);
}

fn put_str(text: &str, out: &mut BytesMut) {
    put_long(length(text.len()), out);
    out.put_slice(text.as_bytes());
}

/// An unsigned number as a string of decimal digits.
fn put_decimal(mut value: u64, out: &mut BytesMut) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    put_long(length(digits.len() - at), out);
    out.put_slice(&digits[at..]);
}

/// A number in zigzag, seven bits a byte, the lowest first.
fn put_long(value: i64, out: &mut BytesMut) {
    let mut rest = (value << 1) as u64 ^ (value >> 63) as u64;
    let mut bytes = [0_u8; 10];
    let mut n = 0;
    while rest >= 0x80 {
        bytes[n] = rest as u8 | 0x80;
        rest >>= 7;
        n += 1;
    }
    bytes[n] = rest as u8;
    out.put_slice(&bytes[..=n]);
}

fn length(len: usize) -> i64 {
    i64::try_from(len).expect("no slice is longer than i64::MAX")
}
