//! Gmail's own listing of a window, as a backfill and the audit list it.
//!
//! What lists is the same mailbox machine that the poller runs, new, in memory, and asked for a backfill: slices, pages,
//! what lies in spam and trash, what cannot be read and when to try again are decided by the same code. What it
//! announces is the listing; nothing of it is written anywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::mailbox::{Action, Context, Input, Mailbox as Machine, Rules};
use domain::{Command, JobId, JobState, MessageId, PollGmailConnection, Trigger, Window};
use gmail::{Client, Mailbox};
use indicatif::ProgressBar;
use runtime::Shutdown;
use store::connections::Connection;
use uuid::Uuid;

use crate::command::now;

/// How long a listing may take.
const PATIENCE: domain::Duration = domain::Duration::from_hours(24);

/// What Gmail lists.
pub(super) struct Listed {
    /// The messages that are neither draft nor chat, and not in spam or trash.
    pub(super) messages: BTreeSet<MessageId>,
    /// Quota units spent.
    pub(super) units: u64,
}

/// Lists what arrived in `window`. None when it was stopped.
///
/// # Errors
/// When Gmail refuses for good, or a part of the window cannot be read.
pub(super) async fn list(
    client: &Client,
    connection: &Connection,
    window: Window,
    bar: &ProgressBar,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Listed>> {
    let mailbox = Mailbox { organisation_id: connection.organisation_id, connection_id: connection.connection_id };
    let mut machine = Machine::new(connection.connection_id, connection.organisation_id);
    let job_id = JobId::from_uuid(Uuid::new_v4());
    let begun = now();
    let command = Command::Poll(PollGmailConnection {
        job_id,
        organisation_id: connection.organisation_id,
        connection_id: connection.connection_id,
        trigger: Trigger::Backfill,
        window: Some(window),
        token_version: connection.token_version,
        requested_at: begun,
        deadline: begun + PATIENCE,
    });
    let mut listed = Listed { messages: BTreeSet::new(), units: 0 };
    let mut input = Input::Command(command, None);
    loop {
        let mut actions = Vec::new();
        machine.on(&Context { now: now(), jitter: rand::random(), rules: &Rules::DEFAULT }, input, &mut actions);
        let mut call = None;
        for action in actions {
            match action {
                Action::Discovered(event, _) => drop(listed.messages.insert(event.message_id)),
                Action::Call(next) => call = Some(next),
                Action::DeadLetter(letter) => {
                    anyhow::bail!("Gmail's listing cannot be read in full, at {:?}: {}", letter.place, letter.reason)
                }
                Action::Job(job, _) if job.state == JobState::Succeeded => return Ok(Some(listed)),
                Action::Job(job, _) if job.state.is_terminal() => {
                    let said = [job.code, job.detail].into_iter().flatten().collect::<Vec<_>>().join(": ");
                    anyhow::bail!("Gmail's listing failed: {said}")
                }
                Action::Job(..)
                | Action::Connection(_)
                | Action::WriteChunk(_)
                | Action::DropChunk(_)
                | Action::Alarm(_)
                | Action::Forget => {}
            }
        }
        bar.set_message(format!("{} messages listed, {} units", listed.messages.len(), listed.units));
        input = tokio::select! {
            input = next(client, mailbox, &machine, call) => input,
            () = shutdown.requested() => return Ok(None),
        };
        if let Input::Answer(_, answer) = &input {
            listed.units += u64::from(answer.units);
        }
    }
}

/// What happens next to the machine: the answer to its call, or the time that it waits for.
async fn next(
    client: &Client,
    mailbox: Mailbox,
    machine: &Machine,
    call: Option<domain::mailbox::reply::Call>,
) -> Input {
    if let Some(call) = call {
        return Input::Answer(call.id, client.call(mailbox, &call).await);
    }
    let wait = machine.wake_at().map_or(domain::Duration::from_secs(1), |at| at.since(now()));
    tokio::time::sleep(Duration::from_millis(wait.as_millis().unsigned_abs().max(10))).await;
    Input::Timer
}
