//! `POST /gmail-connections` and the way back from Google's consent page.

use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, REFERRER_POLICY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Duration, OrganisationId, Timestamp};
use gmail::consent::{Ask, Verifier};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use store::consents::Pending;
use store::keys::Scope;
use store::{consents, organisations};
use url::{Host, Url, form_urlencoded};
use utoipa::ToSchema;

use super::document::{self, ProblemDetails};
use super::jobs::instant;
use super::time;
use crate::app::{App, database_problem, now};
use crate::body;
use crate::consent::{Google, Outcome};
use crate::idempotency::Keyed;
use crate::problem::{Code, Problem};

/// How long somebody may take on Google's page.
const VALID: Duration = Duration::from_minutes(10);

/// No `returnUrl` is longer, in bytes.
const MAX_URL: usize = 2_048;

/// No address is longer, in bytes (RFC 5321 §4.5.3.1: 64 and 255 and the @).
const MAX_HINT: usize = 320;

/// What the browser is sent back with, as query parameters of `returnUrl`.
const STATUS: &str = "gmailStatus";
const CONNECTION: &str = "connectionId";

/// Asks for a mailbox to be connected.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConnectGmailRequest {
    /// Where the browser goes in the end: https, or http on this machine; its host is on the organisation's list. The
    /// query parameters `gmailStatus` and `connectionId` are added to it.
    #[schema(format = "uri", max_length = 2048, examples("https://app.example.com/mail"))]
    return_url: String,
    /// The address that Google's page is to propose.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 320, examples("payable@example.com"))]
    login_hint: Option<String>,
    /// How far back the first sync reaches, from 2004-04-01T00:00:00Z on; 30 days when left out. What is older than 24
    /// hours is a backfill. A connection that is renewed is backfilled only when this is given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
}

/// Where to send the mailbox's owner.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectGmailResponse {
    /// Google's consent page, for one use.
    #[schema(format = "uri")]
    consent_url: String,
    /// Until when the consent can be given.
    #[schema(value_type = String, format = DateTime)]
    expires_at: jiff::Timestamp,
}

/// What was asked for, found to make sense.
#[derive(Debug)]
struct Asked {
    return_url: Url,
    login_hint: Option<String>,
    since: Option<Timestamp>,
}

impl ConnectGmailRequest {
    fn check(self, now: Timestamp) -> Result<Asked, String> {
        let return_url = return_url(&self.return_url).map_err(|wrong| format!("`returnUrl`: {wrong}"))?;
        if let Some(hint) = &self.login_hint
            && (!(1..=MAX_HINT).contains(&hint.len()) || hint.chars().any(char::is_control))
        {
            return Err(format!("`loginHint`: expected 1 to {MAX_HINT} bytes of text"));
        }
        let since = self.since.as_deref().map(|text| time::past("since", text, now)).transpose()?;
        Ok(Asked { return_url, login_hint: self.login_hint, since })
    }
}

/// What is checked is what is kept and sent: the URL as it was parsed, not as it was written.
fn return_url(text: &str) -> Result<Url, &'static str> {
    if text.len() > MAX_URL {
        return Err("is longer than 2048 bytes");
    }
    let url = Url::parse(text).map_err(|_| "expected a URL with a scheme and a host")?;
    let is_here = match url.host().ok_or("expected a URL with a host")? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    if !(url.scheme() == "https" || (url.scheme() == "http" && is_here)) {
        return Err("expected https, or http on this machine");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("names a user, which no returnUrl may");
    }
    if url.query_pairs().any(|(name, _)| name == STATUS || name == CONNECTION) {
        return Err("has the parameter gmailStatus or connectionId already");
    }
    if url.as_str().len() > 2 * MAX_URL {
        return Err("is too long when it is written in ASCII");
    }
    Ok(url)
}

