//! The walk of history, and the pinning of a new cursor when there is none to walk from.

use super::jobs::LIVE;
use super::policy::{self, Verdict};
use super::record::{Head, LiveWalk};
use super::reply::{Answer, Call, CallError, CallId, HistoryPage, PageToken, Reply, Request};
use super::{Action, ConnectionState, Context, HistoryId, JobEnd, Mailbox, Timestamp, code, retry};
use crate::event::Origin;
use crate::job::Lane;

/// The walk with what is in memory only.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) walk: LiveWalk,
    call: Option<CallId>,
    /// Where this run's pages start; constant while it pages.
    start: HistoryId,
    /// The page that is to be asked for.
    token: Option<PageToken>,
    /// The last record read, while ids rise.
    last: Option<HistoryId>,
    /// When progress was told last.
    told: Option<Timestamp>,
}

impl Live {
    fn new(pinning: bool, page_size: u16) -> Self {
        let mut walk = LiveWalk { pinning, page_size: i32::from(page_size), ..LiveWalk::default() };
        walk.progress.lane = Some(if pinning { Lane::CatchUp } else { Lane::Live });
        Self::restored(walk)
    }

    pub(super) fn restored(walk: LiveWalk) -> Self {
        Self { walk, call: None, start: HistoryId::default(), token: None, last: None, told: None }
    }

    pub(super) fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    pub(super) fn awaits(&self, id: CallId) -> bool {
        self.call == Some(id)
    }

    /// Drops the answer under way and the pages' position; the checkpoint stays.
    pub(super) fn stop(&mut self) {
        self.call = None;
        self.token = None;
        self.last = None;
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if self.call.is_some() { None } else { self.walk.not_before }
    }
}

impl Mailbox {
    /// Whether a job waits for the walk of history that is under way.
    pub(super) fn serves_live(&self) -> bool {
        self.first_job(LIVE).is_some()
    }

    /// Gives the walk its jobs, and asks for its next page.
    ///
    /// A walk that nobody waits for is parked: it keeps its checkpoint, drops its position, and is taken up by the
    /// next job with a new first page. So every job is answered by pages that were asked for after it was taken in.
    pub(super) fn advance_live(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        if !self.serves_live() {
            if let Some(live) = &mut self.live {
                live.stop();
            }
            if self.jobs.iter().all(|job| job.walk.is_some()) {
                return;
            }
            let pinning = self.heads.cursor().is_none();
            self.live.get_or_insert_with(|| Live::new(pinning, cx.rules.page_size));
            for job in self.jobs.iter_mut().filter(|job| job.walk.is_none()) {
                job.walk = Some(LIVE);
                job.started_at = Some(cx.now);
            }
            self.tell_walk(cx, LIVE, out);
        }
        let cursor = self.heads.cursor().map(|head| head.head);
        let Some(live) = &mut self.live else { return };
        if live.call.is_some() || live.walk.not_before.is_some_and(|at| at > cx.now) {
            return;
        }
        let request = match cursor {
            Some(cursor) if !live.walk.pinning => {
                if live.token.is_none() {
                    live.start = live.walk.checkpoint.unwrap_or(cursor);
                }
                let max = u16::try_from(live.walk.page_size).unwrap_or(cx.rules.page_size);
                Request::History { start: live.start, token: live.token.clone(), max }
            }
            _ => Request::Profile,
        };
        live.walk.not_before = None;
        let id = self.call_id();
        let job = self.first_job(LIVE);
        let call = Call {
            id,
            lane: Lane::Live,
            request,
            deadline: self.jobs.iter().filter(|job| job.walk == Some(LIVE)).map(|job| job.deadline).max(),
            token_version: self.token,
            trace: job.and_then(|job| job.trace.clone()),
        };
        if let Some(live) = &mut self.live {
            live.call = Some(id);
        }
        out.push(Action::Call(call));
    }

    pub(super) fn on_live_answer(&mut self, cx: &Context<'_>, answer: Answer, out: &mut Vec<Action>) {
        let Some(mut live) = self.live.take() else { return };
        live.call = None;
        live.walk.progress.quota_units += i64::from(answer.units);
        let at = answer.date.unwrap_or(cx.now);
        let result: Result<(), _> = match answer.result {
            // An answer to something that was not asked is a broken one; so is a page that names itself as the next.
            Ok(Reply::Profile(profile)) if live.walk.pinning => {
                self.live = Some(live);
                return self.on_pinned(cx, Head { head: profile.head, taken_at: at }, out);
            }
            Ok(Reply::History(page)) if !live.walk.pinning => {
                if page.next.is_some() && page.next == live.token {
                    Err(CallError::Broken { detail: "nextPageToken names the page itself".to_owned() })
                } else if page.head < live.start {
                    // History was numbered anew, or a very old backup answered: as good as expired.
                    Err(CallError::NotFound)
                } else {
                    return self.on_history(cx, live, page, at, out);
                }
            }
            Ok(_) => Err(CallError::Broken { detail: "an answer of another method".to_owned() }),
            Err(error) => Err(error),
        };
        let Err(error) = result else { return };
        live.walk.failures += 1;
        match retry::judge(cx, error, live.walk.failures) {
            retry::Verdict::Again { at, own } => {
                live.walk.attempts += i32::from(own);
                live.walk.not_before = Some(at);
                self.live = Some(live);
            }
            retry::Verdict::Rewind { at } => {
                live.stop();
                live.walk.not_before = Some(at);
                self.live = Some(live);
            }
            retry::Verdict::Missing if live.walk.pinning => {
                let end = JobEnd::failed(code::MAILBOX_NOT_FOUND, "Gmail has no mailbox for this connection's grant");
                self.live = Some(live);
                self.end_jobs(cx, |job| job.walk == Some(LIVE), &end, out);
            }
            retry::Verdict::Missing => {
                // The cursor is too old. The same jobs wait for the window that is owed instead.
                live.stop();
                live.walk = LiveWalk { progress: live.walk.progress, ..Live::new(true, cx.rules.page_size).walk };
                self.live = Some(live);
            }
            retry::Verdict::Revoked { cause } => {
                let version = answer.token_version;
                live.walk.failures = 0;
                self.live = Some(live);
                self.refuse(cx, cause, version, out);
            }
            retry::Verdict::Gone => {
                self.live = Some(live);
                let end = JobEnd::failed(code::CONNECTION_NOT_FOUND, "The connection was deleted");
                self.on_forget(cx, end, out);
            }
            retry::Verdict::Hopeless { code, detail } => {
                live.walk.failures = 0;
                self.live = Some(live);
                self.end_jobs(cx, |job| job.walk == Some(LIVE), &JobEnd::failed(code, detail), out);
            }
        }
    }

