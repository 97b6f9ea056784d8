//! What the poller counts. Labels are bounded.

use domain::mailbox::Alarm;
use domain::{GmailJobStatusChanged, Origin, Trigger};
use metrics::{counter, histogram};
use runtime::metric::Metric;

const DISCOVERED: Metric =
    Metric::counter("mailtide_poller_discovered_total", &["origin"], "Messages announced, by the way they were found");
const JOBS: Metric = Metric::counter(
    "mailtide_poller_jobs_ended_total",
    &["trigger", "state"],
    "Jobs that ended, by what asked for them and how they ended",
);
const JOB_SECONDS: Metric =
    Metric::histogram("mailtide_poller_job_seconds", &["trigger"], "From a job's request to its end");
const DUPLICATES: Metric = Metric::counter(
    "mailtide_poller_duplicates_skipped_total",
    &[],
    "Messages that jobs recognised as announced before",
);
const DEAD_LETTERS: Metric =
    Metric::counter("mailtide_poller_dead_letters_total", &[], "Commands put aside as dead letters");
const UNREADABLE: Metric = Metric::counter(
    "mailtide_poller_unreadable_total",
    &[],
    "Places at Gmail that no attempt could read, put aside as dead letters. Anything above 0 wants an operator",
);
const AUDIT_FOUND: Metric = Metric::counter(
    "mailtide_poller_audit_found_total",
    &[],
    "Messages that audits found missing. Anything above 0 is a fault of ours or of Gmail's",
);
const PUSH_ALARMS: Metric = Metric::counter(
    "mailtide_poller_push_alarms_total",
    &["kind"],
    "What is wrong with the pushes of mailboxes, raised again with every sync while it lasts",
);
const QUARANTINED: Metric = Metric::counter(
    "mailtide_poller_mailboxes_quarantined_total",
    &[],
    "Mailboxes set aside because they broke the poller. Anything above 0 wants an operator",
);

/// All of them.
pub const ALL: &[Metric] =
    &[DISCOVERED, JOBS, JOB_SECONDS, DUPLICATES, DEAD_LETTERS, UNREADABLE, AUDIT_FOUND, PUSH_ALARMS, QUARANTINED];

/// Messages announced by one input, counted when it is dropped: a look-up of the counter for each would cost as much as
/// the rest of its announcement.
#[derive(Default)]
pub(crate) struct Discovered(Option<(Origin, u64)>);

impl Discovered {
    pub(crate) fn add(&mut self, origin: Origin) {
        match &mut self.0 {
            Some((known, n)) if *known == origin => *n += 1,
            other => {
                Self(other.replace((origin, 1)));
            }
        }
    }
}

impl Drop for Discovered {
    fn drop(&mut self) {
        if let Some((origin, n)) = self.0 {
            counter!(DISCOVERED.name, "origin" => origin.as_str()).increment(n);
        }
    }
}

pub(crate) fn job_ended(event: &GmailJobStatusChanged) {
    let trigger = event.trigger.as_str();
    counter!(JOBS.name, "trigger" => trigger, "state" => event.state.as_str()).increment(1);
    let took = event.at.since(event.requested_at).as_millis();
    histogram!(JOB_SECONDS.name, "trigger" => trigger).record(took as f64 / 1_000.0);
    if event.trigger == Trigger::Audit {
        counter!(AUDIT_FOUND.name).increment(u64::try_from(event.progress.discovered).unwrap_or(0));
    }
    counter!(DUPLICATES.name).increment(u64::try_from(event.progress.duplicates_skipped).unwrap_or(0));
}

pub(crate) fn dead_letter() {
    counter!(DEAD_LETTERS.name).increment(1);
}

pub(crate) fn unreadable() {
    counter!(UNREADABLE.name).increment(1);
}

pub(crate) fn alarm(alarm: &Alarm) {
    counter!(PUSH_ALARMS.name, "kind" => alarm.as_str()).increment(1);
}

pub(crate) fn quarantined() {
    counter!(QUARANTINED.name).increment(1);
}
