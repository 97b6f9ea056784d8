//! Where Postgres is and under which keys refresh tokens lie.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::MakeTlsConnector;
use runtime::settings::Source;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::SslMode;

use crate::error::chain;
use crate::{Error, TokenKeys};

/// How the store is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database, as a URL or as `key=value` words (libpq's forms).
    pub url: Option<SecretString>,
    /// The schema that holds everything; made when missing. 1 to 63 of `a-z`, `0-9`, `_`, no digit first.
    pub schema: String,
    /// The most connections that this process opens.
    pub max_connections: u16,
    /// How long a call waits for a connection before it answers "unavailable".
    pub acquire_timeout: Duration,
    /// How long Postgres may work on one statement.
    pub statement_timeout: Duration,
    /// A PEM file with the certificate authority of the server, beside the system's own.
    pub ca_file: Option<PathBuf>,
    /// The keys for refresh tokens; none in a process that touches no token.
    pub token_keys: Option<Arc<TokenKeys>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            schema: "mailtide".to_owned(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(10),
            ca_file: None,
            token_keys: None,
        }
    }
}

impl Settings {
    /// Reads `database.*` and `store.*`.
    pub fn read(source: &mut Source) -> Self {
        let default = Self::default();
        let url = source.secret(
            "database.url",
            "Postgres, as a URL or key=value words; sslmode as in libpq: disable, prefer, require, verify-ca, verify-full",
        );
        let schema =
            source.read("database.schema", default.schema, "The schema that holds everything; made when missing");
        let max_connections =
            source.read("database.max_connections", default.max_connections, "The most connections one process opens");
        let acquire_timeout = source.duration(
            "database.acquire_timeout",
            default.acquire_timeout,
            "How long a call waits for a connection before it counts Postgres as unavailable",
        );
        let statement_timeout = source.duration(
            "database.statement_timeout",
            default.statement_timeout,
            "How long Postgres may work on one statement",
        );
        let ca_file = source
            .read_opt::<String>("database.ca_file", "A PEM file with the certificate authority of the Postgres server")
            .map(PathBuf::from);
        let token_keys = source.secret(
            "store.token_key",
            "Keys for refresh tokens, id:base64 of 32 random bytes, several split by commas; the first encrypts",
        );
        if !is_schema_name(&schema) {
            source.error("database.schema", SCHEMA_RULE);
        }
        if max_connections == 0 {
            source.error("database.max_connections", "must be at least 1");
        }
        for (key, value) in
            [("database.acquire_timeout", acquire_timeout), ("database.statement_timeout", statement_timeout)]
        {
            if value < Duration::from_millis(1) {
                source.error(key, "must be at least 1ms");
            }
        }
        let token_keys = token_keys.and_then(|text| {
            TokenKeys::parse(&text)
                .map_err(|error| source.error("store.token_key", error.to_string()))
                .map(Arc::new)
                .ok()
        });
        let settings = Self { url, schema, max_connections, acquire_timeout, statement_timeout, ca_file, token_keys };
        if settings.url.is_some()
            && is_schema_name(&settings.schema)
            && let Err(Error::Settings { detail }) = settings.target()
        {
            source.error("database.url", detail);
        }
        settings
    }

    pub(crate) fn target(&self) -> Result<Target, Error> {
        let refuse = |detail: String| Error::Settings { detail };
        let url = self.url.as_ref().ok_or_else(|| {
            refuse(
                "database.url is not set; set DATABASE_URL, such as postgres://user:password@host:5432/name".to_owned(),
            )
        })?;
        if !is_schema_name(&self.schema) {
            return Err(refuse(format!("database.schema {SCHEMA_RULE}")));
        }
        let (url, tls) = split_ssl_mode(url.expose_secret());
        // The parser's errors name the part that is wrong and never quote it.
        let mut config = tokio_postgres::Config::from_str(&url)
            .map_err(|error| refuse(format!("the URL cannot be read: {}", chain(&error))))?;
        let given = config.get_options().map(|given| format!("{given} ")).unwrap_or_default();
        config
            .options(format!(
                "{given}-c search_path={} -c statement_timeout={} -c idle_in_transaction_session_timeout={} -c timezone=UTC",
                self.schema,
                self.statement_timeout.as_millis(),
                // Ours are short; a process that hangs inside one must not hold rows for ever.
                self.statement_timeout.as_millis() * 3,
            ))
            .ssl_mode(match tls {
                Tls::Disable => SslMode::Disable,
                Tls::Prefer => SslMode::Prefer,
                Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
            })
            .connect_timeout(self.acquire_timeout)
            .keepalives_idle(Duration::from_secs(30));
        if config.get_application_name().is_none() {
            config.application_name("mailtide");
        }
        let mut connector = TlsConnector::builder();
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path)
                .map_err(|error| refuse(format!("database.ca_file {} cannot be read: {error}", path.display())))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| {
                refuse(format!("database.ca_file {} is no PEM certificate: {error}", path.display()))
            })?;
            connector.add_root_certificate(certificate);
        }
        connector
            .danger_accept_invalid_certs(!matches!(tls, Tls::VerifyCa | Tls::VerifyFull))
            .danger_accept_invalid_hostnames(tls != Tls::VerifyFull);
        let connector = connector.build().map_err(|error| refuse(format!("TLS cannot be set up: {error}")))?;
        Ok(Target { config, tls: MakeTlsConnector::new(connector), schema: self.schema.clone() })
    }
}

