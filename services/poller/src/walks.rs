//! The spans of jobs at work, where traces are told: from the command that is taken in to the job's end.
//!
//! What is kept in the mailbox's state is the span's `traceparent`, so that calls and outputs belong to it whoever owns the
//! mailbox when they are made. The span itself lives here. When a partition goes to another owner it ends, and is told,
//! with the partition; only a process that dies takes the spans with it that have not ended.

use std::sync::Arc;

use domain::{Command, GmailJobStatusChanged, JobId, JobState};
use hashbrown::HashMap;
use kafka::lane::Assignment;
use runtime::trace::{Kind, Parent, Span, is_on};

/// The most walks of a lane that have a span; what belongs to further ones belongs to the command that asked for it.
const MOST: usize = 10_000;

/// The spans of one lane's jobs.
#[derive(Default)]
pub(crate) struct Walks(HashMap<JobId, (Assignment, Span), foldhash::fast::RandomState>);

impl Walks {
    /// A command is taken in within `process`. Returns the `traceparent` under which; none where no traces are told.
    pub(crate) fn begin(&mut self, assignment: Assignment, command: &Command, process: &Span) -> Option<Arc<str>> {
        if !is_on() {
            return None;
        }
        process.set_with("mailtide.connection.id", || command.connection_id().to_string());
        process.set_with("mailtide.organisation.id", || command.organisation_id().to_string());
        if let Some(job) = command.job_id() {
            process.set_with("mailtide.job.id", || job.to_string());
        }
        let mut bearer = process;
        let walk;
        if let Command::Poll(command) = command
            && process.is_recording()
            && self.0.len() < MOST
            // The same command again: the job goes on as it began.
            && !self.0.contains_key(&command.job_id)
        {
            walk = Span::begin(Kind::Internal, "walk", Parent::Of(process));
            walk.set("mailtide.job.id", command.job_id.to_string());
            walk.set("mailtide.job.trigger", command.trigger.as_str());
            walk.set("mailtide.connection.id", command.connection_id.to_string());
            self.0.insert(command.job_id, (assignment, walk.clone()));
            bearer = &walk;
        }
        bearer.traceparent().map(Into::into)
    }

    /// What a job came to is told, and its span with it.
    pub(crate) fn told(&mut self, event: &GmailJobStatusChanged) {
        if self.0.is_empty() || !event.state.is_terminal() {
            return;
        }
        let Some((_, walk)) = self.0.remove(&event.job_id) else { return };
        let progress = &event.progress;
        walk.set("mailtide.job.state", event.state.as_str());
        walk.set("mailtide.walk.pages", progress.pages);
        walk.set("mailtide.walk.discovered", progress.discovered);
        walk.set("mailtide.walk.duplicates_skipped", progress.duplicates_skipped);
        walk.set("mailtide.gmail.units", progress.quota_units);
        if event.state == JobState::Failed {
            walk.fail(event.code.clone().unwrap_or_default());
        }
    }

    /// A command was taken in: one that became no job of the mailbox's has no walk.
    pub(crate) fn taken(&mut self, job: JobId, is_known: impl FnOnce() -> bool) {
        if !self.0.is_empty() && self.0.contains_key(&job) && !is_known() {
            self.0.remove(&job);
        }
    }

    /// A partition goes to another owner.
    pub(crate) fn closed(&mut self, assignment: Assignment) {
        self.0.retain(|_, (of, walk)| {
            let stays = *of != assignment;
            if !stays {
                walk.event("handed over");
            }
            stays
        });
    }
}
