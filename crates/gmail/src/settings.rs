//! Where Gmail is, who we are there, and how much of it we use.

use std::path::PathBuf;
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
    /// The JSON file of the key of the service account that delegated mailboxes are read as; none: there are none.
    pub service_account_file: Option<PathBuf>,
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
    /// How much of Gmail we use.
    pub quota: Quota,
    /// How long before its end an access token is renewed; at least a minute.
    pub token_skew: Duration,
    /// The most access tokens that are kept.
    pub max_tokens: u64,
    /// The Pub/Sub topic that Gmail pushes changes to, `projects/{project}/topics/{topic}`; none: no mailbox is watched.
    pub watch_topic: Option<String>,
}

/// The limits that Google set, and how our services divide them.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Units of one user in a minute; the tariff's when absent.
    pub user_minute: Option<u64>,
    /// Units of the project in a minute; the tariff's when absent.
    pub project_minute: Option<u64>,
    /// Units of the project in a day; the tariff's when absent, which may be none.
    pub project_day: Option<u64>,
    /// The poller's part of each.
    pub poller: f64,
    /// The fetcher's part.
    pub fetcher: f64,
    /// The ingress's part, of all its instances together.
    pub ingress: f64,
    /// How many instances of the ingress there are.
    pub ingress_instances: u16,
    /// The part of the operator's commands that call Gmail, of which one at a time is meant to run.
    pub tools: f64,
    /// Calls of one account that one service has under way at a time.
    pub concurrency: u16,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            user_minute: None,
            project_minute: None,
            project_day: None,
            poller: 0.38,
            fetcher: 0.55,
            ingress: 0.05,
            ingress_instances: 1,
            tools: 0.02,
            concurrency: 10,
        }
    }
}

impl Quota {
    /// Reads `gmail.quota.*`.
    fn read(source: &mut Source) -> Self {
        let default = Self::default();
        Self {
            user_minute: source
                .read_opt("gmail.quota.user_minute", "Quota units of one user in a minute, instead of the tariff's"),
            project_minute: source.read_opt(
                "gmail.quota.project_minute",
                "Quota units of the project in a minute, instead of the tariff's",
            ),
            project_day: source
                .read_opt("gmail.quota.project_day", "Quota units of the project in a day, instead of the tariff's"),
            poller: source.read(
                "gmail.quota.poller",
                default.poller,
                "The poller's part of each limit; those of all services come to at most 1",
            ),
            fetcher: source.read("gmail.quota.fetcher", default.fetcher, "The fetcher's part of each limit"),
            ingress: source.read(
                "gmail.quota.ingress",
                default.ingress,
                "The part of each limit of all instances of the ingress together",
            ),
            ingress_instances: source.read(
                "gmail.quota.ingress_instances",
                default.ingress_instances,
                "How many instances of the ingress run; they divide its part",
            ),
            tools: source.read(
                "gmail.quota.tools",
                default.tools,
                "The part of each limit of the operator's commands that call Gmail; run one of them at a time",
            ),
            concurrency: source.read(
                "gmail.quota.concurrency",
                default.concurrency,
                "The most calls for one account that a service has under way; Gmail's own limit is not published",
            ),
        }
    }

    /// The units of one user in a minute that a part of this size is.
    fn user_minute(&self, part: f64, tariff: &Tariff) -> f64 {
        self.user_minute.unwrap_or(tariff.user_minute) as f64 * part
    }

