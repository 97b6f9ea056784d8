//! The Confluent wire format: byte 0, the schema id in four bytes, big-endian, then the datum
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).

use bytes::{BufMut, BytesMut};

use crate::Error;

/// Bytes in front of the datum.
pub(crate) const HEADER: usize = 5;

/// The schema id of a frame, and the datum.
///
/// # Errors
/// [`Error::NotFramed`] when the bytes do not begin like a frame.
pub const fn unframe(frame: &[u8]) -> Result<(u32, &[u8]), Error> {
    match frame {
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        _ => Err(Error::NotFramed { len: frame.len() }),
    }
}

/// The schema id of a frame, if it begins like one.
pub const fn frame_id(frame: &[u8]) -> Option<u32> {
    match frame {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Begins a frame.
pub(crate) fn begin(id: u32, out: &mut BytesMut) {
    let [a, b, c, d] = id.to_be_bytes();
    out.put_slice(&[0, a, b, c, d]);
}
