//! Jobs: taking them in, telling how they fare, ending them. Every job ends once.

use std::sync::Arc;

use super::record::{Job, NeedsReauth, Purpose};
use super::{Action, Context, GmailJobStatusChanged, JobId, Mailbox};
use crate::command::PollGmailConnection;
use crate::job::{JobState, Progress, Trigger};

/// The dotted codes with which a mailbox fails a job.
pub mod code {
    /// Somebody has to consent again.
    pub const REAUTH_REQUIRED: &str = "Gmail.ReauthRequired";
    /// The job did not end before its deadline.
    pub const DEADLINE_EXCEEDED: &str = "Job.DeadlineExceeded";
    /// A thousand jobs wait in this mailbox already.
    pub const TOO_MANY_WAITING: &str = "Job.TooManyWaiting";
    /// The connection was deleted.
    pub const CONNECTION_NOT_FOUND: &str = "Gmail.ConnectionNotFound";
    /// Google has no such mailbox.
    pub const MAILBOX_NOT_FOUND: &str = "Gmail.MailboxNotFound";
    /// The mailbox was set aside because its state broke the poller.
    pub const QUARANTINED: &str = "Mailbox.Quarantined";
    /// The command could not be read.
    pub const UNREADABLE_COMMAND: &str = "Job.UnreadableCommand";
    /// The window that was asked for holds no time.
    pub const EMPTY_WINDOW: &str = "Job.EmptyWindow";
    /// Another push waits for the same walk and answers for this one, too.
    pub const COALESCED: &str = "Job.Coalesced";
    /// The job succeeded, but something on its way could not be read and is among the dead letters.
    pub const DEAD_LETTERED: &str = "Gmail.DeadLettered";
}

/// The walk of history, as jobs name it.
pub(super) const LIVE: i64 = 0;

/// The job in whose walk a message was found.
pub(super) struct Finder {
    pub(super) id: JobId,
    pub(super) trace: Option<Arc<str>>,
}

/// How a job ends.
#[derive(Debug, Clone)]
pub(crate) struct JobEnd {
    state: JobState,
    code: Option<String>,
    detail: Option<String>,
}

impl JobEnd {
    pub(super) fn succeeded() -> Self {
        Self { state: JobState::Succeeded, code: None, detail: None }
    }

    fn with_dead_letters(places: i64) -> Self {
        let detail = format!(
            "Places that Gmail could not be made to read out: {places}. They are among the dead letters by name; the \
             time around them was listed instead or is owed to the audit"
        );
        Self { state: JobState::Succeeded, code: Some(code::DEAD_LETTERED.to_owned()), detail: Some(detail) }
    }

    pub(super) fn cancelled() -> Self {
        Self { state: JobState::Cancelled, code: None, detail: None }
    }

    pub(super) fn failed(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { state: JobState::Failed, code: Some(code.into()), detail: Some(detail.into()) }
    }

    /// Nobody failed and nobody cancelled it: there is no more to do for it.
    pub(super) fn ended_by(code: &str, detail: String) -> Self {
        Self { state: JobState::Cancelled, code: Some(code.to_owned()), detail: Some(detail) }
    }

    /// `cause` is Google's; it says whether somebody withdrew the grant, an administrator, or time.
    pub(super) fn reauth(cause: &str) -> Self {
        let detail = format!(
            "Google no longer accepts this connection's grant ({cause}); connect the address again to renew it"
        );
        Self::failed(code::REAUTH_REQUIRED, detail)
    }

    fn deadline() -> Self {
        Self::failed(
            code::DEADLINE_EXCEEDED,
            "The job did not end before its deadline; nothing is lost, the next sync takes up where this one stopped",
        )
    }
}

impl Mailbox {
    pub(super) fn on_poll(
        &mut self,
        cx: &Context<'_>,
        command: PollGmailConnection,
        trace: Option<Arc<str>>,
        out: &mut Vec<Action>,
    ) {
        self.renew(cx, command.token_version, out);
        let id = command.job_id;
        if self.ended.contains(id.as_uuid().as_u128()) || self.jobs.iter().any(|job| job.job_id == id) {
            return;
        }
        let mut job = Job {
            job_id: id,
            trigger: command.trigger,
            requested_at: command.requested_at,
            deadline: command.deadline,
            started_at: None,
            walk: None,
            trace,
        };
        let refused = if self.jobs.len() >= cx.rules.waiting {
            let detail = format!("{} jobs wait in this mailbox already; wait for them to end", self.jobs.len());
            Some(JobEnd::failed(code::TOO_MANY_WAITING, detail))
        } else if job.deadline <= cx.now {
            Some(JobEnd::deadline())
        } else if let Some(NeedsReauth { cause, .. }) = &self.needs_reauth {
            Some(JobEnd::reauth(cause))
        } else if command.window.is_some_and(crate::Window::is_empty) {
            Some(JobEnd::failed(code::EMPTY_WINDOW, "The window's `since` is not before its `until`"))
        } else {
            self.coalesced(command.trigger)
        };
        if refused.is_none() {
            // A forgotten mailbox begins anew. Whether there is such a connection, its first call will tell.
            self.decays_at = None;
        }
        if self.decays_at.is_none() {
            if command.window.is_none() {
                // The first sync owes the last 24 hours from when it was asked for, however late it gets its turn.
                let owed = command.requested_at.min(cx.now) - cx.rules.catch_up;
                self.reached.get_or_insert(owed + cx.rules.overlap);
            }
            if command.trigger == Trigger::Push && self.needs_reauth.is_none() {
                self.on_push(cx);
            }
        }
        if let Some(end) = refused {
            self.end_job(cx, &job, Progress::default(), &end, out);
            return;
        }
        match command.window {
            None => self.wake_owed(cx),
            Some(window) if command.trigger == Trigger::Audit => {
                self.wake_unread();
                let Some(window) = self.auditable(cx, window) else {
                    self.end_job(cx, &job, Progress::default(), &JobEnd::succeeded(), out);
                    return;
                };
                job.walk = Some(self.open_window(cx, Purpose::Audit, window));
                job.started_at = Some(cx.now);
            }
            Some(window) => {
                job.walk = Some(self.open_window(cx, Purpose::Backfill, window));
                job.started_at = Some(cx.now);
            }
        }
        let state = if job.walk.is_some() { JobState::Running } else { JobState::Queued };
        self.tell_job(cx, &job, state, Progress::default(), None, out);
        self.jobs.push(job);
    }

