//! Who is let through next: all of the gate's decisions, without a clock or a lock of its own.
//!
//! A call waits in the line of its connection, or of its account where that is one budget. A line whose next call is affordable to its account stands *ready* in the
//! queue of that call's priority; one that has to wait for a time is *parked* under it; one that waits for calls of its
//! own to end is nowhere. So a line that cannot go keeps nobody, and what is decided costs the logarithm of the lines.
//! From the ready ones the priorities take turns, and within a priority the lines do.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use domain::ConnectionId;
use tokio::time::Instant;

use super::bucket::{Amount, Bucket};
use super::budget::Terms;
use super::line::{Line, Next, Pauses, Stand, Waiter};
use super::turns::{LANES, Turns, index};
use super::{Admission, Reach, Refused};
use crate::token::Account;

/// More calls than this do not wait.
const MOST_WAITING: usize = 100_000;
/// The longest pause of one account.
const LONGEST_USER: Duration = Duration::from_secs(60 * 60);
/// The longest pause of all: what was said of the day is tried again after it.
const LONGEST_PROJECT: Duration = Duration::from_secs(15 * 60);
/// Lines that have been idle for so long are looked at whether they can be forgotten.
const LEAVES_AFTER: Duration = Duration::from_secs(2);
/// How many of them whenever a call comes: two for one that may come new, so they cannot pile up.
const LOOKED_AT: usize = 2;
/// Priorities from this one on do not get the last quarter of the places.
const FIRST_PATIENT: usize = 2;

/// A line's number.
type Id = u64;

/// What a call that was let through holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    line: Id,
    lane: usize,
    /// What of its price Gmail may still charge.
    pub(super) price: Amount,
    parts: u32,
}

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    line: Id,
    lane: usize,
    number: u64,
}

/// What was decided of a call, for its `W`.
pub(super) type Decision<W> = (W, Result<Held, Refused>);

/// What calls had to wait for; counted once for each look at a line that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// The account's minute.
    UserMinute,
    /// The account's calls at one time.
    Concurrency,
    /// The project's minute.
    ProjectMinute,
    /// The project's day.
    ProjectDay,
    /// The process's calls at one time.
    Places,
}

impl Bound {
    pub(super) const ALL: [Self; 5] =
        [Self::UserMinute, Self::Concurrency, Self::ProjectMinute, Self::ProjectDay, Self::Places];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::UserMinute => "user_minute",
            Self::Concurrency => "concurrency",
            Self::ProjectMinute => "project_minute",
            Self::ProjectDay => "project_day",
            Self::Places => "places",
        }
    }
}

/// The gate's state.
#[derive(Debug)]
pub(super) struct Desk<W> {
    terms: Terms,
    minute: Bucket,
    day: Option<Bucket>,
    pauses: Pauses,
    turns: Turns,
    ready: [BTreeMap<u64, Id>; LANES],
    parked: BTreeMap<(Instant, u64), Id>,
    lines: HashMap<Id, Line<W>>,
    /// An account's lines: its connections.
    accounts: HashMap<Account, Vec<Id>>,
    leaving: VecDeque<(Id, Instant)>,
    /// Calls under way, and those of them that are patient.
    running: (usize, usize),
    n_waiting: usize,
    /// When the project's budgets have credit for the next call.
    project_at: Option<Instant>,
    /// Since when all lines' accounts have been this process's alone.
    born: Instant,
    /// When partitions were lost last: a line from before may be another process's since.
    lost_at: Option<Instant>,
    next_number: u64,
    held_up: [u64; Bound::ALL.len()],
}

