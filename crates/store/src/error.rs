//! What can go wrong, by what the caller does about it.

use std::error::Error as StdError;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use crate::token::TokenKeyError;

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres is away, overloaded or gave up on the statement. Try again later. Whether a write happened is not
    /// known; every write here may be repeated.
    #[error("Postgres could not {what} now: {reason}; this passes when Postgres answers again")]
    Unavailable {
        /// What was tried.
        what: &'static str,
        /// What came of it, without the values of rows.
        reason: String,
    },
    /// Somebody else moved the projection's offsets: this writer has lost the partition. Nothing was written.
    #[error(
        "Projection {projection} no longer stands at offset {} of {topic}[{partition}]; another projector has it",
        expected.map_or_else(|| "none".to_owned(), |offset| offset.to_string())
    )]
    Fenced {
        /// The projection.
        projection: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the writer believed the projection stands.
        expected: Option<i64>,
    },
    /// What the row refers to does not exist.
    #[error("Could not {what}: the {missing} does not exist")]
    Missing {
        /// What was tried.
        what: &'static str,
        /// What is not there.
        missing: &'static str,
    },
    /// Such a row is there already.
    #[error("Could not {what}: it exists already ({constraint})")]
    Exists {
        /// What was tried.
        what: &'static str,
        /// The constraint that says so.
        constraint: String,
    },
    /// A refresh token cannot be read or written with the keys of the settings.
    #[error("Could not {what}: {reason}")]
    TokenKey {
        /// What was tried.
        what: &'static str,
        /// Why not.
        reason: TokenKeyError,
    },
    /// The settings do not lead to a usable store.
    #[error("The database settings cannot be used: {detail}")]
    Settings {
        /// What is wrong and what would be right.
        detail: String,
    },
    /// The schema could not be brought up to date.
    #[error("Could not migrate schema {schema}")]
    Migration {
        /// The schema.
        schema: String,
        /// What went wrong.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A row holds what this version does not understand.
    #[error("Could not {what}: column {column} holds what this version does not understand: {detail}")]
    Unreadable {
        /// What was tried.
        what: &'static str,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// Postgres refused the statement: the schema is not as expected, or there is a mistake in this crate.
    #[error("Postgres refused to {what}: {reason}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// Its words, without the values of rows.
        reason: String,
    },
}

impl Error {
    /// Whether trying the same again later may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(crate) fn unavailable(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Unavailable { what, reason: reason.into() }
    }

    /// The only place that reads Postgres's error codes.
    pub(crate) fn of(what: &'static str, error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // No answer of the server's at all, or an answer that the client could not use.
            return if is_local(&error) {
                Self::Refused { what, reason: chain(&error) }
            } else {
                Self::unavailable(what, chain(&error))
            };
        };
        let code = db.code();
        if *code == SqlState::UNIQUE_VIOLATION {
            return Self::Exists { what, constraint: db.constraint().unwrap_or("unnamed").to_owned() };
        }
        if *code == SqlState::FOREIGN_KEY_VIOLATION {
            return Self::Missing { what, missing: "organisation" };
        }
        // Classes of the manual's appendix A: 08 connection, 40 rolled back (deadlock, serialization), 53 resources,
        // 57 operator intervention (shutdown, still starting, statement timeout), 58 system; 25006 and 55P03 while a
        // standby takes over or a lock is held.
        let passes = ["08", "40", "53", "57", "58"].iter().any(|class| code.code().starts_with(class))
            || *code == SqlState::READ_ONLY_SQL_TRANSACTION
            || *code == SqlState::LOCK_NOT_AVAILABLE
            || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
        // Only the message: the detail may repeat a row, and with it an address.
        let reason = format!("{} ({})", db.message(), code.code());
        if passes { Self::unavailable(what, reason) } else { Self::Refused { what, reason } }
    }

    pub(crate) fn of_pool(what: &'static str, error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::of(what, error),
            other => Self::unavailable(what, chain(&other)),
        }
    }
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Whether the client itself refused: the arguments or the columns do not fit the statement.
fn is_local(error: &tokio_postgres::Error) -> bool {
    !error.is_closed()
        && error.source().is_some_and(|source| {
            source.is::<tokio_postgres::types::WrongType>() || source.is::<tokio_postgres::types::WasNull>()
        })
}
