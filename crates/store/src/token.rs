//! Refresh tokens at rest: XChaCha20-Poly1305 under a key of the settings, its id stored beside. Connection and
//! organisation are bound in, so that a row copied to another tenant does not decrypt.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use domain::{ConnectionId, OrganisationId};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::idempotency::KEPT;
use crate::row::Reader;
use crate::session::Session;
use crate::{Error, Store};

/// Why a token key cannot be used, or a refresh token not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// The text of the setting is no key.
    #[error(
        "key {position} of store.token_key must be id:base64 of 32 bytes, its id of 1 to 32 letters, digits, - or _"
    )]
    Malformed {
        /// Which of the keys, counted from 1.
        position: usize,
    },
    /// Two keys with one id.
    #[error("store.token_key names key {id} twice")]
    Twice {
        /// The id.
        id: String,
    },
    /// The token lies under a key that the settings do not have.
    #[error("it lies under token key {id}, which store.token_key does not have; add that key after the first")]
    Unknown {
        /// The key's id.
        id: String,
    },
    /// The key with the right id does not open what lies under it, or the row was tampered with.
    #[error("token key {id} of store.token_key does not open it: another key has that id, or the row was changed")]
    Wrong {
        /// The key's id.
        id: String,
    },
}

/// The keys for refresh tokens. The first encrypts; all decrypt. Prints as the keys' ids.
pub struct TokenKeys {
    /// Never empty.
    keys: Vec<(String, XChaCha20Poly1305)>,
}

/// A secret at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) key_id: String,
    pub(crate) nonce: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

impl TokenKeys {
    /// Reads `id:base64[,id:base64…]`.
    ///
    /// # Errors
    /// [`TokenKeyError::Malformed`] and [`TokenKeyError::Twice`], without quoting the text.
    pub fn parse(text: &SecretString) -> Result<Self, TokenKeyError> {
        let mut keys: Vec<(String, XChaCha20Poly1305)> = Vec::new();
        for (index, part) in text.expose_secret().split(',').enumerate() {
            let malformed = || TokenKeyError::Malformed { position: index + 1 };
            let (id, key) = part.trim().split_once(':').ok_or_else(malformed)?;
            let well_named = (1..=32).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            let bytes = Zeroizing::new(STANDARD.decode(key.trim()).map_err(|_| malformed())?);
            if !well_named || bytes.len() != 32 {
                return Err(malformed());
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(TokenKeyError::Twice { id: id.to_owned() });
            }
            keys.push((id.to_owned(), XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| malformed())?));
        }
        Ok(Self { keys })
    }

    /// A fresh random key under `id`, in the form that [`Self::parse`] reads: for a development stack and for
    /// whoever sets the first key.
    pub fn generate(id: &str) -> SecretString {
        let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
        format!("{id}:{}", STANDARD.encode(bytes.as_slice())).into()
    }

    /// The id of the key that encrypts.
    pub(crate) fn first(&self) -> &str {
        let (id, _) = self.keys.first().expect("there is always a first key");
        id
    }

    pub(crate) fn seal(&self, secret: &SecretString, aad: &[u8]) -> Sealed {
        let (key_id, cipher) = self.keys.first().expect("there is always a first key");
        // 192 random bits: no nonce is met twice in practice, whoever else writes.
        let nonce = rand::random::<[u8; 24]>();
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad };
        let ciphertext =
            cipher.encrypt(&XNonce::from(nonce), payload).expect("a token is far below the cipher's limit");
        Sealed { key_id: key_id.clone(), nonce: nonce.to_vec(), ciphertext }
    }

    pub(crate) fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<SecretString, TokenKeyError> {
        let id = || sealed.key_id.clone();
        let (_, cipher) = self
            .keys
            .iter()
            .find(|(known, _)| *known == sealed.key_id)
            .ok_or_else(|| TokenKeyError::Unknown { id: id() })?;
        let wrong = || TokenKeyError::Wrong { id: id() };
        let nonce: [u8; 24] = sealed.nonce.as_slice().try_into().map_err(|_| wrong())?;
        let payload = Payload { msg: &sealed.ciphertext, aad };
        let plain = Zeroizing::new(cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| wrong())?);
        std::str::from_utf8(&plain).map(SecretString::from).map_err(|_| wrong())
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

