//! Why schemas could not be registered.

/// A registry's words are cut after so many characters.
const LONGEST: usize = 500;

/// Why schemas could not be registered or looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no client.
    #[error("registry.ca_file cannot be used: {0}")]
    Setup(String),
    /// No answer, or one that says "later".
    #[error("{tried} at {registry}: {why}")]
    Away {
        /// What was tried.
        tried: String,
        /// Where.
        registry: String,
        /// What came instead of an answer.
        why: String,
    },
    /// A refusal.
    #[error("{tried} at {registry} was refused with {status}: {said}; {remedy}")]
    Refused {
        /// What was tried.
        tried: String,
        /// Where.
        registry: String,
        /// The status of the answer.
        status: u16,
        /// The registry's words.
        said: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A schema is not one that may follow those that are registered.
    #[error(
        "{subject} version {version} does not go with what {registry} has under this subject:{differences}\n  the \
         registry says: {said}\n  Nothing was started. If another installation registered what is there, use another \
         registry or context; what is registered can be read there at /subjects/{subject}/versions"
    )]
    Incompatible {
        /// The subject.
        subject: String,
        /// Our version of it.
        version: u32,
        /// Where.
        registry: String,
        /// Each on a line of its own: which field, and why.
        differences: String,
        /// The registry's words.
        said: String,
    },
    /// An answer that is none.
    #[error("{tried} at {registry} was answered with what no schema registry says: {why}; check registry.url")]
    Unreadable {
        /// What was tried.
        tried: String,
        /// Where.
        registry: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The ids cannot be used.
    #[error(transparent)]
    Ids(#[from] events::AdoptError),
}

impl Error {
    /// Whether the same may go well later, with nothing changed here.
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// Words of another's, cut.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Each on a line of its own.
pub(crate) fn listed(differences: &[String]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}
