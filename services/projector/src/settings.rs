//! What can be set about the projector.

use std::time::Duration;

use runtime::settings::Source;

/// Settings of the projector.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a record waits for company before its batch is written.
    pub linger: Duration,
    /// Records in one batch at most.
    pub batch: usize,
    /// How long a projector that another was quicker than stands by before it looks again.
    pub stand_by: Duration,
    /// The broker of the topics.
    pub kafka: kafka::Settings,
    /// The database of the rows.
    pub store: store::Settings,
}

impl Settings {
    /// Reads the settings `projector.*` and those of what the service stands on.
    pub fn read(source: &mut Source) -> Self {
        let settings = Self {
            linger: source.duration(
                "projector.linger",
                Duration::from_millis(3),
                "How long a record waits for company before its batch is written",
            ),
            batch: source.read("projector.batch", 5_000, "Records in one batch at most"),
            stand_by: source.duration(
                "projector.stand_by",
                Duration::from_secs(1),
                "How long a projector that another was quicker than stands by before it looks again",
            ),
            kafka: kafka::Settings::read(source),
            store: store::Settings::read(source),
        };
        if settings.linger > Duration::from_secs(1) {
            source.error("projector.linger", "must be at most 1s: it is added to every job's latency");
        }
        if !(1..=100_000).contains(&settings.batch) {
            source.error("projector.batch", "must be from 1 to 100000");
        }
        if settings.stand_by < Duration::from_millis(50) {
            source.error("projector.stand_by", "must be at least 50ms");
        }
        settings
    }
}
