//! What each service has to be allowed at the brokers, and what it is not.
//!
//! The list is data: `mailtide topics rights` prints it, docs/security.md shows it, the tests grant exactly it, and
//! [`check`] asks the brokers at start which of it we have, so that whoever has to grant a right reads its name.

mod ask;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Cause;
use crate::settings::Settings;
use crate::topics::{Topic, Topics};

/// Who needs rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The REST service.
    Ingress,
    /// The schedule.
    Scheduler,
    /// Walks mailboxes.
    Poller,
    /// Reads messages.
    Fetcher,
    /// Keeps the rows.
    Projector,
    /// The operator's commands.
    Operator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Ingress, Self::Scheduler, Self::Poller, Self::Fetcher, Self::Projector, Self::Operator];

    /// What it is called: a service by its sub-command.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Scheduler => "scheduler",
            Self::Poller => "poller",
            Self::Fetcher => "fetcher",
            Self::Projector => "projector",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("expected one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What may be done, in Kafka's words. Reading and writing include describing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Read a topic, or be a member of a group.
    Read,
    /// Write to a topic, or under a transactional id.
    Write,
    /// Create a topic.
    Create,
    /// Give a topic more partitions.
    Alter,
    /// See that it is there.
    Describe,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Alter => "Alter",
            Self::Describe => "Describe",
        })
    }
}

/// What something may be done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// A transactional id.
    TransactionalId,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "Topic",
            Self::Group => "Group",
            Self::TransactionalId => "TransactionalId",
        })
    }
}

/// Which names a right is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// This name.
    Literal,
    /// All that begin with it.
    Prefixed,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal => "literal",
            Self::Prefixed => "prefixed",
        })
    }
}

/// A right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// With what.
    pub kind: Kind,
    /// Its full name, or how that begins; `*` means any.
    pub name: String,
    /// Which of the two.
    pub pattern: Pattern,
    /// What may be done.
    pub operation: Operation,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, operation, pattern } = self;
        match pattern {
            Pattern::Literal => write!(f, "{operation} on {kind} {name}"),
            Pattern::Prefixed => write!(f, "{operation} on every {kind} that begins with {name}"),
        }
    }
}

/// All that a role has to be allowed under a prefix of topics: with this everything works, with one fewer something
/// does not. Topics that are missing are made by whoever may; who may not needs them to be there.
pub fn of(role: Role, prefix: &str) -> Vec<Right> {
    use Operation::{Alter, Create, Describe, Read, Write};
    let topics = Topics::new(prefix);
    let topic = |operation, topic: Topic| Right {
        kind: Kind::Topic,
        name: topics.name(topic).to_string(),
        pattern: Pattern::Literal,
        operation,
    };
    let group = |operation, name: &str| Right {
        kind: Kind::Group,
        name: format!("{prefix}{name}"),
        pattern: Pattern::Literal,
        operation,
    };
    // One for each instance and lane.
    let transactional = |service: &str| Right {
        kind: Kind::TransactionalId,
        name: format!("{prefix}{service}-"),
        pattern: Pattern::Prefixed,
        operation: Write,
    };
    match role {
        Role::Ingress => {
            let mut rights = vec![topic(Write, Topic::Poll)];
            // It looks at start whether all are there.
            rights.extend(Topic::ALL.into_iter().filter(|it| *it != Topic::Poll).map(|it| topic(Describe, it)));
            rights
        }
        Role::Scheduler => vec![
            topic(Write, Topic::Poll),
            // How far consumers are behind, which takes a look at the last records.
            topic(Read, Topic::Poll),
            topic(Read, Topic::Discovered),
            topic(Read, Topic::Fetched),
            topic(Read, Topic::JobStatus),
            topic(Read, Topic::ConnectionStatus),
            group(Describe, Role::Poller.name()),
            group(Describe, Role::Fetcher.name()),
            group(Describe, "groups"),
            group(Describe, "lag-snapshot"),
        ],
        Role::Poller => vec![
            topic(Read, Topic::Poll),
            topic(Read, Topic::State),
            topic(Write, Topic::State),
            topic(Write, Topic::Discovered),
            topic(Write, Topic::JobStatus),
            topic(Write, Topic::ConnectionStatus),
            topic(Write, Topic::DeadLetter),
            group(Read, Role::Poller.name()),
            group(Describe, "poller-restore"),
            transactional(Role::Poller.name()),
        ],
        Role::Fetcher => vec![
            topic(Read, Topic::Discovered),
            topic(Read, Topic::FetchState),
            topic(Write, Topic::FetchState),
            topic(Write, Topic::Fetched),
            topic(Write, Topic::DeadLetter),
            group(Read, Role::Fetcher.name()),
            // Reading its state and looking again at what it left in the log, each partition for itself.
            Right { pattern: Pattern::Prefixed, ..group(Describe, "fetcher-") },
            transactional(Role::Fetcher.name()),
        ],
        Role::Projector => vec![
            topic(Read, Topic::JobStatus),
            topic(Read, Topic::ConnectionStatus),
            topic(Write, Topic::DeadLetter),
            group(Describe, "projector-reader"),
            group(Describe, "inspector-reader"),
            group(Describe, "projector-rebuild-snapshot"),
        ],
        Role::Operator => {
            let mut rights: Vec<Right> =
                Topic::ALL.into_iter().flat_map(|it| [topic(Create, it), topic(Read, it), topic(Write, it)]).collect();
            rights.extend(Topic::CO_PARTITIONED.into_iter().map(|it| topic(Alter, it)));
            // Whose lag is told and who is moved to a time may be anybody.
            let any = |kind, operation| Right { kind, name: "*".to_owned(), pattern: Pattern::Literal, operation };
            rights.push(any(Kind::Group, Read));
            rights.push(transactional("replay"));
            rights.extend(["dead-letters", "topics-grow", "state-restore"].map(|name| Right {
                kind: Kind::TransactionalId,
                name: format!("{prefix}{name}"),
                pattern: Pattern::Literal,
                operation: Write,
            }));
            rights
        }
    }
}