/// Asks for a mailbox to be connected.
#[utoipa::path(
    post,
    path = "/gmail-connections",
    operation_id = "connectGmail",
    tag = "Gmail",
    summary = "Connect a Gmail mailbox",
    description = "Answers with the address of Google's consent page. Send the mailbox's owner there within ten minutes; the browser then comes back to `returnUrl` with `gmailStatus` (`connected`, `denied`, `missing_scope` or `error`) and, when connected, `connectionId`. Connecting an address again renews its connection.",
    params(document::IdempotencyKey),
    request_body(content = ConnectGmailRequest, content_type = "application/json"),
    security(("ApiKey" = [])),
    responses(
        (status = 201, description = "The consent page", body = ConnectGmailResponse, content_type = "application/json"),
        (status = 400, description = "Gmail.RedirectHostNotAllowed — the host of `returnUrl` is not on the organisation's list; Request.BodyInvalid — the detail names the member; Request.IdempotencyKeyInvalid", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "Gmail.TooManyConsents — the organisation has as many open as it may; Request.RateLimited", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds to wait before asking again"))),
    ),
)]
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    State(google): State<Arc<Google>>,
    request: Request,
) -> Result<Response, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let organisation = app.authenticate(&headers, Scope::Write).await?;
    let sent = body::read(&headers, body).await?;
    let asked: ConnectGmailRequest = body::parse(&sent)?;
    let at = now();
    let asked = asked.check(at).map_err(|wrong| body::invalid(&wrong))?;
    let keyed = Keyed::read(&headers, &[b"connect", &sent])?;
    if !google.consents.is_configured() || !app.store.has_token_keys() {
        return Err(Code::ConsentNotConfigured.into());
    }
    let found = organisations::find(&app.store, organisation).await.map_err(|error| database_problem(&error))?;
    let allowed = found.map(|organisation| organisation.return_hosts).unwrap_or_default();
    if !asked.return_url.host_str().is_some_and(|host| allowed.iter().any(|allowed| allowed == host)) {
        return Err(Code::RedirectHostNotAllowed.into());
    }
    let page = match keyed {
        None => open_page(&app, &google, organisation, asked, at).await?,
        Some(keyed) => {
            let claimed = app.claim(organisation, &keyed, uuid::Uuid::new_v4()).await?;
            let kept = match claimed.answer {
                Some(kept) => kept,
                None => {
                    let page = open_page(&app, &google, organisation, asked, at).await?;
                    let sealed = consents::seal_answer(&app.store, organisation, &page);
                    let sealed = sealed.map_err(|error| database_problem(&error))?;
                    app.keep_answer(organisation, &keyed, &sealed).await?
                }
            };
            consents::open_answer(&app.store, organisation, &kept).map_err(|error| database_problem(&error))?
        }
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        // The page's address is good for whoever has it.
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::CREATED, headers, page.expose_secret().to_owned()).into_response())
}

/// Keeps what was asked for, and gives the answer's body.
async fn open_page(
    app: &App,
    google: &Google,
    organisation_id: OrganisationId,
    asked: Asked,
    at: Timestamp,
) -> Result<SecretString, Problem> {
    let state = SecretString::from(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let verifier = Verifier::random();
    let pending = Pending {
        organisation_id,
        verifier: verifier.secret().clone(),
        return_url: asked.return_url.into(),
        since: asked.since,
    };
    let expires_at = at + VALID;
    let kept = consents::put(&app.store, &state, &pending, expires_at, at, google.open_consents).await;
    if !kept.map_err(|error| database_problem(&error))? {
        return Err(Code::TooManyConsents.into());
    }
    let page = google.consents.page(&Ask {
        redirect_uri: &google.redirect_uri,
        state: &state,
        verifier: &verifier,
        login_hint: asked.login_hint.as_deref(),
    });
    let answer = ConnectGmailResponse { consent_url: page.into(), expires_at: instant(expires_at) };
    Ok(serde_json::to_string(&answer).expect("two texts serialise").into())
}

/// What Google sends the browser back with.
#[derive(Default)]
struct Back {
    state: Option<String>,
    code: Option<SecretString>,
    error: Option<String>,
}

impl Back {
    /// None when a parameter that counts comes twice: then nobody can say which of them does.
    fn read(query: &str) -> Option<Self> {
        let mut back = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let taken = match name.as_ref() {
                "state" => back.state.replace(value.into_owned()).is_some(),
                "code" => back.code.replace(value.into_owned().into()).is_some(),
                "error" => back.error.replace(value.into_owned()).is_some(),
                _ => false,
            };
            if taken {
                return None;
            }
        }
        Some(back)
    }
}

