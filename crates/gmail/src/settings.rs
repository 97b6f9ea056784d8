//! Where Gmail is, who we are there, and how much of it we use.

use std::time::Duration;

use runtime::settings::Source;
use secrecy::SecretString;
use url::Url;

use crate::Tariff;

/// How Gmail is called.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The API's base URL.
    pub api_url: Url,
    /// Google's consent page.
    pub auth_url: Url,
    /// The token endpoint.
    pub token_url: Url,
    /// Where grants are ended.
    pub revoke_url: Url,
    /// The OAuth client's id.
    pub client_id: String,
    /// The OAuth client's secret.
    pub client_secret: Option<SecretString>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one call may take, from its admission to the end of its body, a refresh of the token included.
    pub call_timeout: Duration,
    /// The largest body that is read, unpacked.
    pub max_body: u64,
    /// The most calls under way in this process.
    pub max_in_flight: u16,
    /// HTTP/2 connections to Gmail; each carries about a hundred calls at a time. One mailbox stays on one of them.
    pub connections: u16,
    /// The prices of calls.
    pub tariff: Tariff,
    /// How long before its end an access token is renewed; at least a minute.
    pub token_skew: Duration,
    /// The most access tokens that are kept.
    pub max_tokens: u64,
    /// The Pub/Sub topic that Gmail pushes changes to, `projects/{project}/topics/{topic}`; none: no mailbox is watched.
    pub watch_topic: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_url: Url::parse("https://gmail.googleapis.com/").expect("Google's address is a URL"),
            auth_url: Url::parse("https://accounts.google.com/o/oauth2/v2/auth").expect("Google's address is a URL"),
            token_url: Url::parse("https://oauth2.googleapis.com/token").expect("Google's address is a URL"),
            revoke_url: Url::parse("https://oauth2.googleapis.com/revoke").expect("Google's address is a URL"),
            client_id: String::new(),
            client_secret: None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            max_body: 16 * 1024 * 1024,
            max_in_flight: 256,
            connections: 4,
            tariff: Tariff::default(),
            token_skew: Duration::from_secs(120),
            max_tokens: 50_000,
            watch_topic: None,
        }
    }
}

impl Settings {
    /// Reads `gmail.*`.
    pub fn read(source: &mut Source) -> Self {
        let default = Self::default();
        let settings = Self {
            api_url: source.read("gmail.api_url", default.api_url, "The base URL of the Gmail API"),
            auth_url: source.read("gmail.auth_url", default.auth_url, "The consent page that users are sent to"),
            token_url: source.read("gmail.token_url", default.token_url, "The OAuth token endpoint"),
            revoke_url: source.read("gmail.revoke_url", default.revoke_url, "Where grants are revoked"),
            client_id: source.read("gmail.client_id", default.client_id, "The OAuth client's id"),
            client_secret: source.secret("gmail.client_secret", "The OAuth client's secret"),
            connect_timeout: source.duration(
                "gmail.connect_timeout",
                default.connect_timeout,
                "How long connecting to Gmail may take",
            ),
            call_timeout: source.duration(
                "gmail.call_timeout",
                default.call_timeout,
                "How long one call may take, waiting for its turn and refreshing the token included",
            ),
            max_body: source.size("gmail.max_body", default.max_body, "The largest answer that is read, unpacked"),
            max_in_flight: source.read(
                "gmail.max_in_flight",
                default.max_in_flight,
                "The most calls to Gmail under way in one process",
            ),
            connections: source.read(
                "gmail.connections",
                default.connections,
                "HTTP/2 connections to Gmail; each carries about a hundred calls at a time",
            ),
            tariff: source.read("gmail.tariff", default.tariff, "The prices of calls: 2026-05 or before-2026-05"),
            token_skew: source.duration(
                "gmail.token_skew",
                default.token_skew,
                "How long before its end an access token is renewed; at least 1m",
            ),
            max_tokens: source.read("gmail.max_tokens", default.max_tokens, "The most access tokens that are kept"),
            watch_topic: source.read_opt(
                "gmail.watch_topic",
                "The Pub/Sub topic that Gmail pushes to, projects/{project}/topics/{topic}; none: no watches",
            ),
        };
        settings.check(source);
        settings
    }

    fn check(&self, source: &mut Source) {
        for (key, url) in [
            ("gmail.api_url", &self.api_url),
            ("gmail.auth_url", &self.auth_url),
            ("gmail.token_url", &self.token_url),
            ("gmail.revoke_url", &self.revoke_url),
        ] {
            if !matches!(url.scheme(), "http" | "https") {
                source.error(key, "must be an http or https URL");
            }
        }
        for (key, value) in [("gmail.connect_timeout", self.connect_timeout), ("gmail.call_timeout", self.call_timeout)]
        {
            if value < Duration::from_millis(1) {
                source.error(key, "must be at least 1ms");
            }
        }
        for (key, value) in [("gmail.max_in_flight", self.max_in_flight), ("gmail.connections", self.connections)] {
            if value == 0 {
                source.error(key, "must be at least 1");
            }
        }
        // A page of 500 records takes some 200 KB; one record alone may name many messages.
        if self.max_body < 1024 * 1024 {
            source.error("gmail.max_body", "must be at least 1MiB");
        }
        if self.watch_topic.as_deref().is_some_and(|topic| !is_topic(topic)) {
            source.error("gmail.watch_topic", "must be projects/{project}/topics/{topic}");
        }
        if self.max_tokens == 0 {
            source.error("gmail.max_tokens", "must be at least 1");
        }
        if self.token_skew < Duration::from_secs(60) {
            source.error("gmail.token_skew", "must be at least 1m");
        }
    }
}

/// Whether `text` names a Pub/Sub topic in full.
fn is_topic(text: &str) -> bool {
    matches!(
        text.split('/').collect::<Vec<_>>().as_slice(),
        ["projects", project, "topics", topic] if !project.is_empty() && !topic.is_empty()
    )
}
