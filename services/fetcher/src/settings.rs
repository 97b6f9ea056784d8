//! The fetcher's settings.

use std::time::Duration;

use runtime::settings::Source;

use crate::ledger::Bounds;
use crate::mailboxes::PATIENCE;

/// How the fetcher works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Lanes in this process: threads that each own a share of the partitions.
    pub lanes: u16,
    /// The most mailboxes read at a time, over all lanes.
    pub mailboxes: u16,
    /// Announcements of one mailbox that are held in memory; the others wait in the log.
    pub held_mailbox: usize,
    /// Announcements of one partition that are held in memory.
    pub held_partition: usize,
    /// How many offsets a mailbox may lag before the committed offset stops waiting for it: what is read again after a
    /// crash.
    pub window: u32,
    /// How long a message is tried that Gmail does not answer for while it answers for others, before it is put aside.
    pub give_up: Duration,
    /// The most partitions at a time of which the log is read again for mailboxes that lag.
    pub passes: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: 1,
            mailboxes: 256,
            held_mailbox: 500,
            held_partition: 4_000,
            window: 20_000,
            give_up: PATIENCE,
            passes: 4,
        }
    }
}

impl Settings {
    /// Reads `fetcher.*`.
    pub fn read(source: &mut Source) -> Self {
        let default = Self::default();
        let settings = Self {
            lanes: source.read(
                "fetcher.lanes",
                default.lanes,
                "Lanes in this process: threads that each own a share of the partitions",
            ),
            mailboxes: source.read(
                "fetcher.mailboxes",
                default.mailboxes,
                "The most mailboxes whose messages are read at a time, over all lanes",
            ),
            held_mailbox: source.read(
                "fetcher.held_mailbox",
                default.held_mailbox,
                "Announcements of one mailbox that are held in memory; the others wait in the log",
            ),
            held_partition: source.read(
                "fetcher.held_partition",
                default.held_partition,
                "Announcements of one partition that are held in memory",
            ),
            window: source.read(
                "fetcher.window",
                default.window,
                "Offsets that a mailbox may lag before the committed offset stops waiting for it",
            ),
            give_up: source.duration(
                "fetcher.give_up",
                default.give_up,
                "How long a message is tried that Gmail does not answer for while it answers for others; then it goes to \
                 the dead letters",
            ),
            passes: source.read(
                "fetcher.passes",
                default.passes,
                "The most partitions at a time whose log is read again for mailboxes that lag",
            ),
        };
        if settings.lanes == 0 || settings.lanes > 64 {
            source.error("fetcher.lanes", "must be from 1 to 64");
        }
        for (key, value) in [
            ("fetcher.mailboxes", usize::from(settings.mailboxes)),
            ("fetcher.held_mailbox", settings.held_mailbox),
            ("fetcher.window", usize::try_from(settings.window).unwrap_or(usize::MAX)),
            ("fetcher.passes", usize::from(settings.passes)),
        ] {
            if value == 0 {
                source.error(key, "must be at least 1");
            }
        }
        if settings.held_partition < settings.held_mailbox.max(16) {
            source.error("fetcher.held_partition", "must be at least 16, and at least fetcher.held_mailbox");
        }
        settings
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { key: self.held_mailbox, all: self.held_partition, window: self.window.into() }
    }
}
