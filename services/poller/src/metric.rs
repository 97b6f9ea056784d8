//! The names of what the poller counts, and their labels, all of them bounded.

use domain::mailbox::Alarm;
use domain::{GmailJobStatusChanged, Origin, Trigger};
use metrics::{counter, histogram};

/// Messages announced; label `origin`.
const DISCOVERED: &str = "mailtide_poller_discovered_total";
/// Jobs that ended; labels `trigger`, `state`.
const JOBS: &str = "mailtide_poller_jobs_ended_total";
/// Seconds from a job's request to its end; label `trigger`.
const JOB_SECONDS: &str = "mailtide_poller_job_seconds";
/// Messages that jobs recognised as announced before.
const DUPLICATES: &str = "mailtide_poller_duplicates_skipped_total";
/// Commands put aside as dead letters.
const DEAD_LETTERS: &str = "mailtide_poller_dead_letters_total";
/// Places at Gmail that no attempt could read, put aside as dead letters. Anything above 0 wants an operator.
const UNREADABLE: &str = "mailtide_poller_unreadable_total";
/// Messages that audits found missing. Anything above 0 is a fault of ours or of Gmail's.
const AUDIT_FOUND: &str = "mailtide_poller_audit_found_total";
/// What is wrong with the pushes of mailboxes; label `kind`. Raised again with every sync while it lasts.
const PUSH_ALARMS: &str = "mailtide_poller_push_alarms_total";
/// Mailboxes set aside because they broke the poller. Anything above 0 wants an operator.
const QUARANTINED: &str = "mailtide_poller_mailboxes_quarantined_total";

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
            counter!(DISCOVERED, "origin" => origin.as_str()).increment(n);
        }
    }
}

pub(crate) fn job_ended(event: &GmailJobStatusChanged) {
    let trigger = event.trigger.as_str();
    counter!(JOBS, "trigger" => trigger, "state" => event.state.as_str()).increment(1);
    let took = event.at.since(event.requested_at).as_millis();
    histogram!(JOB_SECONDS, "trigger" => trigger).record(took as f64 / 1_000.0);
    if event.trigger == Trigger::Audit {
        counter!(AUDIT_FOUND).increment(u64::try_from(event.progress.discovered).unwrap_or(0));
    }
    counter!(DUPLICATES).increment(u64::try_from(event.progress.duplicates_skipped).unwrap_or(0));
}

pub(crate) fn dead_letter() {
    counter!(DEAD_LETTERS).increment(1);
}

pub(crate) fn unreadable() {
    counter!(UNREADABLE).increment(1);
}

pub(crate) fn alarm(alarm: &Alarm) {
    counter!(PUSH_ALARMS, "kind" => alarm.as_str()).increment(1);
}

pub(crate) fn quarantined() {
    counter!(QUARANTINED).increment(1);
}
