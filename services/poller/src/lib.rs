//! The poller: takes commands from `gmail.connection.poll`, walks mailboxes, and announces what is new.
//!
//! All decisions are [`domain::mailbox::Mailbox`]'s; here its inputs are read, its actions carried out, and its state
//! written, exactly once, on lanes ([`kafka::lane`]).

mod app;
mod calls;
#[cfg(feature = "faults")]
pub mod faults;
mod grants;
mod key;
mod metric;
mod partition;
mod publish;
mod restore;
mod settings;
mod slot;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::mailbox::Rules;
use gmail::{Client, Gate, Service};
use kafka::lane::{self, Lane, LaneSettings};
use kafka::topics::{self, Topic, Topics};
use runtime::Shutdown;
use runtime::health::{Check, Health};
use store::Store;
use tokio::runtime::Handle;

pub use app::{Poller, Shared};
pub use calls::{Done, Mailboxes};
pub use grants::Grants;
pub use metric::ALL as METRICS;
pub use settings::Settings;

/// The topics that the poller reads and writes.
const TOPICS: [Topic; 6] =
    [Topic::Poll, Topic::State, Topic::Discovered, Topic::JobStatus, Topic::ConnectionStatus, Topic::DeadLetter];

/// How old a watch may grow before it is renewed: it lasts 7 days, and Gmail's guide says to renew it daily.
const WATCH_RENEWAL: domain::Duration = domain::Duration::from_days(1);

/// How often a lane's state is looked at for the health checks.
const WATCH_EVERY: Duration = Duration::from_millis(250);

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
    run_by(rules, settings, kafka, Arc::new(grants::Gmail { client, gate }), health, shutdown).await
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
    topics::create(kafka, &topics, &TOPICS).await.context("Creating the poller's topics")?;
    topics::check(kafka, &topics, &TOPICS).await.context("Checking the poller's topics")?;
    let shared = Shared {
        mailboxes,
        runtime: Handle::current(),
        topics: topics.clone(),
        rules,
        calls: usize::from(settings.calls.div_ceil(settings.lanes)),
        backlog: settings.backlog,
    };
    let mut lanes = Vec::with_capacity(usize::from(settings.lanes));
    for number in 0..usize::from(settings.lanes) {
        let lane = LaneSettings {
            service: "poller",
            lane: number,
            input: topics.name(Topic::Poll).clone(),
            state: Some(topics.name(Topic::State).clone()),
        };
        let shared = shared.clone();
        let lane = lane::spawn(kafka, lane, move |handle| Poller::new(shared.clone(), handle))
            .with_context(|| format!("Starting lane {number} of the poller"))?;
        lanes.push(lane);
    }
    let checks = LaneChecks::all(&lanes, &health, kafka.lane.max_poll_interval);
    begun.pass();
    watch(lanes, checks, &shutdown).await
}

/// What the health of the process hears of one lane.
struct LaneChecks {
    watch: lane::Watch,
    ready: Check,
    alive: Check,
    stuck: Duration,
}

impl LaneChecks {
    fn all(lanes: &[Lane], health: &Health, stuck: Duration) -> Vec<Self> {
        let checks = lanes.iter().enumerate().map(|(number, lane)| {
            let name = format!("poller-lane-{number}");
            Self {
                watch: lane.watch(),
                ready: health.readiness(format!("{name}-restored")),
                alive: health.liveness(name, stuck),
                stuck,
            }
        });
        checks.collect()
    }

    fn report(&self) {
        let status = self.watch.status();
        if status.is_ready() {
            self.ready.pass();
        } else {
            self.ready.fail(match &status.last_failure {
                Some(failure) => format!("{:?}: {failure}", status.phase),
                None => format!("{:?}", status.phase),
            });
        }
        // One that waits for Kafka does not turn, and a restart would not bring Kafka back.
        let is_waiting = matches!(status.phase, lane::Phase::Starting | lane::Phase::Recovering);
        if is_waiting || status.idle_for() < self.stuck {
            self.alive.pass();
        }
    }
}

/// Watches the lanes until the order to stop, or until one gives up.
async fn watch(mut lanes: Vec<Lane>, checks: Vec<LaneChecks>, shutdown: &Shutdown) -> anyhow::Result<()> {
    let reports = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        loop {
            ticks.tick().await;
            checks.iter().for_each(LaneChecks::report);
        }
    });
    let result = {
        let mut ends: Vec<_> = lanes.iter_mut().map(|lane| Box::pin(lane.ended())).collect();
        tokio::select! {
            () = shutdown.requested() => Ok(()),
            (result, ..) = futures_util::future::select_all(&mut ends) => result.context("A lane of the poller gave up"),
        }
    };
    reports.abort();
    lanes.iter().for_each(Lane::stop);
    for lane in &mut lanes {
        if result.is_ok() {
            lane.ended().await.context("Stopping a lane of the poller")?;
        }
    }
    result
}
