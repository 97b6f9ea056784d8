//! Writes single records, for those who need no transaction: each is acknowledged by all replicas, and written once
//! however often it is sent again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use metrics::Counter;
use rdkafka::Statistics;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use crate::client::{self, Context};
use crate::error::{Cause, is_queue_full};
use crate::metrics as names;
use crate::record::OutRecord;
use crate::settings::Settings;

/// Why a record was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No producer could be made from the settings.
    #[error("Making a producer for {bootstrap_servers} failed: {cause}; check the settings `kafka.*`")]
    Client {
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// Too much waits to be written already. The record was not taken; to try again later is safe.
    #[error("The producer's queue is full, so a record for {topic} was refused; the brokers are too slow or away")]
    QueueFull {
        /// The record's topic.
        topic: Arc<str>,
    },
    /// The record was not acknowledged in time. It may still have been written.
    #[error("A record for {topic} was not acknowledged within {timeout:?}: {cause}; the brokers are too slow or away")]
    Unacknowledged {
        /// The record's topic.
        topic: Arc<str>,
        /// The setting `kafka.delivery_timeout`.
        timeout: Duration,
        /// What librdkafka said.
        cause: Cause,
    },
    /// The brokers do not let us write there, until somebody allows it.
    #[error(
        "{principal} lacks Write on Topic {topic}, so a record was refused: {cause}; `mailtide topics rights` lists \
         all that are needed"
    )]
    Denied {
        /// Whom the brokers know us as.
        principal: String,
        /// The record's topic.
        topic: Arc<str>,
        /// What librdkafka said.
        cause: Cause,
    },
    /// The record was refused for good.
    #[error("A record of {bytes} bytes for {topic} was refused: {cause}")]
    Refused {
        /// The record's topic.
        topic: Arc<str>,
        /// The size of key, value and headers.
        bytes: usize,
        /// What librdkafka said.
        cause: Cause,
    },
}

impl Error {
    /// Whether trying again later may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::QueueFull { .. } | Self::Unacknowledged { .. } | Self::Denied { .. })
    }
}

/// Where a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// An idempotent producer. Cloning it is cheap, and clones share one queue.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<ArcSwap<FutureProducer<Quiet>>>,
    config: ClientConfig,
    context: Quiet,
    principal: String,
    timeout: Duration,
    delivered: Counter,
    failed: Counter,
    refused: Counter,
}

/// The context of a producer that is shared between threads.
#[derive(Clone)]
struct Quiet(Arc<Context>);

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn stats(&self, told: Statistics) {
        self.0.stats(told);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.0.generate_oauth_token(config)
    }
}

