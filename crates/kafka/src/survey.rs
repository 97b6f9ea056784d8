//! How the brokers and the topics are set, for whoever looks whether they suit us. Nothing is changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Statistics};
use tracing::debug;

use crate::client::{self, Context};
use crate::error::Cause;
use crate::settings::Settings;
use crate::topics::{Topic, Topics};

/// A kind of request to a broker, by the number that the protocol gives it, as far as they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Api {
    /// Its number.
    pub key: i16,
    /// Its name in Kafka's documentation.
    pub name: &'static str,
}

/// Fetching committed offsets; from version 7 on those of open transactions are waited for (Kafka 2.5).
pub const OFFSET_FETCH: Api = Api { key: 9, name: "OffsetFetch" };
/// Joining a group by the classic protocol.
pub const JOIN_GROUP: Api = Api { key: 11, name: "JoinGroup" };
/// Becoming a transactional producer; from version 3 on an aborted transaction need not end it (Kafka 2.5).
pub const INIT_PRODUCER_ID: Api = Api { key: 22, name: "InitProducerId" };
/// Taking partitions into a transaction; from version 4 on leaders ask whether it is open before they write (Kafka 3.6).
pub const ADD_PARTITIONS_TO_TXN: Api = Api { key: 24, name: "AddPartitionsToTxn" };
/// Offsets in a transaction; from version 3 on they are fenced by the group's generation (Kafka 2.5).
pub const TXN_OFFSET_COMMIT: Api = Api { key: 28, name: "TxnOffsetCommit" };

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The brokers that are there, by id.
    pub brokers: Vec<Broker>,
    /// By kind of request the highest version that every broker knows that was connected to; one that some broker does
    /// not know at all is missing.
    pub apis: BTreeMap<i16, i16>,
    /// Our topics; none: it does not exist.
    pub topics: BTreeMap<Topic, Option<Shape>>,
}

