//! The fetcher: takes announcements from `gmail.message.discovered`, reads the messages, and tells what they are on
//! `gmail.message.fetched`, exactly once and for each mailbox in order.
//!
//! What is done is one offset a mailbox ([`ledger`]); the lane ([`kafka::lane`]) commits it with what was written. A
//! mailbox that is slow, throttled, huge or waits for somebody's consent holds up itself alone.

mod app;
mod catch_up;
#[cfg(feature = "faults")]
pub mod faults;
mod ledger;
mod mailboxes;
mod metric;
mod partition;
mod publish;
mod reading;
mod readings;
mod records;
mod restore;
mod settings;
mod work;

use std::sync::Arc;

use anyhow::Context as _;
use gmail::{Client, Gate, Service};
use grants::Grants;
use kafka::lane::{Crew, LaneSettings};
use kafka::rights::{self, Role};
use kafka::topics::{self, Topic, Topics};
use runtime::Shutdown;
use runtime::health::Health;
use store::Store;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use app::{Fetcher, Shared};
use catch_up::Log;

pub use mailboxes::{Away, Mailboxes};
pub use metric::ALL as METRICS;
pub use settings::Settings;

/// The topics that the fetcher reads and writes.
const TOPICS: [Topic; 4] = [Topic::Discovered, Topic::Fetched, Topic::FetchState, Topic::DeadLetter];

/// Fetches the messages of Gmail until the order to stop.
///
/// # Errors
/// When the topics cannot be had or do not fit together, or when a lane keeps failing.
pub async fn run(
    settings: &Settings,
    kafka: &kafka::Settings,
    gmail: &gmail::Settings,
    store: Store,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let gate = Gate::by_partitions(gmail, Service::Fetcher);
    let client = Client::new(gmail, Arc::new(Grants::new(store.clone())), gate.clone());
    let client = client.context("Setting up the Gmail client")?;
    let mailboxes = Arc::new(mailboxes::Gmail::new(client, gate, store, settings.give_up));
    run_on(settings, kafka, mailboxes, health, shutdown).await
}

/// Fetches messages wherever they are until the order to stop.
///
/// # Errors
/// As [`run`].
pub async fn run_on<M: Mailboxes>(
    settings: &Settings,
    kafka: &kafka::Settings,
    mailboxes: Arc<M>,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    // Before the first wait, so that nobody takes a fetcher for ready that has no lanes yet.
    let begun = health.readiness("fetcher");
    let topics = Topics::new(&kafka.topic_prefix);
    rights::check(kafka, Role::Fetcher).await.context("Asking what the fetcher may do")?;
    topics::create(kafka, &topics, &TOPICS).await.context("Creating the fetcher's topics")?;
    topics::check(kafka, &topics, &TOPICS).await.context("Checking the fetcher's topics")?;
    let runtime = Handle::current();
    let shared = Arc::new(Shared {
        mailboxes,
        runtime: runtime.clone(),
        topics: topics.clone(),
        places: usize::from(settings.mailboxes.div_ceil(settings.lanes)),
        bounds: settings.bounds(),
        log: Log {
            kafka: kafka.clone(),
            input: topics.name(Topic::Discovered).clone(),
            runtime,
            places: Arc::new(Semaphore::new(usize::from(settings.passes))),
        },
    });
    let first = LaneSettings {
        service: "fetcher",
        lane: 0,
        input: topics.name(Topic::Discovered).clone(),
        state: Some(topics.name(Topic::FetchState).clone()),
    };
    let crew = Crew::spawn(kafka, &first, settings.lanes, &health, move |handle| Fetcher::new(shared.clone(), handle));
    let crew = crew.context("Starting the lanes of the fetcher")?;
    begun.pass();
    crew.run(&shutdown).await.context("Running the lanes of the fetcher")
}
