//! Access tokens for a program of its own right: OAuth's client credentials
//! ([RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4)).
//!
//! [`Tokens::current`] gives a token that is good for a while. It blocks while a new one is fetched, so that it can be
//! called from a callback of a library that knows nothing of tasks; that is rare, as everybody who has a clone shares
//! one token for most of its life.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

/// How long one request may take. Whoever waits may have a consumer to poll.
const REQUEST: Duration = Duration::from_secs(5);

/// How long after a failure the next attempt may follow; until then everybody hears of the last one.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a token counts that does not say for itself.
const UNSAID: Duration = Duration::from_secs(300);

/// The largest answer that is read, in bytes: tokens have some thousand.
const MAX_ANSWER: usize = 256 << 10;

/// How many characters of a refusal are told.
const MAX_TOLD: usize = 200;

/// Where tokens come from, and by what.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The server's token endpoint.
    pub url: Url,
    /// Who we are to it.
    pub client_id: String,
    /// What shows that.
    pub client_secret: SecretString,
    /// What the token is to be for, in the server's words.
    pub scope: Option<String>,
}

/// A token.
#[derive(Debug, Clone)]
pub struct Token {
    /// What is sent to whoever asks who we are.
    pub value: SecretString,
    /// When it ends.
    pub expires: SystemTime,
    /// From when on a newer one is fetched: four fifths into its life.
    renew: Instant,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The server could not be asked.
    #[error("Fetching a token from {url} failed: {reason}; check the address, and that it can be reached from here")]
    Unreachable {
        /// The token endpoint.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The server refused.
    #[error("{url} gave no token: {status} {reason}; check the client's id, its secret and the scope")]
    Refused {
        /// The token endpoint.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's reason, cut.
        reason: String,
    },
    /// The server's answer is not one.
    #[error("{url} answered with what is no token: {reason}")]
    Malformed {
        /// The token endpoint.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The tokens of one grant. Clones share them.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    grant: Grant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failed: Option<(Instant, Error)>,
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<f64>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

/// The one claim of a JWT that we look at.
#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

impl Tokens {
    /// Tokens by this grant; none is fetched yet.
    pub fn new(grant: Grant) -> Self {
        Self { shared: Arc::new(Shared { grant, state: Mutex::default() }) }
    }

    /// A token that is good now. Blocks for up to 5 s when a new one has to be fetched, and so do all others meanwhile.
    ///
    /// # Errors
    /// When there is none that still counts, and no new one is to be had. For a second after a failed attempt no other
    /// is made.
    pub fn current(&self) -> Result<Token, Error> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = state.token.clone().filter(|token| token.expires > SystemTime::now());
        if let Some(token) = &valid
            && Instant::now() < token.renew
        {
            return Ok(token.clone());
        }
        let recent = state.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE).map(|(_, error)| error.clone());
        let error = match recent {
            Some(error) => error,
            None => match fetch(&self.shared.grant) {
                Ok(token) => {
                    *state = State { token: Some(token.clone()), failed: None };
                    return Ok(token);
                }
                Err(error) => {
                    state.failed = Some((Instant::now(), error.clone()));
                    error
                }
            },
        };
        // One that could not be renewed in time still counts to its end.
        valid.ok_or(error)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("grant", &self.shared.grant).finish_non_exhaustive()
    }
}

/// Fetches a token on a thread of its own, since the caller's may belong to a runtime, which must not be blocked on
/// from within.
fn fetch(grant: &Grant) -> Result<Token, Error> {
    let failed = |reason: String| Error::Unreachable { url: grant.url.to_string(), reason };
    thread::scope(|scope| {
        let fetching = thread::Builder::new().name("oauth".to_owned()).spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| failed(format!("starting a runtime: {error}")))?.block_on(ask(grant))
        });
        let fetching = fetching.map_err(|error| failed(format!("starting a thread: {error}")))?;
        fetching.join().unwrap_or_else(|_| Err(failed("the thread that fetches it panicked".to_owned())))
    })
}

async fn ask(grant: &Grant) -> Result<Token, Error> {
    let url = grant.url.to_string();
    let unreachable = |error: reqwest::Error| Error::Unreachable { url: url.clone(), reason: words(error) };
    let http = reqwest::Client::builder()
        .user_agent(concat!("mailtide/", env!("CARGO_PKG_VERSION")))
        // A secret goes where we were told, and nowhere else.
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST)
        .build()
        .map_err(unreachable)?;
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(grant.scope.as_deref().map(|scope| ("scope", scope)));
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    // RFC 6749 §2.3.1: both are encoded as in a form before they go into the header.
    let (id, secret) = (encode(&grant.client_id), encode(grant.client_secret.expose_secret()));
    let request = http.post(grant.url.clone()).basic_auth(id, Some(secret)).form(&form);
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Error::Malformed { url, reason: format!("it has more than {MAX_ANSWER} bytes") });
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
        let reason = refusal.map_or_else(String::new, |it| {
            it.error_description.map_or(it.error.clone(), |description| format!("{}: {description}", it.error))
        });
        let reason = reason.chars().filter(|c| !c.is_control()).take(MAX_TOLD).collect();
        return Err(Error::Refused { url, status: status.as_u16(), reason });
    }
    // The parser's words may quote what it read, so its place is all that is told.
    let granted: Granted = serde_json::from_slice(&body).map_err(|error| Error::Malformed {
        url: url.clone(),
        reason: format!("no JSON object with an access_token, in column {}", error.column()),
    })?;
    let life = granted
        .expires_in
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .map(|seconds| Duration::from_secs_f64(seconds.min(1e9)))
        .or_else(|| life_of(&granted.access_token))
        .unwrap_or(UNSAID);
    Ok(Token {
        value: SecretString::from(granted.access_token),
        expires: SystemTime::now() + life,
        renew: Instant::now() + life.mul_f64(0.8),
    })
}

/// How long a JWT says that it is good; none for what is no JWT or does not say.
fn life_of(token: &str) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let expires = serde_json::from_slice::<Claims>(&claims).ok()?.exp.filter(|at| at.is_finite() && *at > 0.0)?;
    (UNIX_EPOCH + Duration::from_secs_f64(expires.min(1e11))).duration_since(SystemTime::now()).ok()
}

/// An error and all its causes, without the address: whoever tells it has that already.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests;
