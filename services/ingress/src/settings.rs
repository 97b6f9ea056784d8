//! What can be set about the REST surface.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderName;
use runtime::settings::Source;
use url::Url;

use crate::push;

/// Settings of the REST service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the API listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The header that carries the API key.
    pub api_key_header: HeaderName,
    /// How the API is reached from outside; where it listens when none. Google sends browsers back here.
    pub public_url: Option<Url>,
    /// How long a job may take before it fails, counted from the request.
    pub job_deadline: Duration,
    /// How long a backfill may take before it fails, counted from the request.
    pub backfill_deadline: Duration,
    /// How long a request may take in all before it is answered 503.
    pub request_timeout: Duration,
    /// How long a client may take to send the head of a request; an idle connection is closed after it.
    pub header_timeout: Duration,
    /// How long API keys and connections are remembered before Postgres is asked again: a key revoked stops within it.
    pub cache_ttl: Duration,
    /// How much longer they are remembered while Postgres is away: syncs of known keys and connections go on for it.
    pub outage_grace: Duration,
    /// `queued` rows that are kept while Postgres is away; without room for its row a sync is answered 503.
    pub outage_rows: usize,
    /// API keys and connections remembered at most, each.
    pub cache_entries: u64,
    /// Requests a second that an API key may make over time, counted by each instance for itself.
    pub rate_limit: u32,
    /// Requests that an API key may make at once.
    pub rate_burst: u32,
    /// Consents that an organisation may have asked for and not been given yet; more are answered 429.
    pub open_consents: u32,
    /// Streams of events open at once; more are answered 503.
    pub streams: usize,
    /// Streams of events that one API key may have open at once.
    pub streams_per_key: usize,
    /// Between two signs of life of a stream.
    pub stream_heartbeat: Duration,
    /// How long a stream goes on; its client connects again.
    pub stream_age: Duration,
    /// Attachments read from Gmail at once; more are answered 503.
    pub downloads: usize,
    /// How long an attachment may take to begin, waiting for its quota included.
    pub download_patience: Duration,
    /// How long an attachment may take from its first byte to its last.
    pub download_age: Duration,
    /// Connections open at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests worked on at once; more are answered 503.
    pub max_in_flight: usize,
    /// How long connections are still taken after shutdown was asked for, when it is not ready any more.
    pub shutdown_delay: Duration,
    /// How long requests under way may go on after that.
    pub drain_timeout: Duration,
    /// `POST /push/gmail`.
    pub push: push::Settings,
    /// How often the scheduler syncs a connection that says nothing of it, to tell when it is due.
    pub sync_interval: Duration,
    /// Google, for consents. Boxed, because these settings are moved through futures.
    pub gmail: Box<gmail::Settings>,
}

