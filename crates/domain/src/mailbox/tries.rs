//! Telling a page that cannot be read from a Gmail that is away.
//!
//! A page fails for itself when Gmail answers the same question elsewhere. A body that breaks the schema says so at
//! once. A server error or a time-out does not: from the second one on, the same method is asked for a place where
//! nothing is (a *probe*). If that is answered, the failure was the page's own and counts; if not, Gmail is away, and
//! the page has nothing to do with it. Throttles count for nothing.
//!
//! A page that has used up its attempts is asked for in halves. Two pages read in a row at one size have passed the
//! place that failed, and the size doubles again.

use super::reply::PageToken;
use super::{Context, HistoryId, Rules};

/// A page whose attempts were cut off so often, without an answer, is taken to end whatever reads it.
const CUT_OFF: i32 = 6;

/// What the call under way, or the next one, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Probe {
    /// The page itself.
    #[default]
    No,
    /// Whether Gmail answers at all; for history, where its head is.
    Gmail,
    /// Whether the history after its head can be read: there is none.
    Past(HistoryId),
}

/// What is known of the tries at the page at hand, in memory only; how many there were is in the walk's record.
#[derive(Debug, Default)]
pub(super) struct Tries {
    pub(super) probe: Probe,
    /// What the last failure was.
    pub(super) trouble: String,
    /// The page tokens of this run.
    pub(super) tokens: Tokens,
    /// A page has used up its attempts, and what failed in it has not been passed yet.
    halving: bool,
    /// Pages in a row that were read since the last half.
    steady: u32,
}

impl Tries {
    /// Whether a failure that may have been the page's own is worth a probe. One failure is not: most pass.
    pub(super) fn is_suspect(&self, failures: i32, attempts: i32) -> bool {
        failures > 1 || attempts > 0 || self.halving
    }

    /// Whether a page that just failed for itself has used up its attempts. Halves of a page that has need no more
    /// than one, until nothing is left to halve.
    pub(super) fn is_spent(&self, rules: &Rules, attempts: i32, is_smallest: bool) -> bool {
        attempts >= if self.halving && !is_smallest { 1 } else { rules.attempts }
    }

    /// Whether so many attempts at the page were begun and none was answered that it must be what ends the process.
    pub(super) fn is_deadly(attempts: i32) -> bool {
        attempts >= CUT_OFF
    }

    /// A page has used up its attempts: half of it is asked for.
    pub(super) fn halve(&mut self) {
        (self.halving, self.steady) = (true, 0);
    }

    /// The size that follows a page which was read and brought the walk further.
    pub(super) fn grown(&mut self, cx: &Context<'_>, size: i32) -> i32 {
        self.steady += 1;
        if self.steady < 2 {
            return size;
        }
        (self.halving, self.steady) = (false, 0);
        size.saturating_mul(2).min(i32::from(cx.rules.page_size)).max(size)
    }
}

/// Notices that page tokens go round in a circle, with one token in memory (Brent's algorithm).
#[derive(Debug, Default)]
pub(super) struct Tokens {
    kept: Option<PageToken>,
    steps: u32,
    power: u32,
}

impl Tokens {
    /// Takes in the token that the page at `at` names as the next; whether it has come before. A circle of n tokens is
    /// noticed within 3n pages.
    pub(super) fn turn_round(&mut self, at: Option<&PageToken>, next: Option<&PageToken>) -> bool {
        if at.is_none() {
            *self = Self::default();
        }
        let Some(next) = next else { return false };
        if at == Some(next) || self.kept.as_ref() == Some(next) {
            return true;
        }
        self.steps += 1;
        if self.steps >= self.power {
            self.power = self.power.saturating_mul(2).max(1);
            self.steps = 0;
            self.kept = Some(next.clone());
        }
        false
    }
}
