//! The poller: takes commands from `gmail.connection.poll`, walks mailboxes, and announces what is new.
//!
//! All decisions are [`domain::mailbox::Mailbox`]'s; here its inputs are read, its actions carried out, and its state
//! written, exactly once, on lanes ([`kafka::lane`]).

mod app;
mod calls;
#[cfg(feature = "faults")]
pub mod faults;
mod key;
mod metric;
pub mod moving;
mod partition;
mod publish;
mod restore;
mod settings;
mod slot;
mod walks;

use std::sync::Arc;

use anyhow::Context as _;
use domain::mailbox::Rules;
use gmail::{Client, Gate, Service};
use grants::Grants;
use kafka::lane::{Crew, LaneSettings};
use kafka::rights::{self, Role};
use kafka::topics::{self, Topic, Topics};
use runtime::Shutdown;
use runtime::health::Health;
use store::Store;
use tokio::runtime::Handle;

pub use app::{Poller, Shared};
pub use calls::{Done, Mailboxes};
pub use metric::ALL as METRICS;
pub use settings::Settings;

/// The topics that the poller reads and writes.
const TOPICS: [Topic; 6] =
    [Topic::Poll, Topic::State, Topic::Discovered, Topic::JobStatus, Topic::ConnectionStatus, Topic::DeadLetter];

/// How old a watch may grow before it is renewed: it lasts 7 days, and Gmail's guide says to renew it daily.
const WATCH_RENEWAL: domain::Duration = domain::Duration::from_days(1);

/// Polls the mailboxes of Gmail until the order to stop.
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
    let gate = Gate::by_partitions(gmail, Service::Poller);
    let client = Client::new(gmail, Arc::new(Grants::new(store)), gate.clone());
    let client = Arc::new(client.context("Setting up the Gmail client")?);
    let watch = gmail.watch_topic.is_some().then_some(WATCH_RENEWAL);
    let rules = Rules { watch, ..Rules::DEFAULT };
    run_by(rules, settings, kafka, Arc::new(calls::Gmail { client, gate }), health, shutdown).await
}

/// Polls mailboxes wherever they are until the order to stop.
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
    run_by(Rules::DEFAULT, settings, kafka, mailboxes, health, shutdown).await
}

async fn run_by<M: Mailboxes>(
    rules: Rules,
    settings: &Settings,
    kafka: &kafka::Settings,
    mailboxes: Arc<M>,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    // Before the first wait, so that nobody takes a poller for ready that has no lanes yet.
    let begun = health.readiness("poller");
    let topics = Topics::new(&kafka.topic_prefix);
    rights::check(kafka, Role::Poller).await.context("Asking what the poller may do")?;
    topics::create(kafka, &topics, &TOPICS).await.context("Creating the poller's topics")?;
    topics::check(kafka, &topics, &TOPICS).await.context("Checking the poller's topics")?;
    let shared = Arc::new(Shared {
        mailboxes,
        runtime: Handle::current(),
        topics: topics.clone(),
        rules,
        calls: usize::from(settings.calls.div_ceil(settings.lanes)),
        backlog: settings.backlog,
    });
    let first = LaneSettings {
        service: "poller",
        lane: 0,
        input: topics.name(Topic::Poll).clone(),
        state: Some(topics.name(Topic::State).clone()),
    };
    let crew = Crew::spawn(kafka, &first, settings.lanes, &health, move |handle| Poller::new(shared.clone(), handle));
    let crew = crew.context("Starting the lanes of the poller")?;
    begun.pass();
    crew.run(&shutdown).await.context("Running the lanes of the poller")
}
