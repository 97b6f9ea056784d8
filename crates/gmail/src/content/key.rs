//! The key by which copies of one mail are known in different mailboxes.

use std::fmt::Write as _;

use domain::Timestamp;
use sha2::{Digest as _, Sha256};

/// Of what is hashed, so that the same bytes hashed for another purpose give another value.
const DOMAIN: &str = "mailtide/content-key";

/// The content key of a mail with this `Message-ID` (without brackets), sender (the first address of `From`) and `Date`.
///
/// It is `v1:` and, in lowercase hex, the SHA-256 over four lines of UTF-8, each ended by a line feed (0x0A):
///
/// 1. `mailtide/content-key`
/// 2. the `Message-ID` without brackets and without any white space, what follows its last `@` in ASCII lowercase; the
///    part before it keeps its case, because identifiers are told apart by it
/// 3. the sender's address without any white space, in ASCII lowercase
/// 4. the `Date` as seconds since 1970-01-01T00:00:00Z in decimal, whatever zone it was written in
///
/// What relays change on the way does not count: folding and spaces, the case of a domain, another spelling of the
/// same instant. None when the id or the address is empty. `v1` stands for these rules; others will have another.
pub(super) fn content_key(message_id: &str, sender: &str, date: Timestamp) -> Option<String> {
    let (message_id, sender) = (without_space(message_id), without_space(sender).to_ascii_lowercase());
    if message_id.is_empty() || sender.is_empty() {
        return None;
    }
    let message_id = match message_id.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
        None => message_id,
    };
    let text = format!("{DOMAIN}\n{message_id}\n{sender}\n{}\n", date.floor_seconds());
    let mut key = String::with_capacity(67);
    key.push_str("v1:");
    for byte in Sha256::digest(text) {
        let _ = write!(key, "{byte:02x}");
    }
    Some(key)
}

fn without_space(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anyone_can_compute_it() {
        // printf 'mailtide/content-key\n4711.A@mail.supplier.example\njm@supplier.example\n1770091501\n' | sha256sum
        let key = content_key(
            "4711.A@Mail.Supplier.example",
            "JM@supplier.example",
            Timestamp::from_millis(1_770_091_501_000),
        );
        assert_eq!(key.as_deref(), Some("v1:4f9c6b5a5eb78e3395847d23fe2bebee65fce6181cb11c3a443ad20556a33175"));
    }

    #[test]
    fn without_an_id_or_a_sender_there_is_none() {
        assert_eq!(content_key(" ", "a@x", Timestamp::from_millis(0)), None);
        assert_eq!(content_key("1@x", "", Timestamp::from_millis(0)), None);
    }
}
