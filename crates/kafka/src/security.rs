//! Who we are to the brokers, and how both sides know that it is so: TLS and SASL.
//!
//! The usual ways have settings of their own, checked against each other before anything connects. What is rarer goes
//! through `kafka.librdkafka.*`, but not both for the same property.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use rdkafka::config::ClientConfig;
use runtime::settings::Source;
use secrecy::{ExposeSecret, SecretString};

use crate::oauth::{Grant, Tokens};

/// How a connection to a broker is protected. The names are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Not at all.
    Plaintext,
    /// By TLS; who we are says our certificate, if we have one.
    Ssl,
    /// Who we are says SASL, and everybody on the way can read along.
    SaslPlaintext,
    /// Who we are says SASL, within TLS.
    SaslSsl,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| "expected plaintext, ssl, sasl_plaintext or sasl_ssl".to_owned())
    }
}

/// How SASL tells who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password, as they are.
    Plain,
    /// Name and a proof that we know the password.
    ScramSha256,
    /// The same with a longer hash.
    ScramSha512,
    /// A token that somebody gives who knows us.
    OauthBearer,
}

impl Mechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OauthBearer];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mechanism {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| "expected PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER".to_owned())
    }
}

/// The settings `kafka.security_protocol`, `kafka.tls_*`, `kafka.sasl_*` and `kafka.oauth_*`.
#[derive(Debug, Clone)]
pub struct Security {
    /// How connections are protected.
    pub protocol: Protocol,
    /// Whose signature on a broker's certificate counts, a PEM file; none: the system's.
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, a PEM file.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub tls_key: Option<PathBuf>,
    /// What that file is encrypted by.
    pub tls_key_password: Option<SecretString>,
    /// How SASL tells who we are.
    pub sasl_mechanism: Option<Mechanism>,
    /// Our name for PLAIN and SCRAM.
    pub sasl_username: Option<String>,
    /// Our password for them.
    pub sasl_password: Option<SecretString>,
    /// Where tokens for OAUTHBEARER come from. All clients of these settings share them.
    pub(crate) tokens: Option<Tokens>,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            protocol: Protocol::Plaintext,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            tls_key_password: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            tokens: None,
        }
    }
}

/// A path as a setting.
fn path(source: &mut Source, key: &'static str, doc: &'static str) -> Option<PathBuf> {
    source.read_opt::<String>(key, doc).map(PathBuf::from)
}

impl Security {
    /// Reads the settings and checks them against each other and against what is passed through.
    pub(crate) fn read(source: &mut Source, passed: &BTreeMap<String, SecretString>) -> Self {
        let mut security = Self {
            protocol: source.read(
                "kafka.security_protocol",
                Protocol::Plaintext,
                "How connections to brokers are protected: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`",
            ),
            tls_ca: path(
                source,
                "kafka.tls_ca",
                "PEM file of the authorities whose signature on a broker's certificate counts; the system's if unset",
            ),
            tls_certificate: path(source, "kafka.tls_certificate", "PEM file of our certificate, for brokers that ask"),
            tls_key: path(source, "kafka.tls_key", "PEM file of its private key"),
            tls_key_password: source.secret("kafka.tls_key_password", "What the private key's file is encrypted by"),
            sasl_mechanism: source.read_opt(
                "kafka.sasl_mechanism",
                "How SASL tells who we are: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`",
            ),
            sasl_username: source.read_opt("kafka.sasl_username", "Our name for PLAIN and SCRAM"),
            sasl_password: source.secret("kafka.sasl_password", "Our password for PLAIN and SCRAM"),
            tokens: None,
        };
        let grant = Grant::read(source);
        security.check(source, passed, &grant);
        if security.sasl_mechanism == Some(Mechanism::OauthBearer) {
            security.tokens = grant.tokens();
        }
        security
    }

