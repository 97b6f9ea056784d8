//! The token endpoint: a refresh token, or a service account's assertion, becomes an access token.

use std::time::Duration;

use domain::mailbox::reply::CallError;
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use crate::delegate::ServiceAccount;
use crate::token::Credential;
use crate::transport::{self, Answered};
use crate::verdict::without_addresses;
use crate::{Error, Settings};

/// An answer of the token endpoint is a few kilobytes.
const MAX_BODY: u64 = 256 * 1024;
/// How long the token endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Refreshes under way at one time, so that a cold start does not fall on the token endpoint all at once.
const MAX_IN_FLIGHT: usize = 32;
/// Taken when the endpoint does not say how long a token lives (RFC 6749 §5.1 only recommends it).
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// Errors after which the same refresh token never works again (RFC 6749 §5.2, and Google's own).
/// `unauthorized_client` is a token of another client than ours, or a delegation that the administrator did not make.
const REVOKED: [&str; 4] = ["invalid_grant", "access_denied", "admin_policy_enforced", "unauthorized_client"];
/// How Google begins what it says of an assertion that is wrong for all users (`error_description`).
const OUR_KEY: [&str; 2] = ["Invalid JWT", "Invalid grant: account not found"];
/// Errors that pass, whatever the status (Google's own client library retries these).
const PASSING: [&str; 3] = ["internal_failure", "server_error", "temporarily_unavailable"];

pub(crate) struct Endpoint {
    http: Client,
    url: Url,
    client_id: String,
    client_secret: Option<SecretString>,
    service_account: Option<ServiceAccount>,
    in_flight: Semaphore,
}

/// A fresh access token and how long it lives.
pub(crate) struct Issued {
    pub(crate) access_token: SecretString,
    pub(crate) expires_in: Duration,
}

impl Endpoint {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            http: transport::client(settings, &settings.token_url)?,
            url: settings.token_url.clone(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            service_account: settings
                .service_account_file
                .as_deref()
                .map(|path| ServiceAccount::load(path, &settings.token_url))
                .transpose()?,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        })
    }

    /// An access token for what opens a mailbox.
    pub(crate) async fn issue(&self, credential: &Credential) -> Result<Issued, CallError> {
        match credential {
            Credential::RefreshToken(token) => self.refresh(token).await,
            Credential::Delegated { subject } => self.delegated(subject).await,
        }
    }

    async fn refresh(&self, refresh_token: &SecretString) -> Result<Issued, CallError> {
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("client_id", self.client_id.as_str()),
            ("refresh_token", refresh_token.expose_secret()),
        ];
        if let Some(secret) = &self.client_secret {
            form.push(("client_secret", secret.expose_secret()));
        }
        self.post(&form, refused).await
    }

    async fn delegated(&self, subject: &str) -> Result<Issued, CallError> {
        let permanent = |code: &str, detail: String| CallError::Permanent { code: code.to_owned(), detail };
        let account = self.service_account.as_ref().ok_or_else(|| {
            let detail = "the mailbox is delegated to a service account, and gmail.service_account_file is not set";
            permanent("Gmail.ServiceAccountRefused", detail.to_owned())
        })?;
        let assertion = account.assertion(subject).map_err(|error| {
            permanent("Gmail.ServiceAccountRefused", format!("the service account's key does not sign: {error}"))
        })?;
        let form =
            [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.expose_secret())];
        self.post(&form, refused_delegation).await
    }

    async fn post(
        &self,
        form: &[(&str, &str)],
        refused: impl FnOnce(&Answered) -> CallError,
    ) -> Result<Issued, CallError> {
        let _place = self.in_flight.acquire().await.expect("the endpoint's semaphore is never closed");
        let answer = transport::fetch(self.http.post(self.url.clone()).form(form), MAX_BODY);
        let transient = |detail: String| CallError::Transient { detail: format!("The token endpoint: {detail}") };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Err(_) => Err(transient(format!("no answer within {TIMEOUT:?}"))),
            Ok(Err(failure)) => Err(transient(failure.to_string())),
            Ok(Ok(answer)) if answer.status.is_success() => {
                issued(&answer.body).ok_or_else(|| transient("a success without an access token".to_owned()))
            }
            Ok(Ok(answer)) => Err(refused(&answer)),
        }
    }
}

