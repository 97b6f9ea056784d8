//! A user's consent: the address of Google's consent page, what its code is exchanged for, and the end of a grant.
//!
//! Authorization code with PKCE (RFC 7636, S256), as Google's guide for web server applications has it. Consent is
//! granular: what was asked for and what was granted are two things, and only the token endpoint's word on the latter
//! counts.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Lane;
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use crate::gate::{Admission, Gate};
use crate::tariff::Method;
use crate::transport::{self, Answered, Failure};
use crate::verdict::without_addresses;
use crate::{Account, Error, Settings, Tariff};

/// What Mailtide reads mailboxes with: headers, bodies, attachments, searches.
pub const READONLY: &str = "https://www.googleapis.com/auth/gmail.readonly";
/// A token that carries this scope may not search, whatever else it carries.
const METADATA: &str = "https://www.googleapis.com/auth/gmail.metadata";
/// Brings an id token, and with it the account's id, which stays when its address changes.
const OPENID: &str = "openid";

/// No answer to these calls is larger than a few kilobytes.
const MAX_BODY: u64 = 256 * 1024;
/// How long the exchange of a code and the reading of the profile may take together: a browser waits.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How long a revocation may take.
const REVOCATION: Duration = Duration::from_millis(2_000);
/// Exchanges and revocations under way at one time in this process.
const MAX_IN_FLIGHT: usize = 32;

/// What proves that whoever exchanges a code is whoever asked for it (RFC 7636): 43 characters of 256 random bits.
#[derive(Debug, Clone)]
pub struct Verifier(SecretString);

impl Verifier {
    /// A fresh one.
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into())
    }

    /// One that was kept.
    pub const fn from_secret(text: SecretString) -> Self {
        Self(text)
    }

    /// To be kept, sealed, until the code comes.
    pub const fn secret(&self) -> &SecretString {
        &self.0
    }

    /// What the consent page is told of it.
    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.expose_secret()))
    }
}

/// What a consent page is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Where the browser comes back to, exactly as the OAuth client has it.
    pub redirect_uri: &'a Url,
    /// Comes back with the browser, and tells which request it answers.
    pub state: &'a SecretString,
    /// Proves at the exchange that it was us who asked.
    pub verifier: &'a Verifier,
    /// The address that the page is to propose.
    pub login_hint: Option<&'a str>,
}

/// What a consent came to. Neither the token nor the address prints.
pub struct Granted {
    /// The refresh token.
    pub refresh_token: SecretString,
    /// The mailbox's address, as Gmail's profile has it.
    pub address: String,
    /// Google's id of the account, which outlives its address; none where Google gave no id token.
    pub subject: Option<String>,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted").finish_non_exhaustive()
    }
}

/// Why a code came to no grant that can be used, or a grant could not be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// The user left out the scope that reading needs, or the token carries one that forbids searching.
    #[error("the user did not grant {READONLY} alone; granted was: {granted}")]
    MissingScope {
        /// What was granted.
        granted: String,
    },
    /// Google refused: the same will be refused again.
    #[error("Google refused: {detail}")]
    Refused {
        /// In its words.
        detail: String,
    },
    /// Google did not answer, or not with what can be used: another try may do better.
    #[error("Google gave no answer that can be used: {detail}")]
    Away {
        /// What came of it.
        detail: String,
    },
}

/// Asks for consents and ends them, for one OAuth client.
pub struct Consents {
    http: Client,
    auth_url: Url,
    token_url: Url,
    revoke_url: Url,
    api_url: Url,
    client_id: String,
    client_secret: Option<SecretString>,
    tariff: Tariff,
    gate: Gate,
    in_flight: Semaphore,
}