    fn check(&self, source: &mut Source, passed: &BTreeMap<String, SecretString>, grant: &Grant) {
        let protocol = self.protocol;
        let tls = [
            ("kafka.tls_ca", self.tls_ca.is_some()),
            ("kafka.tls_certificate", self.tls_certificate.is_some()),
            ("kafka.tls_key", self.tls_key.is_some()),
            ("kafka.tls_key_password", self.tls_key_password.is_some()),
        ];
        let is_passed = passed.contains_key("security.protocol");
        for (key, _) in tls.into_iter().filter(|(_, is_set)| *is_set && !protocol.has_tls() && !is_passed) {
            let message =
                format!("is of no use while kafka.security_protocol is {protocol}; it has to be ssl or sasl_ssl");
            source.error(key, message);
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            let key = if self.tls_key.is_some() { "kafka.tls_certificate" } else { "kafka.tls_key" };
            source.error(key, "must be set too: a certificate and its key go together");
        }
        let files = [
            ("kafka.tls_ca", &self.tls_ca),
            ("kafka.tls_certificate", &self.tls_certificate),
            ("kafka.tls_key", &self.tls_key),
        ];
        for (key, file) in files {
            if let Some(file) = file
                && let Err(error) = File::open(file)
            {
                source.error(key, format!("opening {} failed: {error}", file.display()));
            }
        }
        let sasl = [
            ("kafka.sasl_mechanism", self.sasl_mechanism.is_some()),
            ("kafka.sasl_username", self.sasl_username.is_some()),
            ("kafka.sasl_password", self.sasl_password.is_some()),
        ];
        for (key, _) in sasl.into_iter().filter(|(_, is_set)| *is_set && !protocol.has_sasl() && !is_passed) {
            let message = format!(
                "is of no use while kafka.security_protocol is {protocol}; it has to be sasl_ssl or sasl_plaintext"
            );
            source.error(key, message);
        }
        match self.sasl_mechanism {
            None if protocol.has_sasl() && !passed.contains_key("sasl.mechanism") => {
                source.error("kafka.sasl_mechanism", format!("must be set for {protocol}"));
            }
            None => grant.must_be_unset(source),
            Some(mechanism @ (Mechanism::Plain | Mechanism::ScramSha256 | Mechanism::ScramSha512)) => {
                for (key, _) in sasl.into_iter().filter(|(_, is_set)| !is_set) {
                    source.error(key, format!("must be set for {mechanism}"));
                }
                grant.must_be_unset(source);
            }
            Some(mechanism @ Mechanism::OauthBearer) => {
                for (key, _) in sasl.into_iter().skip(1).filter(|(_, is_set)| *is_set) {
                    source.error(key, format!("is of no use for {mechanism}, which takes kafka.oauth_client_id"));
                }
                grant.must_be_whole(source);
            }
        }
        for property in self.properties().keys().filter(|property| passed.contains_key(**property)) {
            let message = "is set by a setting of its own, too: `kafka.security_protocol`, `kafka.tls_*` or \
                           `kafka.sasl_*`; set one of the two";
            source.error(&format!("kafka.librdkafka.{property}"), message);
        }
    }