/// What a refresh token is bound to.
pub(crate) fn bound_to(organisation_id: OrganisationId, connection_id: ConnectionId) -> Vec<u8> {
    [b"mailtide refresh token v1" as &[u8], organisation_id.as_bytes(), connection_id.as_bytes()].concat()
}

const WHAT: &str = "check the token keys";

/// Leaves a known value under every key, and opens what was left before; then looks for what lies under keys that are not
/// there: tokens, consents that are open, answers that may be given again. What nobody will open any more does not count.
pub(crate) async fn check(store: &Store, keys: &TokenKeys) -> Result<(), Error> {
    const KNOWN: &str = "mailtide token key check v1";
    let session = store.session(WHAT).await?;
    for (id, _) in &keys.keys {
        let sealed = TokenKeys { keys: vec![keys.pair(id)] }.seal(&KNOWN.into(), id.as_bytes());
        session
            .execute(
                "INSERT INTO token_keys (key_id, ciphertext, nonce) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                &[id, &sealed.ciphertext, &sealed.nonce],
            )
            .await?;
        let row = session.row("SELECT ciphertext, nonce FROM token_keys WHERE key_id = $1", &[id]).await?;
        let left = row.map(|row| Sealed { key_id: id.clone(), ciphertext: row.get(0), nonce: row.get(1) });
        let opened = keys.open(&left.unwrap_or(sealed), id.as_bytes());
        opened.map_err(|reason| Error::TokenKey { what: WHAT, reason })?;
    }
    match missing(&session, keys).await? {
        None => Ok(()),
        Some(id) => Err(Error::TokenKey { what: WHAT, reason: TokenKeyError::Unknown { id } }),
    }
}

/// The id of a key that is not there and that something lies under: a token, a consent that is open, an answer that may
/// be given again.
async fn missing(session: &Session, keys: &TokenKeys) -> Result<Option<String>, Error> {
    let ids: Vec<&str> = keys.keys.iter().map(|(id, _)| id.as_str()).collect();
    let missing = "(SELECT token_key_id FROM connections
                    WHERE revoked_at IS NULL AND token_key_id <> ALL ($1) AND token_key_id <> '' LIMIT 1)
                   UNION ALL
                   (SELECT verifier_key_id FROM consents
                    WHERE verifier_key_id <> ALL ($1) AND expires_at > now() LIMIT 1)
                   UNION ALL
                   (SELECT split_part(answer, ':', 1) FROM idempotency_keys
                    WHERE answer IS NOT NULL AND split_part(answer, ':', 1) <> ALL ($1)
                      AND created_at >= now() - make_interval(secs => $2) LIMIT 1)
                   LIMIT 1";
    let kept = KEPT.as_millis() as f64 / 1_000.0;
    let row = session.row(missing, &[&ids, &kept]).await?;
    row.map(|row| Reader { what: WHAT, row: &row }.get("token_key_id")).transpose()
}

/// What is known of the keys of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Each key by id, in the order of the settings.
    pub keys: Vec<(String, Use)>,
    /// A key that the settings do not have, though something lies under it.
    pub missing: Option<String>,
}

/// Whether a key is the one that was used here under its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// Nothing was ever sealed with it here.
    Fresh,
    /// It opens what was sealed with it, so many refresh tokens among that; no more than a few are tried.
    Opens {
        /// How many refresh tokens were opened.
        tokens: u64,
    },
    /// It does not.
    Wrong(TokenKeyError),
}

