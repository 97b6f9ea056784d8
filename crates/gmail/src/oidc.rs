//! Who posts: the tokens with which Google signs its pushes (OpenID Connect, RS256), and the keys to check them by.
//!
//! The keys are fetched from Google's JWKS address, kept as long as their `max-age` says, and renewed behind the
//! callers' backs; while Google is away the old ones serve on. A token under a key never seen makes one look, at most
//! every [`LOOK_EVERY`], so that made-up key ids cost Google and us nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, get_current_timestamp};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::{Error, Settings, jwt, metric, transport};

/// Where Google publishes its keys.
pub const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";
/// How Google spells itself (OpenID Connect, "Validating an ID token": with and without the scheme).
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Clocks may differ by so much, in seconds.
const SKEW: u64 = 60;
/// Google's tokens have about a thousand bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Keys are looked for at most so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a look may take; a push is answered within seconds.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Bounds of `max-age`, and what is taken without one.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
const USUAL: Duration = Duration::from_secs(3_600);
/// Keys that could not be renewed serve for so long beyond their age.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// A key set is a few kilobytes.
const MAX_BODY: u64 = 256 * 1024;

/// Whose tokens are taken.
#[derive(Debug, Clone)]
pub struct Expected {
    /// `aud`: what the subscription names, by default the address that it posts to.
    pub audience: String,
    /// `email`: the service account that the subscription signs as.
    pub email: String,
    /// Where the signer's keys are.
    pub keys: Url,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not one of Google's for us. The reason is for the log; who sent it is told nothing.
    #[error("the token is not taken: {0}")]
    Token(&'static str),
    /// No keys could be had yet, so nobody can say.
    #[error("the keys to check tokens by cannot be had")]
    KeysAway,
}

/// Checks tokens. One for a process.
pub struct Verifier {
    shared: Arc<Shared>,
    validation: Validation,
    email: String,
}

struct Shared {
    http: reqwest::Client,
    url: Url,
    keys: ArcSwapOption<Keys>,
    /// When keys were looked for last. Held by the one that looks.
    looked: Mutex<Option<Instant>>,
    renewing: AtomicBool,
}

struct Keys {
    by_id: HashMap<String, DecodingKey>,
    fresh_until: Instant,
}

#[derive(Deserialize)]
struct Claims {
    email: Option<String>,
    #[serde(default)]
    email_verified: Flag,
    iat: Option<f64>,
}

/// Google writes a boolean; others that speak OpenID Connect write its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Plain(bool),
    Text(String),
}

impl Default for Flag {
    fn default() -> Self {
        Self::Plain(false)
    }
}

