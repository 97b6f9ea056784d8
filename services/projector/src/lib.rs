//! The projector: keeps in Postgres what the topics say of jobs and connections.
//!
//! Facts and the offsets after them are written in one transaction, which compares where the projection stands with
//! where the writer believes it to stand. So each fact counts once whatever is killed, and a writer that was taken for
//! dead cannot write any more. Every projector reads all partitions: one is enough for many thousand jobs a second,
//! and any further one stands by. Whichever is quicker writes; the other finds that the projection has moved, stands by
//! for a while and goes on from there, so that one takes over within `projector.stand_by` of the other's end.

mod batch;
pub mod fold;
mod gather;
mod metric;
mod rebuild;
mod settings;
mod write;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kafka::reader::{Inspector, TopicPartition};
use kafka::rights::{self, Role};
use kafka::topics::{self, Topic, Topics};
use kafka::{Producer, Reader};
use runtime::health::{Check, Health};
use runtime::{Backoff, Shutdown};
use store::Store;
use tokio::time::Instant;

pub use fold::{Fact, Fold};
pub use metric::ALL as METRICS;
pub use rebuild::{Rebuilt, rebuild};
pub use settings::Settings;

use crate::batch::{Positions, SOURCES};
use crate::gather::Gathering;
use crate::write::{Writer, Written};

/// The projection's name in the store.
pub const PROJECTION: &str = store::projection::JOBS;

/// The topics that the projector reads and writes.
const TOPICS: [Topic; 3] = [Topic::JobStatus, Topic::ConnectionStatus, Topic::DeadLetter];

/// How often it is looked whether topics have gained partitions.
const RECOUNT: Duration = Duration::from_secs(60);

/// How often the loop gives a sign of life where nothing comes.
const BEAT: Duration = Duration::from_secs(1);

/// Keeps the rows until the order to stop.
///
/// # Errors
/// When the topics cannot be had, the settings or the schema of Postgres cannot be used, or the topics are shorter than
/// what was read of them already. Servers that are away are waited for.
pub async fn run(settings: Settings, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let ready = health.readiness("projector");
    let writer = start(&settings, &shutdown).await?;
    let inspector = Inspector::new(&settings.kafka)?;
    let result = Projector { ready, health, inspector, settings, writer: writer.clone() }.run().await;
    writer.producer.flush().await;
    result
}