impl std::fmt::Debug for Consents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consents").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Consents {
    /// For the OAuth client of the settings; the one call to Gmail that a consent takes passes `gate`.
    ///
    /// # Errors
    /// [`Error::Http`] when the HTTP library does not start.
    pub fn new(settings: &Settings, gate: Gate) -> Result<Self, Error> {
        Ok(Self {
            http: transport::client(settings, &settings.token_url)?,
            auth_url: settings.auth_url.clone(),
            token_url: settings.token_url.clone(),
            revoke_url: settings.revoke_url.clone(),
            api_url: settings.api_url.clone(),
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            tariff: settings.tariff,
            gate,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        })
    }

    /// Whether the settings name an OAuth client at all.
    pub const fn is_configured(&self) -> bool {
        !self.client_id.is_empty()
    }

    /// The address of the consent page: offline access, and the user is asked even when it consented before, because
    /// only then is there a refresh token.
    pub fn page(&self, ask: &Ask<'_>) -> Url {
        let mut url = self.auth_url.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", ask.redirect_uri.as_str())
            .append_pair("response_type", "code")
            .append_pair("scope", &format!("{OPENID} {READONLY}"))
            .append_pair("access_type", "offline")
            .append_pair("prompt", "consent")
            .append_pair("code_challenge", &ask.verifier.challenge())
            .append_pair("code_challenge_method", "S256")
            .append_pair("state", ask.state.expose_secret())
            .extend_pairs(ask.login_hint.map(|hint| ("login_hint", hint)));
        url
    }

    /// Exchanges a code, checks what was granted, and reads whose mailbox it is. Answers within a few seconds.
    ///
    /// # Errors
    /// Each variant of [`ConsentError`]. The code is used up in any case.
    pub async fn exchange(
        &self,
        code: &SecretString,
        verifier: &Verifier,
        redirect_uri: &Url,
    ) -> Result<Granted, ConsentError> {
        let deadline = Instant::now() + PATIENCE;
        let work = async {
            let _place = self.in_flight.acquire().await.expect("the semaphore is never closed");
            let tokens = self.tokens(code, verifier, redirect_uri).await?;
            let subject = tokens.id_token.as_deref().and_then(|token| subject(token, &self.client_id));
            let address = self.address(&tokens.access_token, subject.as_deref(), deadline).await?;
            Ok(Granted { refresh_token: tokens.refresh_token, address, subject })
        };
        let late = |_| Err(ConsentError::Away { detail: format!("no answer within {PATIENCE:?}") });
        tokio::time::timeout_at(deadline, work).await.unwrap_or_else(late)
    }

    /// Ends the grant that a refresh token belongs to, and with it every grant that the account gave this project. A
    /// grant that has ended already is fine.
    ///
    /// # Errors
    /// [`ConsentError::Away`] when it has to be tried again, [`ConsentError::Refused`] when that would not help.
    pub async fn revoke(&self, refresh_token: &SecretString) -> Result<(), ConsentError> {
        let work = async {
            let _place = self.in_flight.acquire().await.expect("the semaphore is never closed");
            let form = [("token", refresh_token.expose_secret())];
            transport::fetch(self.http.post(self.revoke_url.clone()).form(&form), MAX_BODY).await
        };
        let answer = match tokio::time::timeout(REVOCATION, work).await {
            Err(_) => return Err(ConsentError::Away { detail: format!("no answer within {REVOCATION:?}") }),
            Ok(answer) => answer.map_err(away)?,
        };
        match refusal(&answer) {
            None => Ok(()),
            Some((error, _)) if matches!(error.as_str(), "invalid_token" | "invalid_grant") => Ok(()),
            Some(refusal) => Err(judged(&answer, refusal)),
        }
    }

    async fn tokens(
        &self,
        code: &SecretString,
        verifier: &Verifier,
        redirect_uri: &Url,
    ) -> Result<Tokens, ConsentError> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", self.client_id.as_str()),
            ("redirect_uri", redirect_uri.as_str()),
            ("code", code.expose_secret()),
            ("code_verifier", verifier.0.expose_secret()),
        ];
        if let Some(secret) = &self.client_secret {
            form.push(("client_secret", secret.expose_secret()));
        }
        let request = self.http.post(self.token_url.clone()).form(&form);
        let answer = transport::fetch(request, MAX_BODY).await.map_err(away)?;
        match refusal(&answer) {
            None => Tokens::read(&answer.body),
            Some(refusal) => Err(judged(&answer, refusal)),
        }
    }

    async fn address(
        &self,
        access_token: &SecretString,
        subject: Option<&str>,
        deadline: Instant,
    ) -> Result<String, ConsentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            email_address: String,
        }
        // Until the profile is read nobody knows the address by which other calls name the account.
        let account = Account::new(subject.unwrap_or("of a consent"));
        let admission = Admission {
            account: &account,
            connection: None,
            shares: 1,
            lane: Lane::Live,
            units: self.tariff.price(Method::Profile),
            parts: 1,
            deadline,
        };
        let _permit =
            self.gate.admit(admission).await.map_err(|refused| ConsentError::Away { detail: refused.to_string() })?;
        let unusable = |detail: &str| ConsentError::Away { detail: detail.to_owned() };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", access_token.expose_secret()))
            .map_err(|_| unusable("an access token that no header holds"))?;
        bearer.set_sensitive(true);
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["gmail", "v1", "users", "me", "profile"]);
        }
        url.query_pairs_mut().append_pair("fields", "emailAddress").append_pair("prettyPrint", "false");
        let request = self.http.get(url).header(AUTHORIZATION, bearer);
        let answer = transport::fetch(request, MAX_BODY).await.map_err(away)?;
        if answer.status != StatusCode::OK {
            let status = answer.status.as_u16();
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let said = without_addresses(body["error"]["message"].as_str().unwrap_or("nothing that it names"));
            return Err(ConsentError::Away { detail: format!("the profile call answered {status}: {said}") });
        }
        let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
        let address = body.map(|body| body.email_address).filter(|address| is_address(address));
        address.ok_or_else(|| unusable("a profile without an address"))
    }
}

