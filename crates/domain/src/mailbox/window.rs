//! A window of time that is being listed: what history can no longer give, and what somebody asked for again.
//!
//! A page token of a listing is a position, not a snapshot: when a message is trashed meanwhile, everything behind it
//! moves up and one message is skipped. So a window is listed in slices of time that fit one page; only a slice that
//! cannot be made shorter is paged, and then again and again until nothing new appears. Slices go from old to new, and
//! what is done is one instant: everything before it.
//!
//! A slice that fits a page is held until it is known which of it lies in spam or trash. One that is paged is not: it
//! may hold any number. There spam and trash are listed first, and each page is announced as it comes, so that no more
//! than ids are kept, and of them no more than [`KNOWN`].

use hashbrown::HashSet;

use super::record::{Purpose, WindowWalk};
use super::reply::{CallId, ListPage, MessageRef, PageToken, Request};
use super::tries::{Probe, Tries};
use super::{Duration, Timestamp, Window};
use crate::event::Origin;
use crate::job::{Lane, Progress};

/// No slice is shorter: Gmail's search knows whole seconds, and its ends may be in or out.
pub(super) const SHORTEST: Duration = Duration::from_secs(2);

/// No slice is longer.
pub(super) const LONGEST: Duration = Duration::from_days(30);

/// A paged slice is read again until nothing new appears, but not for ever.
const PASSES: u32 = 20;

/// No more ids of one slice are kept than this (some 9 MB). A slice with more is read twice, and what is beyond may be
/// named twice, under the same event id.
pub(super) const KNOWN: usize = 1 << 18;

/// Ids of one slice.
pub(super) type Ids = HashSet<u128, foldhash::fast::FixedState>;

/// A window with what is in memory only.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) walk: WindowWalk,
    pub(super) call: Option<CallId>,
    pub(super) slice: Option<Slice>,
    /// The ids of the slice before, whose edge this slice reads again.
    pub(super) edge: Ids,
    /// What an audit misses, until history has been walked once more.
    pub(super) missed: Option<Missed>,
    pub(super) tries: Tries,
    pub(super) told: Option<Timestamp>,
}

/// Messages that an audit did not find among those announced.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) messages: Vec<MessageRef>,
    /// A walk of history that began later than this many others tells whether they were really missed.
    pub(super) walks_begun: u64,
    /// The end of the slice that they lie in.
    pub(super) until: Timestamp,
}

/// The slice at hand.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) until: Timestamp,
    pub(super) phase: Phase,
    token: Option<PageToken>,
    /// What is held until spam and trash are told apart: one page at most.
    pub(super) messages: Vec<MessageRef>,
    pub(super) index: Ids,
    pub(super) held: Ids,
    pages: u32,
    passes: u32,
    fresh: bool,
    /// There are more than [`KNOWN`].
    overflown: bool,
    /// What lies in spam or trash is not known in full.
    pub(super) is_torn: bool,
}

/// What is being asked about a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Everything, hoping that it fits one page.
    #[default]
    All,
    /// It did: what of it lies in spam or trash.
    Held,
    /// It did not: what lies in spam or trash, all pages.
    HeldFirst,
    /// And then everything, page by page.
    Paged,
}

impl Phase {
    pub(super) const fn is_held_only(self) -> bool {
        match self {
            Self::Held | Self::HeldFirst => true,
            Self::All | Self::Paged => false,
        }
    }
}

/// What a page of a slice leads to.
#[derive(Debug)]
pub(super) enum Turn {
    /// Another page, or another pass, of the same slice.
    Page,
    /// The slice is too long for one page: a shorter one instead.
    Shorter,
    /// These are new, and told apart; more of the slice follows.
    Part(Vec<MessageRef>),
    /// The slice is whole; these of it are new.
    Whole(Vec<MessageRef>),
}

impl Slice {
    fn from(until: Timestamp) -> Self {
        Self { until, ..Self::default() }
    }

    /// The page that is asked for.
    pub(super) fn token(&self) -> Option<&PageToken> {
        self.token.as_ref()
    }

    /// Asks the next question from its first page on.
    pub(super) fn enter(&mut self, phase: Phase) {
        (self.phase, self.token, self.pages, self.passes, self.fresh) = (phase, None, 0, 0, false);
    }

