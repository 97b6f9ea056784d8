//! Logs to stderr, metrics into a recorder that the admin port renders.

mod filter;
mod line;

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{fmt as log, reload};

pub use filter::{BadFilter, LogFilter};

use crate::metric::{self, Metric};
use crate::settings::Source;

/// Upper bounds of the buckets of histograms that count things: their names end in one of these.
const COUNTED: [&str; 2] = ["_records", "_calls"];
const COUNTS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1_000.0, 5_000.0, 20_000.0, 50_000.0];

/// Upper bounds of the buckets of all other histograms, in seconds.
const SECONDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The default filter: what we have to say, and of libraries that tell of every start what they warn of.
const QUIET: &str = "info,refinery_core=warn,tokio_postgres=warn";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// One line for people, or JSON.
    pub format: Format,
    /// The directives of the filter, such as `info,poller=debug`.
    pub filter: String,
}

impl Settings {
    /// Reads `log.*`.
    pub fn read(source: &mut Source) -> Self {
        let format = source.read("log.format", Format::Text, "How log lines are written: `text` or `json`");
        let doc = "What is logged: a level, then modules with levels of their own, such as `info,poller=debug`";
        let filter = source.read("log.filter", QUIET.to_owned(), doc);
        if let Err(error) = filter::parse(&filter) {
            source.error("log.filter", format!("{error}, got `{filter}`"));
        }
        Self { format, filter }
    }
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse. [`Settings::read`] reports it earlier.
    #[error("reading log.filter: {0}")]
    Filter(#[from] BadFilter),
    /// This process logs already.
    #[error("starting the log: {0}")]
    Log(#[from] TryInitError),
    /// This process records metrics already.
    #[error("starting the metrics recorder: {0}")]
    Metrics(#[from] BuildError),
}

/// The metrics recorded in this process.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
}

impl Metrics {
    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        self.recorder.render()
    }

    /// Folds what histograms collected since the last call. Needed every few seconds, else they
    /// grow until the next scrape.
    pub fn upkeep(&self) {
        self.recorder.run_upkeep();
    }
}

/// What a process tells of itself. Clones are the same.
#[derive(Clone)]
pub struct Telemetry {
    /// What is counted.
    pub metrics: Metrics,
    /// What is logged.
    pub log: LogFilter,
}

/// Starts logging and recording, once a process.
///
/// # Errors
/// When it was started before.
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let (filter, handle) = reload::Layer::new(filter::parse(&settings.filter)?);
    let (text, json) = match settings.format {
        Format::Text => {
            let text = log::layer().with_ansi(std::io::stderr().is_terminal());
            (Some(text.with_writer(|| line::Lines(std::io::stderr()))), None)
        }
        Format::Json => (None, Some(log::layer().json().flatten_event(true).with_writer(std::io::stderr))),
    };
    tracing_subscriber::registry().with(filter).with(text).with(json).try_init()?;
    let log = LogFilter::new(&settings.filter, move |filter| handle.reload(filter));
    let mut recorder = PrometheusBuilder::new().set_buckets(&SECONDS)?;
    for ending in COUNTED {
        recorder = recorder.set_buckets_for_metric(Matcher::Suffix(ending.to_owned()), &COUNTS)?;
    }
    let recorder = recorder.install_recorder()?;
    metric::ALL.iter().for_each(Metric::describe);
    metrics::gauge!(metric::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Telemetry { metrics: Metrics { recorder }, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_a_problem_of_the_settings() {
        let mut source =
            Source::from_parts(None, [("MAILTIDE_LOG_FILTER", "poller=loud"), ("MAILTIDE_LOG_FORMAT", "x")]);
        Settings::read(&mut source);
        let problems = source.finish().unwrap_err();
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["log.filter", "log.format"]);
        assert!(problems[1].message.contains("expected text or json"), "{problems:?}");
    }
}