/// Sees to the topics and makes what batches are written with. Postgres need not be there yet.
async fn start(settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Writer> {
    let topics = Topics::new(&settings.kafka.topic_prefix);
    rights::check(&settings.kafka, Role::Projector).await.context("asking what the projector may do")?;
    topics::create(&settings.kafka, &topics, &TOPICS).await.context("creating the projector's topics")?;
    Ok(Writer {
        store: Store::connect(&settings.store).context("connecting the projector to Postgres")?,
        producer: Producer::new(&settings.kafka, "projector").context("making the projector's producer")?,
        topics,
        shutdown: shutdown.clone(),
        alive: None,
    })
}

struct Projector {
    settings: Settings,
    writer: Writer,
    inspector: Inspector,
    ready: Check,
    health: Health,
}

/// Why a session, in which the projection stands where this projector believes, came to its end.
enum Ended {
    /// The stop was ordered.
    Stopped,
    /// Another projector is quicker.
    Fenced,
    /// Postgres or Kafka is away.
    Away(anyhow::Error),
    /// There are more partitions than before.
    Grown,
}

impl Projector {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        let mut migrated = false;
        let mut stands_by = false;
        while !self.writer.shutdown.is_requested() {
            self.writer.beat();
            if !migrated {
                match self.writer.store.migrate().await {
                    Ok(()) => {
                        migrated = true;
                        // Only now: a migration may take as long as it takes.
                        let stuck = self.settings.kafka.lane.max_poll_interval;
                        self.writer.alive = Some(Arc::new(self.health.liveness("projector-loop", stuck)));
                    }
                    Err(error) if error.is_unavailable() => {
                        self.wait(error.into(), &mut backoff).await;
                        continue;
                    }
                    Err(error) => return Err(error).context("bringing the schema up to date"),
                }
            }
            let ended = self.session(&mut backoff, stands_by).await?;
            stands_by = matches!(ended, Ended::Fenced);
            match ended {
                Ended::Stopped => break,
                Ended::Grown => {}
                Ended::Fenced => self.stand_by().await,
                Ended::Away(error) => self.wait(error, &mut backoff).await,
            }
        }
        Ok(())
    }

    /// Waits for what is away.
    async fn wait(&self, error: anyhow::Error, backoff: &mut Backoff) {
        tracing::warn!(error = format!("{error:#}"), "The projector waits");
        self.ready.fail(error.to_string());
        backoff.pause(&self.writer.shutdown).await;
    }

    /// Leaves the projection to the other projector for a while; a random one, so that two do not go on in step.
    async fn stand_by(&self) {
        let pause = self.settings.stand_by.mul_f64(rand::random_range(0.5..1.0));
        tracing::debug!(?pause, "Another projector is quicker, standing by");
        self.ready.pass();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.writer.shutdown.requested() => {}
        }
    }

    /// Reads from where the projection stands and writes, for as long as it stands where it should.
    async fn session(&self, backoff: &mut Backoff, stood_by: bool) -> anyhow::Result<Ended> {
        let mut positions = match self.writer.positions().await {
            Ok(positions) => positions,
            Err(error) if error.is_unavailable() => return Ok(Ended::Away(error.into())),
            Err(error) => return Err(error).context("reading where the projection stands"),
        };
        let starts = match self.starts(&positions).await {
            Ok(starts) => starts,
            Err(error) if is_away(&error) => return Ok(Ended::Away(error.into())),
            Err(error) => return Err(error).context("counting the partitions of the projector's topics"),
        };
        let partitions = starts.len();
        let mut reader = Reader::start(&self.settings.kafka, "projector", starts)?;
        if stood_by {
            // Whoever stands by looks every second or so, for as long as the other lives.
            tracing::debug!(partitions, begun = positions.len(), "The projector looks whether it is quicker by now");
        } else {
            tracing::info!(partitions, begun = positions.len(), "The projector reads on");
        }
        self.ready.pass();
        let mut recount = tokio::time::interval_at(Instant::now() + RECOUNT, RECOUNT);
        let mut beat = tokio::time::interval(BEAT);
        let mut gathering = Gathering::default();
        loop {
            let batch = tokio::select! {
                () = self.writer.shutdown.requested() => return Ok(Ended::Stopped),
                _ = beat.tick() => {
                    self.writer.beat();
                    continue;
                }
                _ = recount.tick() => {
                    // What does not answer now is asked again a minute later.
                    if self.starts(&positions).await.is_ok_and(|starts| starts.len() > partitions) {
                        tracing::info!("The topics have more partitions now");
                        return Ok(Ended::Grown);
                    }
                    continue;
                }
                batch = gathering.batch(&mut reader, &self.settings, &self.writer.topics, &positions) => batch.context(
                    "reading the projector's topics; if they were lost or made anew, run `mailtide projector --rebuild`",
                )?,
            };
            match self.writer.write(batch, &positions).await.context("writing rows and positions")? {
                Written::Done(after) => {
                    positions = after;
                    backoff.reset();
                }
                Written::Fenced => return Ok(Ended::Fenced),
                Written::Unknown(error) => return Ok(Ended::Away(error.into())),
                Written::Stopped => return Ok(Ended::Stopped),
            }
        }
    }

    /// Where to read each partition from: where the projection stands, or from its begin.
    async fn starts(&self, positions: &Positions) -> Result<Positions, kafka::reader::Error> {
        let mut starts = Positions::new();
        for topic in SOURCES {
            let topic = self.writer.topics.name(topic);
            for partition in 0..self.inspector.partition_count(topic).await? {
                let at = TopicPartition { topic: topic.clone(), partition };
                let next = positions.get(&at).copied().unwrap_or(0);
                starts.insert(at, next);
            }
        }
        Ok(starts)
    }
}

/// Whether waiting may help.
fn is_away(error: &kafka::reader::Error) -> bool {
    matches!(error, kafka::reader::Error::Request { cause, .. } if !cause.is_permanent())
}