/// Takes the browser back from Google's page.
#[utoipa::path(
    get,
    path = "/gmail-connections/oauth-callback",
    operation_id = "finishGmailConsent",
    tag = "Gmail",
    summary = "Come back from Google's consent page",
    description = "Where Google sends the browser: not for API clients, and without an API key. Connects the mailbox, starts its first sync, and sends the browser on to the `returnUrl` of the request that it answers.",
    params(
        ("state" = String, Query, description = "Names the request that is answered; good once, for ten minutes"),
        ("code" = Option<String>, Query, description = "Google's code, when the user said yes"),
        ("error" = Option<String>, Query, description = "Why there is no code"),
    ),
    responses(
        (status = 302, description = "On to `returnUrl`, with `gmailStatus` (`connected`, `denied`, `missing_scope` or `error`) and, when connected, `connectionId`",
            headers(("Location" = String, description = "`returnUrl` with the parameters added"))),
        (status = 400, description = "Gmail.ConsentStateInvalid — nobody asked for this consent, or it was answered before, or too late", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn callback(
    State(app): State<Arc<App>>,
    State(google): State<Arc<Google>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let back = Back::read(&query.unwrap_or_default()).ok_or(Code::ConsentStateInvalid)?;
    let state = back.state.ok_or(Code::ConsentStateInvalid)?;
    if !app.store.has_token_keys() {
        return Err(Code::ConsentNotConfigured.into());
    }
    // Without an answer of the database nothing is taken: loading the page again is another try.
    let pending = consents::take(&app.store, &state, now()).await.map_err(|error| database_problem(&error))?;
    let pending = pending.ok_or(Code::ConsentStateInvalid)?;
    let mut location = Url::parse(&pending.return_url).map_err(|error| {
        tracing::error!(%error, "A return URL that was checked does not parse");
        Code::Internal
    })?;
    let outcome = match (back.code, back.error.as_deref()) {
        (Some(code), None) => {
            // A task of its own: a browser that goes away must not stop it between the token and the row.
            let finish = async move { app.finish_consent(&google, pending, code).await };
            tokio::spawn(finish).await.unwrap_or_else(|error| {
                tracing::error!(%error, "A consent could not be finished");
                Outcome::Failed
            })
        }
        (None, Some("access_denied")) => Outcome::Denied,
        _ => Outcome::Failed,
    };
    add_outcome(&mut location, outcome);
    let location = HeaderValue::try_from(String::from(location)).expect("a URL that was parsed is visible ASCII");
    let headers = [
        (LOCATION, location),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // The address that the browser comes from has the state and the code in it.
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

fn add_outcome(location: &mut Url, outcome: Outcome) {
    let (status, connection) = match outcome {
        Outcome::Connected(id) => ("connected", Some(id)),
        Outcome::Denied => ("denied", None),
        Outcome::MissingScope => ("missing_scope", None),
        Outcome::Failed => ("error", None),
    };
    let mut query = location.query_pairs_mut();
    query.append_pair(STATUS, status);
    query.extend_pairs(connection.map(|id| (CONNECTION, id.to_string())));
}

#[cfg(test)]
mod tests {
    use domain::ConnectionId;

    use super::*;

    #[test]
    fn a_return_url_is_what_a_browser_would_make_of_it() {
        for (text, url) in [
            ("https://app.example/done", "https://app.example/done"),
            ("https://App.Example:8443/a?b=c&d#/settings", "https://app.example:8443/a?b=c&d#/settings"),
            ("http://localhost:3000", "http://localhost:3000/"),
            ("http://127.0.0.1/x", "http://127.0.0.1/x"),
            ("http://[::1]:1/x", "http://[::1]:1/x"),
            // The host is what stands before the backslash, whatever it looks like.
            ("https://evil.example\\@app.example/", "https://evil.example/@app.example/"),
            ("https://app.example\t.evil.example/", "https://app.example.evil.example/"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ] {
            assert_eq!(return_url(text).unwrap().as_str(), url, "{text}");
        }
        for text in [
            "",
            "app.example",
            "//app.example",
            "/done",
            "http://app.example",
            "http://localhost.example",
            "https://",
            "https://user@app.example",
            "https://user:secret@app.example",
            "https://app.example/?gmailStatus=connected",
            "https://app.example/?connectionId=x",
            "ftp://app.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            &format!("https://app.example/{}", "x".repeat(MAX_URL)),
            &format!("https://app.example/{}", "é".repeat(1_000)),
        ] {
            assert!(return_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_outcome_is_added_to_what_is_there() {
        let id: ConnectionId = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b".parse().unwrap();
        let mut url = Url::parse("https://app.example/a?b=c#/d").unwrap();
        add_outcome(&mut url, Outcome::Connected(id));
        assert_eq!(
            url.as_str(),
            "https://app.example/a?b=c&gmailStatus=connected&connectionId=0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b#/d"
        );
        let mut url = Url::parse("https://app.example").unwrap();
        add_outcome(&mut url, Outcome::Denied);
        assert_eq!(url.as_str(), "https://app.example/?gmailStatus=denied");
    }

    #[test]
    fn what_comes_back_twice_is_not_believed() {
        let back = Back::read("state=s&code=4%2F0A&scope=x&iss=y&state2=z").unwrap();
        assert_eq!((back.state.as_deref(), back.error), (Some("s"), None));
        assert_eq!(back.code.unwrap().expose_secret(), "4/0A");
        for query in ["state=a&state=b", "code=a&code=", "error=a&error=a", "state=a&%73tate=b"] {
            assert!(Back::read(query).is_none(), "{query}");
        }
    }
}
