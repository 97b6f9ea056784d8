//! Listing a window of time: what history can no longer give, and what somebody asked for again.
//!
//! A page token of a listing is a position, not a snapshot: when a message is trashed meanwhile, everything behind it
//! moves up and one message is skipped. So a window is listed in slices of time that fit one page; only a slice that
//! cannot be made shorter is paged, and then again and again until nothing new appears. Slices go from old to new, and
//! what is done is one instant: everything before it.

use hashbrown::HashSet;

use super::record::{Head, Purpose, WindowWalk};
use super::reply::{Answer, Call, CallError, CallId, ListPage, MessageRef, PageToken, Reply, Request};
use super::{Action, Context, Duration, Job, JobEnd, JobId, Mailbox, Timestamp, Window, code, retry};
use crate::event::{ConnectionState, Origin};
use crate::job::{Lane, Progress, Trigger};

/// No slice is shorter: Gmail's search knows whole seconds, and its ends may be in or out.
const SHORTEST: Duration = Duration::from_secs(2);

/// No slice is longer.
const LONGEST: Duration = Duration::from_days(30);

/// A paged slice is read again until nothing new appears, but not for ever.
const PASSES: u32 = 20;

/// A gap no longer than this is listed with the last 24 hours.
const SMALL_GAP: Duration = Duration::from_hours(1);

/// More owed windows than this are joined, the two that lie closest first.
const OWED: usize = 8;

/// A window with what is in memory only.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) walk: WindowWalk,
    call: Option<CallId>,
    slice: Option<Slice>,
    /// The ids of the slice before, whose edge this slice reads again.
    edge: HashSet<u128, foldhash::fast::FixedState>,
    told: Option<Timestamp>,
}

/// The slice at hand.
#[derive(Debug, Default)]
struct Slice {
    until: Timestamp,
    /// All of it is read; what lies in spam and trash is to be told apart.
    sorting: bool,
    token: Option<PageToken>,
    messages: Vec<MessageRef>,
    index: HashSet<u128, foldhash::fast::FixedState>,
    held: HashSet<u128, foldhash::fast::FixedState>,
    pages: u32,
    passes: u32,
    fresh: bool,
}

impl Listing {
    fn new(walk: i64, purpose: Purpose, window: Window) -> Self {
        let lane = match purpose {
            Purpose::CatchUp => Lane::CatchUp,
            Purpose::Gap | Purpose::Rescue | Purpose::Backfill => Lane::Backfill,
            Purpose::Audit => Lane::Audit,
        };
        Self::restored(WindowWalk {
            walk,
            purpose,
            window,
            position: window.since,
            slice: window.until.since(window.since).clamp(SHORTEST, LONGEST),
            settling: false,
            failures: 0,
            attempts: 0,
            not_before: None,
            progress: Progress { window: Some(window), lane: Some(lane), ..Progress::default() },
        })
    }

    pub(super) fn restored(walk: WindowWalk) -> Self {
        Self { walk, call: None, slice: None, edge: HashSet::default(), told: None }
    }

    pub(super) fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    pub(super) fn awaits(&self, id: CallId) -> bool {
        self.call == Some(id)
    }

    pub(super) fn stop(&mut self) {
        self.call = None;
        self.slice = None;
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if self.call.is_some() { None } else { self.walk.not_before }
    }

    /// Whether jobs wait for this listing as the answer to a sync.
    pub(super) fn is_answering(&self) -> bool {
        self.walk.purpose == Purpose::CatchUp && !self.walk.settling
    }

    /// Counts what another walk has done for the jobs that wait for this one now.
    pub(super) fn take_over(&mut self, done: &Progress) {
        let progress = &mut self.walk.progress;
        progress.pages += done.pages;
        progress.records_seen += done.records_seen;
        progress.discovered += done.discovered;
        progress.duplicates_skipped += done.duplicates_skipped;
        progress.withheld += done.withheld;
        progress.dead_lettered += done.dead_lettered;
        progress.quota_units += done.quota_units;
    }

    const fn origin(&self) -> Origin {
        match self.walk.purpose {
            Purpose::CatchUp => Origin::CatchUp,
            Purpose::Gap | Purpose::Rescue => Origin::Gap,
            Purpose::Backfill => Origin::Backfill,
            Purpose::Audit => Origin::Audit,
        }
    }

