//! Whether Google can be reached and takes us for who we say we are, without a mailbox and without quota units: for
//! whoever looks for what is wrong.

use std::time::Duration;

use domain::Timestamp;
use domain::mailbox::reply::CallError;
use reqwest::RequestBuilder;
use secrecy::ExposeSecret;
use url::Url;

use crate::delegate::ServiceAccount;
use crate::oauth;
use crate::transport::{self, Answered};
use crate::{Error, Settings, verdict};

/// An answer to a question of ours is a few kilobytes.
const MAX_BODY: u64 = 256 * 1024;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(8);

/// A refresh token of nobody. Whoever is asked for it looks at the client's id and secret first.
const NO_TOKEN: &str = "mailtide-doctor";

/// An answer came, and is what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The clock of whoever answered, to the second; none: the answer did not say.
    pub clock: Option<Timestamp>,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No answer, or one that passes.
    #[error("{url} cannot be used now: {reason}")]
    Away {
        /// Who was asked.
        url: Url,
        /// Why not.
        reason: String,
    },
    /// We are not who we say we are.
    #[error("{reason}")]
    Refused {
        /// In Google's words.
        reason: String,
    },
    /// The settings do not lead to a request.
    #[error(transparent)]
    Settings(#[from] Error),
}

/// Asks the token endpoint whether it knows the OAuth client of the settings.
///
/// # Errors
/// What is wrong.
pub async fn oauth_client(settings: &Settings) -> Result<Heard, Trouble> {
    let mut form =
        vec![("grant_type", "refresh_token"), ("client_id", &settings.client_id), ("refresh_token", NO_TOKEN)];
    if let Some(secret) = &settings.client_secret {
        form.push(("client_secret", secret.expose_secret()));
    }
    let url = &settings.token_url;
    let answer = ask(settings, url, |http| http.post(url.clone()).form(&form)).await?;
    match oauth::refused(&answer) {
        CallError::Permanent { detail, .. } => Err(Trouble::Refused { reason: detail }),
        CallError::Transient { detail } => Err(Trouble::Away { url: url.clone(), reason: detail }),
        // That it has no such token says that it looked for one, for this client.
        _ => Ok(heard(&answer)),
    }
}

/// Reads the key of the service account, and asks the token endpoint whether it is the account's. None: none is set.
///
/// # Errors
/// What is wrong.
pub async fn service_account(settings: &Settings) -> Result<Option<Heard>, Trouble> {
    let Some(path) = &settings.service_account_file else { return Ok(None) };
    let url = &settings.token_url;
    let account = ServiceAccount::load(path, url)?;
    let unsigned =
        |error: jsonwebtoken::errors::Error| Trouble::Refused { reason: format!("it does not sign: {error}") };
    // For itself, which no domain lets it in for: what is refused then tells whether the key is right.
    let assertion = account.assertion(account.email()).map_err(unsigned)?;
    let form =
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.expose_secret())];
    let answer = ask(settings, url, |http| http.post(url.clone()).form(&form)).await?;
    if answer.status.is_success() {
        return Ok(Some(heard(&answer)));
    }
    match oauth::refused_delegation(&answer) {
        CallError::Permanent { detail, .. } => Err(Trouble::Refused { reason: detail }),
        CallError::Transient { detail } => Err(Trouble::Away { url: url.clone(), reason: detail }),
        _ => Ok(Some(heard(&answer))),
    }
}

/// Asks the Gmail API anything, as nobody: that it says no is well.
///
/// # Errors
/// When it does not answer, or says that it is ill.
pub async fn api(settings: &Settings) -> Result<Heard, Trouble> {
    let url = settings.api_url.join("gmail/v1/users/me/profile").unwrap_or_else(|_| settings.api_url.clone());
    let answer = ask(settings, &url, |http| http.get(url.clone())).await?;
    if answer.status.is_server_error() {
        return Err(Trouble::Away { url, reason: format!("it answered {}", answer.status) });
    }
    Ok(heard(&answer))
}

async fn ask(
    settings: &Settings,
    url: &Url,
    request: impl FnOnce(&reqwest::Client) -> RequestBuilder,
) -> Result<Answered, Trouble> {
    let away = |reason: String| Trouble::Away { url: url.clone(), reason };
    let http = transport::client(settings, url)?;
    match tokio::time::timeout(TIMEOUT, transport::fetch(request(&http), MAX_BODY)).await {
        Err(_) => Err(away(format!("no answer within {TIMEOUT:?}"))),
        Ok(Err(failure)) => Err(away(failure.to_string())),
        Ok(Ok(answer)) => Ok(answer),
    }
}

fn heard(answer: &Answered) -> Heard {
    Heard { clock: verdict::date(&answer.headers) }
}
