//! The walk of history, and the pinning of a new cursor when there is none to walk from.

use super::jobs::LIVE;
use super::policy::{self, Verdict};
use super::record::{Head, LiveWalk};
use super::reply::{Answer, Call, CallError, CallId, HistoryPage, PageToken, Reply, Request};
use super::tries::{Probe, Tries};
use super::{Action, ConnectionState, Context, HistoryId, JobEnd, Mailbox, Place, Timestamp, Window, code, retry};
use crate::event::Origin;
use crate::job::Lane;

/// The walk with what is in memory only.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) walk: LiveWalk,
    /// How many walks had begun with this one.
    begun: u64,
    call: Option<CallId>,
    /// Where this run's pages start; constant while it pages.
    start: HistoryId,
    /// The page that is to be asked for.
    token: Option<PageToken>,
    /// The last record read, while ids rise.
    last: Option<HistoryId>,
    tries: Tries,
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
        Self {
            walk,
            begun: 0,
            call: None,
            start: HistoryId::default(),
            token: None,
            last: None,
            tries: Tries::default(),
            told: None,
        }
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
        self.tries.probe = Probe::No;
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if self.call.is_some() { None } else { self.walk.not_before }
    }

    /// From the checkpoint on again, to pin a new cursor. What was done counts on.
    fn pin_anew(&mut self, page_size: u16) {
        self.stop();
        self.tries = Tries::default();
        let LiveWalk { progress, own_until, .. } = self.walk;
        self.walk = LiveWalk { progress, own_until, ..Self::new(true, page_size).walk };
    }

    /// What is asked next. `cursor`: where a walk begins that has no checkpoint.
    fn request(&mut self, cursor: Option<HistoryId>, fallback: u16) -> Request {
        let cursor = match cursor {
            Some(cursor) if !self.walk.pinning => cursor,
            _ => return Request::Profile,
        };
        match self.tries.probe {
            Probe::Gmail => return Request::Profile,
            Probe::Past(head) => return Request::History { start: head, token: None, max: 1 },
            Probe::No => {}
        }
        if self.token.is_none() {
            self.start = self.walk.checkpoint.unwrap_or(cursor);
        }
        let max = u16::try_from(self.walk.page_size).ok().filter(|max| *max > 0).unwrap_or(fallback);
        Request::History { start: self.start, token: self.token.clone(), max }
    }
}

impl Mailbox {
    /// Whether somebody waits for the walk of history that is under way: a job, or the mailbox itself.
    pub(super) fn serves_live(&self) -> bool {
        let is_own = self.live.as_ref().is_some_and(|live| live.walk.own_until.is_some());
        is_own || self.first_job(LIVE).is_some()
    }

    /// Gives the walk its jobs, and asks for its next page.
    ///
    /// A walk that nobody waits for is parked: it keeps its checkpoint, drops its position, and is taken up by the
    /// next job with a new first page. So every job is answered by pages that were asked for after it was taken in.
    pub(super) fn advance_live(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        if let Some(live) = &mut self.live {
            live.walk.own_until = live.walk.own_until.filter(|until| *until > cx.now);
        }
        if !self.serves_live() && !self.begin_live(cx, out) {
            return;
        }
        let cursor = self.heads.cursor().map(|head| head.head);
        let Some(live) = &mut self.live else { return };
        if live.call.is_some() || live.walk.not_before.is_some_and(|at| at > cx.now) {
            return;
        }
        if live.tries.probe == Probe::No && Tries::is_deadly(live.walk.attempts) {
            live.tries.trouble = "No attempt at it was ever answered".to_owned();
            self.spoil_live(cx, out);
        }
        let id = self.call_id();
        let Some(live) = &mut self.live else { return };
        let request = live.request(cursor, cx.rules.page_size);
        live.walk.not_before = None;
        live.walk.attempts += i32::from(live.is_at_page());
        live.call = Some(id);
        let jobs = self.jobs.iter().filter(|job| job.walk == Some(LIVE)).map(|job| job.deadline);
        let deadline = jobs.chain(self.live.as_ref().and_then(|live| live.walk.own_until)).max();
        let trace = self.first_job(LIVE).and_then(|job| job.trace.clone());
        out.push(Action::Call(Call { id, lane: Lane::Live, request, deadline, token_version: self.token, trace }));
    }

