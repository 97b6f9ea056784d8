//! The watch: Gmail's promise to push changes. It lasts 7 days and ends silently, so it is renewed daily, with a sync
//! that runs anyway: no timer keeps an idle mailbox awake for it. A watch that fails never fails a sync.

use super::push::Alarm;
use super::record::{Spent, Watch};
use super::reply::{Answer, Call, CallError, Reply, Request};
use super::{Action, ConnectionState, Context, Duration, Mailbox, Timestamp};
use crate::job::Lane;

/// How long the call for a watch may take.
const PATIENCE: Duration = Duration::from_minutes(2);

/// The day's quota begins anew at midnight in California, here taken as standard time.
const DAY_BEGINS: Duration = Duration::from_hours(8);

impl Mailbox {
    /// Asks for the watch when it is old enough.
    pub(super) fn renew_watch(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        let Some(every) = cx.rules.watch else { return };
        let watch = self.watch.get_or_insert_default();
        let is_old = watch.renewed_at.is_none_or(|at| at + every <= cx.now);
        // Once for each silence: it is dear, and what is wrong may well be on our side.
        let is_doubtful = self.unpushed_since.is_some_and(|since| watch.renewed_at.is_none_or(|at| at < since));
        let is_rested = watch.tried_at.is_none_or(|at| at + cx.rules.watch_retry <= cx.now);
        if self.watch_call.is_some() || !is_rested || !(is_old || is_doubtful && self.is_unheard(cx)) {
            return;
        }
        if let Some(watch) = &mut self.watch {
            watch.tried_at = Some(cx.now);
        }
        let id = self.call_id();
        self.watch_call = Some(id);
        out.push(Action::Call(Call {
            id,
            lane: Lane::Live,
            request: Request::Watch,
            deadline: Some(cx.now + PATIENCE),
            token_version: self.token,
            trace: None,
        }));
    }

    pub(super) fn on_watch_answer(&mut self, cx: &Context<'_>, answer: Answer, out: &mut Vec<Action>) {
        self.watch_call = None;
        let watch = self.watch.get_or_insert_default();
        let refusal = match answer.result {
            Ok(Reply::Watch(watching)) => {
                *watch = Watch {
                    renewed_at: Some(cx.now),
                    expires_at: Some(watching.expires_at),
                    tried_at: watch.tried_at,
                    code: None,
                };
                return self.tell_connection(cx, ConnectionState::Active, None, out);
            }
            Ok(_) => ("Gmail.BrokenAnswer".to_owned(), "an answer of another method".to_owned()),
            Err(CallError::Permanent { code, detail }) => (code, detail),
            Err(CallError::Broken { detail }) => ("Gmail.BrokenAnswer".to_owned(), detail),
            Err(CallError::NotFound) => ("Gmail.NotFound".to_owned(), "Gmail answered 404".to_owned()),
            Err(CallError::Revoked { cause }) => {
                self.refuse(cx, cause, answer.token_version, out);
                return;
            }
            // These pass, and the next sync asks again.
            Err(
                CallError::Throttled { .. }
                | CallError::Transient { .. }
                | CallError::InvalidPageToken
                | CallError::ConnectionGone,
            ) => return,
        };
        let (code, detail) = refusal;
        let is_news = watch.code.as_ref() != Some(&code);
        watch.code = Some(code.clone());
        out.push(Action::Alarm(Alarm::WatchRefused { code, detail }));
        if is_news {
            self.tell_connection(cx, ConnectionState::Active, None, out);
        }
    }

    /// A connection is deleted: its pushes are no use any more. What comes of the call interests nobody.
    pub(super) fn stop_watch(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        let is_live = self.watch.as_ref().and_then(|watch| watch.expires_at).is_some_and(|at| at > cx.now);
        if is_live && self.needs_reauth.is_none() {
            out.push(Action::Call(Call {
                id: self.call_id(),
                lane: Lane::Backfill,
                request: Request::Stop,
                deadline: Some(cx.now + PATIENCE),
                token_version: self.token,
                trace: None,
            }));
        }
    }

    /// Counts what a call cost towards its day.
    pub(super) fn spend(&mut self, cx: &Context<'_>, units: u32) {
        const DAY: i64 = Duration::from_days(1).as_millis();
        let begins = DAY_BEGINS.as_millis();
        let day = Timestamp::from_millis((cx.now.as_millis() - begins).div_euclid(DAY) * DAY + begins);
        let spent = self.spent.filter(|spent| spent.day == day).unwrap_or(Spent { day, units: 0 });
        self.spent = Some(Spent { units: spent.units + i64::from(units), ..spent });
    }
}
