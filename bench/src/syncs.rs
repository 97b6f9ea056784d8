//! A poller at work on mailboxes in memory: how its syncs are asked for, and how they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use domain::mailbox::Rules;
use domain::{
    Command, ConnectionId, GmailJobStatusChanged, JobId, JobState, OrganisationId, PollGmailConnection, Timestamp,
    TokenVersion, Trigger,
};
use events::TraceParent;
use events::headers::Envelope;
use futures_util::future::try_join_all;
use kafka::lane::{self, Lane, LaneSettings};
use kafka::reader::{Ends, Inspector, TopicPartition};
use kafka::topics::{self, Topic, Topics};
use kafka::{OutRecord, OwnedRecord, Producer, Reader};
use poller::Poller;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::memory::Memory;

/// Nothing that is waited for takes as long.
const DEADLINE: Duration = Duration::from_secs(120);

/// A poller with its topics.
pub(crate) struct Syncs {
    /// The mailboxes.
    pub(crate) memory: Arc<Memory>,
    /// The names of the topics.
    pub(crate) topics: Topics,
    kafka: kafka::Settings,
    producer: Producer,
    lane: Lane,
    jobs: Reader,
}

impl Syncs {
    /// Creates the topics and starts a poller with the settings that it has by default.
    pub(crate) async fn start(kafka: &kafka::Settings) -> anyhow::Result<Self> {
        let topics = Topics::new(&kafka.topic_prefix);
        topics::create(kafka, &topics, &Topic::ALL).await?;
        let memory = Arc::new(Memory::default());
        let lane = start_poller(kafka, memory.clone())?;
        let jobs = read_on(kafka, topics.name(Topic::JobStatus)).await?;
        let producer = Producer::new(kafka, "bench")?;
        Ok(Self { memory, topics, kafka: kafka.clone(), producer, lane, jobs })
    }

    /// So many mailboxes that were synced once, so that from now on a sync walks history.
    pub(crate) async fn mailboxes(&mut self, n: usize) -> anyhow::Result<Vec<ConnectionId>> {
        let connections: Vec<ConnectionId> = (0..n).map(|_| ConnectionId::from_uuid(Uuid::new_v4())).collect();
        self.first_sync(OrganisationId::from_uuid(Uuid::new_v4()), &connections).await?;
        Ok(connections)
    }

    /// Syncs mailboxes that are empty for the first time.
    pub(crate) async fn first_sync(
        &mut self,
        organisation: OrganisationId,
        connections: &[ConnectionId],
    ) -> anyhow::Result<()> {
        self.ask(organisation, connections).await?;
        self.ended(connections.len()).await?;
        Ok(())
    }

    /// Asks for a sync of each mailbox, as ingress does.
    pub(crate) async fn ask(&self, organisation: OrganisationId, connections: &[ConnectionId]) -> anyhow::Result<()> {
        let commands = connections.iter().map(|connection| self.command(organisation, *connection));
        let commands: Vec<OutRecord> = commands.collect();
        try_join_all(commands.iter().map(|command| self.producer.send(command))).await?;
        Ok(())
    }

    fn command(&self, organisation: OrganisationId, connection: ConnectionId) -> OutRecord {
        let now = now();
        let command = PollGmailConnection {
            job_id: JobId::from_uuid(Uuid::new_v4()),
            organisation_id: organisation,
            connection_id: connection,
            trigger: Trigger::Api,
            window: None,
            token_version: TokenVersion(1),
            requested_at: now,
            deadline: now + domain::Duration::from_hours(1),
        };
        let trace = TraceParent::new(rand::random(), rand::random());
        let frame = events::encode_command(&Command::Poll(command.clone()));
        let headers = Envelope::new("urn:mailtide:bench", now, trace).headers(&command, &frame);
        OutRecord::new(self.topics.name(Topic::Poll), connection.to_string(), frame, headers.into())
    }

