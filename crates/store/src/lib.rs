//! What lives in Postgres: tenants and their keys, connections and their refresh tokens, and the rows that the
//! projector derives from the topics. The only crate that speaks to Postgres.
//!
//! - Everything is in one schema, whose name is a setting; nothing outside of it is read or written.
//! - Every query names the organisation. The exceptions are the pipeline's own passes over all tenants: the
//!   scheduler's page, the projector's batch, the connections of the address that a push names, the count of connections
//!   that share one Google account, and the operator's [`overview`].
//! - [`inspect`] looks whether all is as it should be, for whoever looks for what is wrong.
//! - A refresh token leaves this crate decrypted only by [`connections::refresh_token`] and, to be revoked, by
//!   [`connections::last_grant`], in a type that does not print.

mod at;
pub mod connections;
pub mod consents;
mod error;
pub mod fetching;
pub mod idempotency;
pub mod inspect;
pub mod jobs;
pub mod keys;
pub mod living;
mod migrate;
pub mod organisations;
pub mod overview;
pub mod projection;
pub mod rotation;
mod row;
pub mod schedule;
mod session;
mod settings;
mod token;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime};

pub use error::Error;
pub use settings::{Settings, Tls};
pub use token::{TokenKeyError, TokenKeys};

/// A bounded pool of connections to one schema. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    /// The schema and how to get there, for the one connection that migrates.
    target: Arc<settings::Target>,
    token_keys: Option<Arc<TokenKeys>>,
    statement_timeout: Duration,
}

impl Store {
    /// Makes the pool. No connection is opened yet, so this works while Postgres is away; the first call tells.
    ///
    /// # Errors
    /// [`Error::Settings`] when the URL, the schema's name or the CA file cannot be used.
    pub fn connect(settings: &Settings) -> Result<Self, Error> {
        let target = settings.target()?;
        let manager = Manager::from_config(
            target.config.clone(),
            target.tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.max_connections.into())
            .wait_timeout(Some(settings.acquire_timeout))
            .create_timeout(Some(settings.acquire_timeout))
            .recycle_timeout(Some(settings.acquire_timeout))
            // The connection used last comes first: it is warm, and so is its server process. In turn, all would be used,
            // and none be warm.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Settings { detail: error.to_string() })?;
        Ok(Self {
            pool,
            target: Arc::new(target),
            token_keys: settings.token_keys.clone(),
            statement_timeout: settings.statement_timeout,
        })
    }

    /// Brings the schema up to date. Any number of processes may do so at once: one migrates, the others wait.
    /// A schema that a later version has already brought further is left alone.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while Postgres is away, [`Error::Migration`] when a migration fails or one that was
    /// applied is not what this version knows under its number.
    pub async fn migrate(&self) -> Result<(), Error> {
        migrate::run(&self.target).await
    }

    /// Checks that the token keys of the settings are those that were used here before, and all that tokens lie under,
    /// so that a mistyped or missing key is told at start and not mailbox by mailbox. Without token keys it checks
    /// nothing.
    ///
    /// # Errors
    /// [`Error::TokenKey`] when a key has another's id or is missing, [`Error::Unavailable`] while Postgres is away.
    pub async fn check_token_keys(&self) -> Result<(), Error> {
        match &self.token_keys {
            Some(keys) => token::check(self, keys).await,
            None => Ok(()),
        }
    }

    /// Whether Postgres answers, for readiness.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it does not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.session("ping").await?.execute("SELECT 1", &[]).await.map(drop)
    }

    /// The name of the schema that everything is in.
    pub fn schema(&self) -> &str {
        &self.target.schema
    }

    /// Whether the settings have keys for tokens, without which nothing secret can be stored or read.
    pub const fn has_token_keys(&self) -> bool {
        self.token_keys.is_some()
    }

    fn token_keys(&self) -> Result<&TokenKeys, Error> {
        self.token_keys.as_deref().ok_or_else(|| Error::Settings {
            detail: "store.token_key is not set, so refresh tokens can be neither stored nor read; set it to \
                     id:base64 of 32 random bytes"
                .to_owned(),
        })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("schema", &self.target.schema).finish_non_exhaustive()
    }
}
