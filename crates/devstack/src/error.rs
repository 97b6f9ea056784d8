//! What can go wrong while something is started.

/// Why a part of the stack is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("{what} is missing; get it by: {get}")]
    Missing {
        /// What was looked for.
        what: String,
        /// The command to get it.
        get: &'static str,
    },
    /// A program is there and does not do.
    #[error("{what} does not do: {found}; get a newer one by: {get}")]
    TooOld {
        /// What was looked for.
        what: String,
        /// What was found.
        found: String,
        /// The command to get it.
        get: &'static str,
    },
    /// A program ended with an error.
    #[error("{what} failed ({status}):\n{output}")]
    Failed {
        /// What was tried.
        what: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A server did not answer in time.
    #[error("{what} did not answer within {seconds} s; the end of its log:\n{tail}")]
    Silent {
        /// What was started.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// The end of the log.
        tail: String,
    },
    /// A server that this process did not start cannot be stopped by it.
    #[error("{what} was given by {variable} and is not ours to {verb}")]
    NotOurs {
        /// What was given.
        what: &'static str,
        /// The environment variable that gave it.
        variable: &'static str,
        /// What was asked for.
        verb: &'static str,
    },
    /// A file, a folder or a process could not be handled.
    #[error("{tried}: {source}")]
    Io {
        /// What was tried, and on what.
        tried: String,
        /// Why not.
        source: std::io::Error,
    },
    /// `DATABASE_URL` is no URL of a Postgres.
    #[error("reading DATABASE_URL: {0}; expected postgres://user:password@host:port/database")]
    Url(#[from] url::ParseError),
}

impl Error {
    /// For `map_err` on IO: says what was tried.
    pub(crate) fn io(tried: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { tried: tried.into(), source }
    }
}
