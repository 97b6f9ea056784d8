//! Pushes: what Gmail tells of its own accord. A push means "walk soon, and once more a little later", and nothing
//! else: it comes late, twice, out of order or not at all, and often before the record can be read.

use super::jobs::JobEnd;
use super::{Action, Context, Mailbox, Timestamp, code};
use crate::job::Trigger;

/// What an operator should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// Mail is found in a mailbox with a live watch, and no push tells of it.
    PushesMissing,
    /// The watch has ended, because it could not be renewed in time.
    WatchLapsed,
    /// Gmail refuses to watch, with this dotted code and in these words.
    WatchRefused {
        /// The dotted code.
        code: String,
        /// Gmail's words.
        detail: String,
    },
}

impl Alarm {
    /// The name in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PushesMissing => "pushes_missing",
            Self::WatchLapsed => "watch_lapsed",
            Self::WatchRefused { .. } => "watch_refused",
        }
    }
}

impl Mailbox {
    /// A push has come.
    pub(super) fn on_push(&mut self, cx: &Context<'_>) {
        self.last_push = Some(cx.now);
        self.repoll_at = Some(cx.now + cx.rules.push_again);
        self.unpushed_since = None;
    }

    /// How a push's job ends at once: another one waits for the next walk already, and it answers for both. So no
    /// burst of pushes fills the mailbox with jobs.
    pub(super) fn coalesced(&self, trigger: Trigger) -> Option<JobEnd> {
        let waits = |job: &&super::Job| job.trigger == Trigger::Push && job.walk.is_none();
        let other = self.jobs.iter().find(waits).filter(|_| trigger == Trigger::Push)?;
        Some(JobEnd::coalesced(other.job_id))
    }

    /// When the mailbox walks of its own accord, if it does.
    pub(super) fn own_walk_at(&self) -> Option<Timestamp> {
        // While history is being walked, what is due waits for its end.
        self.repoll_at.filter(|_| !self.serves_live())
    }

    /// Whether the mailbox itself wants history walked.
    pub(super) fn wants_walk(&self, cx: &Context<'_>) -> bool {
        self.repoll_at.is_some_and(|at| at <= cx.now) || self.is_judging()
    }

    /// A walk of history is complete that found so many messages: whether pushes tell of them.
    pub(super) fn watch_pushes(&mut self, cx: &Context<'_>, found: i64, out: &mut Vec<Action>) {
        let rules = cx.rules;
        let Some(expires_at) = self.watch.as_ref().filter(|_| rules.watch.is_some()).and_then(|it| it.expires_at)
        else {
            self.unpushed_since = None;
            return;
        };
        if expires_at <= cx.now {
            self.unpushed_since = None;
            out.push(Action::Alarm(Alarm::WatchLapsed));
            return;
        }
        // A watch that is renewed is told of by a push of its own.
        let renewed_at = self.watch.as_ref().and_then(|watch| watch.renewed_at);
        let heard_at = self.last_push.max(renewed_at);
        let is_silent = heard_at.is_none_or(|at| at + rules.push_silence <= cx.now);
        match self.unpushed_since {
            None if found > 0 && is_silent => {
                self.unpushed_since = Some(cx.now);
                self.repoll_at.get_or_insert(cx.now + rules.push_grace);
            }
            Some(since) if since + rules.push_grace <= cx.now => {
                out.push(Action::Alarm(Alarm::PushesMissing));
                self.repoll_at.get_or_insert(cx.now + rules.silent_poll);
            }
            None | Some(_) => {}
        }
    }

    /// Whether pushes that are due do not come.
    pub(super) fn is_unheard(&self, cx: &Context<'_>) -> bool {
        self.unpushed_since.is_some_and(|since| since + cx.rules.push_grace <= cx.now)
    }
}

impl JobEnd {
    fn coalesced(other: super::JobId) -> Self {
        Self::ended_by(code::COALESCED, format!("The push's walk is the one that job {other} waits for"))
    }
}
