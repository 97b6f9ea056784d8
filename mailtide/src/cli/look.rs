//! What an operator asks for to see how things stand.

use clap::Args;

use super::Output;
use crate::command::when::When;

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Ask whether it is alive, not whether it is ready
    #[arg(long)]
    pub(crate) live: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
        mailtide log-level                      # what is logged now\n  \
        mailtide log-level info,poller=debug    # until the process ends; log.filter is what it starts with\n  \
        MAILTIDE_ADMIN_ADDRESS=10.0.0.7:9464 mailtide log-level debug")]
pub(crate) struct LogLevel {
    /// A level, then modules with levels of their own
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Of two that say something, the environment goes over the file and both over the default. A setting \
                        that nothing knows is refused, here as by every command."
)]
pub(crate) struct Settings {
    /// Only those that somebody set
    #[arg(long)]
    pub(crate) changed: bool,
    /// Only those of a group, such as kafka or poller, or below it
    #[arg(value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Looked at are the settings of all services, the brokers and what they can do, the topics and how \
                        they are set, the schema registry, Postgres with its migrations and the token keys, Google's \
                        answers to our credentials, and the clocks. Nothing is changed, and no quota unit is spent; the \
                        token endpoint is asked with a refresh token of nobody.\n\n\
                        Exit codes: 0 nothing fails (warnings may be there), 1 something does, 2 wrong use."
)]
pub(crate) struct Doctor {
    /// Only what is not well
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "What it costs is bounded, also with a million connections: counts stop at 100,000 (shown as \
                        100000+) or are the server's estimates (~), and at most 200,000 jobs of the time are looked at. \
                        The units of the day are the poller's, as Postgres has them; what a process has left of its \
                        budgets, only that process knows: name those that call Gmail with --service.\n\n\
                        Exit code 1 when a part could not be told; the others are told all the same.")]
pub(crate) struct Status {
    /// Jobs asked for since: RFC 3339, or so long ago, such as 90m or 24h
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(crate) since: When,
    /// The admin port of a service to ask as well; may be given more than once [default: admin.address, if it answers]
    #[arg(long = "service", value_name = "HOST:PORT")]
    pub(crate) services: Vec<std::net::SocketAddr>,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