/// Looks whether the keys open what lies under them, and writes nothing: the value that every service leaves when it
/// starts, and a few refresh tokens.
pub(crate) async fn examine(store: &Store, keys: &TokenKeys) -> Result<Examined, Error> {
    /// Tokens of each key that are tried.
    const TRIED: i64 = 3;
    let session = store.session(WHAT).await?;
    let mut examined = Vec::with_capacity(keys.keys.len());
    for (id, _) in &keys.keys {
        let mut sealed = Vec::new();
        let known = session.row("SELECT ciphertext, nonce FROM token_keys WHERE key_id = $1", &[id]).await?;
        sealed.extend(known.map(|row| {
            (Sealed { key_id: id.clone(), ciphertext: row.get(0), nonce: row.get(1) }, id.as_bytes().to_vec())
        }));
        let has_known = !sealed.is_empty();
        let tokens = session
            .rows(
                "SELECT connection_id, organisation_id, token_nonce, token_ciphertext FROM connections
                 WHERE revoked_at IS NULL AND token_key_id = $1 LIMIT $2",
                &[id, &TRIED],
            )
            .await?;
        for row in &tokens {
            let row = Reader { what: WHAT, row };
            let place = bound_to(
                OrganisationId::from_uuid(row.get("organisation_id")?),
                ConnectionId::from_uuid(row.get("connection_id")?),
            );
            let (nonce, ciphertext) = (row.get("token_nonce")?, row.get("token_ciphertext")?);
            sealed.push((Sealed { key_id: id.clone(), nonce, ciphertext }, place));
        }
        let wrong = sealed.iter().find_map(|(sealed, place)| keys.open(sealed, place).err());
        let is_used = match wrong {
            Some(reason) => Use::Wrong(reason),
            None if sealed.is_empty() => Use::Fresh,
            None => Use::Opens { tokens: (sealed.len() - usize::from(has_known)) as u64 },
        };
        examined.push((id.clone(), is_used));
    }
    Ok(Examined { keys: examined, missing: missing(&session, keys).await? })
}

impl TokenKeys {
    fn pair(&self, id: &str) -> (String, XChaCha20Poly1305) {
        let found = self.keys.iter().find(|(known, _)| known == id);
        found.cloned().expect("the id was taken from these keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> TokenKeys {
        TokenKeys::parse(&text.into()).unwrap()
    }

    #[test]
    fn a_token_opens_under_its_own_key_and_place_only() {
        let (a, b) = (TokenKeys::generate("a"), TokenKeys::generate("b"));
        let (a, b) = (a.expose_secret(), b.expose_secret());
        let sealed = keys(a).seal(&"1//refresh".into(), b"here");
        assert_eq!(keys(&format!("{b},{a}")).open(&sealed, b"here").unwrap().expose_secret(), "1//refresh");
        assert_eq!(keys(b).open(&sealed, b"here").unwrap_err(), TokenKeyError::Unknown { id: "a".to_owned() });
        assert_eq!(keys(a).open(&sealed, b"there").unwrap_err(), TokenKeyError::Wrong { id: "a".to_owned() });
        let other = TokenKeys::generate("a");
        let wrong = keys(other.expose_secret()).open(&sealed, b"here");
        assert_eq!(wrong.unwrap_err(), TokenKeyError::Wrong { id: "a".to_owned() });
    }

    #[test]
    fn the_first_key_encrypts() {
        let (a, b) = (TokenKeys::generate("a"), TokenKeys::generate("b"));
        let both = keys(&format!("{},{}", b.expose_secret(), a.expose_secret()));
        assert_eq!(both.seal(&"x".into(), b"").key_id, "b");
    }

    #[test]
    fn every_bit_of_a_row_counts() {
        let key = TokenKeys::generate("a");
        let keys = keys(key.expose_secret());
        let sealed = keys.seal(&"1//refresh".into(), b"here");
        for index in 0..sealed.ciphertext.len() {
            let mut bent = sealed.clone();
            bent.ciphertext[index] ^= 1;
            assert!(keys.open(&bent, b"here").is_err());
        }
        for nonce in [vec![], vec![0; 12], vec![0; 24]] {
            assert!(keys.open(&Sealed { nonce, ..sealed.clone() }, b"here").is_err());
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        let good = TokenKeys::generate("a");
        let twice = format!("{0},{0}", good.expose_secret());
        for text in ["", "a", "a:", "a:c2hvcnQ=", ":AAAA", "a b:AAAA", &format!("{},", good.expose_secret()), &twice] {
            let error = TokenKeys::parse(&text.into()).unwrap_err().to_string();
            assert!(!error.contains("c2hvcnQ"), "{error}");
        }
        assert_eq!(format!("{:?}", keys(good.expose_secret())), r#"["a"]"#);
    }
}
