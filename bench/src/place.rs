//! The Kafka and the Postgres that is measured on: those that the environment names, or our own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use devstack::{Database, Kafka, KafkaOptions, Postgres, PostgresOptions};
use runtime::telemetry::{self, Format, Metrics};
use store::{Store, TokenKeys};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::progress::Progress;

/// How often histograms are folded, as the admin port does it.
const UPKEEP: Duration = Duration::from_secs(5);

/// What is logged, unless `MAILTIDE_LOG_FILTER` says otherwise: not what clients say while a fresh broker gets ready.
const FILTER: &str = "warn,kafka::client=error,rdkafka=off,librdkafka=off";

/// Starts the log and the metrics, as they are where Mailtide works for real.
pub(crate) fn telemetry() -> anyhow::Result<Metrics> {
    let filter = std::env::var("MAILTIDE_LOG_FILTER").unwrap_or_else(|_| FILTER.to_owned());
    Ok(telemetry::init(&telemetry::Settings { format: Format::Text, filter })?.metrics)
}

/// What was started or taken, for as long as it is needed.
pub(crate) struct Place {
    kafka: Kafka,
    // Before the server that it is in.
    database: Database,
    _postgres: Postgres,
    prefix: String,
}

impl Place {
    /// Starts Kafka and Postgres.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let metrics = telemetry()?;
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                metrics.upkeep();
            }
        });
        let progress = Progress::start("Kafka and Postgres");
        progress.say("starting");
        let kafka = spawn_blocking(|| Kafka::start(&KafkaOptions::default()));
        let postgres = spawn_blocking(|| {
            let postgres = Postgres::start(&PostgresOptions::default())?;
            let database = postgres.database("bench")?;
            Ok::<_, devstack::Error>((postgres, database))
        });
        let (kafka, postgres) = (kafka.await?, postgres.await?);
        let (postgres, database) = postgres.context("Starting Postgres")?;
        let prefix = format!("bench-{}.", &Uuid::new_v4().simple().to_string()[..8]);
        Ok(Self { kafka: kafka.context("Starting Kafka")?, database, _postgres: postgres, prefix })
    }

    /// The defaults, for topics of `benchmark`'s own.
    pub(crate) fn kafka(&self, benchmark: &str) -> kafka::Settings {
        kafka::Settings::for_brokers(self.kafka.bootstrap()).with_prefix(format!("{}{benchmark}.", self.prefix))
    }

    /// The database, for clients of their own.
    pub(crate) fn database_url(&self) -> &str {
        self.database.url()
    }

    /// How the store is set up.
    pub(crate) fn store_settings(&self) -> anyhow::Result<store::Settings> {
        let mut settings = store::Settings {
            url: Some(self.database.url().to_owned().into()),
            token_keys: Some(Arc::new(TokenKeys::parse(&TokenKeys::generate("bench"))?)),
            ..store::Settings::default()
        };
        if let Some(schema) = self.database.schema() {
            settings.schema = schema.to_owned();
        }
        Ok(settings)
    }

    /// The store, its schema up to date.
    pub(crate) async fn store(&self) -> anyhow::Result<Store> {
        let store = Store::connect(&self.store_settings()?)?;
        store.migrate().await?;
        Ok(store)
    }

    /// Stops what was started, and removes its data.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        Ok(spawn_blocking(move || drop(self)).await?)
    }
}
