//! The independent checker: compares what was owed with everything that is committed.
//!
//! It shares no code with the services. Records are decoded by the published schemas and looked at as JSON; rows are read
//! with SQL of its own; which origins may name a message once, which states are final and how facts fold into a row is
//! written here a second time, from the contract.

mod evidence;
mod jobs;
mod messages;
mod rows;
mod schemas;
pub mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use evidence::{Evidence, Fact, Place};
use serde::Serialize;

/// What the outside world knows: all of it must be found in the topics.
#[derive(Debug, Clone, Default)]
pub struct Owed {
    /// The messages of each connection that have to be announced.
    pub messages: BTreeMap<String, BTreeSet<String>>,
    /// Messages that may be announced, but need not: kept back by policy at one time or another, or of a connection that
    /// was deleted.
    pub allowed: BTreeMap<String, BTreeSet<String>>,
    /// The jobs that were answered with 202.
    pub accepted: BTreeSet<String>,
    /// The connections whose mailbox shows its history at once, so that live mail is announced in history's order.
    pub prompt: BTreeSet<String>,
    /// The connections that were deleted: what of theirs was announced need not be fetched.
    pub deleted: BTreeSet<String>,
    /// What was answered with success and did not come true.
    pub promises_broken: Vec<String>,
    /// Where Gmail refused calls beyond a budget, by its own count.
    pub over_budget: Vec<String>,
}

/// What is wrong. Each entry names the record or row by its ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Messages that were owed and never announced, or announced and never fetched; jobs accepted and never heard of.
    pub lost: Vec<String>,
    /// Messages announced more than once as live or catch-up in one connection; announcements fetched twice.
    pub twice: Vec<String>,
    /// Records of one key that are not in the order they must have.
    pub disorder: Vec<String>,
    /// Jobs without an end.
    pub open: Vec<String>,
    /// Jobs that ended more than once, or told something after their end.
    pub changed: Vec<String>,
    /// Calls beyond a budget.
    pub over_budget: Vec<String>,
    /// Secrets seen in a log or a topic.
    pub secrets: Vec<String>,
    /// Rows that are not what the topics fold to.
    pub rows: Vec<String>,
    /// Announcements of messages that do not exist, under another id than their own, or under another key; dead letters.
    pub strange: Vec<String>,
    /// How much was looked at.
    pub looked_at: LookedAt,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LookedAt {
    /// Messages owed.
    pub messages: usize,
    /// Announcements.
    pub announced: usize,
    /// Fetched messages.
    pub fetched: usize,
    /// Jobs.
    pub jobs: usize,
    /// Rows.
    pub rows: usize,
    /// Bytes in which secrets were looked for.
    pub bytes: u64,
}

impl Findings {
    /// What was found, by kind.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, &[String]); 9] {
        let Self { lost, twice, disorder, open, changed, over_budget, secrets, rows, strange, looked_at: _ } = self;
        [
            ("lost", lost),
            ("twice", twice),
            ("out of order per key", disorder),
            ("jobs open", open),
            ("jobs that changed after their end", changed),
            ("calls over budget", over_budget),
            ("secrets seen", secrets),
            ("rows unlike the topics", rows),
            ("strange records", strange),
        ]
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.kinds().iter().all(|(_, found)| found.is_empty())
    }

    /// Whether nothing is wrong with the topics; rows follow them after a moment.
    #[must_use]
    pub fn is_clean_but_for_rows(&self) -> bool {
        Self { rows: Vec::new(), ..self.clone() }.is_clean()
    }

    /// Whether anything is wrong that may mend itself with time: what is not there yet, and rows that follow.
    #[must_use]
    pub fn may_mend(&self) -> bool {
        let Self { lost, open, rows, .. } = self;
        [lost, open, rows].into_iter().any(|late| !late.is_empty())
    }
}

/// So many findings of a kind are shown.
const SHOWN: usize = 10;

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LookedAt { messages, announced, fetched, jobs, rows, bytes } = self.looked_at;
        writeln!(
            f,
            "{messages} messages owed, {announced} announced, {fetched} fetched, {jobs} jobs, {rows} rows, {bytes} bytes \
             searched for secrets"
        )?;
        for (kind, found) in self.kinds() {
            writeln!(f, "  {kind}: {}", found.len())?;
            for one in found.iter().take(SHOWN) {
                writeln!(f, "    {one:.400}")?;
            }
        }
        Ok(())
    }
}

/// Compares.
#[must_use]
pub fn check(owed: &Owed, evidence: &Evidence) -> Findings {
    let mut findings = Findings {
        lost: owed.promises_broken.clone(),
        over_budget: owed.over_budget.clone(),
        secrets: evidence.secrets_seen.clone(),
        ..Findings::default()
    };
    messages::check(owed, evidence, &mut findings);
    let folded = jobs::check(owed, evidence, &mut findings);
    jobs::check_connections(evidence, &mut findings);
    if let Some(rows) = &evidence.job_rows {
        rows::compare("job", &folded, rows, &mut findings.rows);
    }
    if let Some(rows) = &evidence.connection_rows {
        rows::compare("connection", &rows::fold_connections(evidence), rows, &mut findings.rows);
    }
    findings.strange.extend(evidence.dead.iter().map(|dead| format!("a dead letter: {dead}")));
    let count = |rows: &Option<BTreeMap<String, _>>| rows.as_ref().map_or(0, BTreeMap::len);
    findings.looked_at = LookedAt {
        messages: owed.messages.values().map(BTreeSet::len).sum(),
        announced: evidence.discovered.len(),
        fetched: evidence.fetched.as_ref().map_or(0, Vec::len),
        jobs: folded.len(),
        rows: count(&evidence.job_rows) + count(&evidence.connection_rows),
        bytes: evidence.searched,
    };
    findings
}
