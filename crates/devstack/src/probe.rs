//! Asks a broker whether it serves, in Kafka's own protocol.
//!
//! A port that accepts is not yet a broker that works: while it starts it answers, but lists
//! nobody. So the question is `Metadata` (key 3, version 4; the layout is that of the protocol
//! guide's schema `MetadataRequest.json`), and the answer must list a broker and a controller.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Longest answer taken. A node without topics answers in under 100 bytes.
const LONGEST: u32 = 64 * 1024;

/// Size, key 3, version 4, correlation 7, no client id, no topics, no creation.
const REQUEST: [u8; 19] = [0, 0, 0, 15, 0, 3, 0, 4, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0, 0];

/// Whether the broker at `address` serves clients.
pub(crate) fn serves(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&REQUEST)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size).min(LONGEST);
    let mut answer = Vec::new();
    stream.take(u64::from(size)).read_to_end(&mut answer)?;
    Ok(lists_broker(&answer))
}

/// The answer is: correlation, throttle time, count of brokers, …
fn lists_broker(answer: &[u8]) -> bool {
    match answer {
        [0, 0, 0, 7, _, _, _, _, a, b, c, d, ..] => i32::from_be_bytes([*a, *b, *c, *d]) > 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_with_a_broker_counts() {
        assert!(lists_broker(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        assert!(!lists_broker(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!lists_broker(&[0, 0, 0, 7]));
        assert!(!lists_broker(b"HTTP/1.1 400 Bad Request"));
    }
}
