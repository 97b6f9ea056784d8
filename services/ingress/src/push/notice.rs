//! What a push says: Pub/Sub's envelope, and Gmail's notice in it.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use domain::HistoryId;
use serde::Deserialize;

/// No address is longer (RFC 5321 §4.5.3.1), with room.
const MAX_ADDRESS: usize = 512;

/// A notice: something changed in this mailbox. Its address does not print.
#[derive(PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whose, in lower case.
    pub(crate) address: String,
    /// The mailbox's head when it was sent. A hint at most: what it tells of may not be readable yet, and an older one
    /// may come later.
    pub(crate) head: Option<HistoryId>,
}

#[derive(Deserialize)]
struct Envelope {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    email_address: String,
    /// As a number in the wild, as a string in the documentation.
    history_id: Option<HistoryId>,
}

/// Either alphabet, once both are one, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Notice {
    /// Reads a push's body; none when it is no notice of Gmail's.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let envelope: Envelope = serde_json::from_slice(body).ok()?;
        let mut data = envelope.message.data.into_bytes();
        for byte in &mut data {
            *byte = match *byte {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            };
        }
        let data: Data = serde_json::from_slice(&BASE64.decode(data).ok()?).ok()?;
        let address = data.email_address.to_lowercase();
        (address.len() <= MAX_ADDRESS && address.contains('@')).then_some(Self { address, head: data.history_id })
    }
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn push(data: &str) -> Vec<u8> {
        let message = json!({"data": data, "messageId": "1", "publishTime": "2026-09-30T12:00:00Z"});
        json!({"message": message, "subscription": "projects/p/subscriptions/s"}).to_string().into_bytes()
    }

    #[test]
    fn a_notice_is_read_in_either_alphabet_and_its_id_as_string_or_number() {
        for id in [r#""18446744073709551615""#, "18446744073709551615"] {
            // The tildes and question marks make bytes that the two alphabets spell differently.
            let data = format!(r#"{{"emailAddress":"Ann~~??>>>@Example.com","historyId":{id}}}"#);
            for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
                let notice = Notice::read(&push(&engine.encode(&data))).unwrap();
                assert_eq!(notice.address, "ann~~??>>>@example.com");
                assert_eq!(notice.head, Some(HistoryId::new(u64::MAX)));
            }
        }
        let without = Notice::read(&push(&STANDARD.encode(r#"{"emailAddress":"a@b"}"#))).unwrap();
        assert_eq!(without, Notice { address: "a@b".to_owned(), head: None });
    }

    #[test]
    fn what_is_no_notice_is_none() {
        let data = |text: &str| push(&STANDARD.encode(text));
        for body in [
            b"".to_vec(),
            b"{}".to_vec(),
            br#"{"message":{}}"#.to_vec(),
            br#"{"message":{"data":7}}"#.to_vec(),
            push("%%%"),
            data("{}"),
            data(r#"{"emailAddress":"nobody"}"#),
            data(r#"{"emailAddress":"a@b","historyId":"soon"}"#),
            data(&format!(r#"{{"emailAddress":"{}@b"}}"#, "x".repeat(MAX_ADDRESS))),
        ] {
            assert_eq!(Notice::read(&body), None, "{}", String::from_utf8_lossy(&body));
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_breaks_the_reader(body: Vec<u8>, data: Vec<u8>) {
            Notice::read(&body);
            Notice::read(&push(&STANDARD.encode(data)));
        }
    }
}