    fn on_history(
        &mut self,
        cx: &Context<'_>,
        mut live: Live,
        page: HistoryPage,
        at: Timestamp,
        out: &mut Vec<Action>,
    ) {
        live.walk.failures = 0;
        live.walk.attempts = 0;
        live.walk.first.get_or_insert(Head { head: page.head, taken_at: at });
        live.walk.progress.pages += 1;
        live.walk.progress.records_seen += i64::try_from(page.records.len()).unwrap_or(i64::MAX);
        let job = self.finder(LIVE);
        out.reserve(page.records.len());
        let mut rising = live.token.is_none() || live.last.is_some();
        let mut last = live.last.unwrap_or(live.start);
        for record in page.records {
            rising &= record.id >= last;
            last = record.id;
            let freed: Vec<_> = policy::freed(&record).map(|change| change.message.clone()).collect();
            for message in record.added {
                let key = message.id.key();
                match policy::verdict(message.labels.as_deref()) {
                    Verdict::Announce if self.announce_once(cx, key) => {
                        live.walk.progress.discovered += 1;
                        self.announce(cx, message, Some(record.id), Origin::Live, job.as_ref(), out);
                    }
                    Verdict::Announce => live.walk.progress.duplicates_skipped += 1,
                    Verdict::Withhold => {
                        if !self.seen.contains(key) && self.withheld.insert(key, cx.now) {
                            live.walk.progress.withheld += 1;
                        }
                    }
                    Verdict::Out => live.walk.progress.withheld += 1,
                }
            }
            for message in freed {
                let key = message.id.key();
                if self.withheld.contains(key) && self.announce_once(cx, key) {
                    live.walk.progress.discovered += 1;
                    self.announce(cx, message, Some(record.id), Origin::Live, job.as_ref(), out);
                }
            }
        }
        live.last = rising.then_some(last);
        live.walk.checkpoint = live.last;
        live.token = page.next;
        if live.token.is_none() {
            return self.complete_live(cx, live, out);
        }
        let told = live.told.is_none_or(|told| cx.now >= told + cx.rules.progress);
        if told {
            live.told = Some(cx.now);
        }
        self.live = Some(live);
        if told {
            self.tell_walk(cx, LIVE, out);
        }
    }

    /// All pages are read: the cursor moves, the jobs are answered.
    fn complete_live(&mut self, cx: &Context<'_>, live: Live, out: &mut Vec<Action>) {
        if let Some(first) = live.walk.first {
            self.heads.completed(first, cx.rules.lag);
            self.reached = self.reached.max(Some(first.taken_at));
            if self.last_synced.is_none_or(|last| last.head <= first.head) {
                self.last_synced = Some(first);
            }
        }
        // While the last 24 hours are still being listed, a job waits for them too.
        let catch_up = self.windows.iter().find(|listing| listing.is_answering()).map(|listing| listing.walk.walk);
        self.live = Some(live);
        match catch_up {
            Some(walk) => self.hand_over_jobs(cx, walk, out),
            None => self.end_jobs(cx, |job| job.walk == Some(LIVE), &JobEnd::succeeded(), out),
        }
        self.live = None;
        self.tell_connection(cx, ConnectionState::Active, None, out);
    }

    /// A new cursor is known: what lies before it is owed as windows, and the jobs wait for the youngest of them.
    fn on_pinned(&mut self, cx: &Context<'_>, head: Head, out: &mut Vec<Action>) {
        let lost_since = self.reached.map(|reached| reached - cx.rules.overlap);
        self.heads.pin(head.head, head.taken_at);
        self.reached = self.reached.max(Some(head.taken_at));
        let walk = self.owe(cx, head, lost_since, out);
        self.hand_over_jobs(cx, walk, out);
        self.live = None;
    }

    /// The jobs of the walk of history wait for a listed window from now on.
    fn hand_over_jobs(&mut self, cx: &Context<'_>, walk: i64, out: &mut Vec<Action>) {
        let done = self.live.as_ref().map(|live| live.walk.progress).unwrap_or_default();
        if let Some(listing) = self.windows.iter_mut().find(|listing| listing.walk.walk == walk) {
            listing.take_over(&done);
        }
        for job in self.jobs.iter_mut().filter(|job| job.walk == Some(LIVE)) {
            job.walk = Some(walk);
        }
        self.tell_walk(cx, walk, out);
    }
}