/// Why a service cannot do its work at the brokers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client could be made from the settings.
    #[error("Making a Kafka client for {bootstrap_servers} failed: {cause}; check the settings `kafka.*`")]
    Client {
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// What librdkafka said.
        cause: Cause,
    },
    /// The brokers do not take us for who we say we are, or we them.
    #[error(
        "{bootstrap_servers} and we do not trust each other ({principal}): {reason}; check the settings \
         `kafka.security_protocol`, `kafka.tls_*`, `kafka.sasl_*` and `kafka.oauth_*`"
    )]
    Unauthenticated {
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// Whom we say we are.
        principal: String,
        /// What librdkafka said.
        reason: String,
    },
    /// No broker answered.
    #[error("{bootstrap_servers} did not answer within {seconds} s: {reason}")]
    Unreachable {
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// How long it was tried.
        seconds: u64,
        /// What librdkafka last complained of.
        reason: String,
    },
    /// The brokers know us and do not let us.
    #[error(
        "{principal} lacks at {bootstrap_servers}: {}; `mailtide topics rights {role}` lists all that are needed",
        listed(lacking)
    )]
    Lacking {
        /// Whom the brokers know us as.
        principal: String,
        /// The brokers of the settings.
        bootstrap_servers: String,
        /// Whose work it is.
        role: Role,
        /// What is missing.
        lacking: Vec<Right>,
    },
    /// A thread of ours is gone.
    #[error("The thread that asks the brokers is gone")]
    Gone,
}

fn listed(rights: &[Right]) -> String {
    rights.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Finds out whether the brokers know us and allow all that `role` needs; waits for them for half a minute. What only
/// shows when it is done, writing under a transactional id, is not asked. Brokers that do not tell are believed.
///
/// # Errors
/// [`Error::Unauthenticated`] as soon as that is clear; [`Error::Lacking`] with everything that is missing.
pub async fn check(settings: &Settings, role: Role) -> Result<(), Error> {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || check_here(&settings, role)).await.map_err(|_| Error::Gone)?
}

fn check_here(settings: &Settings, role: Role) -> Result<(), Error> {
    let needed = of(role, &settings.topic_prefix);
    let lacking = ask::lacking(settings, &needed)?;
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Error::Lacking {
        principal: settings.security.principal(),
        bootstrap_servers: settings.bootstrap_servers.clone(),
        role,
        lacking,
    })
}

/// For a lane that failed: whether that is for want of a right, in a sentence. Asks the brokers.
pub(crate) fn explain(settings: &Settings, service: &str, id: &Arc<str>, cause: Option<&Cause>) -> Option<String> {
    let principal = settings.security.principal();
    if cause.is_some_and(Cause::is_denied_transactional_id) {
        let right = Right {
            kind: Kind::TransactionalId,
            name: id.to_string(),
            pattern: Pattern::Literal,
            operation: Operation::Write,
        };
        return Some(format!(
            "{principal} lacks {right}; `mailtide topics rights {service}` lists all that are needed"
        ));
    }
    match check_here(settings, service.parse().ok()?) {
        Err(error @ (Error::Lacking { .. } | Error::Unauthenticated { .. })) => Some(error.to_string()),
        Ok(()) | Err(Error::Client { .. } | Error::Unreachable { .. } | Error::Gone) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_carry_the_prefix_and_none_is_listed_twice() {
        for role in Role::ALL {
            let rights = of(role, "eu.");
            assert!(rights.iter().all(|it| it.name.starts_with("eu.") || it.name == "*"), "{role}: {rights:?}");
            let mut sorted = rights.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), rights.len(), "{role}");
            assert_eq!(role.name().parse(), Ok(role));
        }
    }

    #[test]
    fn a_right_is_told_in_the_words_of_those_who_grant_it() {
        let rights = of(Role::Poller, "");
        assert_eq!(rights[0].to_string(), "Read on Topic gmail.connection.poll");
        assert_eq!(rights.last().unwrap().to_string(), "Write on every TransactionalId that begins with poller-");
    }
}
