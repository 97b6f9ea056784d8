//! From a trigger to the event in a committed read: a POST to ingress that the poller takes up, against a command that
//! a bare loop answers with one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use domain::ConnectionId;
use kafka::topics::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::api::Api;
use crate::bare::{self, Bytes};
use crate::load::{Call, Client};
use crate::memory::Memory;
use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::{Outcome, quantile};
use crate::syncs::Syncs;

/// Mailboxes that take turns.
const MAILBOXES: usize = 256;

/// Samples of each side before any counts.
const WARM_UP: usize = 100;

/// Samples of each side in a second of a round; pairs of them take less.
const SAMPLES_A_SECOND: usize = 25;

/// No event takes as long.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("latency");
    progress.say("warming up");
    let kafka = place.kafka("latency");
    let store = place.store().await?;
    let mut syncs = Syncs::start(&kafka).await?;
    let api = Api::start(&kafka, &store).await?;
    let mailboxes = api.connect(&store, MAILBOXES).await?;
    let events = Watch::start(&kafka, syncs.topics.name(Topic::Discovered))?;
    syncs.first_sync(api.organisation, &mailboxes).await?;
    let calls: anyhow::Result<Vec<_>> = mailboxes.iter().map(|id| Ok((*id, api.call(*id)?))).collect();
    let mut ours = Ours { client: Client::connect(api.address).await?, memory: syncs.memory.clone(), events };
    let calls = calls?;
    let mut turns = calls.iter().cycle();
    let mut next = || turns.next().expect("there are mailboxes");
    for _ in 0..WARM_UP {
        ours.sample(next()).await?;
    }
    let command = one(syncs.first(Topic::Poll, 1).await?)?;
    let event = one(syncs.first(Topic::Discovered, 1).await?)?;
    let mut limit = Limit::start(&kafka, command, event).await?;
    for _ in 0..WARM_UP {
        limit.sample().await?;
    }

    let samples = SAMPLES_A_SECOND * usize::try_from(options.time().as_secs()).unwrap_or(1);
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let (mut our_times, mut limit_times) = (Vec::with_capacity(samples), Vec::with_capacity(samples));
        for _ in 0..samples {
            our_times.push(ours.sample(next()).await?);
            limit_times.push(limit.sample().await?);
        }
        let at = |q| (quantile(&our_times, q), quantile(&limit_times, q));
        let (p50, p99) = (at(0.5), at(0.99));
        progress.say(&format!(
            "round {number} of {}: p50 {:.1} ms, bare {:.1} ms; p99 {:.1} ms, bare {:.1} ms",
            options.rounds, p50.0, p50.1, p99.0, p99.1
        ));
        rounds.push((our_times, limit_times));
    }
    limit.stop()?;
    api.stop().await?;
    syncs.stop().await?;
    Ok(vec![
        Outcome::of_times("trigger to visible, p50", &rounds, 0.5, 2.0),
        Outcome::of_times("trigger to visible, p99", &rounds, 0.99, 3.0),
    ])
}

fn one(records: Vec<kafka::OwnedRecord>) -> anyhow::Result<Bytes> {
    Ok(records.into_iter().next().context("A record was read")?.into())
}

fn millis(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64() * 1_000.0
}

/// Mailtide.
struct Ours {
    client: Client,
    memory: Arc<Memory>,
    events: Watch,
}

impl Ours {
    /// A message arrives, and a sync is asked for: the milliseconds until the event can be read.
    async fn sample(&mut self, (mailbox, call): &(ConnectionId, Call)) -> anyhow::Result<f64> {
        self.memory.deliver(*mailbox, 1);
        let begun = Instant::now();
        let (posted, seen) = tokio::join!(self.client.call(call), self.events.next());
        posted?;
        let (key, at) = seen?;
        ensure!(key == mailbox.to_string().as_bytes(), "The event of another mailbox came");
        Ok(millis(begun, at))
    }
}

/// A producer, a loop that answers each command with one transaction, and a consumer.
struct Limit {
    producer: FutureProducer,
    topic: String,
    command: Bytes,
    events: Watch,
    stop: Arc<AtomicBool>,
    relay: JoinHandle<anyhow::Result<()>>,
}

impl Limit {
    async fn start(kafka: &kafka::Settings, command: Bytes, event: Bytes) -> anyhow::Result<Self> {
        let topic = bare::create_topic(kafka, "bare.commands").await?;
        let output = bare::create_topic(kafka, "bare.events").await?;
        let events = Watch::start(kafka, &output)?;
        let consumer = bare::consumer(kafka, "bare-relay")?;
        consumer.subscribe(&[&topic])?;
        let producer = bare::transactional(kafka)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let relay = thread::Builder::new()
            .name("bare-relay".to_owned())
            .spawn(move || relay(&consumer, &producer, &output, &event, &stopping))?;
        Ok(Self { producer: bare::producer(kafka).create()?, topic, command, events, stop, relay })
    }

    async fn sample(&mut self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let record = FutureRecord::to(&self.topic)
            .key(self.command.key.as_slice())
            .payload(self.command.value.as_slice())
            .headers(self.command.headers());
        let delivery = self.producer.send_result(record).map_err(|(error, _)| error)?;
        let (delivered, seen) = tokio::join!(delivery, self.events.next());
        delivered?.map_err(|(error, _)| error)?;
        let (_, at) = seen?;
        Ok(millis(begun, at))
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.relay.join().map_err(|_| anyhow!("The bare loop panicked"))?
    }
}

/// Reads, writes and commits: exactly once, and nothing else.
fn relay(
    consumer: &BaseConsumer,
    producer: &BaseProducer,
    topic: &str,
    event: &Bytes,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(Duration::from_millis(50)).transpose()? else { continue };
        producer.begin_transaction()?;
        bare::enqueue(producer, topic, event, message.partition())?;
        bare::drain(producer);
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(message.topic(), message.partition(), Offset::Offset(message.offset() + 1))?;
        let group = consumer.group_metadata().context("The bare loop is no member of its group")?;
        producer.send_offsets_to_transaction(&offsets, &group, Timeout::Never)?;
        producer.commit_transaction(Timeout::Never)?;
    }
    Ok(())
}

/// Reads a topic's committed records as they come, on a thread of its own: keys, and when they were seen.
struct Watch {
    seen: mpsc::UnboundedReceiver<(Vec<u8>, Instant)>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Reads from the start of a topic, which is empty so far.
    fn start(kafka: &kafka::Settings, topic: &str) -> anyhow::Result<Self> {
        let consumer = bare::consumer(kafka, "bare-watch")?;
        let mut positions = TopicPartitionList::new();
        for partition in 0..kafka.partitions {
            positions.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&positions)?;
        let (sender, seen) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let read = move || {
            while !stopping.load(Ordering::Acquire) {
                // An error that lasts is told by what does not come.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
                let seen = (message.key().unwrap_or_default().to_vec(), Instant::now());
                if sender.send(seen).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("watch".to_owned()).spawn(read)?;
        Ok(Self { seen, stop })
    }

    async fn next(&mut self) -> anyhow::Result<(Vec<u8>, Instant)> {
        match tokio::time::timeout(DEADLINE, self.seen.recv()).await {
            Ok(Some(seen)) => Ok(seen),
            Ok(None) => bail!("The watching thread is gone"),
            Err(_) => bail!("No event came within {DEADLINE:?}"),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