    /// Begins a walk, or takes up a parked one, if anybody wants it.
    fn begin_live(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) -> bool {
        if let Some(live) = &mut self.live {
            live.stop();
        }
        let is_own = self.wants_walk(cx);
        if !is_own && self.jobs.iter().all(|job| job.walk.is_some()) {
            return false;
        }
        let pinning = self.heads.cursor().is_none();
        self.walks_begun += 1;
        let live = self.live.get_or_insert_with(|| Live::new(pinning, cx.rules.page_size));
        live.begun = self.walks_begun;
        live.walk.own_until = is_own.then_some(cx.now + cx.rules.own_walk);
        self.repoll_at = self.repoll_at.filter(|at| *at > cx.now);
        for job in self.jobs.iter_mut().filter(|job| job.walk.is_none()) {
            job.walk = Some(LIVE);
            job.started_at = Some(cx.now);
        }
        self.tell_walk(cx, LIVE, out);
        true
    }

    pub(super) fn on_live_answer(&mut self, cx: &Context<'_>, answer: Answer, out: &mut Vec<Action>) {
        let Some(mut live) = self.live.take() else { return };
        live.call = None;
        live.walk.progress.quota_units += i64::from(answer.units);
        // It was answered; where that was the page's own failure it is counted again.
        live.walk.attempts -= i32::from(live.is_at_page());
        let at = answer.date.unwrap_or(cx.now);
        let result: Result<(), _> = match (live.tries.probe, answer.result) {
            (Probe::No, Ok(Reply::Profile(profile))) if live.walk.pinning => {
                self.live = Some(live);
                return self.on_pinned(cx, Head { head: profile.head, taken_at: at }, out);
            }
            (Probe::No, Ok(Reply::History(page))) if !live.walk.pinning => {
                if page.head < live.start {
                    // History was numbered anew, or a very old backup answered: as good as expired.
                    Err(CallError::NotFound)
                } else if live.tries.tokens.turn_round(live.token.as_ref(), page.next.as_ref()) {
                    let detail = "nextPageToken leads back to a page that was read".to_owned();
                    Err(CallError::Broken { detail })
                } else {
                    return self.on_history(cx, live, page, at, out);
                }
            }
            (Probe::Gmail, Ok(Reply::Profile(profile))) => {
                live.tries.probe = Probe::Past(profile.head);
                self.live = Some(live);
                return;
            }
            (Probe::Past(_), Ok(Reply::History(_))) => {
                live.tries.probe = Probe::No;
                live.walk.failures = 0;
                return self.on_page_failed(cx, live, None, out);
            }
            // An answer to something that was not asked is a broken one.
            (_, Ok(_)) => Err(CallError::Broken { detail: "an answer of another method".to_owned() }),
            // Whatever is wrong there, it is not the page that is asked about.
            (Probe::Past(_), Err(CallError::NotFound)) => Err(CallError::Throttled { until: None }),
            (_, Err(error)) => Err(error),
        };
        let Err(error) = result else { return };
        live.walk.failures += 1;
        let is_at_page = live.is_at_page();
        match retry::judge(cx, error, live.walk.failures) {
            retry::Verdict::Again { at, fault: retry::Fault::Page { detail } } if is_at_page => {
                live.tries.trouble = detail;
                self.on_page_failed(cx, live, Some(at), out);
            }
            retry::Verdict::Again { at, fault } => {
                live.walk.not_before = Some(at);
                if let (true, retry::Fault::Unknown { detail }) = (is_at_page, fault) {
                    live.tries.trouble = detail;
                    if live.tries.is_suspect(live.walk.failures, live.walk.attempts) {
                        live.tries.probe = Probe::Gmail;
                    }
                }
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
                self.give_up_live(cx, &end, out);
            }
            retry::Verdict::Missing => {
                // The cursor is too old. The same jobs wait for the window that is owed instead.
                live.pin_anew(cx.rules.page_size);
                self.live = Some(live);
            }
            retry::Verdict::Revoked { cause } => {
                live.walk.failures = 0;
                self.live = Some(live);
                self.refuse(cx, cause, answer.token_version, out);
            }
            retry::Verdict::Gone => {
                self.live = Some(live);
                let end = JobEnd::failed(code::CONNECTION_NOT_FOUND, "The connection was deleted");
                self.on_forget(cx, end, out);
            }
            retry::Verdict::Hopeless { code, detail } => {
                live.walk.failures = 0;
                self.live = Some(live);
                self.give_up_live(cx, &JobEnd::failed(code, detail), out);
            }
        }
    }

