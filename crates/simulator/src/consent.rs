//! Consent: clients, the codes that users' answers become, and service accounts.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::pkey::{PKey, Public};
use serde::{Deserialize, Serialize};

use crate::scope::Scopes;

/// A code is good for this long.
const CODE_MS: i64 = 600_000;

/// A client of the project.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuthClient {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Where users may be sent back to, exactly; anywhere when empty.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// Grants end after this time: an app in testing has 7 days.
    #[serde(default)]
    pub grants_end_after_ms: Option<i64>,
}

impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_id, client_secret: _, redirect_uris, grants_end_after_ms } = self;
        let mut shown = f.debug_struct("OAuthClient");
        shown.field("client_id", client_id).field("client_secret", &"***").field("redirect_uris", redirect_uris);
        shown.field("grants_end_after_ms", grants_end_after_ms).finish()
    }
}

/// A service account with authority over the whole domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its address: the `iss` of its assertions.
    pub email: String,
    /// Its public key in PEM.
    pub public_key: String,
    /// The scopes that the administrator allowed it, parted by blanks.
    pub scopes: String,
}

/// A user's answer that waits to be exchanged.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    pub(crate) account: u32,
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) scopes: Scopes,
    /// Whether `openid` was among the scopes.
    pub(crate) openid: bool,
    /// Whether a refresh token is wanted: `access_type=offline`.
    pub(crate) offline: bool,
    /// Whether the user was asked: `prompt=consent`, or for the first time.
    pub(crate) consented: bool,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) made_ms: i64,
}

/// A proof key for code exchange (RFC 7636).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The verifier itself: what an omitted method means.
    Plain(String),
    /// Its SHA-256.
    Sha256(String),
}

impl Challenge {
    /// The challenge of an authorization request; `Err` for an unknown method.
    pub(crate) fn new(challenge: Option<&str>, method: Option<&str>) -> Result<Option<Self>, ()> {
        let Some(challenge) = challenge.filter(|text| !text.is_empty()) else { return Ok(None) };
        match method {
            None | Some("" | "plain") => Ok(Some(Self::Plain(challenge.to_owned()))),
            Some("S256") => Ok(Some(Self::Sha256(challenge.to_owned()))),
            Some(_) => Err(()),
        }
    }

    /// Whether `verifier` is what was hashed; it must have 43 to 128 characters.
    pub(crate) fn met_by(&self, verifier: &str) -> bool {
        let hash = || URL_SAFE_NO_PAD.encode(openssl::sha::sha256(verifier.as_bytes()));
        let met = match self {
            Self::Plain(challenge) => challenge == verifier,
            Self::Sha256(challenge) => *challenge == hash(),
        };
        met && (43..=128).contains(&verifier.len())
    }
}

/// Everything that consent needs to remember.
#[derive(Debug, Default)]
pub(crate) struct Consents {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<String, OAuthClient>,
    service_accounts: HashMap<String, (ServiceAccount, PKey<Public>)>,
    codes: HashMap<String, Code>,
    n_codes: u64,
}

/// What is wrong with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// There is none of that id, though there are clients.
    Unknown,
    /// The secret is another.
    Secret,
    /// The address is none of its own.
    Redirect,
}

impl Consents {
    /// Adds or replaces a client. Until there is one, every client is known, with any secret and address.
    pub(crate) fn add_client(&self, client: OAuthClient) {
        self.lock().clients.insert(client.client_id.clone(), client);
    }

    /// Adds or replaces a service account.
    pub(crate) fn add_service_account(&self, account: ServiceAccount, key: PKey<Public>) {
        self.lock().service_accounts.insert(account.email.clone(), (account, key));
    }

    /// The service account of that address.
    pub(crate) fn service_account(&self, email: &str) -> Option<(ServiceAccount, PKey<Public>)> {
        self.lock().service_accounts.get(email).cloned()
    }

    /// The client, if clients are known at all; its secret and address are checked when given.
    pub(crate) fn client(
        &self,
        id: &str,
        secret: Option<&str>,
        redirect: Option<&str>,
    ) -> Result<Option<OAuthClient>, ClientError> {
        let state = self.lock();
        if state.clients.is_empty() {
            return Ok(None);
        }
        let client = state.clients.get(id).ok_or(ClientError::Unknown)?;
        if secret.is_some_and(|secret| secret != client.client_secret) {
            return Err(ClientError::Secret);
        }
        let anywhere = client.redirect_uris.is_empty();
        if redirect.is_some_and(|uri| !anywhere && !client.redirect_uris.iter().any(|own| own == uri)) {
            return Err(ClientError::Redirect);
        }
        Ok(Some(client.clone()))
    }

    /// Keeps a user's answer and returns its code.
    pub(crate) fn keep(&self, code: Code, secret: u64) -> String {
        let mut state = self.lock();
        state.n_codes += 1;
        let mut seed = crate::seed::Seed::of(secret ^ state.n_codes, "code");
        let text = format!("4/0A{:016x}{:016x}", seed.next(), seed.next());
        let now_ms = code.made_ms;
        state.codes.retain(|_, kept| now_ms.saturating_sub(kept.made_ms) < CODE_MS);
        state.codes.insert(text.clone(), code);
        text
    }

    /// Takes the answer of a code, which is good once.
    pub(crate) fn take(&self, code: &str, now_ms: i64) -> Option<Code> {
        self.lock().codes.remove(code).filter(|kept| now_ms.saturating_sub(kept.made_ms) < CODE_MS)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_met_by_their_verifier_alone() {
        // The example of RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let hashed = Challenge::new(Some(challenge), Some("S256")).unwrap().unwrap();
        assert!(hashed.met_by(verifier) && !hashed.met_by(challenge));
        let plain = Challenge::new(Some(verifier), None).unwrap().unwrap();
        assert!(plain.met_by(verifier) && !plain.met_by(challenge));
        let short = Challenge::Plain("short".to_owned());
        assert!(!short.met_by("short"));
        assert_eq!(Challenge::new(Some("x"), Some("S512")), Err(()));
        assert_eq!(Challenge::new(None, Some("S256")), Ok(None));
    }

    #[test]
    fn clients_are_checked_once_there_is_one() {
        let consents = Consents::default();
        assert!(consents.client("any", Some("s"), Some("http://x")).unwrap().is_none());
        consents.add_client(OAuthClient {
            client_id: "c".to_owned(),
            client_secret: "s".to_owned(),
            redirect_uris: vec!["http://x/cb".to_owned()],
            grants_end_after_ms: None,
        });
        let check = |id, secret, uri| consents.client(id, secret, uri).map(|client| client.is_some());
        assert_eq!(check("c", Some("s"), Some("http://x/cb")), Ok(true));
        assert_eq!(check("d", None, None), Err(ClientError::Unknown));
        assert_eq!(check("c", Some("t"), None), Err(ClientError::Secret));
        assert_eq!(check("c", None, Some("http://x/cb/")), Err(ClientError::Redirect));
    }
}
