//! The listing of windows: what is asked, and what becomes of the answers.

use super::record::Purpose;
use super::reply::{Answer, Call, CallError, ListPage, MessageRef, Reply};
use super::tries::{Probe, Tries};
use super::window::{LONGEST, Missed, Phase, SHORTEST, Slice, Turn};
use super::{Action, Context, Duration, JobEnd, Mailbox, Place, Timestamp, code, retry};
use crate::event::ConnectionState;
use crate::job::Lane;

impl Mailbox {
    /// Asks for the next page of every window that may be asked for.
    pub(super) fn advance_windows(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        let mut index = 0;
        while index < self.windows.len() {
            let listing = &self.windows[index];
            let (walk, number) = (listing.walk, listing.walk.walk);
            let waits = listing.is_calling() || listing.is_parked() || walk.not_before.is_some_and(|at| at > cx.now);
            if !waits && listing.tries.probe == Probe::No && Tries::is_deadly(walk.attempts) {
                self.windows[index].tries.trouble = "No attempt at it was ever answered".to_owned();
                self.spoil_slice(cx, index, out);
                // The window may be listed by that, and gone.
                if self.windows.get(index).is_none_or(|listing| listing.walk.walk != number) {
                    continue;
                }
            }
            if !waits {
                self.call_window(cx, index, out);
            }
            index += 1;
        }
    }

    fn call_window(&mut self, cx: &Context<'_>, index: usize, out: &mut Vec<Action>) {
        let id = self.call_id();
        let walk = self.windows[index].walk;
        let job = self.first_job(walk.walk);
        let (deadline, trace) = (job.map(|job| job.deadline), job.and_then(|job| job.trace.clone()));
        let listing = &mut self.windows[index];
        listing.walk.not_before = None;
        listing.call = Some(id);
        let request = listing.request(cx.rules.page_size);
        listing.walk.attempts += i32::from(listing.tries.probe == Probe::No);
        let lane = listing.walk.progress.lane.unwrap_or(Lane::Backfill);
        let deadline = deadline.filter(|_| !walk.purpose.is_owed());
        out.push(Action::Call(Call { id, lane, request, deadline, token_version: self.token, trace }));
    }

