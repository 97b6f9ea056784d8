//! The audit: a listing of the last days, compared with what was announced.
//!
//! It must not take for missed what history is about to name: it looks at nothing that arrived after the latest
//! complete walk, nothing that is still owed, nothing that is remembered no more, and what it does not find among the
//! announced it holds back until history has been walked once more. What is missing then was missed.

use super::record::{Purpose, WindowWalk};
use super::reply::MessageRef;
use super::window::Missed;
use super::{Action, Context, Mailbox, Timestamp, Window};

impl Mailbox {
    /// The part of `window` that an audit can judge; none where there is none.
    pub(super) fn auditable(&self, cx: &Context<'_>, window: Window) -> Option<Window> {
        let reached = self.last_synced.map(|head| head.taken_at)?;
        let began = self.began.into_iter();
        let since = began.chain([window.since, self.audited_since(cx)]).max()?;
        let is_listed_later = |purpose| matches!(purpose, Purpose::CatchUp | Purpose::Gap);
        let owed = self.windows.iter().map(|listing| &listing.walk).filter(|walk| is_listed_later(walk.purpose));
        let until = owed.map(|walk| walk.position).chain([window.until, reached - cx.rules.lag]).min()?;
        Some(Window { since, until }).filter(|window| !window.is_empty())
    }

    /// What arrived since is remembered, if it was announced. It goes by the latest complete walk and not by the clock
    /// alone, so that an audit that waited through an outage can still tell.
    pub(super) fn audited_since(&self, cx: &Context<'_>) -> Timestamp {
        self.reached.map_or(cx.now, |reached| reached.min(cx.now)) - cx.rules.audit
    }

    /// Whether a message that a listing names, and not as spam or trash, was never announced.
    pub(super) fn is_missed(&self, key: u128) -> bool {
        let was_freed = self.withheld.contains(key) && self.rescued.contains(key);
        !was_freed && !self.seen.contains(key)
    }

    /// Announces what was missed. It is remembered, or the next audit would miss it again.
    pub(super) fn announce_missed(
        &mut self,
        cx: &Context<'_>,
        index: usize,
        messages: Vec<MessageRef>,
        out: &mut Vec<Action>,
    ) {
        let (number, origin) = (self.windows[index].walk.walk, self.windows[index].origin());
        let job = self.finder(number);
        for message in messages {
            let key = message.id.key();
            let was_missed = self.announce_once(cx, key);
            let progress = &mut self.windows[index].walk.progress;
            if was_missed {
                progress.discovered += 1;
                self.announce(cx, message, None, origin, job.as_ref(), out);
            } else {
                progress.duplicates_skipped += 1;
            }
        }
    }

    /// Whether an audit waits for a walk of history.
    pub(super) fn is_judging(&self) -> bool {
        self.windows.iter().any(|listing| listing.missed.is_some())
    }

    /// A walk of history is complete, which began after `walks_begun` others: audits that waited for it can tell.
    pub(super) fn judge_missed(&mut self, cx: &Context<'_>, walks_begun: u64, out: &mut Vec<Action>) {
        let mut index = 0;
        while let Some(listing) = self.windows.get_mut(index) {
            let (number, purpose) = (listing.walk.walk, listing.walk.purpose);
            if let Some(Missed { messages, until, .. }) =
                listing.missed.take_if(|missed| missed.walks_begun < walks_begun)
            {
                // What is owed is not missed: history was lost meanwhile, and the listing for it is to come.
                let to_come = |walk: &WindowWalk| walk.purpose == Purpose::Rescue || walk.position < until;
                let mut owed = self.windows.iter().map(|listing| &listing.walk);
                let is_owed = owed.any(|walk| walk.purpose.is_owed_for_history() && to_come(walk));
                if purpose != Purpose::Audit || !is_owed {
                    self.announce_missed(cx, index, messages, out);
                }
                self.move_on(cx, index, until, out);
            }
            index += usize::from(self.windows.get(index).is_some_and(|listing| listing.walk.walk == number));
        }
    }

    /// History cannot be walked: audits that wait for it end with its error, and tomorrow's look again.
    pub(super) fn fail_judging(&mut self, cx: &Context<'_>, end: &super::JobEnd, out: &mut Vec<Action>) {
        let judging = |number: i64, windows: &[super::window::Listing]| {
            windows.iter().any(|listing| listing.walk.walk == number && listing.missed.is_some())
        };
        let walks: Vec<i64> =
            self.windows.iter().map(|listing| listing.walk.walk).filter(|it| judging(*it, &self.windows)).collect();
        for listing in self.windows.iter_mut().filter(|listing| listing.missed.is_some()) {
            listing.stop();
            listing.walk.parked = listing.walk.purpose == Purpose::Unread;
        }
        self.end_jobs(cx, |job| job.walk.is_some_and(|walk| walks.contains(&walk)), end, out);
    }
}
