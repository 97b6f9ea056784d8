//! The topics: their names, their settings, and how they come to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::client::{self, Context};
use crate::error::Cause;
use crate::oauth;
use crate::settings::Settings;

mod grow;

pub use grow::{counts, grow};

/// How long creating or looking up topics may take, brokers included.
const DEADLINE: Duration = Duration::from_secs(30);

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A topic of Mailtide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Commands, by connection.
    Poll,
    /// The poller's own state, by connection; compacted.
    State,
    /// New messages, by connection.
    Discovered,
    /// What the messages are, by connection.
    Fetched,
    /// How far the fetcher is, by connection; compacted.
    FetchState,
    /// Jobs, by job.
    JobStatus,
    /// Connections, by connection; compacted.
    ConnectionStatus,
    /// What could not be worked on, keyed as in its source.
    DeadLetter,
    /// What operators had done: how far replays are, what became of dead letters; compacted.
    Journal,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 9] = [
        Self::Poll,
        Self::State,
        Self::Discovered,
        Self::Fetched,
        Self::FetchState,
        Self::JobStatus,
        Self::ConnectionStatus,
        Self::DeadLetter,
        Self::Journal,
    ];

    /// The topics that a connection's key sends to the same partition in each: they must have as many partitions.
    pub const CO_PARTITIONED: [Self; 6] =
        [Self::Poll, Self::State, Self::Discovered, Self::Fetched, Self::FetchState, Self::ConnectionStatus];

    /// The name without a prefix.
    pub const fn base_name(self) -> &'static str {
        match self {
            Self::Poll => "gmail.connection.poll",
            Self::State => "gmail.connection.state",
            Self::Discovered => "gmail.message.discovered",
            Self::Fetched => "gmail.message.fetched",
            Self::FetchState => "gmail.fetch.state",
            Self::JobStatus => "gmail.job.status",
            Self::ConnectionStatus => "gmail.connection.status",
            Self::DeadLetter => "gmail.dead.letter",
            Self::Journal => "gmail.operator.journal",
        }
    }

    /// The topic of this name without a prefix.
    pub fn from_base_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.base_name() == name)
    }

    /// The topic's settings, where they differ from a broker's defaults.
    pub fn config(self) -> Vec<(&'static str, String)> {
        let retained =
            |days: i64| vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", (days * DAY).to_string())];
        match self {
            Self::Poll => retained(7),
            // Replays reach back as far as this.
            Self::Discovered | Self::Fetched => retained(365),
            Self::JobStatus | Self::DeadLetter => retained(30),
            Self::ConnectionStatus | Self::Journal => vec![("cleanup.policy", "compact".to_owned())],
            // Small segments that close soon and are cleaned early: restoring reads the whole partition, and all of
            // it that compaction has not reached is read for nothing.
            Self::State | Self::FetchState => vec![
                ("cleanup.policy", "compact".to_owned()),
                ("segment.bytes", (64 << 20).to_string()),
                ("segment.ms", HOUR.to_string()),
                ("min.cleanable.dirty.ratio", "0.1".to_owned()),
                ("max.compaction.lag.ms", (2 * HOUR).to_string()),
            ],
        }
    }
}

/// The topics' full names, prefix included.
#[derive(Debug, Clone)]
pub struct Topics {
    names: BTreeMap<Topic, Arc<str>>,
}

impl Topics {
    /// The names under this prefix.
    pub fn new(prefix: &str) -> Self {
        let name = |topic: Topic| (topic, format!("{prefix}{}", topic.base_name()).into());
        Self { names: Topic::ALL.into_iter().map(name).collect() }
    }

    /// A topic's full name.
    pub fn name(&self, topic: Topic) -> &Arc<str> {
        self.names.get(&topic).expect("every topic is named at construction")
    }
}