    pub(super) fn take_in(&mut self, page: ListPage, length: Duration) -> Turn {
        let is_last = page.next.is_none();
        if self.phase == Phase::All && !is_last {
            if length > SHORTEST {
                return Turn::Shorter;
            }
            self.enter(Phase::HeldFirst);
            return Turn::Page;
        }
        self.pages += 1;
        self.token = page.next;
        let mut new = Vec::new();
        for message in page.messages {
            let key = message.id.key();
            let ids = if self.phase.is_held_only() { &mut self.held } else { &mut self.index };
            let is_new = !ids.contains(&key);
            if ids.len() < KNOWN {
                ids.insert(key);
            } else {
                self.overflown = true;
            }
            self.fresh |= is_new;
            if is_new && !self.phase.is_held_only() {
                new.push(message);
            }
        }
        let passes = if self.overflown { 1 } else { PASSES };
        let again = self.pages > 1 && self.fresh && self.passes < passes;
        if is_last && again {
            (self.pages, self.fresh) = (0, false);
            self.passes += 1;
        }
        match self.phase {
            Phase::All if new.is_empty() => Turn::Whole(new),
            Phase::All => {
                self.messages = new;
                self.enter(Phase::Held);
                Turn::Page
            }
            Phase::Held | Phase::HeldFirst if !is_last || again => Turn::Page,
            Phase::Held => Turn::Whole(std::mem::take(&mut self.messages)),
            Phase::HeldFirst => {
                self.enter(Phase::Paged);
                Turn::Page
            }
            Phase::Paged if !is_last || again => Turn::Part(new),
            Phase::Paged => Turn::Whole(new),
        }
    }
}

impl Listing {
    pub(super) fn new(walk: i64, purpose: Purpose, window: Window, page_size: u16) -> Self {
        let lane = match purpose {
            Purpose::CatchUp => Lane::CatchUp,
            Purpose::Gap | Purpose::Rescue | Purpose::Backfill => Lane::Backfill,
            Purpose::Audit | Purpose::Unread => Lane::Audit,
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
            page_size: i32::from(page_size),
            parked: false,
        })
    }

    pub(super) fn restored(walk: WindowWalk) -> Self {
        Self { walk, call: None, slice: None, edge: Ids::default(), missed: None, tries: Tries::default(), told: None }
    }

    pub(super) fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    pub(super) fn awaits(&self, id: CallId) -> bool {
        self.call == Some(id)
    }

    /// Drops what is in memory only; the position stays.
    pub(super) fn stop(&mut self) {
        *self = Self { edge: std::mem::take(&mut self.edge), told: self.told, ..Self::restored(self.walk) };
    }

    /// Whether it waits for something other than an answer or a time.
    pub(super) fn is_parked(&self) -> bool {
        self.walk.parked || self.missed.is_some()
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if self.call.is_some() || self.is_parked() { None } else { self.walk.not_before }
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

    pub(super) const fn origin(&self) -> Origin {
        match self.walk.purpose {
            Purpose::CatchUp => Origin::CatchUp,
            Purpose::Gap | Purpose::Rescue => Origin::Gap,
            Purpose::Backfill => Origin::Backfill,
            Purpose::Audit | Purpose::Unread => Origin::Audit,
        }
    }

    /// The slice at hand, or the next one, as a span.
    pub(super) fn span(&self) -> Window {
        let walk = &self.walk;
        let until = self.slice.as_ref().map_or((walk.position + walk.slice).min(walk.window.until), |it| it.until);
        Window { since: walk.position, until }
    }

    /// The next request: the slice from `position`, or its next page, or a place in which there is nothing.
    pub(super) fn request(&mut self, fallback: u16) -> Request {
        if self.tries.probe != Probe::No {
            // The first seconds of the epoch: before there was mail.
            let window = Window { since: Timestamp::from_millis(1_000), until: Timestamp::from_millis(2_000) };
            return Request::List { window, held_only: false, token: None, max: 1 };
        }
        let Window { since, until } = self.span();
        let slice = self.slice.get_or_insert_with(|| Slice::from(until));
        // Whole seconds around the slice, and one more on each side: whether Gmail takes the ends in is not told.
        let second = Duration::from_secs(1);
        let since = Timestamp::from_millis(since.floor_seconds() * 1_000) - second;
        let until = Timestamp::from_millis(slice.until.ceil_seconds() * 1_000) + second;
        let max = u16::try_from(self.walk.page_size).ok().filter(|max| *max > 0).unwrap_or(fallback);
        let (held_only, token) = (slice.phase.is_held_only(), slice.token.clone());
        Request::List { window: Window { since, until }, held_only, token, max }
    }
}
