//! What is logged, to be changed while the process runs.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload;

type Apply = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// What is logged. Clones are the same.
#[derive(Clone)]
pub struct LogFilter {
    current: Arc<Mutex<String>>,
    apply: Arc<Apply>,
}

/// Why a filter cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// It says nothing; `off` is silence.
    #[error(
        "expected a level (error, warn, info, debug, trace or off), or modules with levels, such as info,poller=debug"
    )]
    Empty,
    /// It does not parse.
    #[error(transparent)]
    Unreadable(#[from] ParseError),
    /// The log is gone.
    #[error("changing the filter of the log: {0}")]
    Gone(#[from] reload::Error),
}

/// Reads a filter's directives, such as `info,poller=debug`.
///
/// # Errors
/// When they are none.
pub(super) fn parse(directives: &str) -> Result<EnvFilter, BadFilter> {
    if directives.trim().is_empty() {
        return Err(BadFilter::Empty);
    }
    Ok(EnvFilter::builder().parse(directives)?)
}

impl LogFilter {
    /// A filter in force, which `apply` changes.
    pub(super) fn new(
        current: &str,
        apply: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { current: Arc::new(Mutex::new(current.to_owned())), apply: Arc::new(apply) }
    }

    /// Its directives.
    #[must_use]
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in its place, until the process ends, and gives back what was in force before.
    ///
    /// # Errors
    /// When the directives are none; then nothing has changed.
    pub fn set(&self, directives: &str) -> Result<String, BadFilter> {
        let filter = parse(directives)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, directives.to_owned());
        let say = || tracing::warn!(before, filter = directives, "The log's filter is changed");
        // Under the old filter or, where that lets nothing through, under the new one.
        let is_heard = tracing::enabled!(Level::WARN);
        if is_heard {
            say();
        }
        if let Err(error) = (self.apply)(filter) {
            *current = before;
            return Err(error.into());
        }
        // Libraries that log by other means ask here first.
        log::set_max_level(most());
        if !is_heard {
            say();
        }
        Ok(before)
    }
}

/// The lowest level that anything is logged at now.
fn most() -> log::LevelFilter {
    match LevelFilter::current().into_level() {
        None => log::LevelFilter::Off,
        Some(Level::ERROR) => log::LevelFilter::Error,
        Some(Level::WARN) => log::LevelFilter::Warn,
        Some(Level::INFO) => log::LevelFilter::Info,
        Some(Level::DEBUG) => log::LevelFilter::Debug,
        Some(Level::TRACE) => log::LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_changes_nothing() {
        let applied = Arc::new(Mutex::new(0));
        let count = applied.clone();
        let filter = LogFilter::new("info", move |_| {
            *count.lock().unwrap() += 1;
            Ok(())
        });
        for bad in ["", " ", "poller=loud", "=,="] {
            assert!(filter.set(bad).is_err(), "{bad}");
        }
        assert_eq!((filter.current().as_str(), *applied.lock().unwrap()), ("info", 0));
        assert_eq!(filter.set("warn,poller=debug").unwrap(), "info");
        assert_eq!((filter.current().as_str(), *applied.lock().unwrap()), ("warn,poller=debug", 1));
    }
}
