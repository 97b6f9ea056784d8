//! What is owed: windows that nothing but a finished listing removes.

use super::jobs::LIVE;
use super::record::{Head, Job, Purpose, WindowWalk};
use super::window::{LONGEST, Listing, SHORTEST};
use super::{Action, Context, Duration, JobId, Mailbox, Timestamp, Window};
use crate::job::{Progress, Trigger};

/// A gap no longer than this is listed with the last 24 hours.
const SMALL_GAP: Duration = Duration::from_hours(1);

/// More owed windows of one purpose than this are joined, the two that lie closest first.
const OWED: usize = 8;

impl Mailbox {
    /// Opens a window to be listed.
    pub(super) fn open_window(&mut self, cx: &Context<'_>, purpose: Purpose, window: Window) -> i64 {
        let walk = self.next_walk;
        self.next_walk += 1;
        self.windows.push(Listing::new(walk, purpose, window, cx.rules.page_size));
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
        self.began.get_or_insert(lost_since.map_or(since, |lost_since| lost_since.min(since)));
        if let Some(lost_since) = lost_since.filter(|lost_since| *lost_since < since) {
            if since.since(lost_since) <= SMALL_GAP {
                since = lost_since;
            } else {
                self.owe_gap(cx, Window { since: lost_since, until: since }, out);
            }
        }
        self.owe_rescue(cx, Window { since: until - cx.rules.withheld, until: since });
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
        let walk = self.open_window(cx, Purpose::CatchUp, Window { since, until });
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
    fn owe_rescue(&mut self, cx: &Context<'_>, window: Window) {
        if self.withheld.is_empty() {
            return;
        }
        self.windows.retain(|listing| listing.walk.purpose != Purpose::Rescue);
        self.open_window(cx, Purpose::Rescue, window);
    }

    fn owe_gap(&mut self, cx: &Context<'_>, window: Window, out: &mut Vec<Action>) {
        let walk = self.open_window(cx, Purpose::Gap, window);
        let name = format!("gap/{}/{}/{walk}", window.since.as_millis(), window.until.as_millis());
        let job = Job {
            job_id: JobId::derived(self.connection, &name),
            trigger: Trigger::Gap,
            requested_at: cx.now,
            deadline: cx.now + cx.rules.gap_deadline,
            started_at: Some(cx.now),
            walk: Some(walk),
            // It goes on with what the sync that found it could not do.
            trace: self.first_job(LIVE).and_then(|job| job.trace.clone()),
        };
        self.jobs.push(job);
        self.tell_walk(cx, walk, out);
        self.join(cx, Purpose::Gap);
    }

    /// A span that no attempt could read is owed to the audit.
    pub(super) fn owe_unread(&mut self, cx: &Context<'_>, span: Window) {
        let waits = |listing: &Listing| listing.walk.purpose == Purpose::Unread && listing.walk.parked;
        let is_owed = |listing: &Listing| waits(listing) && listing.walk.window == span;
        if self.windows.iter().any(is_owed) {
            return;
        }
        self.open_window(cx, Purpose::Unread, span);
        self.windows.iter_mut().rev().take(1).for_each(|listing| listing.walk.parked = true);
        self.join(cx, Purpose::Unread);
    }

    /// An audit begins: what could not be read is tried again.
    pub(super) fn wake_unread(&mut self) {
        for listing in self.windows.iter_mut().filter(|listing| listing.walk.purpose == Purpose::Unread) {
            listing.walk.parked = false;
        }
    }

    /// Keeps the number of owed windows of a purpose bounded by joining neighbours; what lies between them is listed
    /// with them.
    fn join(&mut self, cx: &Context<'_>, purpose: Purpose) {
        let mut owed: Vec<WindowWalk> =
            self.windows.iter().map(|listing| listing.walk).filter(|walk| walk.purpose == purpose).collect();
        if owed.len() <= OWED {
            return;
        }
        owed.sort_by_key(|walk| walk.position);
        let distance = |pair: &[WindowWalk]| pair[1].position.since(pair[0].window.until);
        let Some(pair) = owed.windows(2).min_by_key(|pair| distance(pair)) else { return };
        let (older, younger) = (pair[0], pair[1]);
        self.windows.retain(|listing| listing.walk.walk != older.walk);
        if let Some(listing) = self.windows.iter_mut().find(|listing| listing.walk.walk == younger.walk) {
            let window = Window { since: older.position, until: older.window.until.max(younger.window.until) };
            let progress = listing.walk.progress;
            *listing = Listing::new(younger.walk, purpose, window, cx.rules.page_size);
            // One that waits keeps the other waiting: what could not be read just now is not tried again at once.
            listing.walk.parked = older.parked || younger.parked;
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

    /// The last 24 hours of an owed window are listed: its newest part is listed once more when the index has caught
    /// up.
    pub(super) fn settle_window(&mut self, cx: &Context<'_>, index: usize) {
        let listing = &mut self.windows[index];
        listing.edge = Default::default();
        let walk = &mut listing.walk;
        walk.settling = true;
        walk.position = walk.window.since.max(walk.window.until - cx.rules.settle);
        walk.slice = cx.rules.settle.clamp(SHORTEST, LONGEST);
        walk.not_before = Some(cx.now + cx.rules.index_lag);
    }
}
