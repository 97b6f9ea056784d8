//! Google's consent page: what a browser is sent to, and where it is sent from there.

use axum::body::Bytes;
use axum::extract::RawQuery;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use url::Url;

use super::api::Shared;
use super::params::Params;
use crate::consent::{Challenge, ClientError, Code};
use crate::scope::Scopes;
use crate::world::World;

/// Google's name as the issuer of tokens.
pub(crate) const ISSUER: &str = "https://accounts.google.com";

/// An authorization request that may be answered by a redirect.
#[derive(Debug)]
struct Request<'q> {
    client_id: &'q str,
    redirect_uri: Url,
    challenge: Option<Challenge>,
    params: &'q Params<'q>,
}

/// GET /o/oauth2/v2/auth
pub(crate) async fn ask(world: Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let params = Params::parse(&query);
    let request = match read(&world, &params) {
        Ok(request) => request,
        Err((code, text)) => return refuse(code, text),
    };
    let hint = params.last("login_hint").and_then(|email| world.account(email));
    // Nobody named: whoever is signed in first. Somebody named who is not here: nobody.
    let signed_in = || world.accounts().into_iter().next().filter(|_| params.last("login_hint").is_none());
    if params.last("prompt") == Some("none") {
        let account = hint.filter(|account| account.grants().has_live(request.client_id));
        return match account {
            Some(account) => granted(&world, &request, account.number, params.last("scope").unwrap_or_default()),
            None => back(&request, &[("error", "interaction_required")]),
        };
    }
    if world.auto_approve() {
        return match hint.or_else(signed_in) {
            Some(account) => granted(&world, &request, account.number, params.last("scope").unwrap_or_default()),
            None => back(&request, &[("error", "access_denied")]),
        };
    }
    page(&world, &params, &query)
}

/// POST /o/oauth2/v2/auth: the page's form. The request stands in the query, the user's answer in the body.
pub(crate) async fn decide(world: Shared, RawQuery(query): RawQuery, body: Bytes) -> Response {
    let query = query.unwrap_or_default();
    let params = Params::parse(&query);
    let text = String::from_utf8_lossy(&body);
    let form = Params::parse(&text);
    let request = match read(&world, &params) {
        Ok(request) => request,
        Err((code, text)) => return refuse(code, text),
    };
    let account = form.last("account").and_then(|email| world.account(email));
    match (form.last("decision"), account) {
        // Consent is granular: only the scopes that were left ticked.
        (Some("allow"), Some(account)) => {
            let ticked: Vec<&str> = form.all("scope").collect();
            granted(&world, &request, account.number, &ticked.join(" "))
        }
        _ => back(&request, &[("error", "access_denied")]),
    }
}

fn read<'q>(world: &World, params: &'q Params<'q>) -> Result<Request<'q>, (&'static str, &'static str)> {
    let required = |name| {
        let value = params.last(name).filter(|value| !value.is_empty());
        value.ok_or((
            "invalid_request",
            "A required parameter is missing: client_id, redirect_uri, response_type or scope",
        ))
    };
    let (client_id, redirect) = (required("client_id")?, required("redirect_uri")?);
    required("scope")?;
    if required("response_type")? != "code" {
        return Err(("unsupported_response_type", "The response type is not code"));
    }
    world.consents.client(client_id, None, Some(redirect)).map_err(|error| match error {
        ClientError::Redirect => ("redirect_uri_mismatch", "The redirect address is none of the client's"),
        ClientError::Unknown | ClientError::Secret => ("invalid_client", "The OAuth client was not found."),
    })?;
    let redirect_uri = Url::parse(redirect).map_err(|_| ("redirect_uri_mismatch", "The redirect address is no URL"))?;
    let challenge = Challenge::new(params.last("code_challenge"), params.last("code_challenge_method"))
        .map_err(|()| ("invalid_request", "The code challenge's method is not plain or S256"))?;
    Ok(Request { client_id, redirect_uri, challenge, params })
}

