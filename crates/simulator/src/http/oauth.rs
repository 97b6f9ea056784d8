//! Google's token and revocation endpoints.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::StatusCode;

use super::api::Shared;
use super::asked::spoiled;
use super::params::Params;
use super::wire::Cut;
use crate::error;
use crate::faults::{Fault, Refusal};
use crate::fields::Mask;
use crate::grant::{Cause, Token};
use crate::json::Writer;
use crate::scope::Scopes;

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
        Some(_) => Err(OAuthError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "Invalid grant_type")),
    };
    super::dated(&world, outcome.unwrap_or_else(OAuthError::response))
}

fn refresh(world: &Shared, form: &Params<'_>) -> Result<Response, OAuthError> {
    let text = form.last("refresh_token").filter(|text| !text.is_empty());
    let text = text.ok_or(OAuthError::invalid_request("Missing required parameter: refresh_token"))?;
    let client = form.last("client_id").filter(|text| !text.is_empty());
    let client = client.ok_or(OAuthError::invalid_request("Could not determine client ID from request."))?;
    const BAD: OAuthError = OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", "Bad Request");
    let token = Token::parse_refresh(text, world.seed).ok_or(BAD)?;
    let account = world.account_numbered(token.account).ok_or(BAD)?;
    let now_ms = world.clock.now_ms();
    let (grant, epoch) = account.grants().refresh(token, now_ms).map_err(OAuthError::dead)?;
    if grant.client_id.as_deref().is_some_and(|own| own != client) {
        return Err(OAuthError::new(StatusCode::UNAUTHORIZED, "unauthorized_client", "Unauthorized"));
    }
    let wanted = form.last("scope").map(Scopes::parse).filter(|scopes| !scopes.is_empty());
    let scopes = wanted.map_or(grant.scopes, |wanted| wanted.and(grant.scopes));
    if scopes.is_empty() {
        return Err(OAuthError::new(StatusCode::BAD_REQUEST, "invalid_scope", "Bad Request"));
    }
    let lifetime_ms = world.behaviour_of(&account).access_token_ms;
    let access = token.access(epoch, now_ms.saturating_add(lifetime_ms));
    let mut writer = Writer::new(256, true, &Mask::All);
    writer.object(|o| {
        o.text_field("access_token", &access.access_text(world.seed));
        o.int_field("expires_in", lifetime_ms.max(0) / 1_000);
        o.text_field("scope", &scopes.to_string());
        o.text_field("token_type", "Bearer");
    });
    Ok(error::json(StatusCode::OK, writer.finish()))
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
