//! Reading messages, many in one request.
//!
//! A batch costs what its calls cost and counts as that many calls at one time, so a mailbox has one under way at most,
//! and its size follows what Gmail takes: halved when it pushes parts back, grown again after a rest. The outer 200
//! says nothing: each part has its own verdict, and is matched by its `Content-ID`, never by its place.

use std::sync::Arc;
use std::time::Duration;

use domain::mailbox::reply::CallError;
use domain::{Lane, MessageId, Timestamp, TokenVersion};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method as HttpMethod, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use runtime::trace::Parent;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Client, Inner, Ledger, Mailbox, bearer, fail, not_admitted, now, outcome};
use crate::gate::{Admission, Reach};
use crate::message::{self, Message, View};
use crate::tariff::Method;
use crate::token::Access;
use crate::transport;
use crate::verdict::{self, Refusal, Verdict};
use crate::{metric, multipart, trace};

/// Calls in one batch when neither Gmail has pushed back nor the budget is too small for them: of 100 at once some are
/// refused, batches of 25 are taken one after the other.
const LARGEST: usize = 25;
/// After a push-back a mailbox's batches do not grow for so long.
const REST: Duration = Duration::from_secs(10);
/// A part that a batch's answer leaves out is asked for so many times in all.
const ASKED_AT_MOST: u8 = 3;

/// How messages are read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The priority.
    pub lane: Lane,
    /// How much of each.
    pub view: View,
    /// When nobody waits any more: what has not been read by then is answered as transient.
    pub deadline: Instant,
    /// The oldest refresh token that may still be used.
    pub token_version: TokenVersion,
}

/// What came of reading messages.
#[derive(Debug)]
pub struct Read {
    /// For each id that was asked for, in that order: the message or why not. [`CallError::NotFound`] is a message that
    /// is gone, or not there yet. After a push-back what had not been asked for is not; it is throttled, too.
    pub messages: Vec<Result<Message, CallError>>,
    /// Gmail's `Date` header.
    pub date: Option<Timestamp>,
    /// Quota units spent.
    pub units: u32,
    /// The version of the refresh token that the calls were made under.
    pub token_version: TokenVersion,
}

/// The batches of one mailbox. Held by the one that is under way.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<Size>);

#[derive(Debug)]
struct Size {
    now: usize,
    pushed_back: Option<Instant>,
}

impl Default for Size {
    fn default() -> Self {
        Self { now: LARGEST, pushed_back: None }
    }
}

impl Size {
    /// After a batch of `calls` that was too much.
    fn halve(&mut self, calls: usize) {
        self.now = (self.now.min(calls) / 2).max(1);
        self.pushed_back = Some(Instant::now());
    }

    /// After a batch that was taken whole.
    fn grow(&mut self) {
        if self.pushed_back.is_none_or(|at| at.elapsed() >= REST) {
            self.now = (self.now + (self.now / 4).max(1)).min(LARGEST);
        }
    }
}

/// Why a batch has no answer.
enum Undone {
    TooLarge(transport::Failure),
    Failed(CallError),
}

/// A message that is still to be read.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: usize,
    asked: u8,
}

/// Messages on their way: those still due, and what came of the others.
struct Work<'a> {
    ids: &'a [MessageId],
    /// The next one is the last.
    due: Vec<Due>,
    results: Vec<Option<Result<Message, CallError>>>,
    /// The access token was refused once already.
    renewed: bool,
}

impl Work<'_> {
    /// The next messages, at most so many.
    fn take(&mut self, calls: usize) -> Vec<Due> {
        let mut batch = self.due.split_off(self.due.len().saturating_sub(calls));
        batch.reverse();
        batch
    }

    fn settle(&mut self, due: Due, result: Result<Message, CallError>) {
        metric::read(outcome(&result));
        self.results[due.at] = Some(result);
    }

    fn settle_rest(&mut self, error: &CallError) {
        self.due.clear();
        for result in self.results.iter_mut().filter(|result| result.is_none()) {
            let failed = Err(error.clone());
            metric::read(outcome(&failed));
            *result = Some(failed);
        }
    }
}

impl Client {
    /// Reads messages of one mailbox. Always answers by the deadline, each id for itself. Asks again only for parts
    /// that an answer leaves out, and once for those that a stale access token was refused for: when to try again what
    /// was throttled or failed is the caller's decision.
    pub async fn get_messages(&self, mailbox: Mailbox, ids: &[MessageId], reading: &Reading) -> Read {
        let mut ledger = Ledger { units: 0, date: None, token_version: reading.token_version };
        let mut work = Work {
            ids,
            due: (0..ids.len()).rev().map(|at| Due { at, asked: 0 }).collect(),
            results: ids.iter().map(|_| None).collect(),
            renewed: false,
        };
        let span = trace::of(Method::MessagesGet, mailbox, Parent::Current);
        span.set("mailtide.gmail.lane", reading.lane.as_str());
        while !work.due.is_empty() {
            if let Err(error) = span.scope(self.inner.next_batch(mailbox, reading, &mut work, &mut ledger)).await {
                work.settle_rest(&error);
            }
        }
        if span.is_recording() {
            let failed = work.results.iter().flatten().find(|result| result.is_err());
            span.set("mailtide.gmail.units", i64::from(ledger.units));
            span.set("mailtide.gmail.messages", i64::try_from(ids.len()).unwrap_or(i64::MAX));
            // One class for all: each message has its own further on.
            match failed {
                None => span.set("mailtide.gmail.outcome", "ok"),
                Some(failed) => span.fail(outcome(failed)),
            }
        }
        let unanswered = || Err(CallError::Transient { detail: "The message was not asked for".to_owned() });
        let messages = work.results.into_iter().map(|result| result.unwrap_or_else(unanswered)).collect();
        Read { messages, date: ledger.date, units: ledger.units, token_version: ledger.token_version }
    }
}

