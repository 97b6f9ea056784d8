//! The command line: what can be asked for, and its help.

pub(crate) mod look;
pub(crate) mod repair;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use domain::filter::Pattern;
use domain::{ConnectionId, OrganisationId};
use store::keys::Scope;

pub(crate) use look::{Doctor, Health, LogLevel, Settings, Status};
pub(crate) use repair::{DeadLetters, Grow, Lag, Replay, Restore, Verify};

/// Turns Gmail mailboxes into an exactly-once stream on Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "mailtide",
    version,
    max_term_width = 110,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong use (arguments or settings).\n\
                  Settings come from defaults, then the file, then the environment: `poller.lanes` is MAILTIDE_POLLER_LANES."
)]
pub(crate) struct Cli {
    /// The settings file (TOML)
    #[arg(long, global = true, value_name = "FILE", env = runtime::settings::CONFIG_VARIABLE)]
    pub(crate) config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every service in one process, against the Kafka and Postgres in the settings or local ones started for it
    Dev(Dev),
    /// Show the pipeline at work: Kafka, Postgres, a simulated Gmail and every service, with mail going through
    Demo(Demo),
    /// Run the REST service
    Ingress,
    /// Run the 12-hour schedule
    Scheduler,
    /// Run the poller, which walks the mailboxes
    Poller,
    /// Run the fetcher, which reads the messages that the poller finds
    Fetcher,
    /// Run the projector, which keeps the jobs in Postgres
    Projector(Projector),
    /// Run a simulated Gmail
    Simulator,
    /// Create the topics, or check them
    #[command(subcommand)]
    Topics(Topics),
    /// Make the state of mailboxes anew when Kafka was lost
    #[command(subcommand)]
    State(State),
    /// Create and list organisations, and say where their consents may lead back to
    #[command(subcommand)]
    Organisations(Organisations),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Move refresh tokens to another token key
    #[command(subcommand)]
    Tokens(Tokens),
    /// Add, list and delete connected mailboxes
    #[command(subcommand)]
    Connections(Connections),
    /// Trigger a sync over HTTP, as an API client would
    Sync(Sync),
    /// Print a topic's records as JSON lines, decoded, committed ones only
    Tail(Tail),
    /// Send events that are still kept once more, or move a consumer group to a time
    Replay(Box<Replay>),
    /// List, show, send back and discard what was put aside because it could not be worked on
    #[command(subcommand)]
    DeadLetters(Box<DeadLetters>),
    /// Tell how far consumer groups are behind, ours and all others that read our topics
    Lag(Lag),
    /// Compare what Gmail lists with what was announced; exit 1 when anything is missing or too much
    Verify(Verify),
    /// Ask the service whose admin port is in the settings whether it is ready; exit 1 if not
    Health(Health),
    /// Tell how things stand: connections, jobs, lag, budgets, slow mailboxes, dead letters
    Status(Status),
    /// Check everything that the services stand on, and say what to do where something is wrong; exit 1 then
    Doctor(Doctor),
    /// Ask that service what it logs, or have it log more or less until it ends
    LogLevel(LogLevel),
    /// Print every setting in force, its default, and where it came from; secrets are not shown
    Settings(Settings),
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Also run the simulated Gmail and point the services at it
    #[arg(long)]
    pub(crate) simulator: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Exit right after the table, with 0 only if nothing is missing, nothing came twice and every job succeeded
    #[arg(long)]
    pub(crate) once: bool,
    /// Deliver the mails of this mbox file to the first mailbox, as new
    #[arg(long, value_name = "FILE.mbox")]
    pub(crate) mail: Option<PathBuf>,
    /// Mailboxes to connect [default: 3, or 1 with --mail]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) mailboxes: Option<u16>,
    /// Made-up mails to deliver to each mailbox; with --mail, to each but the first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) messages: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Projector {
    /// Wipe what was projected and build it again from the topics, then exit
    #[arg(long)]
    pub(crate) rebuild: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// Create the topics that are missing, then check all
    Create(Output),
    /// Check that every topic exists and is partitioned as the others it goes with
    Check(Output),
    /// Give the topics keyed by connection more partitions and move every mailbox there, while all services are stopped
    Grow(Grow),
    /// List what a service has to be allowed at the brokers, as access control lists
    Rights(Rights),
}

