//! How clients of librdkafka are set up, and where what they say goes.

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, Statistics};
use secrecy::ExposeSecret;
use tracing::{debug, error, info, warn};

use crate::oauth::{self, Tokens};
use crate::settings::Settings;
use crate::statistics;

/// What all clients share.
///
/// The pass-through properties come first and ours over them. librdkafka takes a consumer's property on a producer
/// with a mere warning, so one set of properties serves both.
pub(crate) fn base(settings: &Settings, name: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("statistics.interval.ms", statistics::INTERVAL_MS);
    for (name, value) in &settings.librdkafka {
        config.set(name, value.expose_secret());
    }
    settings.security.apply(&mut config);
    config
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("client.id", format!("mailtide-{name}-{}", settings.instance))
        // Connections that idle in a small installation would else be found dead by the next record.
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        // Brokers come back within seconds; the default waits up to 10 s before it looks again.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// A consumer that reads committed records only, of partitions that it is given.
pub(crate) fn committed_reads(settings: &Settings, name: &str) -> ClientConfig {
    let mut config = base(settings, name);
    config
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Offsets are always given; a log that no longer has one is read from its start and told of.
        .set("auto.offset.reset", "earliest")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.queue.backoff.ms", "5");
    config
}

/// Sends what librdkafka logs to `tracing`. Its errors come as logs, too, so [`Context::error`] only adds to debugging.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // A property meant for the other kind of client: they share what is passed through.
        _ if facility == "CONFWARN" => debug!(facility, message, "Kafka client"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            error!(facility, message, "Kafka client");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => warn!(facility, message, "Kafka client"),
        RDKafkaLogLevel::Notice => info!(facility, message, "Kafka client"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(facility, message, "Kafka client"),
    }
}

/// The context of clients that need no callback of their own.
pub(crate) struct Context {
    tokens: Option<Tokens>,
}

impl Context {
    /// For a client of these settings.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self { tokens: settings.security.tokens.clone() }
    }

    /// What gives tokens; none where the brokers take none.
    pub(crate) const fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats(&self, told: Statistics) {
        statistics::record(&told);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "Kafka client error");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::answer(self.tokens())
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    /// A record that fails puts the transaction into an error that the next call tells; this says which it was.
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            debug!(%error, topic = message.topic(), partition = message.partition(), "A record was not delivered");
        }
    }
}