impl<W> Desk<W> {
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        Self {
            minute: terms.project_minute(now),
            day: terms.project_day(now),
            terms,
            pauses: Pauses::default(),
            turns: Turns::default(),
            ready: Default::default(),
            parked: BTreeMap::new(),
            lines: HashMap::new(),
            accounts: HashMap::new(),
            leaving: VecDeque::new(),
            running: (0, 0),
            n_waiting: 0,
            project_at: None,
            born: now,
            lost_at: None,
            next_number: 0,
            held_up: [0; Bound::ALL.len()],
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A call wants through. What comes of it is among the decisions of the next [`Desk::decide`].
    ///
    /// # Errors
    /// Refused at once: it is too dear ever, it would be late for certain, or too many wait.
    pub(super) fn ask(&mut self, now: Instant, call: &Admission<'_>, waker: W) -> Result<Ticket, Refused> {
        self.let_leave(now);
        let price = Amount::units(call.units);
        let (connection, shares) = self.terms.line_of(call.connection, call.shares);
        let most = self.terms.most(shares);
        if price > most {
            return Err(Refused::TooDear { units: call.units, most: most.as_units() as u32 });
        }
        if self.n_waiting >= MOST_WAITING {
            return Err(Refused::Full);
        }
        let id = self.line(now, call.account, connection, shares);
        let line = self.lines.get_mut(&id).expect("the line was just found or made");
        let frozen = line.bucket.frozen_until().max(self.minute.frozen_until());
        if frozen > call.deadline {
            return Err(Refused::NotBefore { until: frozen });
        }
        self.next_number += 1;
        let (lane, number) = (index(call.lane), self.next_number);
        let parts = call.parts.max(1);
        let (deadline, by) = (call.deadline, call.connection);
        line.queue(lane, Waiter { ticket: number, price, parts, deadline, by, round: 0, waker });
        self.n_waiting += 1;
        Ok(Ticket { line: id, lane, number })
    }

    /// The line of a connection, made if there is none.
    fn line(&mut self, now: Instant, account: &Account, connection: Option<ConnectionId>, shares: u32) -> Id {
        let siblings = self.accounts.get(account).cloned().unwrap_or_default();
        let known = siblings.iter().copied().find(|id| self.lines[id].connection == connection);
        // A token's age is the age of what is known of the shares: the latest to hear of another connection is right.
        let shares = siblings.iter().map(|id| self.lines[id].shares).fold(shares, u32::max);
        let id = known.unwrap_or_else(|| {
            let id = self.number();
            let mut bucket = self.terms.user(shares, self.born);
            let paused = siblings.iter().map(|id| self.lines[id].bucket.frozen_until()).max();
            if let Some(until) = paused.filter(|until| *until > now) {
                bucket.freeze(now, until);
            }
            self.lines.insert(id, Line::new(account.clone(), connection, bucket, now));
            self.accounts.entry(account.clone()).or_default().push(id);
            id
        });
        for sibling in siblings.iter().copied().chain([id]) {
            let limit = self.terms.user_limit(shares);
            let most_at_once = self.terms.concurrency / shares;
            let Some(line) = self.lines.get_mut(&sibling) else { continue };
            if line.shares != shares || line.bucket.limit() != limit || known.is_none() {
                line.share(now, shares, limit, most_at_once);
            }
        }
        id
    }

    /// Forgets lines that made anew would be the same.
    pub(super) fn let_leave(&mut self, now: Instant) {
        for _ in 0..LOOKED_AT {
            match self.leaving.front() {
                Some((_, since)) if *since + LEAVES_AFTER <= now => {}
                _ => return,
            }
            let Some((id, _)) = self.leaving.pop_front() else { return };
            let Some(line) = self.lines.get_mut(&id) else { continue };
            line.is_leaving = false;
            if line.stand != Stand::Idle {
                continue;
            }
            if !line.is_as_new(now, self.born) {
                line.is_leaving = true;
                self.leaving.push_back((id, now));
                continue;
            }
            let account = line.account.clone();
            self.lines.remove(&id);
            if let Some(siblings) = self.accounts.get_mut(&account) {
                siblings.retain(|sibling| *sibling != id);
                if siblings.is_empty() {
                    self.accounts.remove(&account);
                }
            }
        }
    }

    /// Takes a line out of wherever it stands, and puts it where it belongs. One that stays ready keeps its place.
    fn stand(&mut self, now: Instant, id: Id, decisions: &mut Vec<Decision<W>>) {
        let mut number = self.number();
        let Some(line) = self.lines.get_mut(&id) else { return };
        let stood = line.stand;
        match stood {
            Stand::Ready(lane, at) => drop(self.ready[lane].remove(&at)),
            Stand::Parked(until, at) => drop(self.parked.remove(&(until, at))),
            Stand::Idle | Stand::Blocked => {}
        }
        let (bound, until) = loop {
            match line.next(now) {
                Next::Nothing => {
                    line.stand = Stand::Idle;
                    if !line.is_leaving {
                        line.is_leaving = true;
                        self.leaving.push_back((id, now));
                    }
                    return;
                }
                Next::Ready(lane) => {
                    if let Stand::Ready(_, place) = stood
                        && stood == Stand::Ready(lane, place)
                    {
                        number = place;
                    }
                    line.stand = Stand::Ready(lane, number);
                    self.ready[lane].insert(number, id);
                    return;
                }
                Next::TooLate(lane, until) => {
                    let Some(waiter) = line.waiting[lane].pop_front() else { return };
                    self.n_waiting -= 1;
                    line.hope(waiter.price, until);
                    decisions.push((waiter.waker, Err(Refused::NotBefore { until })));
                }
                Next::Budget(until) => break (Bound::UserMinute, until),
                Next::Ceiling(until) => break (Bound::Concurrency, until),
            }
        };
        self.held_up[bound as usize] += 1;
        line.stand = match until {
            Some(until) => Stand::Parked(until, number),
            None => Stand::Blocked,
        };
        if let Some(until) = until {
            self.parked.insert((until, number), id);
        }
    }

    /// The call with this ticket stands in its line since now.
    pub(super) fn queued(&mut self, now: Instant, ticket: Ticket, decisions: &mut Vec<Decision<W>>) {
        self.stand(now, ticket.line, decisions);
    }

    /// Lets through whoever may go.
    pub(super) fn decide(&mut self, now: Instant, decisions: &mut Vec<Decision<W>>) {
        while let Some((&(until, _), &id)) = self.parked.first_key_value() {
            if until > now {
                break;
            }
            self.stand(now, id, decisions);
        }
        self.project_at = None;
        let (places, patient) = (self.terms.places, self.terms.patient_places());
        loop {
            let may = |lane: usize| self.running.0 < places && (lane < FIRST_PATIENT || self.running.1 < patient);
            let Some(lane) = self.turns.next(|lane| !self.ready[lane].is_empty() && may(lane)) else {
                if self.ready.iter().any(|lane| !lane.is_empty()) {
                    self.held_up[Bound::Places as usize] += 1;
                } else {
                    // No lump is expected any more.
                    self.minute.expect(now, Amount::ZERO);
                    self.day.iter_mut().for_each(|day| day.expect(now, Amount::ZERO));
                }
                return;
            };
            let Some((_, &id)) = self.ready[lane].first_key_value() else { return };
            let line = self.lines.get_mut(&id).expect("a line that stands ready exists");
            let price = line.waiting[lane].front().expect("a ready line has a call of that priority").price;
            if let Some((bound, until)) = project_keeps(&mut self.minute, self.day.as_mut(), now, price) {
                self.held_up[bound as usize] += 1;
                self.project_at = until;
                return;
            }
            let waiter = line.pop(lane).expect("a ready line has a call of that priority");
            // Behind the others of its priority.
            line.stand = Stand::Blocked;
            self.ready[lane].pop_first();
            self.minute.take(price);
            self.day.iter_mut().for_each(|day| day.take(price));
            self.turns.took(lane, price.milli());
            self.n_waiting -= 1;
            self.running.0 += 1;
            self.running.1 += usize::from(lane >= FIRST_PATIENT);
            decisions.push((waiter.waker, Ok(Held { line: id, lane, price, parts: waiter.parts })));
            self.stand(now, id, decisions);
        }
    }

    /// When [`Desk::decide`] is wanted next, though nothing else happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let parked = self.parked.first_key_value().map(|((until, _), _)| *until);
        [parked, self.project_at].into_iter().flatten().min()
    }

