//! What an operator asks for when something is to be read again, repaired or compared.

use clap::{ArgGroup, Args, ValueEnum};
use domain::ConnectionId;

use super::Output;
use crate::command::when::When;

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// gmail.message.discovered: that there is a message
    Discovered,
    /// gmail.message.fetched: what the message is
    Fetched,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("whose").required(true).args(["connection", "all", "group"]),
    group = ArgGroup::new("where").required(true).args(["to", "group"]),
    after_help = "Events are read from Kafka alone: a replay makes no call to Gmail and costs no quota units.\n\n\
        With --to, each event that is still kept, and was discovered (or fetched) from --since on and before --until, is \
        written to TOPIC under the same key and the same eventId, marked `origin: replay`. What is sent and how far the \
        replay is are committed together. Stopped, killed or cut off, it is taken up by the same command, and nothing is \
        twice in TOPIC. A replay that has finished is not done again but with --again. What is itself a replay is left \
        out, so that replays do not multiply.\n\n\
        With --group, nothing is written: the group's consumers go on from the first record that was written at --since \
        or later. They must be stopped.\n\n\
        Examples:\n  \
        mailtide replay --connection 0a9f3b1c-… --since 7d --to ap.again --dry-run\n  \
        mailtide replay --all --from fetched --since 2026-11-01T00:00:00Z --until 2026-11-02T00:00:00Z --to ap.again\n  \
        mailtide replay --group ap-consumer --since 24h --yes"
)]
pub(crate) struct Replay {
    /// Only this mailbox's events
    #[arg(long, value_name = "ID", conflicts_with = "group")]
    pub(crate) connection: Option<ConnectionId>,
    /// Every mailbox's
    #[arg(long, conflicts_with = "group")]
    pub(crate) all: bool,
    /// Which events [default: discovered; with --group: both, where the group reads them]
    #[arg(long, value_name = "EVENTS")]
    pub(crate) from: Option<From>,
    /// From this time on: RFC 3339, or so long ago, such as 90m, 24h or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: When,
    /// Before this time [default: when the replay is first begun]
    #[arg(long, value_name = "TIME", conflicts_with = "group")]
    pub(crate) until: Option<When>,
    /// Where to, by its full name; made if it is missing. The events' own topic gives them to all its consumers again,
    /// and discovered ones to the fetcher, which reads each message once more, for units
    #[arg(long, value_name = "TOPIC")]
    pub(crate) to: Option<String>,
    /// Move this consumer group, by its full name, instead of writing anything
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Only count what would be sent, or show where the group would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask first
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do a replay that has finished once more
    #[arg(long, conflicts_with = "group")]
    pub(crate) again: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