    /// Waits until the ends of so many jobs can be read, and gives them.
    pub(crate) async fn ended(&mut self, n: usize) -> anyhow::Result<Vec<GmailJobStatusChanged>> {
        let mut ended = Vec::with_capacity(n);
        while ended.len() < n {
            for record in next(&mut self.jobs).await.context("Waiting for jobs to end")? {
                let job: GmailJobStatusChanged = events::decode(&record.value.unwrap_or_default())?;
                match job.state {
                    JobState::Queued | JobState::Running => {}
                    JobState::Succeeded => ended.push(job),
                    JobState::Failed | JobState::Cancelled => {
                        bail!("A sync ended as {}: {}", job.state.as_str(), job.detail.unwrap_or_default());
                    }
                }
            }
        }
        Ok(ended)
    }

    /// Waits for so many ends: milliseconds from the request of each to its end, as the poller tells them.
    pub(crate) async fn ended_after(&mut self, n: usize) -> anyhow::Result<Vec<f64>> {
        let took = |job: &GmailJobStatusChanged| job.at.since(job.requested_at).as_millis() as f64;
        Ok(self.ended(n).await?.iter().map(took).collect())
    }

    /// Transactions committed so far, as of a moment ago.
    pub(crate) fn transactions(&self) -> u64 {
        self.lane.status().committed
    }

    /// The first records of a topic, from its start.
    pub(crate) async fn first(&self, topic: Topic, n: usize) -> anyhow::Result<Vec<OwnedRecord>> {
        let topic = self.topics.name(topic);
        first(&self.kafka, topic, n).await
    }

    /// Stops the poller.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.lane.stop();
        Ok(self.lane.ended().await?)
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The first committed records of a topic, from its start.
pub(crate) async fn first(kafka: &kafka::Settings, topic: &Arc<str>, n: usize) -> anyhow::Result<Vec<OwnedRecord>> {
    let mut reader = read(kafka, topic, |ends| ends.low).await?;
    let mut records = Vec::with_capacity(n);
    while records.len() < n {
        records.extend(next(&mut reader).await.with_context(|| format!("Reading {topic}"))?);
    }
    records.truncate(n);
    Ok(records)
}

/// Reads what comes after now.
pub(crate) async fn read_on(kafka: &kafka::Settings, topic: &Arc<str>) -> anyhow::Result<Reader> {
    read(kafka, topic, |ends| ends.end).await
}

async fn read(kafka: &kafka::Settings, topic: &Arc<str>, from: impl Fn(&Ends) -> i64) -> anyhow::Result<Reader> {
    let ends = ends(&Inspector::new(kafka)?, topic).await?;
    let position = |(partition, ends)| (TopicPartition { topic: topic.clone(), partition }, from(ends));
    let positions: BTreeMap<_, _> = (0..).zip(&ends).map(position).collect();
    Ok(Reader::start(kafka, "bench", positions)?)
}

/// Where the topic's partitions begin and end. One that was just created has no leaders for a moment.
async fn ends(inspector: &Inspector, topic: &str) -> anyhow::Result<Vec<Ends>> {
    let until = Instant::now() + DEADLINE;
    loop {
        match inspector.ends(topic).await {
            Ok(ends) => return Ok(ends),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What came next.
pub(crate) async fn next(reader: &mut Reader) -> anyhow::Result<Vec<OwnedRecord>> {
    match tokio::time::timeout(DEADLINE, reader.next()).await {
        Ok(records) => Ok(records?),
        Err(_) => bail!("Nothing came within {DEADLINE:?}"),
    }
}

/// Starts a poller with the settings that it has by default, and `memory` in the place of Gmail.
pub(crate) fn start_poller(kafka: &kafka::Settings, memory: Arc<Memory>) -> anyhow::Result<Lane> {
    let topics = Topics::new(&kafka.topic_prefix);
    let settings = poller::Settings::default();
    ensure!(settings.lanes == 1, "A single lane is measured, and the default is {}", settings.lanes);
    let shared = Arc::new(poller::Shared {
        mailboxes: memory,
        runtime: Handle::current(),
        topics: topics.clone(),
        rules: Rules::DEFAULT,
        calls: settings.calls.into(),
        backlog: settings.backlog,
    });
    let lane = LaneSettings {
        service: "poller",
        lane: 0,
        input: topics.name(Topic::Poll).clone(),
        state: Some(topics.name(Topic::State).clone()),
    };
    Ok(lane::spawn(kafka, lane, move |handle| Poller::new(shared.clone(), handle))?)
}