/// Why topics are not as they should be.
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
    /// The brokers did not do as they were asked.
    #[error("{action} at {bootstrap_servers} failed: {cause}; check that the brokers can be reached and allow it")]
    Request {
        /// What was asked.
        action: &'static str,
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// The topic is not there, or we may not even see it, and we may not make it.
    #[error(
        "{principal} lacks Create on Topic {topic}, which is missing or hidden from it; have it made by whoever may, \
         with `mailtide topics create`"
    )]
    Denied {
        /// Whom the brokers know us as.
        principal: String,
        /// The full name.
        topic: Arc<str>,
    },
    /// The brokers refused to create a topic.
    #[error("Creating the topic {topic} was refused: {reason}")]
    Refused {
        /// The full name.
        topic: Arc<str>,
        /// The broker's reason.
        reason: String,
    },
    /// The brokers refused to add partitions to a topic.
    #[error("Adding partitions to the topic {topic} was refused: {reason}; the right to ALTER it is needed")]
    Ungrown {
        /// The full name.
        topic: Arc<str>,
        /// The broker's reason.
        reason: String,
    },
    /// Topics are missing, or not ready in time.
    #[error("These topics are missing or have no leader: {}; create them with `mailtide topics create`", .0.join(", "))]
    Missing(Vec<String>),
    /// Two topics that must agree do not.
    #[error(
        "The topic {left} has {left_partitions} partitions and {right} has {right_partitions}, but they must have \
         equally many: a connection's key has to lead to the same partition of both; if `mailtide topics grow` was \
         interrupted, run it again"
    )]
    CoPartitioning {
        /// A topic's full name.
        left: Arc<str>,
        /// Its partitions.
        left_partitions: i32,
        /// Another's.
        right: Arc<str>,
        /// Its partitions.
        right_partitions: i32,
    },
}

/// Creates those of `topics` that are missing and waits until the brokers show them all. Creators may run at once.
///
/// # Errors
/// When a broker cannot be reached, refuses, or the topics are not ready within 30 s.
pub async fn create(settings: &Settings, topics: &Topics, which: &[Topic]) -> Result<(), Error> {
    let admin = Arc::new(admin(settings)?);
    let shown = look_up(&admin, settings, topics, which).await?;
    let missing: Vec<Topic> = which.iter().copied().filter(|topic| !shown.contains_key(topic)).collect();
    if !missing.is_empty() {
        let configs: Vec<_> = missing.iter().map(|topic| (*topic, topic.config())).collect();
        let specs: Vec<NewTopic<'_>> = configs
            .iter()
            .map(|(topic, config)| {
                let replication = TopicReplication::Fixed(settings.replication_factor);
                let spec = NewTopic::new(topics.name(*topic), settings.partitions, replication);
                config.iter().fold(spec, |spec, (key, value)| spec.set(key, value))
            })
            .collect();
        request(&admin, settings, &specs).await?;
    }
    wait_until_shown(&admin, settings, topics, which).await
}

/// Whether Kafka takes `name` as the name of a topic.
pub fn is_legal(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".."
}

/// How long what is in a topic made for one consumer is kept: as long as dead letters are.
const OWN_RETENTION: i64 = 30 * DAY;

/// Creates a topic that is none of Mailtide's, for a consumer to be given events again on, with as many partitions as
/// `partitions`; what is in it is kept for 30 days. One that is there is left as it is.
///
/// # Errors
/// When a broker cannot be reached or refuses, or the topic is not there within 30 s.
pub async fn create_own(settings: &Settings, name: &str, partitions: i32) -> Result<(), Error> {
    let admin = Arc::new(admin(settings)?);
    let retention = OWN_RETENTION.to_string();
    let spec = NewTopic::new(name, partitions, TopicReplication::Fixed(settings.replication_factor))
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention);
    request(&admin, settings, [&spec]).await?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let shown = metadata(&admin, settings).await?;
        let has_leaders = |shown: &MetadataTopic| {
            !shown.partitions().is_empty() && shown.partitions().iter().all(|partition| partition.leader() >= 0)
        };
        if shown.topics().iter().any(|topic| topic.name() == name && topic.error().is_none() && has_leaders(topic)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Missing(vec![name.to_owned()]));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for topics to be created. Those that are there already are no error.