impl Inner {
    /// Takes the mailbox's turn and reads as many of the messages due as a batch may hold.
    ///
    /// # Errors
    /// What befell all that have no result yet.
    async fn next_batch(
        &self,
        mailbox: Mailbox,
        reading: &Reading,
        work: &mut Work<'_>,
        ledger: &mut Ledger,
    ) -> Result<(), CallError> {
        let late = || CallError::Transient { detail: "The deadline passed before the message was read".to_owned() };
        let turn = self.turns.get_with(mailbox.connection_id, Arc::default);
        let mut size = tokio::time::timeout_at(reading.deadline, turn.0.lock()).await.map_err(|_| late())?;
        let attempt = self.batch(mailbox, reading, work, &mut size, ledger);
        tokio::time::timeout_at(reading.deadline, attempt).await.unwrap_or_else(|_| Err(late()))
    }

    async fn batch(
        &self,
        mailbox: Mailbox,
        reading: &Reading,
        work: &mut Work<'_>,
        size: &mut Size,
        ledger: &mut Ledger,
    ) -> Result<(), CallError> {
        let access = self.tokens.access(mailbox, reading.token_version).await?;
        let batch = &work.take(size.now.min(self.affordable(mailbox, &access)))[..];
        let paths = batch.iter().map(|due| path(&work.ids[due.at], reading.view));
        let body = multipart::request(paths);
        let began = Instant::now();
        let answered = match self.post(mailbox, reading, &access, batch.len(), body, ledger).await {
            Ok(answered) => answered,
            Err(Undone::TooLarge(failure)) => {
                match batch {
                    [one] => work.settle(*one, Err(CallError::Broken { detail: failure.to_string() })),
                    // The messages are large, so fewer of them at a time.
                    _ => {
                        size.halve(batch.len());
                        work.due.extend(batch.iter().rev());
                    }
                }
                return Ok(());
            }
            Err(Undone::Failed(error)) => return Err(error),
        };
        metric::batch(batch.len(), began.elapsed());
        if answered.status != StatusCode::OK {
            return self.outer(mailbox, &access, &answered, work, batch, size);
        }
        let Some(boundary) = multipart::boundary(&answered.headers) else {
            let detail = "Gmail answered a batch with something that is no batch".to_owned();
            return Err(CallError::Transient { detail });
        };
        let mut answers: Vec<Option<multipart::Answer>> = batch.iter().map(|_| None).collect();
        for answer in multipart::answers(&answered.body, &boundary) {
            if let Some(place) = answers.get_mut(answer.index) {
                *place = Some(answer);
            }
        }
        self.parts(mailbox, &access, work, batch.iter().copied().zip(answers), size)
    }

    /// Judges each part for itself.
    fn parts(
        &self,
        mailbox: Mailbox,
        access: &Arc<Access>,
        work: &mut Work<'_>,
        answers: impl ExactSizeIterator<Item = (Due, Option<multipart::Answer>)>,
        size: &mut Size,
    ) -> Result<(), CallError> {
        let calls = answers.len();
        let mut pushed_back: Option<(Reach, Option<Timestamp>)> = None;
        let mut refused = Vec::new();
        for (due, answer) in answers {
            let Some(answer) = answer else {
                let due = Due { asked: due.asked + 1, ..due };
                if due.asked < ASKED_AT_MOST {
                    work.due.push(due);
                } else {
                    let detail = format!("Gmail left the message out of {ASKED_AT_MOST} answers");
                    work.settle(due, Err(CallError::Transient { detail }));
                }
                continue;
            };
            if answer.status == StatusCode::OK {
                work.settle(due, message::read(&answer.body));
                continue;
            }
            match verdict::judge(refusal(answer.status, &answer.headers, &answer.body)) {
                Verdict::Unauthorized => refused.push(due),
                Verdict::Throttled { reach, until } => {
                    let latest = pushed_back.map_or(until, |(_, other)| other.max(until));
                    pushed_back = Some((reach, latest));
                    work.settle(due, Err(CallError::Throttled { until }));
                }
                Verdict::Failed(error) => work.settle(due, Err(error)),
            }
        }
        if !refused.is_empty() {
            self.refused(mailbox, access, work, &refused)?;
        }
        let Some((reach, until)) = pushed_back else {
            size.grow();
            return Ok(());
        };
        // Once for all parts: they were pushed back together.
        self.gate.pushed_back(&access.account, reach, until);
        size.halve(calls);
        Err(CallError::Throttled { until })
    }

