//! Reading the messages of one mailbox that announcements name: from records to what is to be written, off the lane's
//! thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use domain::filter::Rule;
use domain::mailbox::reply::CallError;
use domain::{
    Duration, GmailMessageDiscovered, GmailMessageFetched, MessageId, OrganisationId, Timestamp, TokenVersion,
};
use gmail::{Mailbox, Message};
use kafka::{OutRecord, OwnedRecord, partition_of};
use store::fetching::Terms;

use crate::mailboxes::Mailboxes;
use crate::publish::{self, Names};

/// Failures of its own after which a message is put aside: its body breaks the schema, or Gmail refuses it by name.
const OWN: u8 = 3;
/// Server errors and time-outs of its own after which it is, when they have gone on for [`Mailboxes::patience`] besides.
const UNANSWERED: u8 = 6;
/// Failures in a row of the first message after which Gmail is asked something else, to tell whose they are.
const SUSPECT: u8 = 3;
/// A message may not be readable yet when history names it. One that is not found this long after it was announced,
/// asked for twice at least, is gone.
const INDEX_LAG: Duration = Duration::from_secs(60);

/// How often a message failed, in memory only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    /// It was not found.
    missing: u8,
    /// It failed for itself.
    own: u8,
    /// It was not answered, while others were.
    unanswered: u8,
    /// Since when.
    unanswered_since: Option<Instant>,
    /// It was not answered, and nothing else was.
    suspect: u8,
}

impl Tries {
    /// It was not answered again, while others were. Whether it was tried often and long enough.
    fn is_unanswered(&mut self, patience: std::time::Duration) -> bool {
        self.unanswered = self.unanswered.saturating_add(1);
        let since = self.unanswered_since.get_or_insert_with(Instant::now);
        self.unanswered >= UNANSWERED && since.elapsed() >= patience
    }
}

/// A record whose message is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) record: Arc<OwnedRecord>,
    pub(crate) tries: Tries,
}

/// What becomes of a record.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Its message, to be written.
    Fetched(OutRecord),
    /// That its message is gone, to be written.
    Gone(OutRecord),
    /// The record itself, among the dead letters.
    Dead(OutRecord),
    /// Nothing is written: the organisation does not want it.
    Filtered(Rule),
    /// Nothing is written: the connection was deleted.
    Deleted,
}

impl Outcome {
    /// The name in metrics.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Fetched(_) => "fetched",
            Self::Gone(_) => "gone",
            Self::Dead(_) => "dead_letter",
            Self::Filtered(_) => "filtered",
            Self::Deleted => "connection_deleted",
        }
    }

    /// What it takes to keep it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Fetched(record) | Self::Gone(record) | Self::Dead(record) => {
                record.value.as_ref().map_or(0, Bytes::len)
            }
            Self::Filtered(_) | Self::Deleted => 0,
        }
    }
}

/// How far a record is.
#[derive(Debug)]
pub(crate) enum Step {
    /// To the end.
    Done(Outcome),
    /// It is to be tried again.
    Again(Tries),
}

/// Why some are to be tried again, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Single messages failed or were not found: after a pause.
    Single,
    /// Gmail pushes back: not before then, if it said when.
    Throttled(Option<Timestamp>),
    /// Gmail or Postgres is away.
    Failing(String),
    /// Gmail refuses the mailbox, which somebody has to mend: a dotted code and a sentence.
    Refused(String, String),
    /// The grant of this refresh token, and of those before it, is gone.
    Revoked(TokenVersion),
}

impl Trouble {
    /// The name in metrics and traces.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Throttled(_) => "throttled",
            Self::Failing(_) => "failing",
            Self::Refused(..) => "refused",
            Self::Revoked(_) => "revoked",
        }
    }
}

/// What a reading came to.
#[derive(Debug)]
pub(crate) struct Report {
    /// For the first of the records, in their order; what is beyond was not tried.
    pub(crate) steps: Vec<Step>,
    /// The worst of what befell those that are to be tried again.
    pub(crate) trouble: Option<Trouble>,
    /// The tenant.
    pub(crate) organisation: Option<OrganisationId>,
}

impl Report {
    /// Whether all of so many records are at their end.
    pub(crate) fn is_whole(&self, asked: usize) -> bool {
        self.trouble.is_none()
            && self.steps.len() == asked
            && self.steps.iter().all(|step| matches!(step, Step::Done(_)))
    }