#[derive(Debug, Args)]
pub(crate) struct Rights {
    /// Only those of one: a service, or `operator`, who runs the commands
    #[arg(value_name = "ROLE")]
    pub(crate) role: Option<kafka::rights::Role>,
    /// Ask the brokers of the settings which of them are missing, and exit 1 if any is
    #[arg(long, requires = "role")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Write the state of every living connection from what Postgres knows, and ask for its open jobs again
    Restore(Restore),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Organisations {
    /// Create an organisation
    Create {
        /// What to call it
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// A host that its consents may send the browser back to; may be given more than once
        #[arg(long = "return-host", value_name = "HOST", value_parser = host)]
        return_hosts: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List all organisations
    List(Output),
    /// Allow hosts that an organisation's consents may send the browser back to
    Allow {
        /// The organisation
        organisation: OrganisationId,
        /// Host names, without scheme, port or path
        #[arg(required = true, value_name = "HOST", value_parser = host)]
        hosts: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show what of an organisation's mail is fetched, or say so
    Filter(Filter),
    /// Disallow them
    Disallow {
        /// The organisation
        organisation: OrganisationId,
        /// Host names, without scheme, port or path
        #[arg(required = true, value_name = "HOST", value_parser = host)]
        hosts: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// What is given takes the place of the whole filter; with none of it the filter is shown.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// The organisation
    pub(crate) organisation: OrganisationId,
    /// Only messages with one of these labels, by Gmail's id; may be given more than once
    #[arg(long = "label", value_name = "LABEL_ID", value_parser = label)]
    pub(crate) labels: Vec<String>,
    /// No messages with one of these labels
    #[arg(long = "not-label", value_name = "LABEL_ID", value_parser = label)]
    pub(crate) not_labels: Vec<String>,
    /// Only from addresses like this, such as `*@vendor.example`
    #[arg(long = "sender", value_name = "PATTERN", value_parser = Pattern::new)]
    pub(crate) senders: Vec<Pattern>,
    /// Not from addresses like this
    #[arg(long = "not-sender", value_name = "PATTERN", value_parser = Pattern::new)]
    pub(crate) not_senders: Vec<Pattern>,
    /// Only messages with a file beside their text
    #[arg(long)]
    pub(crate) has_attachment: bool,
    /// Only messages with a file of a media type like this, such as `application/pdf` or `image/*`
    #[arg(long = "mime-type", value_name = "PATTERN", value_parser = Pattern::new)]
    pub(crate) mime_types: Vec<Pattern>,
    /// Fetch everything again
    #[arg(long, conflicts_with_all = ["labels", "not_labels", "senders", "not_senders", "has_attachment", "mime_types"])]
    pub(crate) clear: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A label's id, as Gmail gives it.
fn label(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_id { Ok(text.to_owned()) } else { Err("expected a label's id, such as INBOX or Label_7".to_owned()) }
}

/// A host as a browser spells it: in lower case and ASCII.
fn host(text: &str) -> Result<String, String> {
    let is_name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    match url::Host::parse(text) {
        Ok(url::Host::Domain(name)) if name.is_empty() || !is_name(&name) => Err("expected a host name".to_owned()),
        Ok(host) => Ok(host.to_string()),
        Err(error) => Err(format!("expected a host alone, such as app.example.com: {error}")),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Create an API key and print it, this once
    Create {
        /// The organisation that the key speaks for; a new one when left out
        #[arg(long, value_name = "UUID")]
        organisation: Option<OrganisationId>,
        /// What to call the key, and a new organisation
        #[arg(long, value_name = "TEXT", default_value = "cli")]
        name: String,
        /// What the key may do: read, write, or both with a comma between
        #[arg(long = "scopes", value_name = "SCOPES", value_delimiter = ',', default_value = "read,write")]
        scopes: Vec<Scope>,
        #[command(flatten)]
        output: Output,
    },
    /// List an organisation's keys, or all; a key itself is never shown again
    List {
        /// Only this organisation's
        #[arg(long, value_name = "UUID")]
        organisation: Option<OrganisationId>,
        #[command(flatten)]
        output: Output,
    },
    /// Revoke a key; it stops within five seconds
    Revoke {
        /// The key's id, as `keys list` shows it
        id: uuid::Uuid,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Move every refresh token to the first key of store.token_key, while everything runs; repeatable
    Rotate {
        /// Tokens of one transaction
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        batch: u32,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Connections {
    /// Add a mailbox that somebody consented to; its refresh token is read from stdin
    Add {
        /// Whose mailbox it is
        #[arg(long, value_name = "UUID")]
        organisation: OrganisationId,
        /// The mailbox's address
        #[arg(long, value_name = "ADDRESS")]
        address: String,
        /// The domain's administrator let gmail.service_account_file in for its users; no token is read
        #[arg(long)]
        delegated: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a mailbox's connection; what is left to do ingress does within two minutes
    Delete {
        /// The connection
        connection: ConnectionId,
        #[command(flatten)]
        output: Output,
    },
    /// List an organisation's mailboxes, or all
    List {
        /// Only this organisation's
        #[arg(long, value_name = "UUID")]
        organisation: Option<OrganisationId>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// The connection to sync
    pub(crate) connection: ConnectionId,
    /// Wait until the job ends; exit 1 unless it succeeded
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The topic, with or without the prefix from the settings, such as gmail.message.discovered
    pub(crate) topic: String,
    /// Begin with the oldest record that is kept, not with the next to come
    #[arg(long)]
    pub(crate) from_beginning: bool,
    /// Only records with this key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Exit after this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
}

/// How to print data.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_host_is_a_host_alone() {
        for (text, is) in [
            ("app.example.com", "app.example.com"),
            ("App.Example.com", "app.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(is), "{text}");
        }
        for text in [
            "",
            "https://a.example",
            "a.example/",
            "a.example:8443",
            "a.example:443",
            "a@b.example",
            "a b",
            "*.example",
        ] {
            assert!(host(text).is_err(), "{text}: {:?}", host(text));
        }
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
