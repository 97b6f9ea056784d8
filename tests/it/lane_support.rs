//! What the lane's tests drive: an application that counts, and topics of their own.
//!
//! Every input has an id as its value. The application absorbs it (a state record says so), works on it for a while
//! elsewhere, and puts out one record with that id and how many its key has had. So each input must be named by exactly
//! one output, and the counts of a key must be 1, 2, 3, …: a loss, a repetition and a forgotten state all show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka::lane::{App, Assignment, Lane, LaneHandle, LaneSettings, Outbox, Refused, Restore, Restored, Tuning, spawn};
use kafka::{Headers, InputRecord, OutRecord, Settings};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use crate::support::{LONG, committed_blocking, stack, wait_until};

pub(crate) const SERVICE: &str = "counter";
pub(crate) const PARTITIONS: i32 = 4;

/// Topics of one test, and the settings of its lanes.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) bootstrap: String,
    pub(crate) prefix: String,
    pub(crate) input: Arc<str>,
    pub(crate) state: Arc<str>,
    pub(crate) output: Arc<str>,
}

impl Bench {
    pub(crate) async fn new(name: &str) -> Self {
        Self::on(stack().kafka.bootstrap(), name).await
    }

    /// On a broker of the test's own.
    pub(crate) async fn on(bootstrap: &str, name: &str) -> Self {
        let random = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let bench = Self::at(bootstrap, &format!("{name}-{random}."));
        for topic in [&bench.input, &bench.state, &bench.output] {
            bench.create(topic, PARTITIONS).await;
        }
        bench
    }

    /// The topics under a prefix, made by somebody before.
    pub(crate) fn at(bootstrap: &str, prefix: &str) -> Self {
        let topic = |name: &str| -> Arc<str> { format!("{prefix}{name}").into() };
        let bootstrap = bootstrap.to_owned();
        Self { bootstrap, prefix: prefix.to_owned(), input: topic("in"), state: topic("state"), output: topic("out") }
    }

    pub(crate) fn group(&self) -> String {
        format!("{}{SERVICE}", self.prefix)
    }

    /// Settings of a process, in time-outs that suit a test.
    pub(crate) fn settings(&self, instance: &str) -> Settings {
        let mut settings = Settings::for_brokers(&self.bootstrap).with_prefix(&self.prefix);
        settings.instance = instance.to_owned();
        settings.lane = Tuning {
            transaction_timeout: Duration::from_secs(5),
            delivery_timeout: Duration::from_secs(4),
            session_timeout: Duration::from_secs(6),
            max_poll_interval: Duration::from_secs(10),
            ..Tuning::default()
        };
        settings
    }

    pub(crate) fn lane(&self, number: usize) -> LaneSettings {
        LaneSettings { service: SERVICE, lane: number, input: self.input.clone(), state: Some(self.state.clone()) }
    }

    /// Starts a counting lane.
    pub(crate) fn start(&self, settings: &Settings, number: usize, knobs: &Knobs) -> Lane {
        let (bench, knobs, runtime) = (self.clone(), knobs.clone(), Handle::current());
        spawn(settings, self.lane(number), move |handle| Counter::new(&bench, handle, &knobs, runtime.clone())).unwrap()
    }

    /// Writes inputs `from..to`, spread over `keys` keys, and waits until they are acknowledged.
    pub(crate) fn feed(&self, keys: usize, from: usize, to: usize) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        for id in from..to {
            let (key, value) = (format!("key-{}", id % keys), id.to_string());
            let mut record = BaseRecord::to(&self.input).key(&key).payload(&value);
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(LONG).unwrap();
    }

    /// What is committed in the output: per input id, how often it is named.
    pub(crate) fn outputs(&self) -> Outputs {
        let mut outputs = Outputs::default();
        for record in committed_blocking(&self.bootstrap, &self.output) {
            let key = record.key_text();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            let (count, id) = value.split_once(':').unwrap();
            outputs.counts.entry(key).or_default().push(count.parse().unwrap());
            *outputs.ids.entry(id.parse().unwrap()).or_default() += 1;
        }
        outputs
    }

    /// Waits until `n` different inputs are named in the output.
    pub(crate) async fn wait_for(&self, n: usize) {
        self.wait_for_within(LONG, n).await;
    }

    /// The same, for what may take longer than anything else.
    pub(crate) async fn wait_for_within(&self, limit: Duration, n: usize) {
        let what = format!("{n} inputs are named in {}", self.output);
        wait_until(limit, &what, || {
            let bench = self.clone();
            async move { tokio::task::spawn_blocking(move || bench.outputs().ids.len()).await.unwrap() >= n }
        })
        .await;
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap();
        let topics = [NewTopic::new(topic, partitions, TopicReplication::Fixed(1))];
        let created = admin.create_topics(&topics, &AdminOptions::new().operation_timeout(Some(LONG))).await.unwrap();
        assert_eq!(created, [Ok(topic.to_owned())]);
    }

