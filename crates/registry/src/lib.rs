//! A schema registry of others (Confluent's REST interface, which Apicurio and Karapace speak too): at start every
//! published schema is registered there, and its ids are those in the frames from then on.
//!
//! No record waits for the registry: ids are fixed when the process starts ([`events::adopt`]), and what is compiled in
//! is what is written and read. So a registry that goes away later is missed by nobody here.

mod client;
mod error;
mod settings;

use std::collections::BTreeMap;

use apache_avro::Schema;
use events::registry::Published;
use events::{Registry, compatibility};
use runtime::{Backoff, Shutdown};

pub use error::Error;
pub use settings::Settings;

use crate::client::{Client, Registered};

/// Under which rule subjects are kept, the one that our own versions follow: every version reads, and is read by, every
/// other.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// Two services that start at once may both make a subject; the one that loses asks again, so often.
const ATTEMPTS: u32 = 5;

/// Registers every published schema, unless no registry is set, and adopts the ids. Waits while the registry is away,
/// and tells `waiting` each time why. Returns false when the stop was ordered first.
///
/// # Errors
/// When the registry refuses: for want of a right, or because a schema does not follow what is registered there, with
/// every difference named. When its ids cannot be told apart from others.
pub async fn register(
    settings: &Settings,
    mut waiting: impl FnMut(&Error),
    shutdown: &Shutdown,
) -> Result<bool, Error> {
    let Some(client) = Client::new(settings)? else { return Ok(true) };
    let mut backoff = Backoff::default();
    let ids = loop {
        let error = tokio::select! {
            ids = register_all(&client) => match ids {
                Ok(ids) => break ids,
                Err(error) => error,
            },
            () = shutdown.requested() => return Ok(false),
        };
        if !error.is_unavailable() {
            return Err(error);
        }
        tracing::warn!(%error, "The service waits for the schema registry");
        waiting(&error);
        if !backoff.pause(shutdown).await {
            return Ok(false);
        }
    };
    events::adopt(&ids)?;
    tracing::info!(registry = %client.place(), schemas = ids.len(), "Schemas registered");
    Ok(true)
}

/// Adopts the ids of those published schemas that are registered already, and registers nothing: for what only reads.
///
/// # Errors
/// When no answer comes, or a refusal.
pub async fn look_up(settings: &Settings) -> Result<(), Error> {
    let Some(client) = Client::new(settings)? else { return Ok(()) };
    let mut ids = BTreeMap::new();
    for published in Registry::built_in().all() {
        if let Some(id) = client.look_up(&published.subject, &published.text).await? {
            ids.insert(published.id, id);
        }
    }
    Ok(events::adopt(&ids)?)
}

/// Published schemas that are not registered, as `subject version`, of those that are looked for; none where no registry
/// is set. Registers nothing.
///
/// # Errors
/// When no answer comes, or a refusal.
pub async fn missing(settings: &Settings) -> Result<Option<Vec<String>>, Error> {
    let Some(client) = Client::new(settings)? else { return Ok(None) };
    let mut missing = Vec::new();
    for published in Registry::built_in().all() {
        if client.look_up(&published.subject, &published.text).await?.is_none() {
            missing.push(format!("{} {}", published.subject, published.version));
        }
    }
    Ok(Some(missing))
}

async fn register_all(client: &Client) -> Result<BTreeMap<u32, u32>, Error> {
    let mut ids = BTreeMap::new();
    let registry = Registry::built_in();
    for subject in registry.subjects() {
        // Before anything is registered in a subject that is there: what comes is to be held to the rule. A subject
        // that is not there may have no rule in some registries, so there the rule comes second.
        let mut is_ruled = !client.versions(subject).await?.is_empty();
        if is_ruled {
            client.rule(subject, COMPATIBILITY).await?;
        }
        for published in registry.versions(subject).into_iter().flatten() {
            ids.insert(published.id, register_one(client, published).await?);
            if !is_ruled {
                client.rule(subject, COMPATIBILITY).await?;
                is_ruled = true;
            }
        }
    }
    Ok(ids)
}

async fn register_one(client: &Client, published: &Published) -> Result<u32, Error> {
    let mut attempt = 1;
    loop {
        let refused = match client.register(&published.subject, &published.text).await? {
            Registered::As(id) => return Ok(id),
            Registered::Conflict(said) => said,
        };
        let differences = differences(client, published).await?;
        if !differences.is_empty() || attempt == ATTEMPTS {
            return Err(Error::Incompatible {
                subject: published.subject.clone(),
                version: published.version,
                registry: client.place(),
                differences: error::listed(&differences),
                said: refused,
            });
        }
        attempt += 1;
    }
}

/// How a schema differs from each that is registered under its subject in what may not differ.
async fn differences(client: &Client, published: &Published) -> Result<Vec<String>, Error> {
    let ours = Schema::parse_str(&published.text).expect("a published schema parses; a test checks it");
    let mut differences = Vec::new();
    for version in client.versions(&published.subject).await? {
        let text = client.schema(&published.subject, version).await?;
        match Schema::parse_str(&text) {
            Ok(theirs) => {
                let breaches = compatibility::check(&theirs, &ours).err().unwrap_or_default();
                differences.extend(breaches.iter().map(|breach| format!("against version {version} there, {breach}")));
            }
            Err(error) => differences.push(format!("version {version} there does not parse: {error}")),
        }
    }
    Ok(differences)
}