impl Producer {
    /// A producer for the service `name`. It connects in the background.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub fn new(settings: &Settings, name: &str) -> Result<Self, Error> {
        let config = config(settings, name);
        let context = Quiet(Arc::new(Context::of(settings)));
        let inner = config.create_with_context(context.clone()).map_err(|error| Error::Client {
            bootstrap_servers: settings.bootstrap_servers.clone(),
            cause: error.into(),
        })?;
        let counter = |outcome: &'static str| metrics::counter!(names::PRODUCED.name, "outcome" => outcome);
        Ok(Self {
            inner: Arc::new(ArcSwap::from_pointee(inner)),
            config,
            context,
            principal: settings.security.principal(),
            timeout: settings.delivery_timeout,
            delivered: counter("delivered"),
            failed: counter("failed"),
            refused: counter("refused"),
        })
    }

    /// Writes a record and waits until all replicas have it, at most for `kafka.delivery_timeout`.
    ///
    /// Dropping the future does not take the record back.
    ///
    /// # Errors
    /// [`Error::QueueFull`] at once when too much waits already; [`Error::Unacknowledged`] when the brokers are away.
    pub async fn send(&self, record: &OutRecord) -> Result<Delivered, Error> {
        let waiting = self.enqueue(record).inspect_err(|_| {
            self.refused.increment(1);
            self.replace_if_dead();
        })?;
        let answer = match waiting.await {
            Ok(Ok(delivered)) => Ok(Delivered { partition: delivered.partition, offset: delivered.offset }),
            Ok(Err((error, _))) => Err(self.undelivered(record, error)),
            // The producer was closed with the record in its queue.
            Err(_) => Err(self.undelivered(record, KafkaError::Canceled)),
        };
        match &answer {
            Ok(_) => self.delivered.increment(1),
            Err(_) => {
                self.failed.increment(1);
                self.replace_if_dead();
            }
        }
        answer
    }

    /// Replaces a client that has lost the order of its records at a broker that came back: such an error is for good,
    /// and nothing would ever be written again. Whoever waits for a record of the old one still hears of it.
    fn replace_if_dead(&self) {
        let dead = self.inner.load_full();
        let Some((code, reason)) = dead.client().fatal_error() else { return };
        match self.config.create_with_context(self.context.clone()) {
            Ok(fresh) => {
                let now = self.inner.compare_and_swap(&dead, Arc::new(fresh));
                if Arc::ptr_eq(&now, &dead) {
                    tracing::warn!(%code, reason, "The producer's client is replaced");
                }
            }
            Err(error) => tracing::error!(%error, "No new client for the producer can be made"),
        }
    }

    fn enqueue(&self, record: &OutRecord) -> Result<rdkafka::producer::future_producer::DeliveryFuture, Error> {
        let native = FutureRecord::<'_, [u8], [u8]> {
            topic: &record.topic,
            partition: record.partition,
            payload: record.value.as_deref(),
            key: record.key.as_deref(),
            timestamp: None,
            headers: record.headers.to_native(),
        };
        let inner = self.inner.load();
        inner.send_result(native).map_err(|(error, _)| {
            let topic = record.topic.clone();
            if is_queue_full(&error) {
                Error::QueueFull { topic }
            } else if inner.client().fatal_error().is_some() {
                // Nothing is wrong with the record: the next client takes it.
                Error::Unacknowledged { topic, timeout: self.timeout, cause: error.into() }
            } else {
                Error::Refused { topic, bytes: record.size(), cause: error.into() }
            }
        })
    }

    fn undelivered(&self, record: &OutRecord, error: KafkaError) -> Error {
        let topic = record.topic.clone();
        let cause = Cause::from(error);
        if cause.is_denied() {
            Error::Denied { principal: self.principal.clone(), topic, cause }
        } else if cause.is_permanent() {
            let bytes = [&record.key, &record.value].into_iter().flatten().map(Bytes::len).sum();
            Error::Refused { topic, bytes, cause }
        } else {
            Error::Unacknowledged { topic, timeout: self.timeout, cause }
        }
    }

    /// How many records wait to be acknowledged.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.inner.load().in_flight_count()).unwrap_or_default()
    }

    /// Waits until all that was sent is acknowledged or has failed, at most for `kafka.delivery_timeout`. A producer
    /// that is dropped without this throws away what it has.
    pub async fn flush(&self) {
        let (inner, timeout) = (self.inner.load_full(), self.timeout);
        let flushed = tokio::task::spawn_blocking(move || inner.flush(Timeout::After(timeout))).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "Records were left unacknowledged at the end");
        }
    }
}

fn config(settings: &Settings, name: &str) -> ClientConfig {
    let mut config = client::base(settings, name);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("message.timeout.ms", settings.delivery_timeout.as_millis().to_string())
        // A request that hangs is given up in time for the record to be sent again.
        .set("socket.timeout.ms", settings.delivery_timeout.as_millis().to_string())
        // A caller waits for each record, but a request to the broker costs as much for one record as for many: what
        // comes within the same millisecond shares one.
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", settings.queue_records.to_string())
        .set("queue.buffering.max.kbytes", (settings.queue_bytes >> 10).to_string())
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "200");
    config
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
