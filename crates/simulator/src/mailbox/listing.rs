//! `messages.list`: positions in the mailbox by date, newest first.

use std::ops::Range;

use super::{Index, Mailbox, Message};

/// Where pages ended lately, so that the next page of a deep walk need not count from the first message again.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    kept: Vec<Position>,
}

/// How many ends of pages are kept: a few walks side by side.
const KEPT: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Position {
    /// What was listed, hashed.
    listing: u64,
    /// The mailbox's version then.
    version: u64,
    /// Messages before the page that follows: its token.
    offset: u64,
    /// How many of the window's messages, newest first, lie before it.
    skip: usize,
}

/// One page of a listing.
#[derive(Debug)]
pub(crate) struct Page {
    /// The messages, newest first.
    pub(crate) messages: Vec<Index>,
    /// The next page's token: its position.
    pub(crate) next: Option<u64>,
    /// `resultSizeEstimate`.
    pub(crate) estimate: u64,
}

/// What is listed.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// `internalDate` in ms since the epoch: only messages inside.
    pub(crate) dates: Range<i64>,
    /// A number that says which filter this is; 0 when pages may not be resumed.
    pub(crate) key: u64,
    /// How many matches lie before the page.
    pub(crate) offset: u64,
    /// Messages a page at most.
    pub(crate) max: usize,
}

impl Mailbox {
    /// One page of the messages in the window that `matches`, newest first.
    pub(crate) fn list(&mut self, listing: &Listing, mut matches: impl FnMut(&Self, &Message) -> bool) -> Page {
        self.sort();
        let window = self.window(&listing.dates);
        let resumed = self.positions.find(listing, self.version);
        let (mut skip, mut to_skip) = resumed.map_or((0, listing.offset), |skip| (skip, 0));
        let mut page = Page { messages: Vec::new(), next: None, estimate: 0 };
        while let Some(at) = window.len().checked_sub(skip + 1) {
            let index = self.by_date[window.start + at];
            let message = self.message(index);
            if !message.gone && matches(self, message) {
                if to_skip > 0 {
                    to_skip -= 1;
                } else if page.messages.len() < listing.max {
                    page.messages.push(index);
                } else {
                    page.next = Some(listing.offset.saturating_add(page.messages.len() as u64));
                    break;
                }
            }
            skip += 1;
        }
        page.estimate = if to_skip > 0 { 0 } else { listing.offset.saturating_add(page.messages.len() as u64) };
        if let Some(offset) = page.next {
            // Gmail's estimate stops telling apart what is more than a few pages.
            page.estimate = page.estimate.saturating_add(1).max(201);
            self.positions.keep(Position { listing: listing.key, version: self.version, offset, skip });
        }
        page
    }

    fn window(&self, dates: &Range<i64>) -> Range<usize> {
        let start = self.by_date.partition_point(|&index| self.message(index).internal_ms < dates.start);
        let end = self.by_date.partition_point(|&index| self.message(index).internal_ms < dates.end);
        start..end.max(start)
    }

    fn sort(&mut self) {
        if !self.sorted {
            let mut by_date = std::mem::take(&mut self.by_date);
            // Stable, and made for runs: after an import into a sorted mailbox this is nearly a merge.
            by_date.sort_by_key(|&index| (self.message(index).internal_ms, index));
            self.by_date = by_date;
            self.sorted = true;
        }
    }
}

impl Positions {
    fn find(&self, listing: &Listing, version: u64) -> Option<usize> {
        let same =
            |kept: &&Position| kept.listing == listing.key && kept.version == version && kept.offset == listing.offset;
        (listing.key != 0 && listing.offset != 0).then(|| self.kept.iter().find(same)).flatten().map(|kept| kept.skip)
    }

    fn keep(&mut self, position: Position) {
        if position.listing == 0 {
            return;
        }
        self.kept.retain(|kept| kept.listing != position.listing || kept.version == position.version);
        if self.kept.len() >= KEPT {
            self.kept.remove(0);
        }
        self.kept.push(position);
    }
}
