//! RS256 for `jsonwebtoken`, by the OpenSSL that TLS uses already: the library's own back ends are a second
//! cryptographic library each. No other algorithm is there to be talked into.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private, Public};
use openssl::rsa::Rsa;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| {
        let private = |key: &EncodingKey| Rsa::private_key_from_der(key.as_bytes()).and_then(PKey::from_rsa);
        match algorithm {
            Algorithm::RS256 => Ok(Box::new(Rs256(private(key).map_err(unusable)?))),
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::RS256 => Ok(Box::new(Rs256(public(key)?))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes the library use OpenSSL, before it is used for the first time.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if PROVIDER.install_default().is_err() {
            tracing::warn!("Tokens are signed and verified by what another part of the process set up");
        }
    });
}

struct Rs256<K>(PKey<K>);

fn public(key: &DecodingKey) -> Result<PKey<Public>, Error> {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let key = || Rsa::from_public_components(BigNum::from_slice(n)?, BigNum::from_slice(e)?);
            key().and_then(PKey::from_rsa).map_err(unusable)
        }
        DecodingKeyKind::SecretOrDer(_) => Err(ErrorKind::InvalidKeyFormat.into()),
    }
}

fn unusable(error: ErrorStack) -> Error {
    ErrorKind::InvalidRsaKey(error.to_string()).into()
}

impl Verifier<Vec<u8>> for Rs256<Public> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verify = || {
            let mut verifier = openssl::sign::Verifier::new(MessageDigest::sha256(), &self.0)?;
            verifier.verify_oneshot(signature, message)
        };
        match verify() {
            Ok(true) => Ok(()),
            Ok(false) => Err(SignatureError::new()),
            Err(error) => Err(SignatureError::from_source(error)),
        }
    }
}

impl JwtVerifier for Rs256<Public> {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

impl Signer<Vec<u8>> for Rs256<Private> {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let sign = || {
            let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), &self.0)?;
            signer.sign_oneshot_to_vec(message)
        };
        sign().map_err(SignatureError::from_source)
    }
}

impl JwtSigner for Rs256<Private> {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}