/// What a code became.
struct Tokens {
    access_token: SecretString,
    refresh_token: SecretString,
    id_token: Option<String>,
}

impl Tokens {
    fn read(body: &[u8]) -> Result<Self, ConsentError> {
        #[derive(Deserialize)]
        struct Body {
            access_token: String,
            refresh_token: Option<String>,
            #[serde(default)]
            scope: String,
            id_token: Option<String>,
        }
        let unusable = |detail: &str| ConsentError::Away { detail: detail.to_owned() };
        let body: Body =
            serde_json::from_slice(body).map_err(|_| unusable("a success of the token endpoint without tokens"))?;
        let has = |wanted: &str| body.scope.split_whitespace().any(|scope| scope == wanted);
        if !has(READONLY) || has(METADATA) {
            return Err(ConsentError::MissingScope { granted: without_addresses(&body.scope) });
        }
        // It comes with every consent that the user was asked for, which ours are.
        let refresh_token = body.refresh_token.filter(|token| !token.is_empty());
        let refresh_token = refresh_token.ok_or_else(|| unusable("no refresh token"))?.into();
        Ok(Self { access_token: body.access_token.into(), refresh_token, id_token: body.id_token })
    }
}

/// Google's id of the account. The token came straight from the token endpoint, so its signature need not be checked
/// (OpenID Connect Core §3.1.3.7, 6); it has to be for us.
fn subject(id_token: &str, client_id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        aud: String,
        sub: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    // At most 255 ASCII characters (OpenID Connect Core §2).
    let is_id = (1..=255).contains(&claims.sub.len()) && claims.sub.bytes().all(|byte| byte.is_ascii_graphic());
    (claims.aud == client_id && is_id).then_some(claims.sub)
}

fn is_address(text: &str) -> bool {
    text.len() <= 320 && text.contains('@') && !text.chars().any(|char| char.is_control() || char.is_whitespace())
}

fn away(failure: Failure) -> ConsentError {
    ConsentError::Away { detail: failure.to_string() }
}

/// The error's name and description (RFC 6749 §5.2), unless the answer is a success.
fn refusal(answer: &Answered) -> Option<(String, String)> {
    if answer.status.is_success() {
        return None;
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().map(without_addresses).unwrap_or_default();
    Some((text("error"), text("error_description")))
}

/// A status alone tells an outage; else the error's name decides.
fn judged(answer: &Answered, (error, description): (String, String)) -> ConsentError {
    let detail = format!("{} {error}: {description}", answer.status.as_u16());
    let passes = matches!(answer.status.as_u16(), 408 | 425 | 429 | 500..) || error.is_empty();
    if passes { ConsentError::Away { detail } } else { ConsentError::Refused { detail } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(scope: &str) -> Result<Tokens, ConsentError> {
        let body = serde_json::json!({"access_token": "a", "refresh_token": "r", "scope": scope});
        Tokens::read(body.to_string().as_bytes())
    }

    #[test]
    fn a_verifier_and_its_challenge_are_as_the_standard_has_them() {
        // RFC 7636, appendix B.
        let verifier = Verifier::from_secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into());
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let (one, other) = (Verifier::random(), Verifier::random());
        assert_eq!(one.secret().expose_secret().len(), 43);
        assert_ne!(one.secret().expose_secret(), other.secret().expose_secret());
    }

    #[test]
    fn what_was_granted_decides_and_not_what_was_asked_for() {
        assert!(tokens(&format!("openid {READONLY}")).is_ok());
        for short in ["", "openid", METADATA, &format!("{READONLY}.not"), &format!("{READONLY} {METADATA}")] {
            assert!(matches!(tokens(short), Err(ConsentError::MissingScope { .. })), "{short}");
        }
        let without = serde_json::json!({"access_token": "a", "scope": READONLY});
        assert!(matches!(Tokens::read(without.to_string().as_bytes()), Err(ConsentError::Away { .. })));
    }

    #[test]
    fn an_id_token_names_the_account_when_it_is_for_us() {
        let token = |claims: Value| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let good = token(serde_json::json!({"aud": "us", "sub": "1234"}));
        assert_eq!(subject(&good, "us").as_deref(), Some("1234"));
        assert_eq!(subject(&good, "others"), None);
        for bad in
            ["", "a.b.c", &token(serde_json::json!({"aud": "us"})), &token(serde_json::json!({"aud": "us", "sub": ""}))]
        {
            assert_eq!(subject(bad, "us"), None, "{bad}");
        }
    }
}