    /// Nobody waits for the call any more. False: it was decided already.
    pub(super) fn leave(&mut self, now: Instant, ticket: Ticket, decisions: &mut Vec<Decision<W>>) -> bool {
        let Some(line) = self.lines.get_mut(&ticket.line) else { return false };
        let waiting = &mut line.waiting[ticket.lane];
        let Some(at) = waiting.iter().position(|waiter| waiter.ticket == ticket.number) else { return false };
        waiting.remove(at);
        self.n_waiting -= 1;
        self.stand(now, ticket.line, decisions);
        true
    }

    /// A call that was let through has ended, or was not made after all.
    pub(super) fn finish(&mut self, now: Instant, held: Held, was_made: bool, decisions: &mut Vec<Decision<W>>) {
        self.running.0 -= 1;
        self.running.1 -= usize::from(held.lane >= FIRST_PATIENT);
        let line = self.lines.get_mut(&held.line).expect("a line with a call under way is not forgotten");
        line.running -= held.parts;
        for bucket in [Some(&mut line.bucket), Some(&mut self.minute), self.day.as_mut()].into_iter().flatten() {
            if was_made {
                bucket.finish(now, held.price);
            } else {
                bucket.refund(now, held.price);
            }
        }
        self.stand(now, held.line, decisions);
    }

    /// Gmail has charged a call whose answer is still coming: its place and its part in what is under way remain.
    pub(super) fn charged(&mut self, now: Instant, held: &mut Held, decisions: &mut Vec<Decision<W>>) {
        let price = std::mem::take(&mut held.price);
        let line = self.lines.get_mut(&held.line).expect("a line with a call under way is not forgotten");
        for bucket in [Some(&mut line.bucket), Some(&mut self.minute), self.day.as_mut()].into_iter().flatten() {
            bucket.finish(now, price);
        }
        self.stand(now, held.line, decisions);
    }

