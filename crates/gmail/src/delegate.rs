//! Domain-wide delegation: a service account that the administrator of a Workspace domain let in for all its users,
//! instead of each user's own consent.
//!
//! There is no refresh token: a short-lived assertion is signed with the account's key for each access token (RFC 7523;
//! Google's "OAuth 2.0 for server to server applications").

use std::fmt;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use openssl::pkey::PKey;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{Error, jwt};

/// What is asked for: to read mail.
const SCOPE: &str = "https://www.googleapis.com/auth/gmail.readonly";
/// How long an assertion is good for; Google takes an hour at most.
const LIFE: Duration = Duration::from_secs(3_600);
/// Google's clock may be behind ours by so much: what was issued in its future it refuses.
const SKEW: Duration = Duration::from_secs(30);

/// A service account and its key, which does not print.
pub(crate) struct ServiceAccount {
    email: String,
    key_id: Option<String>,
    key: EncodingKey,
    audience: String,
}

/// The file that Google gives out once for each key.
#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key_id: Option<String>,
    private_key: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

impl ServiceAccount {
    /// Reads the JSON file of a service account's key, for assertions to the token endpoint.
    ///
    /// # Errors
    /// [`Error::ServiceAccount`] when it cannot be read or is no such file.
    pub(crate) fn load(path: &Path, token_url: &Url) -> Result<Self, Error> {
        let failed = |detail: String| Error::ServiceAccount { path: path.to_owned(), detail };
        let text = std::fs::read_to_string(path).map(SecretString::from).map_err(|error| failed(error.to_string()))?;
        Self::read(&text, token_url).map_err(failed)
    }

    fn read(text: &SecretString, token_url: &Url) -> Result<Self, String> {
        jwt::install();
        // The parser's words are left out: they may quote the key.
        let file: KeyFile = serde_json::from_str(text.expose_secret())
            .map_err(|error| format!("not the JSON of a key, at line {} column {}", error.line(), error.column()))?;
        if file.r#type != "service_account" {
            return Err("its type is not service_account".to_owned());
        }
        let pem = SecretString::from(file.private_key);
        let key = PKey::private_key_from_pem(pem.expose_secret().as_bytes())
            .and_then(|key| key.rsa())
            .and_then(|key| key.private_key_to_der())
            .map_err(|_| "its private_key is no RSA key in PEM".to_owned())?;
        Ok(Self {
            email: file.client_email,
            key_id: file.private_key_id,
            key: EncodingKey::from_rsa_der(&key),
            audience: token_url.to_string(),
        })
    }

    /// Its own address.
    pub(crate) fn email(&self) -> &str {
        &self.email
    }

    /// An assertion that the account speaks for `subject`, a user's address.
    pub(crate) fn assertion(&self, subject: &str) -> Result<SecretString, jsonwebtoken::errors::Error> {
        let issued = get_current_timestamp() - SKEW.as_secs();
        let claims = Claims {
            iss: &self.email,
            sub: subject,
            scope: SCOPE,
            aud: &self.audience,
            iat: issued,
            exp: issued + LIFE.as_secs(),
        };
        let header = Header { kid: self.key_id.clone(), ..Header::new(Algorithm::RS256) };
        encode(&header, &claims, &self.key).map(SecretString::from)
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use openssl::rsa::Rsa;
    use serde_json::{Value, json};

    use super::*;

    fn url() -> Url {
        "https://oauth2.googleapis.com/token".parse().unwrap()
    }

    #[test]
    fn an_assertion_names_account_user_scope_and_audience_and_lives_an_hour() {
        let key = Rsa::generate(2_048).unwrap();
        let pem = String::from_utf8(PKey::from_rsa(key.clone()).unwrap().private_key_to_pem_pkcs8().unwrap()).unwrap();
        let file = json!({"type": "service_account", "client_email": "sa@p.iam.gserviceaccount.com",
            "private_key_id": "k1", "private_key": pem, "token_uri": "https://elsewhere.example/token"});
        let account = ServiceAccount::read(&file.to_string().into(), &url()).unwrap();
        assert_eq!(format!("{account:?}"), r#"ServiceAccount { key_id: Some("k1"), .. }"#);
        let token = account.assertion("ann@example.com").unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[url().as_str()]);
        let public = DecodingKey::from_rsa_raw_components(&key.n().to_vec(), &key.e().to_vec());
        let token = decode::<Value>(token.expose_secret(), &public, &validation).unwrap();
        assert_eq!(token.header.kid.as_deref(), Some("k1"));
        let claims = token.claims;
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&json!("sa@p.iam.gserviceaccount.com"), &json!("ann@example.com"))
        );
        assert_eq!(claims["scope"], SCOPE);
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3_600);
        assert!(claims["iat"].as_u64().unwrap() <= get_current_timestamp());
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        let key = |value: Value| value.to_string();
        for text in [
            String::new(),
            r#"{"type":"service_account","private_key":"secret"#.to_owned(),
            key(json!({"type": "authorized_user", "client_email": "a", "private_key": "secret"})),
            key(json!({"type": "service_account", "client_email": "a", "private_key": "secret"})),
            key(json!({"type": "service_account", "private_key": "secret"})),
        ] {
            let error = ServiceAccount::read(&text.clone().into(), &url()).unwrap_err();
            assert!(!error.contains("secret") && !error.is_empty(), "{text} gave {error}");
        }
    }
}
