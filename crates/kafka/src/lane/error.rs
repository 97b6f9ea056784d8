//! Why a lane fails, and why it ends.

use std::sync::Arc;

use crate::error::Cause;

/// Why a lane was dropped to be built anew.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A client could not be made from the settings.
    #[error("making the {what} failed: {cause}; check the settings `kafka.*`")]
    Client {
        /// Which client.
        what: &'static str,
        /// What librdkafka said.
        cause: Cause,
    },
    /// A call failed in a way that leaves no other choice.
    #[error("{what} failed: {cause}")]
    Call {
        /// What was called.
        what: &'static str,
        /// What librdkafka said.
        cause: Cause,
    },
    /// Records neither came to be acknowledged nor failed in their time.
    #[error("{what} took longer than {seconds} s, though every record is acknowledged or fails sooner")]
    Undrained {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// Somebody else has this lane's transactional id.
    #[error(
        "{what} failed: {cause}; another process has taken over the transactional id {transactional_id}, so check that \
         the setting `kafka.instance` differs between processes that live at the same time"
    )]
    Fenced {
        /// What was called.
        what: &'static str,
        /// The id that is shared.
        transactional_id: Arc<str>,
        /// What librdkafka said.
        cause: Cause,
    },
    /// A record of the application can never be written.
    #[error("a record of {bytes} bytes for {topic} was refused: {cause}")]
    Record {
        /// Its topic.
        topic: Arc<str>,
        /// Its size: key, value and headers.
        bytes: usize,
        /// What librdkafka said.
        cause: Cause,
    },
    /// The log goes back behind what was committed.
    #[error(
        "partition {partition} of {topic} gave offset {found} where {expected} was next; the log is shorter than the \
         committed offsets say, so records were lost at the brokers, and somebody has to decide what to read again"
    )]
    Rewound {
        /// The input topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// The offset that was next.
        expected: i64,
        /// The offset that came.
        found: i64,
    },
    /// The brokers do not allow what is needed, until somebody does.
    #[error("{what}; {lacking}")]
    Denied {
        /// What failed.
        what: String,
        /// Which rights are missing, in a sentence.
        lacking: String,
    },
    /// Transactions abort again and again.
    #[error("transactions have kept aborting for {seconds} s, the last one because {cause}")]
    Aborting {
        /// Since when.
        seconds: u64,
        /// What librdkafka said.
        cause: String,
    },
    /// The application panicked.
    #[error("the application panicked: {0}")]
    Panicked(String),
    /// A thread could not be started.
    #[error("starting a thread failed: {0}")]
    Thread(String),
    /// The application refuses a partition. Building the lane anew cannot mend it.
    #[error("partition {partition} cannot be worked on: {reason}")]
    Refused {
        /// The partition.
        partition: i32,
        /// The application's sentence.
        reason: String,
    },
    /// Input and state do not have equally many partitions. Building the lane anew cannot mend it.
    #[error(
        "the topic {input} has {input_partitions} partitions and {state} has {state_partitions}, but they must have \
         equally many: a key has to lead to the same partition of both"
    )]
    CoPartitioning {
        /// The input topic.
        input: Arc<str>,
        /// Its partitions.
        input_partitions: i32,
        /// The state topic.
        state: Arc<str>,
        /// Its partitions.
        state_partitions: i32,
    },
}

impl Failure {
    /// Whether Kafka was out of reach: then the lane waits for it, however long that takes.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Client { cause, .. } | Self::Call { cause, .. } => cause.is_unreachable(),
            Self::Fenced { .. }
            | Self::Record { .. }
            | Self::Rewound { .. }
            | Self::Denied { .. }
            | Self::Undrained { .. }
            | Self::Aborting { .. }
            | Self::Panicked(_)
            | Self::Thread(_)
            | Self::Refused { .. }
            | Self::CoPartitioning { .. } => false,
        }
    }

    /// Whether building the lane anew could not help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::CoPartitioning { .. } => true,
            Self::Client { .. }
            | Self::Call { .. }
            | Self::Fenced { .. }
            | Self::Record { .. }
            | Self::Rewound { .. }
            | Self::Denied { .. }
            | Self::Undrained { .. }
            | Self::Aborting { .. }
            | Self::Panicked(_)
            | Self::Thread(_) => false,
        }
    }

    /// Whether somebody else has taken over.
    pub(crate) fn is_fenced(&self) -> bool {
        match self {
            Self::Fenced { .. } => true,
            Self::Call { cause, .. } => cause.is_fenced(),
            Self::Client { .. }
            | Self::Record { .. }
            | Self::Rewound { .. }
            | Self::Denied { .. }
            | Self::Undrained { .. }
            | Self::Aborting { .. }
            | Self::Panicked(_)
            | Self::Thread(_)
            | Self::Refused { .. }
            | Self::CoPartitioning { .. } => false,
        }
    }
}

/// Why a lane ended without having been stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other.
    #[error("The settings of the lane are not usable: {0}")]
    Settings(String),
    /// The lane's thread could not be started.
    #[error("Starting the thread of lane {lane} of {service} failed: {source}")]
    Thread {
        /// The service.
        service: &'static str,
        /// Its lane.
        lane: usize,
        /// Why.
        source: std::io::Error,
    },
    /// What is wrong will not mend itself.
    #[error("Lane {lane} of {service} cannot work: {failure}")]
    Unworkable {
        /// The service.
        service: &'static str,
        /// Its lane.
        lane: usize,
        /// Why.
        failure: Box<Failure>,
    },
    /// It failed too often in a row.
    #[error("Lane {lane} of {service} was given up after {failures} failures in a row; the last: {failure}")]
    GivenUp {
        /// The service.
        service: &'static str,
        /// Its lane.
        lane: usize,
        /// How many.
        failures: u32,
        /// The last of them.
        failure: Box<Failure>,
    },
    /// The lane's thread does not come back from a call.
    #[error(
        "Lane {lane} of {service} has not come back from a call for {seconds} s, and nothing but the end of its process ends \
         that; start the process again, nothing is lost"
    )]
    Hung {
        /// The service.
        service: &'static str,
        /// Its lane.
        lane: usize,
        /// How long its loop has not turned.
        seconds: u64,
    },
    /// The lane's thread is gone without a word.
    #[error("The thread of lane {lane} of {service} died")]
    Died {
        /// The service.
        service: &'static str,
        /// Its lane.
        lane: usize,
    },
}
