//! What a metric is: its name, kind, labels and meaning in one place, from which services describe it to Prometheus and
//! `docs/metrics.md` is written.
//!
//! Label values come from small closed sets (a topic, a partition, an outcome): never an id of a
//! mailbox, a job or a message, so that the number of series does not grow with the customers.

use std::fmt;

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name that Prometheus sees.
    pub name: &'static str,
    /// What kind of series it is.
    pub kind: Kind,
    /// What it counts, in a sentence without a period; units are named by the name's ending.
    pub help: &'static str,
    /// The labels it may bear.
    pub labels: &'static [&'static str],
}

/// A kind of metric, as Prometheus has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for a restart.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Observations by size.
    Histogram,
}

impl Kind {
    /// The word in the exposition's `# TYPE` line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Metric {
    /// A counter; its name ends in `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help, labels }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help, labels }
    }

    /// A histogram; of seconds where its name ends in `_seconds`.
    #[must_use]
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help, labels }
    }

    /// Tells the recorder in force what it means. To do it again changes nothing.
    pub fn describe(&self) {
        match self.kind {
            Kind::Counter => metrics::describe_counter!(self.name, self.help),
            Kind::Gauge => metrics::describe_gauge!(self.name, self.help),
            Kind::Histogram => metrics::describe_histogram!(self.name, self.help),
        }
    }
}

/// Which version runs.
pub const BUILD_INFO: Metric = Metric::gauge("mailtide_build_info", &["version"], "Always 1: the version that runs");
/// Whether a readiness check passes.
pub const READY: Metric =
    Metric::gauge("mailtide_ready", &["check"], "1 while the readiness check passes, 0 while it does not");

/// Spans that ended and were to be told.
pub(crate) const TRACE_SPANS: Metric = Metric::counter(
    "mailtide_trace_spans_total",
    &["outcome"],
    "Recorded spans that ended: `delivered` to the collector, `failed` on the way, or `dropped` because too many waited",
);

/// The metrics of every process.
pub const ALL: &[Metric] = &[BUILD_INFO, READY, TRACE_SPANS];
