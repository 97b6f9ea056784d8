//! Signed tokens (RS256): what Google signs with keys it publishes, and what service accounts sign with theirs.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use serde_json::{Value, json};

/// Bits of the key: what Google uses.
const BITS: u32 = 2_048;

/// Google's key, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    key: OnceLock<PKey<Private>>,
}

/// Why a token could not be signed or a key could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct Error {
    doing: &'static str,
    source: openssl::error::ErrorStack,
}

fn failed(doing: &'static str) -> impl FnOnce(openssl::error::ErrorStack) -> Error {
    move |source| Error { doing, source }
}

impl Keys {
    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, Error> {
        let key = self.key()?;
        let header = json!({ "alg": "RS256", "kid": kid(key)?, "typ": "JWT" });
        sign_with(key, &header, claims)
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    pub(crate) fn public(&self) -> Result<Value, Error> {
        let key = self.key()?;
        let rsa = key.rsa().map_err(failed("Reading the signing key"))?;
        let number = |number: &openssl::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
        let key = json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid(key)?, "n": number(rsa.n()), "e": number(rsa.e()),
        });
        Ok(json!({ "keys": [key] }))
    }

    fn key(&self) -> Result<&PKey<Private>, Error> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let key = Rsa::generate(BITS).and_then(PKey::from_rsa).map_err(failed("Making a signing key"))?;
        // Two may make one at the same time; the first is kept.
        Ok(self.key.get_or_init(|| key))
    }
}

fn sign_with(key: &PKey<Private>, header: &Value, claims: &Value) -> Result<String, Error> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = Signer::new(MessageDigest::sha256(), key)
        .and_then(|mut signer| signer.sign_oneshot_to_vec(signed.as_bytes()))
        .map_err(failed("Signing a token"))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The key's id: what its modulus begins with.
fn kid(key: &PKey<Private>) -> Result<String, Error> {
    let rsa = key.rsa().map_err(failed("Reading the signing key"))?;
    Ok(rsa.n().to_vec().iter().take(20).map(|byte| format!("{byte:02x}")).collect())
}

/// The key that `pem` holds.
pub(crate) fn public_key(pem: &str) -> Result<PKey<Public>, Error> {
    PKey::public_key_from_pem(pem.as_bytes()).map_err(failed("Reading a public key in PEM"))
}

/// The claims of a token, not yet checked by anybody.
pub(crate) fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Whether `token` is signed by the owner of `key`.
pub(crate) fn is_signed_by(token: &str, key: &PKey<Public>) -> bool {
    let check = || {
        let (signed, signature) = token.rsplit_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').next()?).ok()?).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), key).ok()?;
        let valid = verifier.verify_oneshot(&signature, signed.as_bytes()).ok()?;
        Some(valid && header["alg"] == "RS256")
    };
    check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_verified_by_the_key_that_signed_them() {
        let (keys, others) = (Keys::default(), Keys::default());
        let token = keys.sign(&json!({"sub": "1"})).unwrap();
        let public =
            |keys: &Keys| public_key(&String::from_utf8(keys.key().unwrap().public_key_to_pem().unwrap()).unwrap());
        assert_eq!(claims(&token), Some(json!({"sub": "1"})));
        assert!(is_signed_by(&token, &public(&keys).unwrap()));
        assert!(!is_signed_by(&token, &public(&others).unwrap()));
        let mut parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"2"}"#);
        parts[1] = &forged;
        assert!(!is_signed_by(&parts.join("."), &public(&keys).unwrap()));
        assert!(!is_signed_by("", &public(&keys).unwrap()));
        assert_eq!(keys.public().unwrap()["keys"][0]["e"], "AQAB");
    }
}