impl Verifier {
    /// A verifier of tokens like `expected`. Fetches nothing yet.
    ///
    /// # Errors
    /// [`Error::Http`] when the HTTP library does not start.
    pub fn new(expected: &Expected) -> Result<Self, Error> {
        jwt::install();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&ISSUERS);
        validation.set_audience(&[&expected.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = SKEW;
        let shared = Shared {
            http: transport::client(&Settings::default(), &expected.keys)?,
            url: expected.keys.clone(),
            keys: ArcSwapOption::empty(),
            looked: Mutex::default(),
            renewing: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), validation, email: expected.email.clone() })
    }

    /// Whether `token` is a living one of Google's, for our audience and by the expected account.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str) -> Result<(), Refused> {
        let refused = |reason| Err(Refused::Token(reason));
        if token.len() > MAX_TOKEN {
            return refused("too long");
        }
        let Ok(header) = decode_header(token) else { return refused("no token") };
        if header.alg != Algorithm::RS256 {
            return refused("another algorithm");
        }
        let Some(kid) = header.kid else { return refused("no key id") };
        let keys = self.shared.holding(&kid).await?;
        let Some(key) = keys.by_id.get(&kid) else { return refused("unknown key") };
        let claims = match decode::<Claims>(token, key, &self.validation) {
            Ok(token) => token.claims,
            Err(error) => {
                return refused(match error.kind() {
                    ErrorKind::InvalidSignature => "signature",
                    ErrorKind::ExpiredSignature => "expired",
                    ErrorKind::InvalidIssuer => "issuer",
                    ErrorKind::InvalidAudience => "audience",
                    ErrorKind::MissingRequiredClaim(_) => "missing claim",
                    _ => "malformed",
                });
            }
        };
        if claims.iat.is_none_or(|iat| iat > (get_current_timestamp() + SKEW) as f64) {
            return refused("not issued yet");
        }
        if claims.email.as_deref() != Some(&self.email) {
            return refused("email");
        }
        match claims.email_verified {
            Flag::Plain(true) => Ok(()),
            Flag::Text(text) if text == "true" => Ok(()),
            Flag::Plain(false) | Flag::Text(_) => refused("email not verified"),
        }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.shared.url.as_str()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The keys; after a look if the one of this id is not among them.
    async fn holding(self: &Arc<Self>, kid: &str) -> Result<Arc<Keys>, Refused> {
        if let Some(keys) = self.usable()
            && keys.by_id.contains_key(kid)
        {
            if keys.fresh_until <= Instant::now() && !self.renewing.swap(true, Ordering::AcqRel) {
                let shared = Arc::clone(self);
                tokio::spawn(async move {
                    shared.look(|keys| keys.fresh_until > Instant::now()).await;
                    shared.renewing.store(false, Ordering::Release);
                });
            }
            return Ok(keys);
        }
        self.look(|keys| keys.by_id.contains_key(kid)).await;
        self.usable().ok_or(Refused::KeysAway)
    }

    fn usable(&self) -> Option<Arc<Keys>> {
        self.keys.load_full().filter(|keys| keys.fresh_until + STALE > Instant::now())
    }

    /// Fetches the keys, unless somebody just did or what is wanted came meanwhile.
    async fn look(&self, found: impl Fn(&Keys) -> bool) {
        let mut looked = self.looked.lock().await;
        if self.usable().is_some_and(|keys| found(&keys)) || looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        let fetched = tokio::time::timeout(TIMEOUT, transport::fetch(self.http.get(self.url.clone()), MAX_BODY)).await;
        // A look that was given up midway counts only once it has come to its end.
        *looked = Some(Instant::now());
        let problem = match fetched {
            Err(_) => "no answer in time".to_owned(),
            Ok(Err(failure)) => failure.to_string(),
            Ok(Ok(answer)) if answer.status.is_success() => match Keys::read(&answer) {
                Some(keys) => {
                    metric::keys("ok");
                    self.keys.store(Some(Arc::new(keys)));
                    return;
                }
                None => "an answer without a key that serves".to_owned(),
            },
            Ok(Ok(answer)) => format!("status {}", answer.status.as_u16()),
        };
        metric::keys("failed");
        tracing::warn!(
            url = self.url.as_str(),
            problem,
            "Cannot fetch the keys of those who push; those held serve on"
        );
    }
}

impl Keys {
    fn read(answer: &transport::Answered) -> Option<Self> {
        let set: JwkSet = serde_json::from_slice(&answer.body).ok()?;
        let rsa = set.keys.iter().filter(|key| matches!(key.algorithm, AlgorithmParameters::RSA(_)));
        let by_id: HashMap<_, _> =
            rsa.filter_map(|key| Some((key.common.key_id.clone()?, DecodingKey::from_jwk(key).ok()?))).collect();
        let age = max_age(&answer.headers).unwrap_or(USUAL).clamp(SHORTEST, LONGEST);
        (!by_id.is_empty()).then(|| Self { by_id, fresh_until: Instant::now() + age })
    }
}

fn max_age(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::CACHE_CONTROL)?.to_str().ok()?;
    let seconds = text.split(',').find_map(|directive| directive.trim().strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
