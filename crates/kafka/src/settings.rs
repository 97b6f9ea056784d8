//! Where Kafka is and how it is spoken to.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::settings::Source;
use secrecy::SecretString;

use crate::lane::Tuning;
use crate::security::Security;

/// Settings of everything that speaks to Kafka.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Brokers to start from, `host:port` with commas between.
    pub bootstrap_servers: String,
    /// Goes before the name of every topic, group and transactional id.
    pub topic_prefix: String,
    /// Partitions of the topics keyed by connection, when we create them.
    pub partitions: i32,
    /// Replicas of the topics that we create; -1: the broker's default.
    pub replication_factor: i32,
    /// Names this process among those alive; a part of transactional ids, so it should outlive restarts.
    pub instance: String,
    /// When a record that was not acknowledged counts as failed. Short, so that a caller hears of it in time.
    pub delivery_timeout: Duration,
    /// How many records may wait in a producer; more are refused.
    pub queue_records: u32,
    /// How many bytes may wait in a producer; more are refused.
    pub queue_bytes: u64,
    /// How lanes work.
    pub lane: Tuning,
    /// Who we are to the brokers, and how connections are protected.
    pub security: Security,
    /// Properties handed to librdkafka as they are, except those that exactly-once depends on.
    pub librdkafka: BTreeMap<String, SecretString>,
}

/// Properties of librdkafka that are ours to set: another value would break what a lane promises.
pub(crate) const RESERVED: [&str; 15] = [
    "acks",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "isolation.level",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "transaction.timeout.ms",
    "transactional.id",
];

impl Settings {
    /// The defaults, for the brokers given.
    pub fn for_brokers(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            topic_prefix: String::new(),
            partitions: 12,
            replication_factor: -1,
            instance: host_name(),
            delivery_timeout: Duration::from_secs(3),
            queue_records: 100_000,
            queue_bytes: 64 << 20,
            lane: Tuning::default(),
            security: Security::default(),
            librdkafka: BTreeMap::new(),
        }
    }

    /// The same under another prefix of topics, groups and transactional ids.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.topic_prefix = prefix.into();
        self
    }

    /// Reads `kafka.*` and `lane.*`, and checks them against each other.
    pub fn read(source: &mut Source) -> Self {
        let default = Self::for_brokers("localhost:9092");
        let librdkafka = source.properties(
            "kafka.librdkafka",
            "Properties handed to librdkafka as they are, such as `ssl.cipher.suites` or `client.rack`",
        );
        let settings = Self {
            bootstrap_servers: source.read(
                "kafka.bootstrap_servers",
                default.bootstrap_servers,
                "Brokers to start from, `host:port` with commas between",
            ),
            topic_prefix: source.read(
                "kafka.topic_prefix",
                default.topic_prefix,
                "Goes before the name of every topic, group and transactional id",
            ),
            partitions: source.read(
                "kafka.partitions",
                default.partitions,
                "Partitions of the topics keyed by connection, when they are created",
            ),
            replication_factor: source.read(
                "kafka.replication_factor",
                default.replication_factor,
                "Replicas of the topics that are created; -1 for the broker's default",
            ),
            instance: source.read(
                "kafka.instance",
                default.instance,
                "Name of this process among those alive, the same after a restart; a part of transactional ids \
                 (default: the host's name)",
            ),
            delivery_timeout: source.duration(
                "kafka.delivery_timeout",
                default.delivery_timeout,
                "When a produced record that was not acknowledged counts as failed",
            ),
            queue_records: source.read(
                "kafka.queue_records",
                default.queue_records,
                "Records that may wait in a producer; more are refused",
            ),
            queue_bytes: source.size(
                "kafka.queue_bytes",
                default.queue_bytes,
                "Bytes that may wait in a producer; more are refused",
            ),
            lane: Tuning::read(source),
            security: Security::read(source, &librdkafka),
            librdkafka,
        };
        settings.check(source);
        settings
    }

    fn check(&self, source: &mut Source) {
        if self.bootstrap_servers.trim().is_empty() {
            source.error("kafka.bootstrap_servers", "must name at least one broker as `host:port`");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !self.topic_prefix.chars().all(legal) || self.topic_prefix.len() > 200 {
            let message =
                "must be at most 200 of the characters a topic's name may have: letters, digits, `.`, `_`, `-`";
            source.error("kafka.topic_prefix", message);
        }
        if !(1..=100_000).contains(&self.partitions) {
            source.error("kafka.partitions", "must be from 1 to 100000");
        }
        if self.replication_factor != -1 && !(1..=32_767).contains(&self.replication_factor) {
            source.error("kafka.replication_factor", "must be at least 1, or -1 for the broker's default");
        }
        if self.instance.trim().is_empty() {
            source.error("kafka.instance", "must not be empty");
        }
        if self.delivery_timeout < Duration::from_millis(100) {
            source.error("kafka.delivery_timeout", "must be at least 100ms, or no record could be acknowledged");
        }
        if self.queue_records == 0 || self.queue_bytes < 1 << 20 {
            source.error("kafka.queue_records", "must be at least 1, and kafka.queue_bytes at least 1MiB");
        }
        if self.queue_bytes > 2_000_000_000 {
            source.error("kafka.queue_bytes", "must be at most 2GB");
        }
        for (key, message) in self.lane.problems() {
            source.error(key, message);
        }
        for name in self.librdkafka.keys().filter(|name| RESERVED.contains(&name.as_str())) {
            let message = "is set by Mailtide and cannot be changed: what is promised depends on it";
            source.error(&format!("kafka.librdkafka.{name}"), message);
        }
    }
}

/// The host's name, or `local` where it cannot be told.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "local".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{RESERVED, Settings, Source};

    fn problems(environment: &[(&str, &str)]) -> Vec<String> {
        let mut source = Source::from_parts(None, environment.iter().copied());
        Settings::read(&mut source);
        source.finish().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(problems(&[]), Vec::<String>::new());
    }

    #[test]
    fn what_exactly_once_depends_on_cannot_be_passed_through() {
        for name in RESERVED {
            let variable = format!("MAILTIDE_KAFKA_LIBRDKAFKA_{}", name.to_uppercase().replace('.', "_"));
            let problems = problems(&[(&variable, "x")]);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("kafka.librdkafka.{name}")), "{problems:?}");
        }
    }

    #[test]
    fn time_outs_that_contradict_each_other_are_named() {
        let problems = problems(&[("MAILTIDE_LANE_MAX_POLL_INTERVAL", "10s"), ("MAILTIDE_KAFKA_PARTITIONS", "0")]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("kafka.partitions"), "{problems:?}");
        assert!(problems[1].starts_with("lane.max_poll_interval"), "{problems:?}");
    }
}
