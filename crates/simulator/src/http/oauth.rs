//! Google's token and revocation endpoints.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::StatusCode;

use super::api::Shared;
use super::asked::spoiled;
use super::consent::ISSUER;
use super::params::Params;
use super::wire::Cut;
use crate::consent::{ClientError, OAuthClient};
use crate::error;
use crate::faults::{Fault, Refusal};
use crate::fields::Mask;
use crate::grant::{Cause, Token};
use crate::json::Writer;
use crate::jwt;
use crate::scope::Scopes;
use crate::world::{Account, World};

/// An error of OAuth 2.0 (RFC 6749 §5.2) in Google's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
    subtype: Option<&'static str>,
}

impl OAuthError {
    const fn new(status: StatusCode, error: &'static str, description: &'static str) -> Self {
        Self { status, error, description, subtype: None }
    }

    const fn invalid_request(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// How a dead grant shows.
    const fn dead(cause: Cause) -> Self {
        const EXPIRED: &str = "Token has been expired or revoked.";
        match cause {
            Cause::Revoked | Cause::PasswordChanged | Cause::Expired | Cause::Unused | Cause::TooMany => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_grant", EXPIRED)
            }
            Cause::Reauthentication => Self {
                subtype: Some("invalid_rapt"),
                ..Self::new(StatusCode::BAD_REQUEST, "invalid_grant", "reauth related error (invalid_rapt)")
            },
            Cause::AdminPolicy => Self::new(
                StatusCode::BAD_REQUEST,
                "admin_policy_enforced",
                "The administrator of this domain does not allow this application.",
            ),
        }
    }

    fn response(self) -> Response {
        let mut writer = Writer::new(128, true, &Mask::All);
        writer.object(|o| {
            o.text_field("error", self.error);
            o.text_field("error_description", self.description);
            if let Some(subtype) = self.subtype {
                o.text_field("error_subtype", subtype);
            }
        });
        error::json(self.status, writer.finish())
    }
}

/// POST /token
pub(crate) async fn token(world: Shared, ConnectInfo(cut): ConnectInfo<Cut>, body: Bytes) -> Response {
    world.token_requests.fetch_add(1, Ordering::Relaxed);
    let text = String::from_utf8_lossy(&body);
    let form = Params::parse(&text);
    let owner = form.last("refresh_token").and_then(|text| Token::parse_refresh(text, world.seed));
    let owner = owner.and_then(|token| world.account_numbered(token.account));
    let now_ms = world.clock.now_ms();
    let fate = world.faults.fate("token", owner.as_ref().map(|account| account.email.as_ref()), now_ms);
    if fate.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fate.delay_ms)).await;
    }
    if let Some(fault) = fate.fault {
        let response = match fault {
            Fault::Error(Refusal::Backend(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                OAuthError::new(status, "internal_failure", "Backend Error").response()
            }
            Fault::Error(refusal) => refusal.error(now_ms).response(true),
            fault => spoiled(&fault, b"{}".to_vec(), &cut),
        };
        return super::dated(&world, response);
    }
    let outcome = match form.last("grant_type") {
        None => Err(OAuthError::invalid_request("Required parameter is missing: grant_type")),
        Some("refresh_token") => refresh(&world, &form),
        Some("authorization_code") => exchange(&world, &form),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => assertion(&world, &form),
        Some(_) => Err(OAuthError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Invalid grant_type")),
    };
    super::dated(&world, outcome.unwrap_or_else(OAuthError::response))
}

const BAD: OAuthError = OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", "Bad Request");

/// The client that the form names; its secret must be right, once clients are known.
fn client<'f>(world: &World, form: &'f Params<'_>) -> Result<(&'f str, Option<OAuthClient>), OAuthError> {
    let id = form.last("client_id").filter(|text| !text.is_empty());
    let id = id.ok_or(OAuthError::invalid_request("Could not determine client ID from request."))?;
    let known = world.consents.client(id, Some(form.last("client_secret").unwrap_or_default()), None);
    known.map(|client| (id, client)).map_err(|error| match error {
        ClientError::Secret => OAuthError::new(StatusCode::UNAUTHORIZED, "invalid_client", "Unauthorized"),
        ClientError::Unknown | ClientError::Redirect => {
            OAuthError::new(StatusCode::UNAUTHORIZED, "invalid_client", "The OAuth client was not found.")
        }
    })
}