    /// Whoever waits for the walk of history waits no longer.
    fn give_up_live(&mut self, cx: &Context<'_>, end: &JobEnd, out: &mut Vec<Action>) {
        if let Some(live) = &mut self.live {
            live.walk.own_until = None;
        }
        self.end_jobs(cx, |job| job.walk == Some(LIVE), end, out);
        self.fail_judging(cx, end, out);
    }

    /// The page at hand failed for itself. It is asked for again, not before `at`, until it has used up its attempts.
    fn on_page_failed(&mut self, cx: &Context<'_>, mut live: Live, at: Option<Timestamp>, out: &mut Vec<Action>) {
        live.walk.attempts += 1;
        live.walk.not_before = at;
        let is_spent = live.tries.is_spent(cx.rules, live.walk.attempts, live.walk.page_size <= 1);
        self.live = Some(live);
        if is_spent {
            self.spoil_live(cx, out);
        }
    }

    /// The page at hand has used up its attempts: smaller pages from the checkpoint on.
    ///
    /// A single record that cannot be read cannot be stepped over either: history is asked for by the id of the record
    /// before, and the id of this one is in what cannot be read. So it goes to the dead letters by the id that it
    /// follows, a new cursor is pinned, and the time since the last complete sync is owed, as after an expiry.
    fn spoil_live(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        let cursor = self.heads.cursor().map(|head| head.head);
        let Some(live) = &mut self.live else { return };
        live.tries.halve();
        live.stop();
        (live.walk.attempts, live.walk.failures, live.walk.not_before) = (0, 0, None);
        if live.walk.page_size > 1 {
            live.walk.page_size /= 2;
            return;
        }
        live.walk.progress.dead_lettered += 1;
        let trouble = std::mem::take(&mut live.tries.trouble);
        let after = live.walk.checkpoint.or(cursor).unwrap_or_default();
        live.pin_anew(cx.rules.page_size);
        let since = cx.now - cx.rules.catch_up;
        let since = self.reached.map_or(since, |reached| since.min(reached - cx.rules.overlap));
        self.bury(cx, Place::History { after, owed: Window { since, until: cx.now } }, LIVE, trouble, out);
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
        let has_moved = rising && live.walk.checkpoint != live.last;
        live.walk.checkpoint = live.last;
        live.token = page.next;
        if live.token.is_none() {
            return self.complete_live(cx, live, out);
        }
        live.grow(cx, has_moved);
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
        let (begun, found) = (live.begun, live.walk.progress.discovered);
        // While the last 24 hours are still being listed, a job waits for them too.
        let catch_up = self.windows.iter().find(|listing| listing.is_answering()).map(|listing| listing.walk.walk);
        self.live = Some(live);
        match catch_up {
            Some(walk) => self.hand_over_jobs(cx, walk, out),
            None => self.end_jobs(cx, |job| job.walk == Some(LIVE), &JobEnd::succeeded(), out),
        }
        self.live = None;
        self.judge_missed(cx, begun, out);
        self.watch_pushes(cx, found, out);
        self.renew_watch(cx, out);
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
        self.renew_watch(cx, out);
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

impl Live {
    /// Whether what is asked is a page of history, and no probe.
    fn is_at_page(&self) -> bool {
        !self.walk.pinning && self.tries.probe == Probe::No
    }

    /// A page was read, and more follow: pages that were made smaller grow back. A page token belongs to the size that
    /// it was given for, so a new size begins at the checkpoint.
    fn grow(&mut self, cx: &Context<'_>, has_moved: bool) {
        if self.walk.page_size >= i32::from(cx.rules.page_size) || !has_moved {
            return;
        }
        let size = self.tries.grown(cx, self.walk.page_size);
        if size != self.walk.page_size {
            self.walk.page_size = size;
            self.stop();
        }
    }
}