async fn request<'a>(
    admin: &AdminClient<Context>,
    settings: &Settings,
    specs: impl IntoIterator<Item = &'a NewTopic<'a>>,
) -> Result<(), Error> {
    let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
    let answers = admin.create_topics(specs, &options).await.map_err(|error| Error::Request {
        action: "Creating topics",
        bootstrap_servers: settings.bootstrap_servers.clone(),
        cause: error.into(),
    })?;
    for answer in answers {
        match answer {
            // Somebody else was quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {
                return Err(Error::Denied { principal: settings.security.principal(), topic: topic.into() });
            }
            Err((topic, code)) => {
                return Err(Error::Refused { topic: topic.into(), reason: code.to_string() });
            }
        }
    }
    Ok(())
}

/// Checks that `which` topics are there and that those of them that are co-partitioned have equally many partitions.
///
/// # Errors
/// When they are not, or a broker cannot be reached.
pub async fn check(settings: &Settings, topics: &Topics, which: &[Topic]) -> Result<(), Error> {
    let admin = Arc::new(admin(settings)?);
    let shown = look_up(&admin, settings, topics, which).await?;
    let missing: Vec<String> =
        which.iter().filter(|topic| !shown.contains_key(topic)).map(|topic| topics.name(*topic).to_string()).collect();
    if !missing.is_empty() {
        return Err(Error::Missing(missing));
    }
    let mut counted = Topic::CO_PARTITIONED.iter().filter_map(|topic| shown.get(topic).map(|count| (*topic, *count)));
    let Some((left, left_partitions)) = counted.next() else { return Ok(()) };
    match counted.find(|(_, count)| *count != left_partitions) {
        None => Ok(()),
        Some((right, right_partitions)) => Err(Error::CoPartitioning {
            left: topics.name(left).clone(),
            left_partitions,
            right: topics.name(right).clone(),
            right_partitions,
        }),
    }
}

async fn wait_until_shown(
    admin: &Arc<AdminClient<Context>>,
    settings: &Settings,
    topics: &Topics,
    which: &[Topic],
) -> Result<(), Error> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let shown = look_up(admin, settings, topics, which).await?;
        let missing: Vec<String> = which
            .iter()
            .filter(|topic| !shown.contains_key(topic))
            .map(|topic| topics.name(*topic).to_string())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Missing(missing));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The partition counts of those of `which` topics that exist and whose partitions all have a leader.
async fn look_up(
    admin: &Arc<AdminClient<Context>>,
    settings: &Settings,
    topics: &Topics,
    which: &[Topic],
) -> Result<BTreeMap<Topic, i32>, Error> {
    let metadata = metadata(admin, settings).await?;
    let wanted: BTreeMap<&str, Topic> = which.iter().map(|topic| (topics.name(*topic).as_ref(), *topic)).collect();
    Ok(metadata
        .topics()
        .iter()
        .filter(|shown| shown.error().is_none() && !shown.partitions().is_empty())
        .filter(|shown| shown.partitions().iter().all(|partition| partition.leader() >= 0))
        .filter_map(|shown| {
            let count = i32::try_from(shown.partitions().len()).expect("a partition's number is an i32");
            wanted.get(shown.name()).map(|topic| (*topic, count))
        })
        .collect())
}

async fn metadata(admin: &Arc<AdminClient<Context>>, settings: &Settings) -> Result<Metadata, Error> {
    let admin = admin.clone();
    let bootstrap_servers = settings.bootstrap_servers.clone();
    tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, DEADLINE))
        .await
        .expect("fetching metadata does not panic")
        .map_err(|error| Error::Request { action: "Looking up topics", bootstrap_servers, cause: error.into() })
}

fn admin(settings: &Settings) -> Result<AdminClient<Context>, Error> {
    let config: ClientConfig = client::base(settings, "admin");
    config
        .create_with_context(Context::of(settings))
        .inspect(|admin: &AdminClient<Context>| oauth::authorise(settings, admin.inner()))
        .map_err(|error| Error::Client { bootstrap_servers: settings.bootstrap_servers.clone(), cause: error.into() })
}