    /// The next request: the slice from `position`, or its next page.
    fn request(&mut self, max: u16) -> Request {
        let (walk, slice) = (&self.walk, &mut self.slice);
        let slice = slice.get_or_insert_with(|| Slice {
            until: (walk.position + walk.slice).min(walk.window.until),
            ..Slice::default()
        });
        // Whole seconds around the slice, and one more on each side: whether Gmail takes the ends in is not told.
        let second = Duration::from_secs(1);
        let since = Timestamp::from_millis(walk.position.floor_seconds() * 1_000) - second;
        let until = Timestamp::from_millis(slice.until.ceil_seconds() * 1_000) + second;
        let window = Window { since, until };
        Request::List { window, held_only: slice.sorting, token: slice.token.clone(), max }
    }
}

/// What a page of a slice leads to.
enum Turn {
    /// Another page, or another pass, of the same slice.
    Page,
    /// The slice is too long for one page: a shorter one instead.
    Shorter,
    /// The slice is whole.
    Whole(Slice),
}

impl Slice {
    fn take_in(mut self, page: ListPage, length: Duration) -> (Turn, Option<Self>) {
        if page.next.is_some() && length > SHORTEST {
            return (Turn::Shorter, None);
        }
        self.pages += 1;
        for message in page.messages {
            let key = message.id.key();
            if self.sorting {
                self.fresh |= self.held.insert(key);
            } else if self.index.insert(key) {
                self.fresh = true;
                self.messages.push(message);
            }
        }
        self.token = page.next;
        if self.token.is_some() {
            return (Turn::Page, Some(self));
        }
        let paged = self.pages > 1;
        let again = paged && self.fresh && self.passes < PASSES;
        (self.pages, self.fresh) = (0, false);
        if again {
            self.passes += 1;
        } else if self.sorting || self.messages.is_empty() {
            return (Turn::Whole(self), None);
        } else {
            (self.sorting, self.passes) = (true, 0);
        }
        (Turn::Page, Some(self))
    }
}

impl Mailbox {
    /// Opens a window to be listed.
    pub(super) fn open_window(&mut self, purpose: Purpose, window: Window) -> i64 {
        let walk = self.next_walk;
        self.next_walk += 1;
        self.windows.push(Listing::new(walk, purpose, window));
        walk
    }

    /// Owes what lies before a newly pinned head: the last 24 hours as the listing that answers jobs (its number is
    /// returned), and what is older as a gap with a job of its own.
    pub(super) fn owe(
        &mut self,
        cx: &Context<'_>,
        head: Head,
        lost_since: Option<Timestamp>,
        out: &mut Vec<Action>,
    ) -> i64 {
        let until = head.taken_at;
        let mut since = until - cx.rules.catch_up;
        if let Some(lost_since) = lost_since.filter(|lost_since| *lost_since < since) {
            if since.since(lost_since) <= SMALL_GAP {
                since = lost_since;
            } else {
                self.owe_gap(cx, Window { since: lost_since, until: since }, out);
            }
        }
        self.owe_rescue(Window { since: until - cx.rules.withheld, until: since });
        // What an earlier catch-up has not done yet is done by this one.
        let mut taken_over = Vec::new();
        let mut done = Progress::default();
        self.windows.retain(|listing| {
            let earlier = listing.walk.purpose == Purpose::CatchUp;
            if earlier {
                since = since.min(listing.walk.position);
                taken_over.push(listing.walk.walk);
                // One that only settles has told its jobs already what it did.
                if listing.is_answering() {
                    done = listing.walk.progress;
                }
            }
            !earlier
        });
        let walk = self.open_window(Purpose::CatchUp, Window { since, until });
        if let Some(listing) = self.windows.last_mut() {
            listing.take_over(&done);
        }
        for job in &mut self.jobs {
            if job.walk.is_some_and(|old| taken_over.contains(&old)) {
                job.walk = Some(walk);
            }
        }
        walk
    }

    /// Mail that was kept back may have left spam or trash by a record that is lost; only a listing can tell.
    fn owe_rescue(&mut self, window: Window) {
        if self.withheld.is_empty() {
            return;
        }
        self.windows.retain(|listing| listing.walk.purpose != Purpose::Rescue);
        self.open_window(Purpose::Rescue, window);
    }

