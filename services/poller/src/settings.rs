//! The poller's settings.

use runtime::settings::Source;

/// How the poller works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Lanes in this process: threads that each own a share of the partitions.
    pub lanes: u16,
    /// The most calls to Gmail under way at a time, over all lanes.
    pub calls: u16,
    /// With more calls than this waiting for their turn, a lane takes no more commands.
    pub backlog: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lanes: 1, calls: 256, backlog: 4_096 }
    }
}

impl Settings {
    /// Reads `poller.*`.
    pub fn read(source: &mut Source) -> Self {
        let default = Self::default();
        let settings = Self {
            lanes: source.read(
                "poller.lanes",
                default.lanes,
                "Lanes in this process: threads that each own a share of the partitions",
            ),
            calls: source.read(
                "poller.calls",
                default.calls,
                "The most calls to Gmail under way at a time, over all lanes",
            ),
            backlog: source.read(
                "poller.backlog",
                default.backlog,
                "With more calls than this waiting for their turn, a lane takes no more commands",
            ),
        };
        if settings.lanes == 0 || settings.lanes > 64 {
            source.error("poller.lanes", "must be from 1 to 64");
        }
        if settings.calls == 0 {
            source.error("poller.calls", "must be at least 1");
        }
        if settings.backlog == 0 {
            source.error("poller.backlog", "must be at least 1");
        }
        settings
    }
}