fn issued(body: &[u8]) -> Option<Issued> {
    #[derive(Deserialize)]
    struct Body {
        access_token: String,
        expires_in: Option<Value>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let seconds = body.expires_in.and_then(|value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let expires_in = seconds.map_or(DEFAULT_LIFE, Duration::from_secs);
    (!body.access_token.is_empty()).then(|| Issued { access_token: body.access_token.into(), expires_in })
}

/// What a refused assertion means: the user's or the domain's affair, unless our key or account is what is wrong.
pub(crate) fn refused_delegation(answer: &Answered) -> CallError {
    match refused(answer) {
        CallError::Revoked { cause } if OUR_KEY.iter().any(|words| cause.contains(words)) => CallError::Permanent {
            code: "Gmail.ServiceAccountRefused".to_owned(),
            detail: format!(
                "The token endpoint said {cause}; check the key in gmail.service_account_file, and the clock"
            ),
        },
        CallError::Revoked { cause } if cause.starts_with("unauthorized_client") => CallError::Revoked {
            cause: format!(
                "{cause} The domain's administrator lets the service account's client id in, for the scope \
                 gmail.readonly, under domain-wide delegation in the Admin console; that may take a day to work"
            ),
        },
        other => other,
    }
}

/// By the error's name first; a status alone only tells an outage.
pub(crate) fn refused(answer: &Answered) -> CallError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().map(without_addresses).unwrap_or_default();
    let (error, subtype, description) = (text("error"), text("error_subtype"), text("error_description"));
    let said = [&error, &subtype, &description].map(String::as_str);
    let said = said.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    let said = if said.is_empty() { "no error that it names".to_owned() } else { said };
    let status = answer.status.as_u16();
    if REVOKED.contains(&error.as_str()) {
        CallError::Revoked { cause: said }
    } else if PASSING.contains(&error.as_str()) || matches!(status, 408 | 425 | 429 | 500..) || error.is_empty() {
        CallError::Transient { detail: format!("The token endpoint answered {status}: {said}") }
    } else {
        // invalid_client, invalid_scope, …: our own registration is wrong, for all mailboxes.
        CallError::Permanent {
            code: "Gmail.OAuthClientRefused".to_owned(),
            detail: format!(
                "The token endpoint answered {status}: {said}; check gmail.client_id and gmail.client_secret"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn judged(status: u16, body: &str) -> CallError {
        let status = StatusCode::from_u16(status).unwrap();
        refused(&Answered { status, headers: HeaderMap::new(), body: body.to_owned().into() })
    }

    #[test]
    fn a_lost_grant_is_told_from_an_outage_and_from_our_own_mistake() {
        for (body, cause) in [
            (
                r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
                "invalid_grant: Token has been expired or revoked.",
            ),
            (r#"{"error":"invalid_grant","error_subtype":"invalid_rapt"}"#, "invalid_grant: invalid_rapt"),
            (r#"{"error":"admin_policy_enforced"}"#, "admin_policy_enforced"),
            (r#"{"error":"unauthorized_client"}"#, "unauthorized_client"),
        ] {
            assert_eq!(judged(400, body), CallError::Revoked { cause: cause.to_owned() });
        }
        for (status, body) in [
            (500, ""),
            (503, r#"{"error":"whatever"}"#),
            (400, r#"{"error":"server_error"}"#),
            (400, "<html>captive portal</html>"),
            (429, r#"{"error":"rate_limit_exceeded"}"#),
        ] {
            assert!(matches!(judged(status, body), CallError::Transient { .. }), "{status} {body}");
        }
        for body in [r#"{"error":"invalid_client"}"#, r#"{"error":"invalid_scope"}"#] {
            assert!(matches!(judged(401, body), CallError::Permanent { .. }), "{body}");
        }
    }

    #[test]
    fn a_refused_delegation_is_the_domains_affair_unless_our_key_is_wrong() {
        let judged = |body: serde_json::Value| {
            let body = body.to_string().into();
            refused_delegation(&Answered { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new(), body })
        };
        let unauthorized = serde_json::json!({"error": "unauthorized_client", "error_description": "Client is \
            unauthorized to retrieve access tokens using this method."});
        let CallError::Revoked { cause } = judged(unauthorized) else { panic!() };
        assert!(cause.starts_with("unauthorized_client: Client is") && cause.contains("Admin console"), "{cause}");
        let gone = serde_json::json!({"error": "invalid_grant", "error_description": "Invalid email or User ID"});
        assert!(matches!(judged(gone), CallError::Revoked { cause } if cause.ends_with("Invalid email or User ID")));
        for words in ["Invalid JWT Signature.", "Invalid JWT: Token must be", "Invalid grant: account not found"] {
            let ours = judged(serde_json::json!({"error": "invalid_grant", "error_description": words}));
            assert!(
                matches!(&ours, CallError::Permanent { code, .. } if code == "Gmail.ServiceAccountRefused"),
                "{words} gave {ours:?}"
            );
        }
    }

    #[test]
    fn a_token_lives_as_long_as_the_endpoint_says() {
        for (body, seconds) in [
            (r#"{"access_token":"a","expires_in":3599,"token_type":"Bearer"}"#, 3_599),
            (r#"{"access_token":"a","expires_in":"60"}"#, 60),
            (r#"{"access_token":"a"}"#, 300),
        ] {
            assert_eq!(issued(body.as_bytes()).unwrap().expires_in, Duration::from_secs(seconds));
        }
        assert!(issued(br#"{"access_token":""}"#).is_none() && issued(b"{}").is_none());
    }
}