    fn owe_gap(&mut self, cx: &Context<'_>, window: Window, out: &mut Vec<Action>) {
        let walk = self.open_window(Purpose::Gap, window);
        let name = format!("gap/{}/{}/{walk}", window.since.as_millis(), window.until.as_millis());
        let job = Job {
            job_id: JobId::derived(self.connection, &name),
            trigger: Trigger::Gap,
            requested_at: cx.now,
            deadline: cx.now + cx.rules.gap_deadline,
            started_at: Some(cx.now),
            walk: Some(walk),
            trace: None,
        };
        self.jobs.push(job);
        self.tell_walk(cx, walk, out);
        self.join_gaps();
    }

    /// Keeps the number of owed gaps bounded by joining neighbours; what lies between them is listed again.
    fn join_gaps(&mut self) {
        let mut gaps: Vec<WindowWalk> =
            self.windows.iter().map(|listing| listing.walk).filter(|walk| walk.purpose == Purpose::Gap).collect();
        if gaps.len() <= OWED {
            return;
        }
        gaps.sort_by_key(|walk| walk.position);
        let distance = |pair: &[WindowWalk]| pair[1].position.since(pair[0].window.until);
        let Some(pair) = gaps.windows(2).min_by_key(|pair| distance(pair)) else { return };
        let (older, younger) = (pair[0], pair[1]);
        self.windows.retain(|listing| listing.walk.walk != older.walk);
        if let Some(listing) = self.windows.iter_mut().find(|listing| listing.walk.walk == younger.walk) {
            let window = Window { since: older.position, until: older.window.until.max(younger.window.until) };
            let progress = listing.walk.progress;
            *listing = Listing::new(younger.walk, Purpose::Gap, window);
            listing.take_over(&progress);
            listing.take_over(&older.progress);
        }
        for job in self.jobs.iter_mut().filter(|job| job.walk == Some(older.walk)) {
            job.walk = Some(younger.walk);
        }
    }

    /// A sync is asked for: owed windows that rest after an error try again at once.
    pub(super) fn wake_owed(&mut self, cx: &Context<'_>) {
        for listing in &mut self.windows {
            if listing.walk.failures == 0 && !listing.walk.settling {
                listing.walk.not_before = listing.walk.not_before.map(|at| at.min(cx.now));
            }
        }
    }

    /// Asks for the next page of every window that may be asked for.
    pub(super) fn advance_windows(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        for index in 0..self.windows.len() {
            let walk = self.windows[index].walk;
            if self.windows[index].is_calling() || walk.not_before.is_some_and(|at| at > cx.now) {
                continue;
            }
            let id = self.call_id();
            let job = self.first_job(walk.walk);
            let (deadline, trace) = (job.map(|job| job.deadline), job.and_then(|job| job.trace.clone()));
            let listing = &mut self.windows[index];
            listing.walk.not_before = None;
            listing.call = Some(id);
            let request = listing.request(cx.rules.page_size);
            let lane = listing.walk.progress.lane.unwrap_or(Lane::Backfill);
            let deadline = deadline.filter(|_| !walk.purpose.is_owed());
            out.push(Action::Call(Call { id, lane, request, deadline, token_version: self.token, trace }));
        }
    }

    pub(super) fn on_window_answer(&mut self, cx: &Context<'_>, index: usize, answer: Answer, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        listing.call = None;
        listing.walk.progress.quota_units += i64::from(answer.units);
        let error = match answer.result {
            Ok(Reply::List(page)) => {
                let token = listing.slice.as_ref().and_then(|slice| slice.token.as_ref());
                if page.next.is_some() && page.next.as_ref() == token {
                    CallError::Broken { detail: "nextPageToken names the page itself".to_owned() }
                } else {
                    return self.on_list(cx, index, page, out);
                }
            }
            Ok(_) => CallError::Broken { detail: "an answer of another method".to_owned() },
            Err(error) => error,
        };
        let walk = &mut listing.walk;
        walk.failures += 1;
        match retry::judge(cx, error, walk.failures) {
            retry::Verdict::Again { at, own } => {
                walk.attempts += i32::from(own);
                walk.not_before = Some(at);
            }
            retry::Verdict::Rewind { at } => {
                walk.not_before = Some(at);
                listing.slice = None;
            }
            retry::Verdict::Revoked { cause } => {
                walk.failures = 0;
                self.refuse(cx, cause, answer.token_version, out);
            }
            retry::Verdict::Gone => {
                let end = JobEnd::failed(code::CONNECTION_NOT_FOUND, "The connection was deleted");
                self.on_forget(cx, end, out);
            }
            retry::Verdict::Missing => {
                let detail = "Gmail has no mailbox for this connection's grant".to_owned();
                self.give_up(cx, index, code::MAILBOX_NOT_FOUND.to_owned(), detail, out);
            }
            retry::Verdict::Hopeless { code, detail } => self.give_up(cx, index, code, detail, out),
        }
    }