impl Settings {
    /// Reads `ingress.*`.
    pub fn read(source: &mut Source) -> Self {
        let settings = Self {
            listen: source.read(
                "ingress.listen",
                SocketAddr::from(([127, 0, 0, 1], 8080)),
                "Where the REST API listens; port 0 takes a free one",
            ),
            api_key_header: source.read(
                "ingress.api_key_header",
                HeaderName::from_static("x-dolfin-api-key"),
                "The header that carries the API key",
            ),
            public_url: source.read_opt(
                "ingress.public_url",
                "How the API is reached from outside, for Google to send browsers back to; else where it listens",
            ),
            job_deadline: source.duration(
                "ingress.job_deadline",
                Duration::from_secs(3600),
                "How long a job may take, from the request on, before it fails",
            ),
            backfill_deadline: source.duration(
                "ingress.backfill_deadline",
                Duration::from_secs(24 * 3600),
                "How long a backfill may take, from the request on, before it fails",
            ),
            request_timeout: source.duration(
                "ingress.request_timeout",
                Duration::from_millis(4500),
                "How long a request may take in all before it is answered 503",
            ),
            header_timeout: source.duration(
                "ingress.header_timeout",
                Duration::from_secs(30),
                "How long a client may take to send a request's head; an idle connection is closed after it",
            ),
            cache_ttl: source.duration(
                "ingress.cache_ttl",
                Duration::from_secs(3),
                "How long API keys and connections are remembered; a revoked key stops within it",
            ),
            outage_grace: source.duration(
                "ingress.outage_grace",
                Duration::from_secs(60),
                "How much longer they are remembered while Postgres is away, so that syncs go on; 0s for not at all",
            ),
            outage_rows: source.read(
                "ingress.outage_rows",
                10_000,
                "Rows of accepted jobs that are kept while Postgres is away; beyond it syncs are answered 503",
            ),
            cache_entries: source.read(
                "ingress.cache_entries",
                100_000,
                "API keys, and likewise connections, remembered at most",
            ),
            rate_limit: source.read(
                "ingress.rate_limit",
                200,
                "Requests a second that each instance takes from one API key over time; more are answered 429",
            ),
            rate_burst: source.read("ingress.rate_burst", 1000, "Requests that an API key may make at once"),
            open_consents: source.read(
                "ingress.open_consents",
                1000,
                "Consents that an organisation may have open at once, each for ten minutes; more are answered 429",
            ),
            streams: source.read(
                "ingress.streams",
                1000,
                "Streams of a job's events open at once; more are answered 503",
            ),
            streams_per_key: source.read(
                "ingress.streams_per_key",
                100,
                "Streams of a job's events that one API key may have open at once; more are answered 429",
            ),
            stream_heartbeat: source.duration(
                "ingress.stream_heartbeat",
                Duration::from_secs(15),
                "Between two signs of life in a stream of events",
            ),
            stream_age: source.duration(
                "ingress.stream_age",
                Duration::from_secs(900),
                "How long a stream of events goes on before its client has to connect again",
            ),
            downloads: source.read(
                "ingress.downloads",
                32,
                "Attachments that are read from Gmail at once; more are answered 503",
            ),
            download_patience: source.duration(
                "ingress.download_patience",
                Duration::from_secs(20),
                "How long an attachment may take to begin, the wait for its quota included, before it is answered 503",
            ),
            download_age: source.duration(
                "ingress.download_age",
                Duration::from_secs(300),
                "How long an attachment may take, from its first byte to its last, before it is cut off",
            ),
            max_connections: source.read(
                "ingress.max_connections",
                8192,
                "HTTP connections open at once; more wait in the kernel's queue",
            ),
            max_in_flight: source.read(
                "ingress.max_in_flight",
                1024,
                "Requests worked on at once; more are answered 503 at once, so that those that are taken stay quick",
            ),
            shutdown_delay: source.duration(
                "ingress.shutdown_delay",
                Duration::from_secs(2),
                "How long connections are still taken after shutdown was asked for: not ready any more, until load balancers \
                 have seen it",
            ),
            drain_timeout: source.duration(
                "ingress.drain_timeout",
                Duration::from_secs(6),
                "How long requests under way may go on after that",
            ),
            push: push::Settings::read(source),
            // The scheduler's own: what it says there counts here.
            sync_interval: source.duration(
                "scheduler.interval",
                Duration::from_secs(12 * 3600),
                "How often each connection is synced without being asked; the same for all schedulers",
            ),
            gmail: Box::new(gmail::Settings::read(source)),
        };
        settings.check(source);
        settings
    }

    /// The relations between settings that the promises of the API rest on.
    fn check(&self, source: &mut Source) {
        if self.request_timeout > Duration::from_secs(5) {
            source.error("ingress.request_timeout", "must be at most 5s: no request may hang longer");
        }
        if self.cache_ttl > Duration::from_secs(4) {
            source.error("ingress.cache_ttl", "must be at most 4s: a revoked key has to stop within 5s");
        }
        if self.outage_grace > Duration::from_secs(600) {
            source.error("ingress.outage_grace", "must be at most 10m: a key revoked meanwhile may go on for as long");
        }
        if self.outage_rows > 1_000_000 {
            source.error("ingress.outage_rows", "must be at most 1000000");
        }
        if self.header_timeout < Duration::from_millis(10) {
            source.error("ingress.header_timeout", "must be at least 10ms");
        }
        for (key, value) in
            [("ingress.stream_heartbeat", self.stream_heartbeat), ("ingress.stream_age", self.stream_age)]
        {
            if value < Duration::from_millis(10) {
                source.error(key, "must be at least 10ms");
            }
        }
        for (key, value) in [
            ("ingress.job_deadline", self.job_deadline),
            ("ingress.backfill_deadline", self.backfill_deadline),
            ("ingress.download_patience", self.download_patience),
            ("ingress.download_age", self.download_age),
        ] {
            if value < Duration::from_secs(1) {
                source.error(key, "must be at least 1s");
            }
        }
        if let Some(url) = &self.public_url
            && !(matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none())
        {
            source.error("ingress.public_url", "must be an http or https URL without a query");
        }
        for (key, value) in [
            ("ingress.rate_limit", self.rate_limit),
            ("ingress.rate_burst", self.rate_burst),
            ("ingress.open_consents", self.open_consents),
        ] {
            if !(1..=100_000_000).contains(&value) {
                source.error(key, "must be from 1 to 100000000");
            }
        }
        for (key, value) in [
            ("ingress.max_connections", self.max_connections),
            ("ingress.max_in_flight", self.max_in_flight),
            ("ingress.streams", self.streams),
            ("ingress.streams_per_key", self.streams_per_key),
            ("ingress.downloads", self.downloads),
        ] {
            if !(1..=1_000_000).contains(&value) {
                source.error(key, "must be from 1 to 1000000");
            }
        }
    }
}
