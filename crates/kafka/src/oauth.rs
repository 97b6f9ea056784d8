//! Tokens for SASL's OAUTHBEARER.
//!
//! librdkafka fetches none by itself as we build it (that takes libcurl); it asks for one instead, on whichever thread
//! polls the client. A client that nobody polls is given one before each question.

use std::time::UNIX_EPOCH;

use oauth::Tokens as Fetched;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use runtime::settings::Source;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::native;
use crate::security::Mechanism;
use crate::settings::Settings;

/// The settings `kafka.oauth_*`, as they were given.
#[derive(Debug)]
pub(crate) struct Grant {
    url: Option<Url>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    scope: Option<String>,
}

impl Grant {
    pub(crate) fn read(source: &mut Source) -> Self {
        Self {
            url: source.read_opt(
                "kafka.oauth_token_url",
                "The token endpoint for OAUTHBEARER, asked by client credentials (RFC 6749)",
            ),
            client_id: source.read_opt("kafka.oauth_client_id", "Our client id there"),
            client_secret: source.secret("kafka.oauth_client_secret", "Our client secret there"),
            scope: source.read_opt("kafka.oauth_scope", "The scope to ask for; none if unset"),
        }
    }

    fn given(&self) -> [(&'static str, bool); 4] {
        [
            ("kafka.oauth_token_url", self.url.is_some()),
            ("kafka.oauth_client_id", self.client_id.is_some()),
            ("kafka.oauth_client_secret", self.client_secret.is_some()),
            ("kafka.oauth_scope", self.scope.is_some()),
        ]
    }

    pub(crate) fn must_be_unset(&self, source: &mut Source) {
        for (key, _) in self.given().into_iter().filter(|(_, is_set)| *is_set) {
            source.error(key, format!("is of no use unless kafka.sasl_mechanism is {}", Mechanism::OauthBearer));
        }
    }

    pub(crate) fn must_be_whole(&self, source: &mut Source) {
        for (key, _) in self.given().into_iter().take(3).filter(|(_, is_set)| !is_set) {
            source.error(key, format!("must be set for {}", Mechanism::OauthBearer));
        }
        if let Some(url) = &self.url
            && !matches!(url.scheme(), "https" | "http")
        {
            source.error("kafka.oauth_token_url", "must begin with https:// or http://");
        }
    }

    /// The tokens that it gives; none unless it is whole.
    pub(crate) fn tokens(self) -> Option<Tokens> {
        let (url, client_id, client_secret) = (self.url?, self.client_id?, self.client_secret?);
        let name = client_id.clone();
        let grant = oauth::Grant { url, client_id, client_secret, scope: self.scope };
        Some(Tokens { fetched: Fetched::new(grant), name })
    }
}

/// Tokens, shared by all clients of the same settings.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    fetched: Fetched,
    name: String,
}

impl Tokens {
    /// A token as librdkafka wants it.
    pub(crate) fn current(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let token = self.fetched.current().inspect_err(|error| tracing::warn!(%error, "No token for the brokers"))?;
        let since = token.expires.duration_since(UNIX_EPOCH)?;
        Ok(OAuthToken {
            token: token.value.expose_secret().to_owned(),
            principal_name: self.name.clone(),
            lifetime_ms: i64::try_from(since.as_millis())?,
        })
    }
}

/// What a client's context answers when librdkafka asks for a token.
pub(crate) fn answer(tokens: Option<&Tokens>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
    match tokens {
        Some(tokens) => tokens.current(),
        None => Err("OAUTHBEARER takes kafka.sasl_mechanism and kafka.oauth_*, and cannot be passed through".into()),
    }
}

/// Gives a client that nobody polls a token that is good now. May block while one is fetched.
pub(crate) fn authorise<C: ClientContext>(settings: &Settings, client: &Client<C>) {
    give(settings.security.tokens.as_ref(), client);
}

/// The same by the tokens themselves; none: nothing is to be given.
pub(crate) fn give<C: ClientContext>(tokens: Option<&Tokens>, client: &Client<C>) {
    // Why there is no token is in the log; the brokers' refusal follows.
    if let Some(Ok(token)) = tokens.map(Tokens::current)
        && let Err(error) = native::set_token(client, &token)
    {
        tracing::warn!(error, "A token for the brokers was not taken");
    }
}
