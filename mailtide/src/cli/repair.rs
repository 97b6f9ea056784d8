//! What an operator asks for when something is to be read again, repaired or compared.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use domain::ConnectionId;

use super::Output;
use crate::command::dead_letters::LetterId;
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

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A dead letter is named by the partition and offset that it has on gmail.dead.letter, as `list` shows \
                        it: 3:1042. What becomes of each is in the operator's journal, gmail.operator.journal."
)]
pub(crate) enum DeadLetters {
    /// List what was put aside and nobody has seen to yet
    List {
        #[command(flatten)]
        which: Which,
        /// Also those that were sent back or discarded
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show one: where it was, why it is here, its headers, and its value, decoded where it decodes, else in hex
    Show {
        /// Which one
        #[arg(value_name = "LETTER")]
        letter: LetterId,
        #[command(flatten)]
        output: Output,
    },
    /// Send letters back to where they were read, under the same key and to the same partition, each once
    Redrive {
        #[command(flatten)]
        chosen: Chosen,
        /// Send a record whose key belongs to another partition there, not to the one that it was read from
        #[arg(long)]
        by_key: bool,
    },
    /// Mark letters as seen to, so that they are listed no more; Kafka keeps them for 30 days all the same
    Discard {
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// Which dead letters: those that fit everything that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct Which {
    /// That were read from this topic, with or without the prefix; or, of a place at Gmail, this method
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// In whose reason this text is, in whatever case
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// With this key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Of this mailbox
    #[arg(long, value_name = "ID")]
    pub(crate) connection: Option<ConnectionId>,
    /// That were put aside at this time or later: RFC 3339, or so long ago, such as 90m, 24h or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// That were put aside before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// That were read from this partition of their topic
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<i32>,
    /// That were read at this offset
    #[arg(long, value_name = "N")]
    pub(crate) offset: Option<i64>,
}

/// Letters to do something with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Chosen {
    /// These, by partition and offset; else those that the options say
    #[arg(value_name = "LETTER")]
    pub(crate) letters: Vec<LetterId>,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Only show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask first
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Records are counted where a group is close to the end, and offsets further back, marks of \
                        transactions among them. The projector stands in Postgres, not in Kafka; it is listed where \
                        Postgres is within reach. The scheduler exports the groups as mailtide_consumer_lag.")]
pub(crate) struct Lag {
    /// Only these groups, by their full names [default: every group that reads our topics]
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// Each partition for itself
    #[arg(long)]
    pub(crate) partitions: bool,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Listed is what arrived from --since on, in slices, as the audit lists it: no drafts and chats, and \
                        nothing that lies in spam or trash. What was announced as new in that time, and is not listed, \
                        is asked for by its id: a message that has been moved to spam or trash since, or that arrived \
                        at another time, is no fault.\n\n\
                        Not judged is what arrived before the mailbox was connected, after its last complete sync less \
                        a minute, or within the last minute, which Gmail's index may not know yet. An --until goes \
                        beyond the last sync.\n\n\
                        The calls spend a part of the quota that no service has (gmail.quota.tools): run one such \
                        command at a time."
)]
pub(crate) struct Verify {
    /// The mailbox
    #[arg(long, value_name = "ID")]
    pub(crate) connection: ConnectionId,
    /// From this time on: RFC 3339, or so long ago, such as 90m, 24h or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: When,
    /// Before this time [default: the last complete sync, less a minute]
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// Also look whether each message was fetched, or is kept back by the organisation's filter as it is now; what the
    /// announcement's labels do not tell is read, within --lookups
    #[arg(long)]
    pub(crate) fetched: bool,
    /// Also judge what arrived before the mailbox was connected, as where a backfill was made
    #[arg(long)]
    pub(crate) before_connection: bool,
    /// Take announced messages that Gmail has no more for deleted since, which is no fault
    #[arg(long)]
    pub(crate) allow_gone: bool,
    /// Messages to ask for by their id at most; each costs as much as reading it
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) lookups: usize,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Stop ingress, scheduler, pollers and fetchers first; the projector may go on. Kafka cannot take \
                        partitions away again. A run that was interrupted is taken up by the same command, and until it \
                        has come to its end pollers and fetchers refuse to start. Afterwards set kafka.partitions to \
                        the same number."
)]
pub(crate) struct Grow {
    /// How many partitions each of these topics is to have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) partitions: i32,
    /// Do not fetch what was announced and not fetched so far; a replay of it to gmail.message.discovered, afterwards,
    /// has it fetched. Else all of it has to be fetched first
    #[arg(long)]
    pub(crate) leave_unfetched: bool,
    /// Grow although groups of others are behind: they may read what is new of a mailbox before they have read the rest
    #[arg(long)]
    pub(crate) ignore_consumers: bool,
    /// Only show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask first
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Only for topics that hold no state: a new Kafka, or one whose topics are gone. Stop ingress, \
                        scheduler, pollers and fetchers first. A run that was interrupted is taken up by the same \
                        command, and until it has come to its end pollers refuse to start. What the lost topics announced \
                        is not known any more: mail of the owed window is announced again under its own event id.")]
pub(crate) struct Restore {
    /// How far back before its cursor each mailbox is listed: Gmail keeps spam and trash for 30 days, and mail that was
    /// kept back in them is known to the lost state only. Less announces less again
    #[arg(long = "margin", value_name = "HOURS", default_value_t = 31 * 24, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) margin_hours: u32,
    /// Only count what would be written
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask first
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