/// Where to connect to, checked.
pub(crate) struct Target {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: MakeTlsConnector,
    pub(crate) schema: String,
}

/// How the way to Postgres is protected: libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain.
    Disable,
    /// Encrypted when the server can; whose certificate it is is not asked. The default, as in libpq.
    Prefer,
    /// Encrypted; whose certificate it is is not asked.
    Require,
    /// Encrypted, the certificate signed by a known authority.
    VerifyCa,
    /// Encrypted, the certificate signed by a known authority for the host that we connect to.
    VerifyFull,
}

/// Takes `sslmode` out of the words of a URL: the client library knows three of libpq's modes only.
fn split_ssl_mode(url: &str) -> (String, Tls) {
    const KEY: &str = "sslmode=";
    let Some(at) = url.find(KEY) else { return (url.to_owned(), Tls::Prefer) };
    let value_at = at + KEY.len();
    let end = url[value_at..].find(['&', ' ', '\t']).map_or(url.len(), |length| value_at + length);
    let (tls, known) = match url[value_at..end].trim_matches('\'') {
        "disable" => (Tls::Disable, "disable"),
        "prefer" | "allow" => (Tls::Prefer, "prefer"),
        "require" => (Tls::Require, "require"),
        "verify-ca" => (Tls::VerifyCa, "require"),
        "verify-full" => (Tls::VerifyFull, "require"),
        // Left for the parser to refuse.
        _ => return (url.to_owned(), Tls::VerifyFull),
    };
    (format!("{}{known}{}", &url[..value_at], &url[end..]), tls)
}

const SCHEMA_RULE: &str = "must be 1 to 63 of a-z, 0-9 and _, no digit first, and not begin with pg_";

fn is_schema_name(name: &str) -> bool {
    matches!(name.as_bytes(), [b'a'..=b'z' | b'_', rest @ ..]
        if rest.len() < 63 && rest.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')))
        && !name.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssl_mode_is_libpqs() {
        for (url, tls) in [
            ("postgres://h/d", Tls::Prefer),
            ("postgres://h/d?sslmode=disable&application_name=x", Tls::Disable),
            ("postgres://h/d?application_name=x&sslmode=verify-full", Tls::VerifyFull),
            ("host=h sslmode=verify-ca dbname=d", Tls::VerifyCa),
            ("host=h sslmode='require' dbname=d", Tls::Require),
        ] {
            let (rest, found) = split_ssl_mode(url);
            assert_eq!(found, tls, "{url}");
            assert!(tokio_postgres::Config::from_str(&rest).is_ok(), "{rest}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_password() {
        for url in ["postgres://u:hunter2@h:notaport/d", "postgres://u:hunter2@h/d?sslmode=maybe", "hunter2"] {
            let settings = Settings { url: Some(url.into()), ..Settings::default() };
            let error = settings.target().err().unwrap().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!format!("{settings:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_schema_name_needs_no_quoting() {
        for (name, good) in
            [("mailtide", true), ("t_1", true), ("1t", false), ("", false), ("a;b", false), ("Tide", false)]
        {
            assert_eq!(is_schema_name(name), good, "{name}");
        }
        assert!(!is_schema_name(&"a".repeat(64)) && !is_schema_name("pg_x"));
    }

    #[test]
    fn options_of_the_url_are_kept() {
        let url = "postgres://h/d?options=-c%20geqo%3Doff";
        let settings = Settings { url: Some(url.into()), schema: "tide".to_owned(), ..Settings::default() };
        let target = settings.target().unwrap();
        let options = target.config.get_options().unwrap();
        assert!(options.starts_with("-c geqo=off -c search_path=tide "), "{options}");
    }
}