    /// Gmail pushed a call of `account` back and asked to come back after `pause`, if it said so.
    pub(super) fn push_back(
        &mut self,
        now: Instant,
        account: &Account,
        reach: Reach,
        pause: Option<Duration>,
        decisions: &mut Vec<Decision<W>>,
    ) {
        let is_all = matches!(reach, Reach::Project | Reach::Day);
        let lines = self.accounts.get(account).cloned().unwrap_or_default();
        if is_all {
            let until = now + pause.unwrap_or_else(|| self.pauses.next(now)).min(LONGEST_PROJECT);
            let until = until.max(self.minute.frozen_until());
            self.minute.freeze(now, until);
            for id in self.lines.keys().copied().collect::<Vec<_>>() {
                self.refuse_before(now, id, until, decisions);
            }
            return;
        }
        for id in lines {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            if matches!(reach, Reach::Concurrency | Reach::Unknown) {
                line.ceiling.shrink(now);
            }
            let until = now + pause.unwrap_or_else(|| line.pauses.next(now)).min(LONGEST_USER);
            let until = until.max(line.bucket.frozen_until());
            line.bucket.freeze(now, until);
            self.refuse_before(now, id, until, decisions);
        }
    }

    /// Refuses a line's calls whose deadline is before `until`.
    fn refuse_before(&mut self, now: Instant, id: Id, until: Instant, decisions: &mut Vec<Decision<W>>) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        for waiting in &mut line.waiting {
            let (late, others): (VecDeque<_>, _) =
                std::mem::take(waiting).into_iter().partition(|waiter| waiter.deadline < until);
            *waiting = others;
            self.n_waiting -= late.len();
            decisions.extend(late.into_iter().map(|waiter| (waiter.waker, Err(Refused::NotBefore { until }))));
        }
        self.stand(now, id, decisions);
    }

    /// This process has another part of the service's budgets: gained, or lost.
    pub(super) fn set_part(&mut self, now: Instant, part: f64, decisions: &mut Vec<Decision<W>>) {
        let old = self.terms.part;
        self.terms.part = part.clamp(0.0, 1.0);
        self.minute.set_limit(now, self.terms.project_minute_limit());
        if let (Some(day), Some(limit)) = (&mut self.day, self.terms.project_day_limit()) {
            day.set_limit(now, limit);
        }
        if part < old {
            self.lost_at = Some(now);
        }
        if part <= old {
            return;
        }
        // What a line has not used since it was born may have been another process's until now.
        self.born = now;
        let Some(lost_at) = self.lost_at else { return };
        for id in self.lines.keys().copied().collect::<Vec<_>>() {
            let Some(line) = self.lines.get_mut(&id).filter(|line| line.since <= lost_at) else { continue };
            line.since = now;
            line.bucket.freeze(now, now);
            self.stand(now, id, decisions);
        }
    }

    /// The project's budgets: limit and what is left, of the minute and of the day.
    pub(super) fn project(&self) -> [Option<(Amount, Amount)>; 2] {
        let of = |bucket: &Bucket| (bucket.limit(), bucket.left());
        [Some(of(&self.minute)), self.day.as_ref().map(of)]
    }

    /// How often calls were held up since this was last asked.
    pub(super) fn take_held_up(&mut self) -> [u64; Bound::ALL.len()] {
        std::mem::take(&mut self.held_up)
    }

    /// Calls that wait.
    pub(super) fn waiting(&self) -> usize {
        self.n_waiting
    }

    /// Connections that are known.
    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// What a batch is best worth, in units, and the most parts it should have just now.
    pub(super) fn most(
        &self,
        now: Instant,
        account: &Account,
        connection: Option<ConnectionId>,
        shares: u32,
    ) -> (u32, u32) {
        let (connection, shares) = self.terms.line_of(connection, shares);
        let known = self.accounts.get(account).into_iter().flatten().map(|id| &self.lines[id]);
        let shares = known.clone().map(|line| line.shares).fold(shares.max(1), u32::max);
        let line = known.into_iter().find(|line| line.connection == connection);
        let at_once = line.map_or((self.terms.concurrency / shares).max(1), |line| line.ceiling.now(now));
        (self.terms.batch(shares).as_units() as u32, at_once)
    }
}

/// What of the project's budgets keeps a call of this price, and until when.
fn project_keeps(
    minute: &mut Bucket,
    day: Option<&mut Bucket>,
    now: Instant,
    price: Amount,
) -> Option<(Bound, Option<Instant>)> {
    let buckets = [Some((Bound::ProjectMinute, minute)), day.map(|day| (Bound::ProjectDay, day))];
    for (bound, bucket) in buckets.into_iter().flatten() {
        bucket.expect(now, price);
        match bucket.ready_at(price) {
            Some(at) if at <= now => {}
            until => return Some((bound, until)),
        }
    }
    None
}