    /// What librdkafka is told: nothing of what is at its default, so that it can be passed through instead.
    fn properties(&self) -> BTreeMap<&'static str, SecretString> {
        let text = |path: &PathBuf| SecretString::from(path.to_string_lossy().into_owned());
        let all = [
            (
                "security.protocol",
                (self.protocol != Protocol::Plaintext).then(|| SecretString::from(self.protocol.name())),
            ),
            ("ssl.ca.location", self.tls_ca.as_ref().map(text)),
            ("ssl.certificate.location", self.tls_certificate.as_ref().map(text)),
            ("ssl.key.location", self.tls_key.as_ref().map(text)),
            ("ssl.key.password", self.tls_key_password.clone()),
            ("sasl.mechanism", self.sasl_mechanism.map(|mechanism| SecretString::from(mechanism.name()))),
            ("sasl.username", self.sasl_username.clone().map(SecretString::from)),
            ("sasl.password", self.sasl_password.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Sets a client up.
    pub(crate) fn apply(&self, config: &mut ClientConfig) {
        for (name, value) in self.properties() {
            config.set(name, value.expose_secret());
        }
    }

    /// Whom the brokers know us as, as far as we can tell, for those who have to give us rights.
    pub(crate) fn principal(&self) -> String {
        match (&self.sasl_username, self.sasl_mechanism, &self.tls_certificate) {
            (Some(name), _, _) => format!("User:{name}"),
            (None, Some(Mechanism::OauthBearer), _) => "the principal of our token".to_owned(),
            (None, _, Some(_)) => "the principal of our certificate".to_owned(),
            (None, _, None) => "User:ANONYMOUS".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Security, Source};

    fn read(environment: &[(&str, &str)]) -> (Security, Vec<String>) {
        let given = environment.iter().map(|(name, value)| (format!("MAILTIDE_KAFKA_{name}"), (*value).to_owned()));
        let mut source = Source::from_parts(None, given);
        let passed = source.properties("kafka.librdkafka", "");
        let security = Security::read(&mut source, &passed);
        (security, source.finish().err().unwrap_or_default().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_way_to_say_who_we_are_is_taken() {
        let this = concat!(env!("CARGO_MANIFEST_DIR"), "/src/security.rs");
        let scram = [
            ("SECURITY_PROTOCOL", "SASL_SSL"),
            ("TLS_CA", this),
            ("SASL_MECHANISM", "scram-sha-512"),
            ("SASL_USERNAME", "poller"),
            ("SASL_PASSWORD", "hunter2"),
        ];
        let (security, problems) = read(&scram);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(security.principal(), "User:poller");
        let told = security.properties();
        let names: Vec<_> = told.keys().copied().collect();
        assert_eq!(names, ["sasl.mechanism", "sasl.password", "sasl.username", "security.protocol", "ssl.ca.location"]);
        assert!(!format!("{security:?}").contains("hunter2"));
        let mutual = [("SECURITY_PROTOCOL", "ssl"), ("TLS_CERTIFICATE", this), ("TLS_KEY", this)];
        assert_eq!(read(&mutual).1, Vec::<String>::new());
        let tokens = [
            ("SECURITY_PROTOCOL", "sasl_ssl"),
            ("SASL_MECHANISM", "OAUTHBEARER"),
            ("OAUTH_TOKEN_URL", "https://login.example/token"),
            ("OAUTH_CLIENT_ID", "mailtide"),
            ("OAUTH_CLIENT_SECRET", "hunter2"),
        ];
        let (security, problems) = read(&tokens);
        assert_eq!(problems, Vec::<String>::new());
        assert!(security.tokens.is_some());
        assert!(!format!("{security:?}").contains("hunter2"));
    }

    #[test]
    fn what_contradicts_itself_is_told_at_once_and_by_name() {
        type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
        let cases: [Case; 8] = [
            (&[("SECURITY_PROTOCOL", "tls")], &["kafka.security_protocol"]),
            (&[("SECURITY_PROTOCOL", "sasl_ssl")], &["kafka.sasl_mechanism"]),
            (
                &[("SECURITY_PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "PLAIN")],
                &["kafka.sasl_password", "kafka.sasl_username"],
            ),
            (&[("SECURITY_PROTOCOL", "sasl_ssl"), ("SASL_MECHANISM", "GSSAPI")], &["kafka.sasl_mechanism"]),
            (&[("SASL_PASSWORD", "x")], &["kafka.sasl_password"]),
            (&[("SECURITY_PROTOCOL", "ssl"), ("TLS_CA", "/nowhere/ca.pem")], &["kafka.tls_ca"]),
            (&[("SECURITY_PROTOCOL", "ssl"), ("TLS_KEY", "/proc/self/stat")], &["kafka.tls_certificate"]),
            (
                &[("SECURITY_PROTOCOL", "ssl"), ("LIBRDKAFKA_SECURITY_PROTOCOL", "ssl")],
                &["kafka.librdkafka.security.protocol"],
            ),
        ];
        for (environment, expected) in cases {
            let (_, problems) = read(environment);
            let keys: Vec<_> = problems.iter().map(|it| it.split([' ', ':']).next().unwrap()).collect();
            assert_eq!(keys, expected, "{environment:?}: {problems:?}");
        }
    }

    #[test]
    fn what_is_passed_through_stays_possible() {
        let passed = [("LIBRDKAFKA_SECURITY_PROTOCOL", "sasl_ssl"), ("LIBRDKAFKA_SASL_MECHANISM", "PLAIN")];
        let (security, problems) = read(&passed);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(security.properties().into_keys().collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