    /// The offsets committed for the group, by partition.
    pub(crate) fn offsets(&self) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", self.group())
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.input, 0, PARTITIONS - 1);
        let list = consumer.committed_offsets(list, LONG).unwrap();
        list.elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), offset)),
                _ => None,
            })
            .collect()
    }
}

/// What is committed in the output.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// How often each input is named.
    pub(crate) ids: BTreeMap<usize, usize>,
    /// The counts of each key, in order.
    pub(crate) counts: BTreeMap<String, Vec<u64>>,
}

impl Outputs {
    /// Inputs below `n` that are not named.
    pub(crate) fn lost(&self, n: usize) -> Vec<usize> {
        (0..n).filter(|id| !self.ids.contains_key(id)).collect()
    }

    /// Inputs that are named more than once.
    pub(crate) fn twice(&self) -> Vec<usize> {
        self.ids.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect()
    }

    /// Keys whose counts are not 1, 2, 3, ….
    pub(crate) fn miscounted(&self) -> Vec<&str> {
        let is_wrong = |counts: &[u64]| counts.iter().zip(1..).any(|(count, expected)| *count != expected);
        self.counts.iter().filter(|(_, counts)| is_wrong(counts)).map(|(key, _)| key.as_str()).collect()
    }

    /// That each of the inputs below `n` is named once, and every key counted rightly.
    #[track_caller]
    pub(crate) fn assert_exactly_once(&self, n: usize) {
        assert_eq!(self.lost(n), [0; 0], "lost");
        assert_eq!(self.twice(), [0; 0], "twice");
        assert_eq!(self.miscounted(), [""; 0], "state forgotten or doubled");
    }
}

/// How the counting application behaves.
#[derive(Clone, Default)]
pub(crate) struct Knobs {
    /// How long the work on an input takes, elsewhere.
    pub(crate) work: Duration,
    /// Called on the lane's thread with each result, before its output: a test may hold the lane there.
    pub(crate) on_done: Option<Arc<dyn Fn(usize) + Send + Sync>>,
    /// Called on the lane's thread when something of a partition is durable.
    pub(crate) on_committed: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Called on the lane's thread when a partition is closed.
    pub(crate) on_closed: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Takes no more input while this many are being worked on; none: takes all.
    pub(crate) at_once: Option<usize>,
    /// How many inputs the application has seen.
    pub(crate) seen: Arc<AtomicUsize>,
    /// Refuses every partition with this sentence.
    pub(crate) refuse: Option<&'static str>,
    /// Results are put out without a state record.
    pub(crate) only_outputs: bool,
    /// What was absorbed before a partition was opened is not worked on.
    pub(crate) forgets: bool,
}

/// One partition's state.
#[derive(Default)]
pub(crate) struct Part {
    counts: BTreeMap<String, u64>,
    /// Absorbed and not done: id and key.
    waiting: BTreeMap<usize, String>,
}

pub(crate) struct Counter {
    bench: Bench,
    handle: LaneHandle<(usize, String)>,
    knobs: Knobs,
    runtime: Handle,
    parts: BTreeMap<Assignment, Part>,
    in_flight: usize,
}

impl Counter {
    pub(crate) fn new(bench: &Bench, handle: LaneHandle<(usize, String)>, knobs: &Knobs, runtime: Handle) -> Self {
        let (bench, knobs) = (bench.clone(), knobs.clone());
        Self { bench, handle, knobs, runtime, parts: BTreeMap::new(), in_flight: 0 }
    }

    fn work(&mut self, assignment: Assignment, id: usize, key: String) {
        self.in_flight += 1;
        let (done, work) = (self.handle.done.clone(), self.knobs.work);
        self.runtime.spawn(async move {
            if !work.is_zero() {
                tokio::time::sleep(work).await;
            }
            // A lane that is gone starts the work again from its state.
            let _ = done.send(assignment, (id, key)).await;
        });
    }

    fn state(&self, assignment: Assignment, key: String, value: Option<String>, out: &mut Outbox) {
        let mut record = OutRecord::new(&self.bench.state, key, Bytes::new(), Headers::new());
        record.value = value.map(Bytes::from);
        out.push(assignment, record.to_partition(assignment.partition));
    }
}

impl App for Counter {
    type Restore = Rebuild;
    type Done = (usize, String);