    /// The jobs fail; what is owed stays owed and rests for a while.
    fn give_up(&mut self, cx: &Context<'_>, index: usize, code: String, detail: String, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        let walk = listing.walk.walk;
        listing.stop();
        listing.walk.failures = 0;
        listing.walk.not_before = Some(cx.now + cx.rules.rest);
        self.end_jobs(cx, |job| job.walk == Some(walk), &JobEnd::failed(code, detail), out);
    }

    fn on_list(&mut self, cx: &Context<'_>, index: usize, page: ListPage, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        let walk = &mut listing.walk;
        walk.failures = 0;
        walk.attempts = 0;
        walk.progress.pages += 1;
        walk.progress.records_seen += i64::try_from(page.messages.len()).unwrap_or(i64::MAX);
        let Some(slice) = listing.slice.take() else { return };
        let (turn, kept) = slice.take_in(page, walk.slice);
        listing.slice = kept;
        match turn {
            Turn::Page => {}
            Turn::Shorter => {
                let half = Duration::from_millis(walk.slice.as_millis() / 2);
                walk.slice = half.clamp(SHORTEST, LONGEST);
            }
            Turn::Whole(slice) => self.on_slice(cx, index, slice, out),
        }
    }

    /// A slice is whole: announce what is new in it, oldest first, and move on.
    fn on_slice(&mut self, cx: &Context<'_>, index: usize, slice: Slice, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        let (purpose, origin, number) = (listing.walk.purpose, listing.origin(), listing.walk.walk);
        let edge = std::mem::replace(&mut listing.edge, slice.index);
        let mut progress = listing.walk.progress;
        let job = self.finder(number);
        let found = slice.messages.len();
        for message in slice.messages.into_iter().rev() {
            let key = message.id.key();
            if slice.held.contains(&key) {
                if purpose.is_owed() && !self.seen.contains(key) && self.withheld.insert(key, cx.now) {
                    progress.withheld += 1;
                }
                continue;
            }
            // Only what may be announced once is remembered: a backfill never suppresses a live event.
            let new = match purpose {
                Purpose::CatchUp => self.announce_once(cx, key),
                Purpose::Gap | Purpose::Audit => {
                    !self.seen.contains(key) && !edge.contains(&key) && self.not_rescued_before(cx, key)
                }
                Purpose::Rescue => self.withheld.contains(key) && self.announce_once(cx, key),
                Purpose::Backfill => !edge.contains(&key),
            };
            if new {
                progress.discovered += 1;
                self.announce(cx, message, None, origin, job.as_ref(), out);
            } else {
                progress.duplicates_skipped += 1;
            }
        }
        let listing = &mut self.windows[index];
        let walk = &mut listing.walk;
        walk.progress = progress;
        walk.position = slice.until;
        if found * 2 <= usize::from(cx.rules.page_size) {
            walk.slice = Duration::from_millis(walk.slice.as_millis() * 2).clamp(SHORTEST, LONGEST);
        }
        if walk.position >= walk.window.until {
            return self.on_listed(cx, index, out);
        }
        let told = listing.told.is_none_or(|told| cx.now >= told + cx.rules.progress);
        if told {
            listing.told = Some(cx.now);
            self.tell_walk(cx, number, out);
        }
    }

    /// A window is listed to its end.
    fn on_listed(&mut self, cx: &Context<'_>, index: usize, out: &mut Vec<Action>) {
        let walk = self.windows[index].walk;
        self.end_jobs(cx, |job| job.walk == Some(walk.walk), &JobEnd::succeeded(), out);
        if walk.purpose != Purpose::CatchUp || walk.settling {
            self.windows.remove(index);
            return;
        }
        let listing = &mut self.windows[index];
        listing.edge = HashSet::default();
        let walk = &mut listing.walk;
        walk.settling = true;
        walk.position = walk.window.since.max(walk.window.until - cx.rules.settle);
        walk.slice = cx.rules.settle.clamp(SHORTEST, LONGEST);
        walk.not_before = Some(cx.now + cx.rules.index_lag);
        let pinned = self.heads.cursor();
        self.last_synced = self.last_synced.into_iter().chain(pinned).max_by_key(|head| head.taken_at);
        self.tell_connection(cx, ConnectionState::Active, None, out);
    }
}