fn granted(world: &World, request: &Request<'_>, account: u32, scope: &str) -> Response {
    let Some(owner) = world.account_numbered(account) else { return back(request, &[("error", "access_denied")]) };
    let first = !owner.grants().has_live(request.client_id);
    let scopes = Scopes::parse(scope);
    let params = request.params;
    let prompted = params.last("prompt").is_some_and(|text| text.split(' ').any(|word| word == "consent"));
    let openid = scope.split_whitespace().any(|word| word == "openid");
    let code = Code {
        account,
        client_id: request.client_id.to_owned(),
        redirect_uri: params.last("redirect_uri").unwrap_or_default().to_owned(),
        scopes,
        openid,
        offline: params.last("access_type") == Some("offline"),
        consented: first || prompted,
        challenge: request.challenge.clone(),
        made_ms: world.clock.now_ms(),
    };
    let code = world.consents.keep(code, world.seed);
    let granted = if openid { format!("{scopes} openid") } else { scopes.to_string() };
    back(request, &[("code", &code), ("scope", &granted), ("iss", ISSUER)])
}

/// Sends the browser back to the client, with its `state`.
fn back(request: &Request<'_>, answer: &[(&str, &str)]) -> Response {
    let mut uri = request.redirect_uri.clone();
    {
        let mut pairs = uri.query_pairs_mut();
        if let Some(state) = request.params.last("state") {
            pairs.append_pair("state", state);
        }
        answer.iter().for_each(|(name, value)| {
            pairs.append_pair(name, value);
        });
    }
    (StatusCode::FOUND, [(http::header::LOCATION, uri.to_string())]).into_response()
}

/// What cannot be sent back safely is shown to the user.
fn refuse(code: &'static str, text: &'static str) -> Response {
    let page = format!(
        "<!DOCTYPE html>\n<title>Error 400: {code}</title>\n<h1>Access blocked</h1>\n<p>{text}\n<p>Error 400: {code}\n"
    );
    (StatusCode::BAD_REQUEST, Html(page)).into_response()
}

/// The consent page: whose mailbox, which scopes, yes or no.
fn page(world: &World, params: &Params<'_>, query: &str) -> Response {
    let hint = params.last("login_hint").unwrap_or_default();
    let accounts: String = world
        .accounts()
        .iter()
        .map(|account| {
            let selected = if account.email.eq_ignore_ascii_case(hint) { " selected" } else { "" };
            format!("    <option{selected}>{}</option>\n", escaped(&account.email))
        })
        .collect();
    let scopes: String = params
        .last("scope")
        .unwrap_or_default()
        .split_whitespace()
        .map(|scope| {
            let scope = escaped(scope);
            format!("  <p><label><input type=checkbox name=scope value=\"{scope}\" checked> {scope}</label>\n")
        })
        .collect();
    let client = escaped(params.last("client_id").unwrap_or_default());
    Html(format!(
        "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Sign in with simulated Google</title>\n\
         <h1>{client} wants to access your account</h1>\n<form method=post action=\"?{}\">\n  <p><select name=account>\n\
         {accounts}  </select>\n{scopes}  <p><button name=decision value=allow>Allow</button> \
         <button name=decision value=deny>Cancel</button>\n</form>\n",
        escaped(query)
    ))
    .into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// GET /.well-known/openid-configuration, with this server's own addresses.
pub(crate) async fn configuration(head: http::HeaderMap) -> Response {
    let host = head.get(http::header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("127.0.0.1");
    let root = format!("http://{host}");
    axum::Json(serde_json::json!({
        "issuer": ISSUER,
        "authorization_endpoint": format!("{root}/o/oauth2/v2/auth"),
        "token_endpoint": format!("{root}/token"),
        "revocation_endpoint": format!("{root}/revoke"),
        "jwks_uri": format!("{root}/oauth2/v3/certs"),
        "response_types_supported": ["code"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "code_challenge_methods_supported": ["plain", "S256"],
        "grant_types_supported": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
    }))
    .into_response()
}

/// GET /oauth2/v3/certs
pub(crate) async fn certs(world: Shared) -> Response {
    match world.keys.public() {
        Ok(keys) => ([(http::header::CACHE_CONTROL, "public, max-age=21600")], axum::Json(keys)).into_response(),
        Err(error) => {
            tracing::error!(%error, "The simulator has no keys to show");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