    fn restore(&mut self, _: Assignment) -> Rebuild {
        Rebuild { part: Part::default(), refuse: self.knobs.refuse }
    }

    fn opened(&mut self, assignment: Assignment, part: Part, _: &mut Outbox) {
        let waiting: Vec<(usize, String)> = part.waiting.iter().map(|(id, key)| (*id, key.clone())).collect();
        self.parts.insert(assignment, part);
        if self.knobs.forgets {
            return;
        }
        for (id, key) in waiting {
            self.work(assignment, id, key);
        }
    }

    fn closed(&mut self, assignment: Assignment) {
        if let Some(on_closed) = &self.knobs.on_closed {
            on_closed();
        }
        let part = self.parts.remove(&assignment).expect("what is closed was opened");
        self.in_flight -= if self.knobs.forgets { 0 } else { part.waiting.len() };
    }

    fn record(&mut self, assignment: Assignment, record: &InputRecord<'_>, out: &mut Outbox) {
        self.knobs.seen.fetch_add(1, Ordering::Relaxed);
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        let (key, id) = (text(record.key), text(record.value).parse().unwrap());
        self.parts.get_mut(&assignment).unwrap().waiting.insert(id, key.clone());
        self.state(assignment, format!("waiting:{id}"), Some(key.clone()), out);
        self.work(assignment, id, key);
    }

    fn done(&mut self, assignment: Assignment, (id, key): (usize, String), out: &mut Outbox) {
        self.in_flight -= 1;
        if let Some(on_done) = &self.knobs.on_done {
            on_done(id);
        }
        let part = self.parts.get_mut(&assignment).unwrap();
        part.waiting.remove(&id).expect("worked on once");
        let count = part.counts.entry(key.clone()).or_default();
        *count += 1;
        let count = *count;
        let value = format!("{count}:{id}");
        out.push(assignment, OutRecord::new(&self.bench.output, key.clone(), value, Headers::new()));
        if self.knobs.only_outputs {
            return;
        }
        self.state(assignment, format!("count:{key}"), Some(count.to_string()), out);
        self.state(assignment, format!("waiting:{id}"), None, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self, _: Instant, _: &mut Outbox) {
        unreachable!("no tick was asked for");
    }

    fn busy(&self) -> bool {
        self.in_flight > 0
    }

    fn committed(&mut self, _: Assignment, _: i64) {
        if let Some(on_committed) = &self.knobs.on_committed {
            on_committed();
        }
    }

    fn wants_input(&self, _: Assignment) -> bool {
        self.knobs.at_once.is_none_or(|limit| self.in_flight < limit)
    }
}

pub(crate) struct Rebuild {
    part: Part,
    refuse: Option<&'static str>,
}

impl Restore for Rebuild {
    type Part = Part;

    fn record(&mut self, record: &InputRecord<'_>) {
        let key = std::str::from_utf8(record.key.unwrap()).unwrap();
        let value = record.value.map(|value| std::str::from_utf8(value).unwrap());
        match (key.split_once(':').unwrap(), value) {
            (("waiting", id), Some(key)) => {
                self.part.waiting.insert(id.parse().unwrap(), key.to_owned());
            }
            (("waiting", id), None) => {
                self.part.waiting.remove(&id.parse().unwrap());
            }
            (("count", key), Some(count)) => {
                self.part.counts.insert(key.to_owned(), count.parse().unwrap());
            }
            (other, value) => panic!("{other:?} with {value:?} is no state of ours"),
        }
    }

    fn finish(self) -> Result<Restored<Part>, Refused> {
        match self.refuse {
            Some(reason) => Err(Refused(reason.to_owned())),
            None => Ok(Restored { part: self.part, absorbed: None }),
        }
    }
}

/// Waits until all partitions are open in these lanes together.
pub(crate) async fn wait_until_open(lanes: &[&Lane]) {
    wait_until(LONG, "all partitions are open", || {
        let open: BTreeSet<i32> = lanes
            .iter()
            .flat_map(|lane| lane.status().partitions)
            .filter(|partition| partition.is_open)
            .map(|partition| partition.partition)
            .collect();
        std::future::ready(open.len() == usize::try_from(PARTITIONS).unwrap())
    })
    .await;
}

/// Waits until a lane's partitions satisfy `holds`.
pub(crate) async fn wait_until_owned(lane: &Lane, what: &str, holds: impl Fn(usize) -> bool) {
    wait_until(LONG, what, || {
        let open = lane.status().partitions.iter().filter(|partition| partition.is_open).count();
        std::future::ready(holds(open))
    })
    .await;
}