fn refresh(world: &World, form: &Params<'_>) -> Result<Response, OAuthError> {
    let text = form.last("refresh_token").filter(|text| !text.is_empty());
    let text = text.ok_or(OAuthError::invalid_request("Missing required parameter: refresh_token"))?;
    let (client, _) = client(world, form)?;
    let token = Token::parse_refresh(text, world.seed).ok_or(BAD)?;
    let account = world.account_numbered(token.account).ok_or(BAD)?;
    let (grant, epoch) = account.grants().refresh(token, world.clock.now_ms()).map_err(OAuthError::dead)?;
    if grant.client_id.as_deref().is_some_and(|own| own != client) {
        return Err(OAuthError::new(StatusCode::UNAUTHORIZED, "unauthorized_client", "Unauthorized"));
    }
    let wanted = form.last("scope").map(Scopes::parse).filter(|scopes| !scopes.is_empty());
    let scopes = wanted.map_or(grant.scopes, |wanted| wanted.and(grant.scopes));
    if scopes.is_empty() {
        return Err(OAuthError::new(StatusCode::BAD_REQUEST, "invalid_scope", "Bad Request"));
    }
    Ok(Answer { account: &account, token, epoch, scopes }.response(world, |_| {}))
}

/// A code for tokens. A refresh token comes only with `access_type=offline`, and only when the user was asked.
fn exchange(world: &World, form: &Params<'_>) -> Result<Response, OAuthError> {
    let (client_id, known) = client(world, form)?;
    let now_ms = world.clock.now_ms();
    let code = form.last("code").and_then(|code| world.consents.take(code, now_ms));
    let code = code.ok_or(OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", "Malformed auth code."))?;
    if code.client_id != client_id {
        return Err(BAD);
    }
    if form.last("redirect_uri") != Some(&code.redirect_uri) {
        return Err(OAuthError::new(StatusCode::BAD_REQUEST, "redirect_uri_mismatch", "Bad Request"));
    }
    let verifier = form.last("code_verifier");
    match (&code.challenge, verifier) {
        (None, None) => {}
        (Some(challenge), Some(verifier)) if challenge.met_by(verifier) => {}
        (Some(_), None) => {
            return Err(OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", "Missing code verifier."));
        }
        _ => return Err(OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", "Invalid code verifier.")),
    }
    let account = world.account_numbered(code.account).ok_or(BAD)?;
    let lifetime_ms = known.and_then(|client| client.grants_end_after_ms);
    let ends_ms = lifetime_ms.map(|lifetime| now_ms.saturating_add(lifetime));
    let number = account.grants().add(Some(client_id), code.scopes, ends_ms, now_ms);
    let token = Token::refresh(account.number, number);
    let id_token = code.openid.then(|| id_token(world, &account, client_id)).transpose();
    let id_token = id_token.map_err(|error| {
        tracing::error!(%error, "The simulator could not sign an id token");
        OAuthError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_failure", "Backend Error")
    })?;
    let answer = Answer { account: &account, token, epoch: 0, scopes: code.scopes };
    Ok(answer.response(world, |o| {
        if code.offline && code.consented {
            o.text_field("refresh_token", &token.refresh_text(world.seed));
        }
        if let Some(lifetime_ms) = lifetime_ms {
            o.int_field("refresh_token_expires_in", lifetime_ms / 1_000);
        }
        if let Some(id_token) = &id_token {
            o.text_field("id_token", id_token);
        }
    }))
}

/// Who signed in, as a token of OpenID Connect.
fn id_token(world: &World, account: &Account, client_id: &str) -> Result<String, jwt::Error> {
    let now = world.clock.now_ms() / 1_000;
    world.keys.sign(&serde_json::json!({
        "iss": ISSUER, "azp": client_id, "aud": client_id, "sub": account.subject(), "email": &*account.email,
        "email_verified": true, "iat": now, "exp": now + 3_600,
    }))
}

/// A service account's own assertion for a user of the domain (RFC 7523). No refresh token: it signs again.
fn assertion(world: &World, form: &Params<'_>) -> Result<Response, OAuthError> {
    const UNAUTHORIZED: OAuthError = OAuthError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized_client",
        "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the \
         scopes requested.",
    );
    let invalid = |text| OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", text);
    let text = form.last("assertion").ok_or(OAuthError::invalid_request("Missing required parameter: assertion"))?;
    let claims = jwt::claims(text).ok_or(invalid("Invalid JWT: Failed to decode"))?;
    let issuer = claims["iss"].as_str().unwrap_or_default();
    let known = world.consents.service_account(issuer);
    let (service, key) = known.ok_or(invalid("Invalid grant: account not found"))?;
    if !jwt::is_signed_by(text, &key) {
        return Err(invalid("Invalid JWT Signature."));
    }
    let now = world.clock.now_ms() / 1_000;
    let (issued, ends) = (claims["iat"].as_i64().unwrap_or(0), claims["exp"].as_i64().unwrap_or(0));
    if ends <= now || ends > issued.saturating_add(3_600) || issued > now + 300 {
        return Err(invalid(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
        ));
    }
    if !claims["aud"].as_str().is_some_and(|audience| audience.ends_with("/token")) {
        return Err(invalid("Invalid JWT: Failed audience check."));
    }
    let (wanted, allowed) = (claims["scope"].as_str().unwrap_or_default(), Scopes::parse(&service.scopes));
    let scopes = Scopes::parse(wanted);
    if scopes.is_empty() || scopes.and(allowed) != scopes {
        return Err(UNAUTHORIZED);
    }
    let subject = claims["sub"].as_str().ok_or(UNAUTHORIZED)?;
    let account = world.account(subject).ok_or(invalid("Invalid email or User ID"))?;
    let (number, epoch) = {
        let mut grants = account.grants();
        let live = grants.live(issuer, scopes);
        live.unwrap_or_else(|| (grants.add(Some(issuer), scopes, None, world.clock.now_ms()), 0))
    };
    let token = Token::refresh(account.number, number);
    Ok(Answer { account: &account, token, epoch, scopes }.response(world, |_| {}))
}

/// A successful answer of the token endpoint.
struct Answer<'a> {
    account: &'a Account,
    token: Token,
    epoch: u32,
    scopes: Scopes,
}

impl Answer<'_> {
    fn response(&self, world: &World, more: impl FnOnce(&mut Writer<'_>)) -> Response {
        let lifetime_ms = world.behaviour_of(self.account).access_token_ms;
        let access = self.token.access(self.epoch, world.clock.now_ms().saturating_add(lifetime_ms));
        let mut writer = Writer::new(512, true, &Mask::All);
        writer.object(|o| {
            o.text_field("access_token", &access.access_text(world.seed));
            o.int_field("expires_in", lifetime_ms.max(0) / 1_000);
            more(o);
            o.text_field("scope", &self.scopes.to_string());
            o.text_field("token_type", "Bearer");
        });
        error::json(StatusCode::OK, writer.finish())
    }
}

/// POST /revoke
pub(crate) async fn revoke(world: Shared, query: axum::extract::RawQuery, body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body);
    let (form, query) = (Params::parse(&text), query.0.unwrap_or_default());
    let query = Params::parse(&query);
    let text = form.last("token").or_else(|| query.last("token")).unwrap_or_default();
    let token = Token::parse_refresh(text, world.seed).or_else(|| Token::parse_access(text, world.seed));
    let revoked = token.and_then(|token| Some((world.account_numbered(token.account)?, token)));
    let revoked = revoked.is_some_and(|(account, token)| account.grants().revoke(token));
    let response = if revoked {
        error::json(StatusCode::OK, b"{}\n".to_vec())
    } else {
        OAuthError::new(StatusCode::BAD_REQUEST, "invalid_token", "Token expired or revoked").response()
    };
    super::dated(&world, response)
}