    pub(super) fn on_window_answer(&mut self, cx: &Context<'_>, index: usize, answer: Answer, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        listing.call = None;
        listing.walk.progress.quota_units += i64::from(answer.units);
        let is_probe = listing.tries.probe != Probe::No;
        // It was answered; where that was the page's own failure it is counted again.
        listing.walk.attempts -= i32::from(!is_probe);
        let error = match answer.result {
            Ok(Reply::List(_)) if is_probe => {
                listing.tries.probe = Probe::No;
                listing.walk.failures = 0;
                return self.on_slice_failed(cx, index, None, out);
            }
            Ok(Reply::List(page)) => {
                let token = listing.slice.as_ref().and_then(Slice::token);
                if listing.tries.tokens.turn_round(token, page.next.as_ref()) {
                    CallError::Broken { detail: "nextPageToken leads back to a page that was read".to_owned() }
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
            retry::Verdict::Again { at, fault: retry::Fault::Page { detail } } if !is_probe => {
                listing.tries.trouble = detail;
                self.on_slice_failed(cx, index, Some(at), out);
            }
            retry::Verdict::Again { at, fault } => {
                walk.not_before = Some(at);
                if let (false, retry::Fault::Unknown { detail }) = (is_probe, fault) {
                    let suspect = listing.tries.is_suspect(walk.failures, walk.attempts);
                    listing.tries.probe = if suspect { Probe::Gmail } else { Probe::No };
                    listing.tries.trouble = detail;
                }
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
        if listing.walk.purpose == Purpose::Unread {
            listing.walk.parked = true;
        } else {
            listing.walk.not_before = Some(cx.now + cx.rules.rest);
        }
        self.end_jobs(cx, |job| job.walk == Some(walk), &JobEnd::failed(code, detail), out);
    }

    /// The page at hand failed for itself.
    fn on_slice_failed(&mut self, cx: &Context<'_>, index: usize, at: Option<Timestamp>, out: &mut Vec<Action>) {
        let walk = &mut self.windows[index].walk;
        walk.attempts += 1;
        walk.not_before = at;
        let is_smallest = walk.slice <= SHORTEST && walk.page_size <= 1;
        let attempts = walk.attempts;
        if self.windows[index].tries.is_spent(cx.rules, attempts, is_smallest) {
            self.spoil_slice(cx, index, out);
        }
    }

    /// The page at hand has used up its attempts: a shorter slice, then smaller pages, and at last the dead letters.
    fn spoil_slice(&mut self, cx: &Context<'_>, index: usize, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        listing.tries.halve();
        let walk = &mut listing.walk;
        (walk.attempts, walk.failures, walk.not_before) = (0, 0, None);
        if walk.slice > SHORTEST {
            walk.slice = half(walk.slice);
            listing.slice = None;
            return;
        }
        if walk.page_size > 1 {
            walk.page_size /= 2;
            listing.slice = None;
            return;
        }
        let (number, purpose) = (walk.walk, walk.purpose);
        let span = listing.span();
        let mut slice = listing.slice.take().unwrap_or_default();
        slice.until = span.until;
        slice.is_torn = slice.phase.is_held_only();
        let trouble = std::mem::take(&mut listing.tries.trouble);
        // For what is unread there is a dead letter already.
        if purpose != Purpose::Unread {
            listing.walk.progress.dead_lettered += 1;
            self.bury(cx, Place::Listing { window: span, held_only: slice.is_torn }, number, trouble, out);
        }
        self.owe_unread(cx, span);
        // Windows may have been joined.
        let Some(index) = self.windows.iter().position(|listing| listing.walk.walk == number) else { return };
        if slice.phase == Phase::HeldFirst && purpose != Purpose::Rescue {
            slice.enter(Phase::Paged);
            self.windows[index].slice = Some(slice);
            return;
        }
        let messages = std::mem::take(&mut slice.messages);
        self.on_slice(cx, index, slice, messages, out);
    }

    fn on_list(&mut self, cx: &Context<'_>, index: usize, page: ListPage, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        let walk = &mut listing.walk;
        walk.failures = 0;
        walk.attempts = 0;
        walk.progress.pages += 1;
        walk.progress.records_seen += i64::try_from(page.messages.len()).unwrap_or(i64::MAX);
        let Some(mut slice) = listing.slice.take() else { return };
        match slice.take_in(page, walk.slice) {
            Turn::Page => listing.slice = Some(slice),
            Turn::Shorter => walk.slice = half(walk.slice),
            Turn::Part(messages) => {
                let missed = self.take_found(cx, index, messages, &slice, out);
                self.announce_missed(cx, index, missed, out);
                self.windows[index].slice = Some(slice);
            }
            Turn::Whole(messages) => {
                listing.walk.page_size = listing.tries.grown(cx, listing.walk.page_size);
                self.on_slice(cx, index, slice, messages, out);
            }
        }
    }

    /// A slice is whole: announce what is new in it, oldest first, and move on.
    fn on_slice(
        &mut self,
        cx: &Context<'_>,
        index: usize,
        slice: Slice,
        messages: Vec<MessageRef>,
        out: &mut Vec<Action>,
    ) {
        let found = slice.index.len();
        let missed = self.take_found(cx, index, messages, &slice, out);
        let listing = &mut self.windows[index];
        listing.edge = slice.index;
        if found * 2 <= usize::from(cx.rules.page_size) && listing.walk.page_size == i32::from(cx.rules.page_size) {
            let twice = Duration::from_millis(listing.walk.slice.as_millis() * 2);
            listing.walk.slice = twice.clamp(SHORTEST, LONGEST);
        }
        if missed.is_empty() {
            self.move_on(cx, index, slice.until, out);
        } else {
            let walks_begun = self.walks_begun;
            self.windows[index].missed = Some(Missed { messages: missed, walks_begun, until: slice.until });
        }
    }

    /// Everything before `until` is done.
    pub(super) fn move_on(&mut self, cx: &Context<'_>, index: usize, until: Timestamp, out: &mut Vec<Action>) {
        let listing = &mut self.windows[index];
        let walk = &mut listing.walk;
        walk.position = until;
        if walk.position >= walk.window.until {
            return self.on_listed(cx, index, out);
        }
        let told = listing.told.is_none_or(|told| cx.now >= told + cx.rules.progress);
        if told {
            let number = walk.walk;
            listing.told = Some(cx.now);
            self.tell_walk(cx, number, out);
        }
    }

    /// Announces what is new among messages that a listing named. What an audit misses is not announced yet but
    /// returned: history may be about to name it.
    fn take_found(
        &mut self,
        cx: &Context<'_>,
        index: usize,
        messages: Vec<MessageRef>,
        slice: &Slice,
        out: &mut Vec<Action>,
    ) -> Vec<MessageRef> {
        let listing = &mut self.windows[index];
        let (walk, origin) = (listing.walk, listing.origin());
        let (purpose, mut progress) = (walk.purpose, walk.progress);
        let edge = std::mem::take(&mut listing.edge);
        // A gap is remembered as far back as an audit looks.
        let is_recent = slice.until >= self.audited_since(cx);
        let job = self.finder(walk.walk);
        let mut missed = Vec::new();
        for message in messages.into_iter().rev() {
            let key = message.id.key();
            // Where it is not known what is kept back, all that ever was is left alone; the rest is announced.
            let is_held = slice.held.contains(&key) || slice.is_torn && self.withheld.contains(key);
            if is_held {
                let is_new = purpose.is_owed() && purpose != Purpose::Unread && !self.seen.contains(key);
                progress.withheld += i64::from(is_new && self.withheld.insert(key, cx.now));
                continue;
            }
            // A backfill is remembered by nobody: it never suppresses a live event.
            let new = match purpose {
                Purpose::CatchUp => self.announce_once(cx, key),
                Purpose::Gap => {
                    let new = !self.seen.contains(key) && !edge.contains(&key) && self.not_rescued_before(cx, key);
                    new && (!is_recent || self.seen.insert(key, cx.now))
                }
                Purpose::Rescue => self.withheld.contains(key) && self.announce_once(cx, key),
                Purpose::Backfill => !edge.contains(&key),
                Purpose::Audit | Purpose::Unread => {
                    if self.is_missed(key) && !edge.contains(&key) {
                        missed.push(message);
                        continue;
                    }
                    false
                }
            };
            if new {
                progress.discovered += 1;
                self.announce(cx, message, None, origin, job.as_ref(), out);
            } else {
                progress.duplicates_skipped += 1;
            }
        }
        let listing = &mut self.windows[index];
        (listing.walk.progress, listing.edge) = (progress, edge);
        missed
    }

    /// A window is listed to its end.
    fn on_listed(&mut self, cx: &Context<'_>, index: usize, out: &mut Vec<Action>) {
        let walk = self.windows[index].walk;
        self.end_jobs(cx, |job| job.walk == Some(walk.walk), &JobEnd::succeeded(), out);
        if !self.windows[index].is_answering() {
            self.windows.remove(index);
            return;
        }
        self.settle_window(cx, index);
        let pinned = self.heads.cursor();
        self.last_synced = self.last_synced.into_iter().chain(pinned).max_by_key(|head| head.taken_at);
        self.tell_connection(cx, ConnectionState::Active, None, out);
    }
}

/// Half as long a slice.
fn half(slice: Duration) -> Duration {
    Duration::from_millis(slice.as_millis() / 2).clamp(SHORTEST, LONGEST)
}
