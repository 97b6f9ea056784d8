//! The Kafka and the Postgres that `dev` and `demo` work on: those given, or their own.

use std::collections::BTreeMap;

use anyhow::Context;
use devstack::{Database, Kafka, KafkaOptions, Postgres, PostgresOptions};
use uuid::Uuid;

/// What was started or taken, for as long as it is needed. Ends with this process, even when that is killed.
pub(crate) struct Local {
    kafka: Option<Kafka>,
    // Before the server that it is in.
    database: Option<Database>,
    postgres: Option<Postgres>,
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// A Kafka: `KAFKA_BOOTSTRAP_SERVERS`, else one started here.
    pub(crate) kafka: bool,
    /// A database of its own, in `DATABASE_URL`'s server, else in one started here.
    pub(crate) postgres: bool,
}

impl Local {
    /// Starts what is wanted, both at once.
    pub(crate) async fn start(wanted: Wanted) -> anyhow::Result<Self> {
        let kafka = tokio::task::spawn_blocking(move || {
            wanted.kafka.then(|| Kafka::start(&KafkaOptions::default())).transpose()
        });
        let postgres = tokio::task::spawn_blocking(move || {
            let start = || {
                let postgres = Postgres::start(&PostgresOptions::default())?;
                let database = postgres.database("mailtide")?;
                Ok::<_, devstack::Error>((postgres, database))
            };
            wanted.postgres.then(start).transpose()
        });
        let (kafka, postgres) = (kafka.await?, postgres.await?);
        let (postgres, database) = postgres.context("starting Postgres")?.unzip();
        Ok(Self { kafka: kafka.context("starting Kafka")?, database, postgres })
    }

    /// The settings that lead to it, by environment variable.
    pub(crate) fn overrides(&self) -> BTreeMap<String, String> {
        let mut overrides = BTreeMap::new();
        if let Some(kafka) = &self.kafka {
            overrides.insert("MAILTIDE_KAFKA_BOOTSTRAP_SERVERS".to_owned(), kafka.bootstrap().to_owned());
            // A log that others use, too, is shared by name only.
            if !kafka.is_ours() {
                let prefix = format!("mailtide-{}.", &Uuid::new_v4().simple().to_string()[..8]);
                overrides.insert("MAILTIDE_KAFKA_TOPIC_PREFIX".to_owned(), prefix);
            }
        }
        if let Some(database) = &self.database {
            overrides.insert("MAILTIDE_DATABASE_URL".to_owned(), database.url().to_owned());
            overrides.insert("DATABASE_URL".to_owned(), database.url().to_owned());
            if let Some(schema) = database.schema() {
                overrides.insert("MAILTIDE_DATABASE_SCHEMA".to_owned(), schema.to_owned());
            }
        }
        overrides
    }

    /// What was started, in words.
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let mut parts = Vec::new();
        if let Some(kafka) = &self.kafka {
            let whose = if kafka.is_ours() { "started here" } else { "given" };
            parts.push(("Kafka", format!("{} ({whose})", kafka.bootstrap())));
        }
        if let Some(postgres) = &self.postgres {
            let whose = if postgres.is_ours() { "started here" } else { "a database of its own on the server given" };
            parts.push(("Postgres", whose.to_owned()));
        }
        parts
    }

    /// The URL, password and all, of a database on a server started here: for the person at the terminal. The
    /// password of a server that was given is not ours to show.
    pub(crate) fn database_url(&self) -> Option<&str> {
        let ours = self.postgres.as_ref().is_some_and(Postgres::is_ours);
        self.database.as_ref().filter(|_| ours).map(Database::url)
    }

    /// Stops what was started, and removes its data.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}
