//! A test's own corner of the shared servers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use devstack::Database;
use uuid::Uuid;

use super::{Service, stack};

/// Own topics (by a prefix), an own database, an own folder, and the settings that say so. The
/// database and the folder go when it is dropped; after a failed test the folder stays.
#[derive(Clone)]
pub(crate) struct Place {
    inner: Arc<Inner>,
}

struct Inner {
    prefix: String,
    database: Database,
    folder: PathBuf,
}

impl Place {
    /// A fresh place. `name` is part of the names in it, to recognise them by.
    pub(crate) fn new(name: &str) -> Self {
        let random = &Uuid::new_v4().simple().to_string()[..8];
        let prefix = format!("{name}-{random}.");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(prefix.trim_end_matches('.'));
        std::fs::create_dir_all(&folder).unwrap();
        let database = stack().postgres.database(name).unwrap_or_else(|error| panic!("{error}"));
        Self { inner: Arc::new(Inner { prefix, database, folder }) }
    }

    /// What the names of its topics begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Its topic for the name without prefix.
    pub(crate) fn topic(&self, base: &str) -> String {
        format!("{}{base}", self.inner.prefix)
    }

    /// Its database, with the password.
    pub(crate) fn database_url(&self) -> &str {
        self.inner.database.url()
    }

    /// A folder for logs and files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.inner.folder
    }

    /// The settings of every process in this place, as environment variables: broker, prefix, four
    /// partitions, database, the shared simulator, a key for tokens, and ports that are free.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let google = stack().simulator.base_url.as_str();
        let settings = [
            ("KAFKA_BOOTSTRAP_SERVERS", stack().kafka.bootstrap()),
            ("MAILTIDE_KAFKA_TOPIC_PREFIX", self.prefix()),
            ("MAILTIDE_KAFKA_PARTITIONS", "4"),
            ("DATABASE_URL", self.database_url()),
            ("MAILTIDE_STORE_TOKEN_KEY", "test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
            ("MAILTIDE_GMAIL_API_URL", google),
            ("MAILTIDE_GMAIL_AUTH_URL", &format!("{google}/o/oauth2/v2/auth")),
            ("MAILTIDE_GMAIL_TOKEN_URL", &format!("{google}/token")),
            ("MAILTIDE_GMAIL_REVOKE_URL", &format!("{google}/revoke")),
            ("MAILTIDE_GMAIL_CLIENT_ID", "tests"),
            ("MAILTIDE_GMAIL_CLIENT_SECRET", "tests"),
            ("MAILTIDE_ADMIN_ADDRESS", "127.0.0.1:0"),
            ("MAILTIDE_INGRESS_LISTEN", "127.0.0.1:0"),
            // Tests ask as fast as they can; those of the limit set their own.
            ("MAILTIDE_INGRESS_RATE_LIMIT", "1000000"),
            ("MAILTIDE_INGRESS_RATE_BURST", "1000000"),
            // What fails for good here does so at once.
            ("MAILTIDE_FETCHER_GIVE_UP", "1s"),
            // Nobody spreads requests over instances here.
            ("MAILTIDE_INGRESS_SHUTDOWN_DELAY", "0s"),
            ("MAILTIDE_LOG_FORMAT", "json"),
        ];
        let mut settings: BTreeMap<_, _> =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if let Some(schema) = self.inner.database.schema() {
            settings.insert("MAILTIDE_DATABASE_SCHEMA".to_owned(), schema.to_owned());
        }
        settings
    }

    /// The same, as the source that services in this process read theirs from.
    pub(crate) fn source(&self) -> runtime::settings::Source {
        runtime::settings::Source::from_parts(None, self.settings())
    }

    /// A process of the program in this place, not started yet. `name` tells it from the place's
    /// others: it names the log and is the instance's name.
    pub(crate) fn service(&self, name: &str, arguments: &[&str]) -> Service {
        Service::new(self.clone(), name, arguments)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // What stays behind is only in the way of nothing.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