    fn check(&self, tariff: &Tariff, source: &mut Source) {
        let parts = [
            ("gmail.quota.poller", self.poller),
            ("gmail.quota.fetcher", self.fetcher),
            ("gmail.quota.ingress", self.ingress),
            ("gmail.quota.tools", self.tools),
        ];
        for (key, part) in parts {
            if !(0.0..=1.0).contains(&part) {
                source.error(key, "must be from 0 to 1");
            }
        }
        let sum: f64 = parts.iter().map(|(_, part)| part).sum();
        // Tenths are no binary fractions: their sum may miss 1 by a little.
        if sum > 1.0 + 1e-9 {
            source.error(
                "gmail.quota.poller",
                format!("must come to at most 1 with fetcher, ingress and tools, and is {sum}"),
            );
        }
        let minutes =
            [("gmail.quota.user_minute", self.user_minute), ("gmail.quota.project_minute", self.project_minute)];
        for (key, value) in minutes.into_iter().chain([("gmail.quota.project_day", self.project_day)]) {
            if value == Some(0) {
                source.error(key, "must be at least 1");
            }
        }
        // A budget that never holds the price of reading one message would hold calls up for ever.
        for (key, part) in [("gmail.quota.poller", self.poller), ("gmail.quota.fetcher", self.fetcher)] {
            if part > 0.0 && self.user_minute(part, tariff) < f64::from(2 * tariff.dearest()) {
                source.error(
                    key,
                    format!(
                        "must leave at least {} units of a user's minute, twice the dearest call",
                        2 * tariff.dearest()
                    ),
                );
            }
        }
        if self.ingress_instances == 0 {
            source.error("gmail.quota.ingress_instances", "must be at least 1");
        }
        // Likewise for what is read on demand; an attachment takes two reads together.
        let instances = f64::from(self.ingress_instances.max(1));
        for (key, part, among, needed) in [
            ("gmail.quota.ingress", self.ingress, instances, 4 * tariff.get),
            ("gmail.quota.tools", self.tools, 1.0, 2 * tariff.get),
        ] {
            let left = self.user_minute(part, tariff) / among;
            if part > 0.0 && left < f64::from(needed) {
                let enough = part * f64::from(needed) / left;
                source.error(
                    key,
                    format!(
                        "must be at least {enough:.4}, or 0: each of {among} instances has {left:.0} units of a user's \
                         minute now, and needs {needed}, twice what one request takes"
                    ),
                );
            }
        }
        if self.concurrency == 0 {
            source.error("gmail.quota.concurrency", "must be at least 1");
        }
    }
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
            service_account_file: None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            max_body: 16 * 1024 * 1024,
            max_in_flight: 256,
            connections: 4,
            tariff: Tariff::default(),
            quota: Quota::default(),
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
            service_account_file: source
                .read_opt::<String>(
                    "gmail.service_account_file",
                    "The JSON key of the service account that delegated mailboxes are read as",
                )
                .map(PathBuf::from),
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
            quota: Quota::read(source),
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
        self.quota.check(&self.tariff, source);
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

#[cfg(test)]
mod tests {
    use super::{Settings, Source};

    fn problems(environment: &[(&str, &str)]) -> Vec<String> {
        let mut source = Source::from_parts(None, environment.iter().copied());
        Settings::read(&mut source);
        source.finish().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_part_that_never_holds_what_it_is_for_is_refused_with_one_that_does() {
        let instances = ("MAILTIDE_GMAIL_QUOTA_INGRESS_INSTANCES", "4");
        assert_eq!(problems(&[("MAILTIDE_GMAIL_QUOTA_INGRESS_INSTANCES", "3")]), Vec::<String>::new());
        let said = problems(&[instances]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("gmail.quota.ingress") && said[0].contains("0.0533"), "{said:?}");
        let enough = [instances, ("MAILTIDE_GMAIL_QUOTA_INGRESS", "0.0534"), ("MAILTIDE_GMAIL_QUOTA_FETCHER", "0.54")];
        assert_eq!(problems(&enough), Vec::<String>::new());
        let said = problems(&[("MAILTIDE_GMAIL_QUOTA_TOOLS", "0.001")]);
        assert!(said.len() == 1 && said[0].starts_with("gmail.quota.tools"), "{said:?}");
        assert_eq!(problems(&[instances, ("MAILTIDE_GMAIL_QUOTA_INGRESS", "0")]), Vec::<String>::new());
    }
}