impl Survey {
    /// The highest version of a kind of request that every broker knows; none if one does not know it at all.
    pub fn version(&self, api: Api) -> Option<i16> {
        self.apis.get(&api.key).copied()
    }
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// The name it gives itself, `host:port`.
    pub place: String,
    /// Its settings by name, or why they may not be seen.
    pub settings: Result<BTreeMap<String, String>, String>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// How many partitions it has.
    pub partitions: i32,
    /// Partitions that nobody leads.
    pub leaderless: Vec<i32>,
    /// How many copies its partition with the fewest has.
    pub replicas: usize,
    /// How many of them are in sync, where the fewest are.
    pub in_sync: usize,
    /// Partitions of which not every copy is in sync.
    pub behind: Vec<i32>,
    /// Its settings by name, or why they may not be seen.
    pub settings: Result<BTreeMap<String, String>, String>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client could be made from the settings.
    #[error("Making a Kafka client for {bootstrap_servers} failed: {cause}; check the settings `kafka.*`")]
    Client {
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// No broker answered, or not as it was asked.
    #[error("{action} at {bootstrap_servers} failed: {cause}")]
    Request {
        /// What was asked.
        action: &'static str,
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// What librdkafka said.
        cause: Cause,
    },
}

/// Looks at the brokers and at `topics`; each question may take `answer`.
///
/// # Errors
/// When no broker can be reached. What a broker does not let be seen is in the survey.
pub async fn survey(settings: &Settings, topics: &Topics, answer: Duration) -> Result<Survey, Error> {
    let bootstrap_servers = &settings.bootstrap_servers;
    let unmade =
        |error: KafkaError| Error::Client { bootstrap_servers: bootstrap_servers.clone(), cause: error.into() };
    let admin: AdminClient<Context> =
        client::base(settings, "survey").create_with_context(Context::of(settings)).map_err(unmade)?;
    let admin = Arc::new(admin);
    let failed = |action, cause| Error::Request { action, bootstrap_servers: bootstrap_servers.clone(), cause };
    let asked = admin.clone();
    let metadata = tokio::task::spawn_blocking(move || asked.inner().fetch_metadata(None, answer))
        .await
        .expect("fetching metadata does not panic")
        .map_err(|error| failed("Looking up brokers and topics", error.into()))?;
    let there: BTreeMap<Topic, &MetadataTopic> =
        Topic::ALL.into_iter().filter_map(|topic| Some((topic, shown(&metadata, topics.name(topic))?))).collect();
    let of_topics: Vec<ResourceSpecifier<'_>> =
        there.keys().map(|topic| ResourceSpecifier::Topic(topics.name(*topic))).collect();
    let options = AdminOptions::new().request_timeout(Some(answer));
    let mut described = BTreeMap::new();
    if !of_topics.is_empty() {
        let answers = admin.describe_configs(&of_topics, &options).await;
        let answers = answers.map_err(|error| failed("Reading the topics' settings", error.into()))?;
        for (specifier, answer) in of_topics.iter().zip(answers) {
            if let ResourceSpecifier::Topic(name) = specifier {
                described.insert((*name).to_owned(), values(answer));
            }
        }
    }
    let mut brokers = Vec::with_capacity(metadata.brokers().len());
    for broker in metadata.brokers() {
        // One that is down answers nothing; the others do. A question to each also has it say what it knows.
        let answers = admin.describe_configs(&[ResourceSpecifier::Broker(broker.id())], &options).await;
        let settings = match answers.map(|mut answers| answers.pop()) {
            Ok(Some(answer)) => values(answer),
            Ok(None) => Err("no answer".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        brokers.push(Broker { id: broker.id(), place: format!("{}:{}", broker.host(), broker.port()), settings });
    }
    brokers.sort_by_key(|broker| broker.id);
    let mut shape_of = |topic: Topic| {
        let settings = described.remove(topics.name(topic).as_ref());
        there.get(&topic).map(|shown| shape(shown, settings.unwrap_or_else(|| Err("no answer".to_owned()))))
    };
    let topics = Topic::ALL.into_iter().map(|topic| (topic, shape_of(topic))).collect();
    let listener = listener(settings).map_err(unmade)?;
    let count = brokers.len();
    let apis = tokio::task::spawn_blocking(move || hear(&listener, count, answer));
    Ok(Survey { brokers, apis: apis.await.expect("listening does not panic"), topics })
}

/// The topic of this name, if there is one.
fn shown<'m>(metadata: &'m Metadata, name: &str) -> Option<&'m MetadataTopic> {
    metadata.topics().iter().find(|shown| shown.name() == name && !shown.partitions().is_empty())
}

fn shape(shown: &MetadataTopic, settings: Result<BTreeMap<String, String>, String>) -> Shape {
    let partitions = shown.partitions();
    let numbers = |which: fn(&MetadataPartition) -> bool| {
        partitions.iter().filter(|partition| which(partition)).map(MetadataPartition::id).collect()
    };
    Shape {
        partitions: i32::try_from(partitions.len()).expect("a partition's number is an i32"),
        leaderless: numbers(|partition| partition.leader() < 0),
        replicas: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        in_sync: partitions.iter().map(|partition| partition.isr().len()).min().unwrap_or(0),
        behind: numbers(|partition| partition.isr().len() < partition.replicas().len()),
        settings,
    }
}

/// Settings by name; a sensitive one has no value and is left out.
fn values(answer: Result<ConfigResource, RDKafkaErrorCode>) -> Result<BTreeMap<String, String>, String> {
    let resource = answer.map_err(|code| code.to_string())?;
    Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

/// A client that connects to every broker, and logs what each says that it knows: librdkafka keeps that to itself, but
/// for its log.
fn listener(settings: &Settings) -> Result<BaseProducer<Listener>, KafkaError> {
    let mut config = client::base(settings, "survey-features");
    config.set("debug", "feature").set("enable.sparse.connections", "false").set_log_level(RDKafkaLogLevel::Debug);
    config.create_with_context(Listener(Heard::default()))
}

/// Listens until `count` brokers have said what they know, at most for `answer`.
fn hear(listener: &BaseProducer<Listener>, count: usize, answer: Duration) -> BTreeMap<i16, i16> {
    /// What one broker says comes in one go; this is between two looks.
    const LOOK: Duration = Duration::from_millis(100);
    let heard = &listener.context().0;
    let until = Instant::now() + answer;
    loop {
        let before = heard.size();
        listener.poll(LOOK);
        let (brokers, lines) = heard.size();
        if Instant::now() >= until || brokers >= count && (brokers, lines) == before {
            return heard.common();
        }
    }
}

/// What brokers said that they know, by `host:port`.
#[derive(Debug, Default)]
struct Heard {
    by_broker: Mutex<BTreeMap<String, BTreeMap<i16, i16>>>,
}

impl Heard {
    fn take(&self, message: &str) {
        let Some((broker, key, version)) = api(message) else { return };
        let mut heard = self.by_broker.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(broker.to_owned()).or_default().insert(key, version);
    }

    /// How many brokers said something, and how much.
    fn size(&self) -> (usize, usize) {
        let heard = self.by_broker.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.len(), heard.values().map(BTreeMap::len).sum())
    }

    fn common(&self) -> BTreeMap<i16, i16> {
        let heard = self.by_broker.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = heard.values();
        let Some(first) = all.next() else { return BTreeMap::new() };
        all.fold(first.clone(), |common, other| {
            let both = common.into_iter().filter_map(|(key, version)| Some((key, version.min(*other.get(&key)?))));
            both.collect()
        })
    }
}

/// Who, which kind of request and its highest version, of a line such as
/// `[thrd:host:9092/1]: host:9092/1:   ApiKey Produce (0) Versions 0..11`.
fn api(message: &str) -> Option<(&str, i16, i16)> {
    let (before, rest) = message.split_once("ApiKey ")?;
    let (_, rest) = rest.split_once('(')?;
    let (key, rest) = rest.split_once(')')?;
    let (_, version) = rest.split_once("..")?;
    // The same broker is called otherwise before and after its id is known.
    let (broker, _) = before.split_whitespace().last()?.rsplit_once('/')?;
    Some((broker, key.parse().ok()?, version.trim().parse().ok()?))
}

/// Listens to what brokers say of themselves; all else goes where it always does, but for the talk that was asked for.
struct Listener(Heard);

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "APIVERSION" {
            self.0.take(message);
        } else if !matches!(level, RDKafkaLogLevel::Debug) {
            client::log(level, facility, message);
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "Kafka client error");
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    /// Nothing is ever written.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_broker_knows_is_the_least_of_what_each_does() {
        let heard = Heard::default();
        for line in [
            "[thrd:a:9092/1]: a:9092/1: Broker API support:",
            "[thrd:a:9092/1]: a:9092/1:   ApiKey TxnOffsetCommit (28) Versions 0..5",
            "[thrd:a:9092/1]: a:9092/1:   ApiKey Produce (0) Versions 3..13",
            "[thrd:b:9092/2]: b:9092/2:   ApiKey TxnOffsetCommit (28) Versions 0..3",
        ] {
            heard.take(line);
        }
        assert_eq!(heard.common(), BTreeMap::from([(28, 3)]));
    }
}
