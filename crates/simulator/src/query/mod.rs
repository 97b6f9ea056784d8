//! Gmail's search language, as the parameter `q` takes it. What the simulator does not know makes the whole
//! query match nothing and is an error in the log: never a silent match.

pub(crate) mod date;
mod parse;

use std::ops::Range;

use crate::label::{self, Label, LabelSet, Table};
use crate::mime::Mail;

pub(crate) use self::parse::parse;

/// A query ready to be asked of messages.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    root: Node,
    /// What was not understood; then nothing matches.
    pub(crate) unknown: Vec<String>,
}

/// A query's tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// All of these; everything when empty.
    All(Vec<Node>),
    /// Any of these.
    Any(Vec<Node>),
    /// Not this.
    Not(Box<Node>),
    /// One condition.
    Term(Term),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    /// `internalDate` inside, in ms since the epoch.
    Dates(Range<i64>),
    /// Any of these system labels.
    System(u16),
    /// None of these system labels.
    NoSystem(u16),
    /// A user label.
    Label(Label),
    /// Any user label.
    UserLabels,
    /// At least this many bytes.
    Larger(u64),
    /// Fewer than this many bytes.
    Smaller(u64),
    /// A part with a file name.
    Attachment,
    /// A part whose file name holds this, in lower case.
    Filename(String),
    /// The `Message-ID`, without brackets.
    MessageId(String),
    /// A header whose value holds these words, in lower case.
    Header(&'static str, String),
    /// Words anywhere, in lower case.
    Words(String),
    /// `in:anywhere`: everything, spam and trash included.
    Anywhere,
    /// Nothing: a date that Gmail takes and that no message has, a label that does not exist.
    Never,
}

/// What a query may ask about a message.
pub(crate) struct Subject<'a> {
    /// `internalDate`, ms since the epoch.
    pub(crate) internal_ms: i64,
    /// Its labels.
    pub(crate) labels: LabelSet,
    /// The mailbox's labels.
    pub(crate) table: &'a Table,
    /// Its content, made or found only when a condition needs it.
    pub(crate) mail: &'a dyn Fn() -> std::sync::Arc<Mail>,
}

impl Query {
    /// Every message.
    pub(crate) fn everything() -> Self {
        Self { root: Node::All(Vec::new()), unknown: Vec::new() }
    }

    /// Whether the message matches.
    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        self.unknown.is_empty() && self.root.matches(subject)
    }

    /// Dates outside of which nothing matches, in ms since the epoch.
    pub(crate) fn dates(&self) -> Range<i64> {
        let all = i64::MIN..i64::MAX;
        match &self.root {
            Node::Term(Term::Dates(dates)) => dates.clone(),
            Node::All(nodes) => nodes.iter().fold(all, |window, node| match node {
                Node::Term(Term::Dates(dates)) => window.start.max(dates.start)..window.end.min(dates.end),
                Node::Term(Term::Never) => 0..0,
                Node::All(_) | Node::Any(_) | Node::Not(_) | Node::Term(_) => window,
            }),
            Node::Any(_) | Node::Not(_) | Node::Term(_) => all,
        }
    }

    /// Whether it asks for spam or trash, which are else left out unless `includeSpamTrash` is set.
    pub(crate) fn asks_for_spam_or_trash(&self) -> bool {
        self.root.asks_for_spam_or_trash()
    }
}

impl Node {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(subject)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(subject)),
            Self::Not(node) => !node.matches(subject),
            Self::Term(term) => term.matches(subject),
        }
    }

    fn asks_for_spam_or_trash(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().any(Self::asks_for_spam_or_trash),
            Self::Not(_) => false,
            Self::Term(Term::System(bits)) => bits & (label::SPAM | label::TRASH) != 0,
            Self::Term(term) => matches!(term, Term::Anywhere),
        }
    }
}

impl Term {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Dates(dates) => dates.contains(&subject.internal_ms),
            Self::System(bits) => subject.labels.has_any(*bits),
            Self::NoSystem(bits) => !subject.labels.has_any(*bits),
            Self::Label(label) => subject.table.contains(subject.labels, *label),
            Self::UserLabels => subject.labels != LabelSet::system(subject.labels.system),
            Self::Larger(bytes) => (subject.mail)().raw().len() as u64 >= *bytes,
            Self::Smaller(bytes) => ((subject.mail)().raw().len() as u64) < *bytes,
            Self::Attachment => (subject.mail)().root().walk().any(|part| !part.filename.is_empty()),
            Self::Filename(name) => {
                (subject.mail)().root().walk().any(|part| part.filename.to_lowercase().contains(name))
            }
            Self::MessageId(id) => (subject.mail)().message_id() == Some(id),
            Self::Header(name, words) => {
                (subject.mail)().header(name).is_some_and(|value| holds_words(&value.to_lowercase(), words))
            }
            Self::Words(words) => {
                let mail = (subject.mail)();
                let headers = ["Subject", "From", "To", "Cc"].into_iter().filter_map(|name| mail.header(name));
                headers.chain([mail.text()]).any(|text| holds_words(&text.to_lowercase(), words))
            }
            Self::Anywhere => true,
            Self::Never => false,
        }
    }
}

/// Whether `text` holds `words` as whole words in this order. Gmail does not find parts of words.
fn holds_words(text: &str, words: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(words).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}