    pub(super) fn on_cancel(&mut self, cx: &Context<'_>, id: JobId, out: &mut Vec<Action>) {
        self.end_jobs(cx, |job| job.job_id == id, &JobEnd::cancelled(), out);
    }

    /// Fails the jobs whose deadline is past. The walks go on for what is owed.
    pub(super) fn expire_jobs(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        if self.jobs.iter().any(|job| job.deadline <= cx.now) {
            self.end_jobs(cx, |job| job.deadline <= cx.now, &JobEnd::deadline(), out);
        }
    }

    /// Ends all jobs that `which` picks.
    pub(super) fn end_jobs(
        &mut self,
        cx: &Context<'_>,
        which: impl Fn(&Job) -> bool,
        end: &JobEnd,
        out: &mut Vec<Action>,
    ) {
        let (ending, going): (Vec<_>, Vec<_>) = std::mem::take(&mut self.jobs).into_iter().partition(|job| which(job));
        self.jobs = going;
        for job in ending {
            let progress = self.progress(&job);
            self.end_job(cx, &job, progress, end, out);
        }
    }

    fn end_job(&mut self, cx: &Context<'_>, job: &Job, progress: Progress, end: &JobEnd, out: &mut Vec<Action>) {
        self.ended.insert(job.job_id.as_uuid().as_u128(), cx.now);
        let lost = progress.dead_lettered;
        if end.state == JobState::Succeeded && lost > 0 {
            return self.tell_job(cx, job, end.state, progress, Some(&JobEnd::with_dead_letters(lost)), out);
        }
        self.tell_job(cx, job, end.state, progress, Some(end), out);
    }

    /// Tells how the jobs of a walk fare.
    pub(super) fn tell_walk(&mut self, cx: &Context<'_>, walk: i64, out: &mut Vec<Action>) {
        for index in 0..self.jobs.len() {
            if self.jobs[index].walk == Some(walk) {
                let job = self.jobs[index].clone();
                let progress = self.progress(&job);
                self.tell_job(cx, &job, JobState::Running, progress, None, out);
            }
        }
    }

    /// What the walk that answers `job` has done.
    fn progress(&self, job: &Job) -> Progress {
        match job.walk {
            None => Progress::default(),
            Some(LIVE) => self.live.as_ref().map(|live| live.walk.progress).unwrap_or_default(),
            Some(walk) => {
                let listing = self.windows.iter().find(|listing| listing.walk.walk == walk);
                listing.map(|listing| listing.walk.progress).unwrap_or_default()
            }
        }
    }

    pub(super) fn tell_job(
        &mut self,
        cx: &Context<'_>,
        job: &Job,
        state: JobState,
        progress: Progress,
        end: Option<&JobEnd>,
        out: &mut Vec<Action>,
    ) {
        self.step += 1;
        let status = GmailJobStatusChanged {
            job_id: job.job_id,
            organisation_id: self.organisation,
            connection_id: self.connection,
            trigger: job.trigger,
            state,
            step: self.step,
            progress,
            requested_at: job.requested_at,
            started_at: job.started_at,
            ended_at: end.map(|_| cx.now),
            deadline: job.deadline,
            at: cx.now,
            code: end.and_then(|end| end.code.clone()),
            detail: end.and_then(|end| end.detail.clone()),
        };
        out.push(Action::Job(status, job.trace.clone()));
    }

    /// The job in whose name a walk announces.
    pub(super) fn finder(&self, walk: i64) -> Option<Finder> {
        self.first_job(walk).map(|job| Finder { id: job.job_id, trace: job.trace.clone() })
    }

    /// The first of the jobs that a walk answers.
    pub(super) fn first_job(&self, walk: i64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.walk == Some(walk))
    }
}