    /// What it takes to keep it.
    pub(crate) fn bytes(&self) -> usize {
        let of = |step: &Step| match step {
            Step::Done(outcome) => outcome.bytes(),
            Step::Again(_) => 0,
        };
        self.steps.iter().map(of).sum()
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Reads an announcement, and checks that it is where it belongs.
fn announcement(record: &OwnedRecord, partitions: i32) -> Result<GmailMessageDiscovered, String> {
    let value = record.value.as_ref().ok_or_else(|| "The record has no value".to_owned())?;
    let key = record.key.as_ref().ok_or_else(|| "The record has no key, so its mailbox is not known".to_owned())?;
    let event: GmailMessageDiscovered =
        events::decode(value).map_err(|error| format!("The value does not decode: {error}"))?;
    if event.connection_id.to_string().as_bytes() != key.as_ref() {
        return Err("The key names another connection than the value".to_owned());
    }
    let home = partition_of(key, partitions);
    if home != record.partition {
        return Err(format!(
            "The key belongs to partition {home} of {partitions}; write with the partitioner murmur2_random"
        ));
    }
    Ok(event)
}

/// A message that is to be read.
struct Wanted {
    at: usize,
    event: GmailMessageDiscovered,
}

/// Reads the messages of `due`, which are of one key, as far as they are of one tenant. `oldest` is the oldest refresh
/// token that may be used.
pub(crate) async fn read<M: Mailboxes>(mailboxes: &M, names: &Names, due: &[Due], oldest: TokenVersion) -> Report {
    let mut steps: Vec<Step> = Vec::with_capacity(due.len());
    let mut wanted: Vec<Wanted> = Vec::new();
    for (at, due) in due.iter().enumerate() {
        match announcement(&due.record, names.partitions) {
            Ok(event) => {
                // Tenants are not mixed in one reading, though a connection has but one.
                if wanted.first().is_some_and(|first| first.event.organisation_id != event.organisation_id) {
                    break;
                }
                steps.push(Step::Again(due.tries));
                wanted.push(Wanted { at, event });
            }
            Err(reason) => steps.push(Step::Done(Outcome::Dead(publish::dead_letter(names, &due.record, &reason)))),
        }
    }
    let Some(first) = wanted.first() else { return Report { steps, trouble: None, organisation: None } };
    let mailbox = Mailbox { organisation_id: first.event.organisation_id, connection_id: first.event.connection_id };
    let organisation = Some(mailbox.organisation_id);
    let terms = match mailboxes.terms(mailbox).await {
        Ok(Some(terms)) => terms,
        Ok(None) => {
            wanted.iter().for_each(|wanted| steps[wanted.at] = Step::Done(Outcome::Deleted));
            return Report { steps, trouble: None, organisation };
        }
        Err(away) => return Report { steps, trouble: Some(Trouble::Failing(away.to_string())), organisation },
    };
    wanted.retain(|wanted| {
        let labels = wanted.event.label_ids.as_deref();
        let rule = labels.and_then(|labels| terms.filter.judge_labels(labels));
        if let Some(rule) = rule {
            steps[wanted.at] = Step::Done(Outcome::Filtered(rule));
        }
        rule.is_none()
    });
    let oldest = oldest.max(terms.token_version);
    let trouble = if wanted.is_empty() {
        None
    } else {
        let reading = Attempt { mailboxes, names, terms: &terms, mailbox, oldest, due, wanted: &wanted };
        reading.run(&mut steps).await
    };
    Report { steps, trouble, organisation }
}

/// One attempt at messages of one mailbox.
struct Attempt<'a, M> {
    mailboxes: &'a M,
    names: &'a Names,
    terms: &'a Terms,
    mailbox: Mailbox,
    oldest: TokenVersion,
    due: &'a [Due],
    wanted: &'a [Wanted],
}

impl<M: Mailboxes> Attempt<'_, M> {
    async fn run(&self, steps: &mut [Step]) -> Option<Trouble> {
        let ids: Vec<MessageId> = self.wanted.iter().map(|wanted| wanted.event.message_id.clone()).collect();
        let read = self.mailboxes.read(self.mailbox, &ids, self.oldest).await;
        let at = now();
        let is_answer = |result: &Result<Message, CallError>| {
            matches!(result, Ok(_) | Err(CallError::NotFound | CallError::Broken { .. }))
        };
        let answered = read.messages.iter().filter(|result| is_answer(result)).count();
        let mut trouble = None;
        for (wanted, result) in self.wanted.iter().zip(read.messages) {
            // Others were answered in the same moment.
            let is_alone = answered > usize::from(is_answer(&result));
            let mut tries = self.due[wanted.at].tries;
            let befell = match result {
                Ok(message) => {
                    steps[wanted.at] = Step::Done(self.take(wanted, &message, at));
                    continue;
                }
                Err(CallError::ConnectionGone) => {
                    steps[wanted.at] = Step::Done(Outcome::Deleted);
                    continue;
                }
                Err(CallError::NotFound) => {
                    tries.missing = tries.missing.saturating_add(1);
                    if tries.missing > 1 && at.since(wanted.event.discovered_at) >= INDEX_LAG {
                        let gone = GmailMessageFetched::gone(&wanted.event, at);
                        steps[wanted.at] = Step::Done(Outcome::Gone(self.written(wanted, &gone, at)));
                        continue;
                    }
                    Trouble::Single
                }
                Err(CallError::Broken { detail }) => {
                    tries.own = tries.own.saturating_add(1);
                    if tries.own >= OWN {
                        steps[wanted.at] = self.give_up(wanted, &format!("Gmail's answer cannot be read: {detail}"));
                        continue;
                    }
                    Trouble::Single
                }
                Err(CallError::Permanent { code, detail }) if is_alone || code == "Gmail.InvalidRequest" => {
                    tries.own = tries.own.saturating_add(1);
                    if tries.own >= OWN {
                        steps[wanted.at] = self.give_up(wanted, &format!("{code}: {detail}"));
                        continue;
                    }
                    Trouble::Single
                }
                Err(CallError::Permanent { code, detail }) => Trouble::Refused(code, detail),
                Err(CallError::Transient { detail }) if is_alone => {
                    if tries.is_unanswered(self.mailboxes.patience()) {
                        steps[wanted.at] = self.give_up(wanted, &format!("Gmail answers for others only: {detail}"));
                        continue;
                    }
                    Trouble::Single
                }
                Err(CallError::Transient { detail }) => Trouble::Failing(detail),
                Err(CallError::InvalidPageToken) => Trouble::Failing("Gmail spoke of a page".to_owned()),
                Err(CallError::Throttled { until }) => Trouble::Throttled(until),
                Err(CallError::Revoked { .. }) => Trouble::Revoked(self.oldest.max(read.token_version)),
            };
            steps[wanted.at] = Step::Again(tries);
            trouble = Some(worse(trouble, befell));
        }
        if let Some(Trouble::Failing(detail)) = &trouble {
            let detail = detail.clone();
            self.suspect(steps, &detail).await;
        }
        trouble
    }

