//! What the settings came to: every key with its value, where it came from, and what is wrong.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The settings file, at a line counted from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line of the value.
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

/// One setting as it stands. A secret's value is never in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The dotted key.
    pub key: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// The default as text; none when there is no default.
    pub default: Option<String>,
    /// The value in force as text; `***` for a secret that is set, none when not set.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
    /// What the setting does, in one line.
    pub doc: &'static str,
}

/// All settings that were read, by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Effective {
    entries: Vec<Entry>,
}

impl Effective {
    /// `entries` sorted by key.
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// Every setting, sorted by key.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One setting.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Logs, once and redacted, what differs from the defaults.
    pub fn log(&self) {
        for entry in self.entries.iter().filter(|entry| entry.origin != Origin::Default) {
            let value = entry.value.as_deref().unwrap_or("");
            tracing::info!(key = entry.key, value, origin = %entry.origin, "Setting in force");
        }
    }

    /// The settings as a Markdown table: key, variable, default, what it does.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut table = String::from("| setting | environment | default | what it does |\n|---|---|---|---|\n");
        for Entry { key, variable, default, doc, .. } in &self.entries {
            let default = default.as_ref().map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
            let doc = doc.replace('|', "\\|");
            // Writing to a String cannot fail.
            let _ = writeln!(table, "| `{key}` | `{variable}` | {default} | {doc} |");
        }
        table
    }
}

/// Something wrong with the settings. A secret's value is never quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// What it is about: a dotted key, or the settings file.
    pub key: String,
    /// Where the value stands, when it was set anywhere.
    pub place: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place}): {}", self.key, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}