    /// The batch as a whole was refused.
    fn outer(
        &self,
        mailbox: Mailbox,
        access: &Arc<Access>,
        answered: &transport::Answered,
        work: &mut Work<'_>,
        batch: &[Due],
        size: &mut Size,
    ) -> Result<(), CallError> {
        match verdict::judge(refusal(answered.status, &answered.headers, &answered.body)) {
            Verdict::Unauthorized => self.refused(mailbox, access, work, batch),
            Verdict::Throttled { reach, until } => {
                self.gate.pushed_back(&access.account, reach, until);
                size.halve(batch.len());
                Err(CallError::Throttled { until })
            }
            // There is no entity that a batch could be missing.
            Verdict::Failed(CallError::NotFound) => {
                Err(CallError::Transient { detail: "Gmail answered a batch with 404".to_owned() })
            }
            Verdict::Failed(error) => Err(error),
        }
    }

    /// The access token was not taken: once, another is tried.
    fn refused(
        &self,
        mailbox: Mailbox,
        access: &Arc<Access>,
        work: &mut Work<'_>,
        refused: &[Due],
    ) -> Result<(), CallError> {
        if work.renewed {
            return Err(fail(Verdict::Unauthorized, "a token that was just issued"));
        }
        work.renewed = true;
        self.tokens.reject(mailbox, access);
        work.due.extend(refused.iter().rev());
        Ok(())
    }

    /// How many messages the budget has read at once.
    fn affordable(&self, mailbox: Mailbox, access: &Access) -> usize {
        let most = self.gate.most(&access.account, Some(mailbox.connection_id), access.shares);
        usize::try_from(most.calls(self.tariff.price(Method::MessagesGet))).unwrap_or(usize::MAX)
    }

    async fn post(
        &self,
        mailbox: Mailbox,
        reading: &Reading,
        access: &Access,
        calls: usize,
        body: String,
        ledger: &mut Ledger,
    ) -> Result<transport::Answered, Undone> {
        let transient = |detail: String| Undone::Failed(CallError::Transient { detail });
        ledger.token_version = access.token_version;
        let units = self.tariff.price(Method::MessagesGet) * u32::try_from(calls).unwrap_or(u32::MAX);
        let Reading { lane, deadline, .. } = *reading;
        let admission = Admission {
            account: &access.account,
            connection: Some(mailbox.connection_id),
            shares: access.shares,
            lane,
            units,
            parts: u32::try_from(calls).unwrap_or(u32::MAX),
            deadline,
        };
        let admitted = trace::admitted(self.gate.admit(admission)).await;
        let _permit = admitted.map_err(|refused| Undone::Failed(not_admitted(refused)))?;
        // Spent from here on, whatever comes of it.
        ledger.units += units;
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["batch", "gmail", "v1"]);
        }
        let bearer = bearer(access).ok_or_else(|| transient("a token that no header holds".to_owned()))?;
        let request = self
            .http(mailbox.connection_id)
            .request(HttpMethod::POST, url)
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, multipart::CONTENT_TYPE)
            .body(body);
        let fetch = transport::fetch(request, self.max_body);
        let answered = tokio::time::timeout(self.call_timeout, fetch).await;
        let answered = answered.map_err(|_| transient(format!("No answer within {:?}", self.call_timeout)))?;
        let answered = answered.map_err(|failure| match failure {
            transport::Failure::TooLarge { .. } => Undone::TooLarge(failure),
            _ => transient(failure.to_string()),
        })?;
        ledger.date = verdict::date(&answered.headers).or(ledger.date);
        Ok(answered)
    }
}

fn refusal<'a>(status: StatusCode, headers: &'a http::HeaderMap, body: &'a [u8]) -> Refusal<'a> {
    Refusal { method: Method::MessagesGet, status, headers, body, now: now() }
}

/// The inner calls are paths alone, from the API's own root.
fn path(id: &MessageId, view: View) -> String {
    let id = id.to_string();
    format!("/gmail/v1/users/me/messages/{}?{}", utf8_percent_encode(&id, NON_ALPHANUMERIC), view.query())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_shrinks_by_half_and_grows_again_after_a_rest() {
        let mut size = Size::default();
        size.halve(40);
        size.grow();
        assert_eq!(size.now, 12, "no growth without a rest");
        (0..9).for_each(|_| size.halve(size.now));
        assert_eq!(size.now, 1);
        tokio::time::advance(REST).await;
        let grown: Vec<_> = (0..15)
            .map(|_| {
                size.grow();
                size.now
            })
            .collect();
        assert_eq!(grown, [2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 25, 25, 25]);
    }
}