    /// Nothing was answered. From the third time on, or if others were answered before, the first message may be the
    /// reason; something else tells.
    async fn suspect(&self, steps: &mut [Step], detail: &str) {
        let Some(first) = self.wanted.first() else { return };
        let Step::Again(tries) = &mut steps[first.at] else { return };
        tries.suspect = tries.suspect.saturating_add(1);
        let is_suspect = tries.suspect >= SUSPECT || tries.unanswered > 0;
        if !is_suspect || !self.mailboxes.answers(self.mailbox, self.oldest).await {
            return;
        }
        if tries.is_unanswered(self.mailboxes.patience()) {
            steps[first.at] = self.give_up(first, &format!("Gmail answers for others only: {detail}"));
        }
    }

    /// Makes of a message what is announced of it.
    fn take(&self, wanted: &Wanted, message: &Message, at: Timestamp) -> Outcome {
        if wanted.event.label_ids.is_none()
            && let Some(rule) = self.terms.filter.judge_labels(&message.labels)
        {
            return Outcome::Filtered(rule);
        }
        let run = AssertUnwindSafe(|| {
            #[cfg(feature = "faults")]
            crate::faults::panic_if_asked(&wanted.event);
            gmail::fetched(&wanted.event, message, at)
        });
        let Ok(fetched) = catch_unwind(run) else {
            let record = &self.due[wanted.at].record;
            return Outcome::Dead(publish::dead_letter(self.names, record, "Reading the message panicked"));
        };
        match self.terms.filter.judge(&fetched) {
            Some(rule) => Outcome::Filtered(rule),
            None => Outcome::Fetched(self.written(wanted, &fetched, at)),
        }
    }

    fn written(&self, wanted: &Wanted, fetched: &GmailMessageFetched, at: Timestamp) -> OutRecord {
        publish::fetched(self.names, &self.due[wanted.at].record, fetched, at)
    }

    fn give_up(&self, wanted: &Wanted, reason: &str) -> Step {
        Step::Done(Outcome::Dead(publish::dead_letter(self.names, &self.due[wanted.at].record, reason)))
    }
}

/// The one of two troubles that lasts longer.
fn worse(one: Option<Trouble>, other: Trouble) -> Trouble {
    let rank = |trouble: &Trouble| match trouble {
        Trouble::Single => 0,
        Trouble::Failing(_) => 1,
        Trouble::Throttled(until) => 2 + i64::from(until.is_some()),
        Trouble::Refused(..) => 4,
        Trouble::Revoked(_) => 5,
    };
    match one {
        None => other,
        Some(Trouble::Throttled(one)) if matches!(other, Trouble::Throttled(_)) => match other {
            Trouble::Throttled(other) => Trouble::Throttled(one.max(other)),
            other => other,
        },
        Some(one) if rank(&one) >= rank(&other) => one,
        Some(_) => other,
    }
}
