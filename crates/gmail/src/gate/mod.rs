//! The one place that every call to Gmail passes, and the only one that knows budgets.
//!
//! It is told whose quota a call spends, how urgent and how dear it is and how long its caller waits, and lets it
//! through when the account's minute, the project's minute and the project's day have room for it, none of which is
//! ever exceeded, whatever other processes do and however this one came to its end ([`bucket`] says why). No clock, no
//! task and no timer belongs to an account: those that wait are kept in order, and one task wakes when the first of
//! them may go.

mod bucket;
mod budget;
mod desk;
#[cfg(test)]
mod laws;
mod line;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use domain::{ConnectionId, Lane, Timestamp};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use budget::Service;

use crate::gate::budget::Terms;
use crate::gate::desk::{Bound, Decision, Desk, Held, Ticket};
use crate::token::Account;
use crate::{Settings, metric};

/// The metrics are told at least so often.
const REPORTS: Duration = Duration::from_secs(10);

/// Lets calls through. Cheap to clone; clones are one gate.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

/// A call that wants through.
#[derive(Debug, Clone, Copy)]
pub struct Admission<'a> {
    /// Whose quota it spends.
    pub account: &'a Account,
    /// Which of the account's connections asks; each has its part of the account's budget, or its turns at it in a
    /// service that has one for all of them. None: one that is just being made.
    pub connection: Option<ConnectionId>,
    /// How many connections share the account: each has one part of its budget.
    pub shares: u32,
    /// Its priority.
    pub lane: Lane,
    /// Its price in quota units; of a batch that of all its parts. Much more than [`Most::units`] is refused, unless it is
    /// what a single call may cost.
    pub units: u32,
    /// As how many calls Gmail counts it: a batch's parts, else 1.
    pub parts: u32,
    /// When nobody waits for it any more.
    pub deadline: Instant,
}

/// How large a batch should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// What it is best worth in units: some 0.37 s of the budget, half of what may be under way. More would not be read
    /// faster: a larger batch leaves no room for the credit of the next one to grow in while Gmail answers.
    pub units: u32,
    /// Calls that the account may have under way at a time, at least 1. It is less for a while after a push-back.
    pub parts: u32,
}

impl Most {
    /// How many calls of this price a batch should hold, at least one: those that come nearest to what it is best worth.
    pub fn calls(&self, price: u32) -> u32 {
        let price = price.max(1);
        self.parts.min((self.units + price / 2) / price).max(1)
    }
}

/// Leave to make one call, until dropped or [`Permit::charged`]. To be held until the answer is there: until then Gmail may charge the call.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    held: Held,
}

/// How far a push-back of Gmail's reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The user's units of the minute.
    User,
    /// The user's calls at one time.
    Concurrency,
    /// The project's units of the minute.
    Project,
    /// The project's units of the day.
    Day,
    /// Gmail did not say.
    Unknown,
}

impl Reach {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Concurrency => "concurrency",
            Self::Project => "project",
            Self::Day => "day",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a call was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The deadline passed.
    #[error("The deadline passed after {waited:?} of waiting to be let through to Gmail")]
    Late {
        /// How long it waited.
        waited: Duration,
    },
    /// It is certain that the deadline will pass: Gmail asked for a pause, or the budget is spent beyond it.
    #[error("The quota leaves no room for the call before its deadline; try again later")]
    NotBefore {
        /// When to try again.
        until: Instant,
    },
    /// It costs more than is ever let through at once.
    #[error(
        "A call of {units} quota units is dearer than the {most} that the budget lets through at once; make smaller batches, or give the service more of the quota (gmail.quota.*)"
    )]
    TooDear {
        /// Its price.
        units: u32,
        /// The most that is let through.
        most: u32,
    },
    /// Too many calls wait already.
    #[error("Too many calls wait to be let through to Gmail")]
    Full,
}

impl Refused {
    /// When to try again, by the wall clock, if that is known.
    pub fn until(&self) -> Option<Timestamp> {
        let Self::NotBefore { until } = self else { return None };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = since + until.saturating_duration_since(Instant::now());
        Some(Timestamp::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Permit {
    /// Gmail has begun to answer the last call under this permit, so it has charged it: the budget need not wait for
    /// the end of an answer that is long. The place among those under way is kept.
    pub fn charged(&mut self) {
        let held = &mut self.held;
        self.inner.decide(|desk, now, decisions| desk.charged(now, held, decisions));
    }
}

type Waker = oneshot::Sender<Result<Held, Refused>>;

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Wakes the driver.
    wake: Arc<Notify>,
    has_driver: Arc<AtomicBool>,
}

#[derive(Debug)]
struct State {
    desk: Desk<Waker>,
    /// When the driver wakes by itself.
    planned: Option<Instant>,
    /// Reused.
    decisions: Vec<Decision<Waker>>,
    /// Partitions that are held, and of how many, by holding.
    holdings: BTreeMap<u64, (u32, u32)>,
    next_holding: u64,
}

impl Gate {
    /// A gate for a process that calls Gmail for all accounts: it has the whole of the service's budgets.
    pub fn new(settings: &Settings, service: Service) -> Self {
        Self::with_part(settings, service, 1.0)
    }

    /// A gate for a process that calls Gmail for the accounts on its partitions: it lets nothing through until
    /// [`Gate::holding`] is told of some.
    pub fn by_partitions(settings: &Settings, service: Service) -> Self {
        Self::with_part(settings, service, 0.0)
    }

    fn with_part(settings: &Settings, service: Service, part: f64) -> Self {
        let state = State {
            desk: Desk::new(Terms::new(settings, service, part), Instant::now()),
            planned: None,
            decisions: Vec::new(),
            holdings: BTreeMap::new(),
            next_holding: 0,
        };
        let (wake, has_driver) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        Self { inner: Arc::new(Inner { state: Mutex::new(state), wake, has_driver }) }
    }

    /// Waits until the call may be made. Given up midway it leaves nothing behind.
    ///
    /// # Errors
    /// [`Refused`] when its deadline comes first or is certain to, when it is too dear, or too many wait.
    pub async fn admit(&self, admission: Admission<'_>) -> Result<Permit, Refused> {
        let began = Instant::now();
        self.inner.start_driver();
        let (waker, answer) = oneshot::channel();
        let ticket = self.inner.decide(|desk, now, decisions| {
            let ticket = desk.ask(now, &admission, waker)?;
            desk.queued(now, ticket, decisions);
            Ok::<_, Refused>(ticket)
        });
        let mut waiting = Waiting { inner: &self.inner, ticket: ticket.inspect_err(refused_as)?, answer };
        let decided = match waiting.answer.try_recv() {
            Ok(decided) => decided,
            Err(_) => match tokio::time::timeout_at(admission.deadline, &mut waiting.answer).await {
                Ok(Ok(decided)) => decided,
                // It may have been let through at the very end.
                _ => waiting.answer.try_recv().unwrap_or_else(|_| Err(Refused::Late { waited: began.elapsed() })),
            },
        };
        let held = decided.inspect_err(refused_as)?;
        metric::admitted(admission.lane, admission.units, began.elapsed());
        Ok(Permit { inner: self.inner.clone(), held })
    }

    /// How large a batch of a connection should be. `shares` as in [`Admission`].
    pub fn most(&self, account: &Account, connection: Option<ConnectionId>, shares: u32) -> Most {
        let (units, parts) = self.inner.lock().desk.most(Instant::now(), account, connection, shares);
        Most { units, parts }
    }

    /// Takes note that Gmail pushed a call of `account` back, and asked not to come back before `until` if it said so.
    pub fn pushed_back(&self, account: &Account, reach: Reach, until: Option<Timestamp>) {
        tracing::debug!(?account, reach = reach.as_str(), "Gmail pushed a call back");
        metric::pushed_back(reach.as_str());
        let pause = until.map(|until| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let until = Duration::from_millis(u64::try_from(until.as_millis()).unwrap_or(0));
            until.saturating_sub(since)
        });
        self.inner.decide(|desk, now, decisions| desk.push_back(now, account, reach, pause, decisions));
    }

    /// For one of those that share the process's partitions, to tell how many it has.
    pub fn holding(&self) -> Holding {
        let mut state = self.inner.lock();
        state.next_holding += 1;
        Holding { inner: self.inner.clone(), number: state.next_holding }
    }
}

/// The partitions of one lane, told to the gate. Dropped, they are given up.
#[derive(Debug)]
pub struct Holding {
    inner: Arc<Inner>,
    number: u64,
}

impl Holding {
    /// It holds `owned` of the `total` partitions now. What is lost takes its part of the budgets along at once; what
    /// is gained brings one without credit.
    pub fn set(&self, owned: usize, total: usize) {
        let (owned, total) = (u32::try_from(owned).unwrap_or(u32::MAX), u32::try_from(total).unwrap_or(u32::MAX));
        self.inner.hold(self.number, (owned.min(total), total.max(1)));
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.inner.hold(self.number, (0, 1));
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the desk, then lets through whoever may go.
    fn decide<T>(&self, change: impl FnOnce(&mut Desk<Waker>, Instant, &mut Vec<Decision<Waker>>) -> T) -> T {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let changed = change(&mut state.desk, now, &mut state.decisions);
        state.settle(now, &self.wake);
        changed
    }

    fn hold(&self, number: u64, part: (u32, u32)) {
        let mut state = self.lock();
        let state = &mut *state;
        match part {
            (0, _) => state.holdings.remove(&number),
            part => state.holdings.insert(number, part),
        };
        let part = state.holdings.values().map(|(owned, total)| f64::from(*owned) / f64::from(*total)).sum();
        let now = Instant::now();
        state.desk.set_part(now, part, &mut state.decisions);
        state.settle(now, &self.wake);
    }

    /// Starts the task that lets calls through when their time has come, unless there is one.
    fn start_driver(self: &Arc<Self>) {
        if self.has_driver.load(Ordering::Acquire) || self.has_driver.swap(true, Ordering::AcqRel) {
            return;
        }
        let gone = Gone(self.has_driver.clone());
        tokio::spawn(drive(Arc::downgrade(self), self.wake.clone(), gone));
    }
}

impl State {
    fn settle(&mut self, now: Instant, wake: &Notify) {
        self.desk.decide(now, &mut self.decisions);
        for (waker, decision) in self.decisions.drain(..) {
            // Whoever stops waiting says so under the lock first, so somebody is there to hear it.
            let _ = waker.send(decision);
        }
        let due = self.desk.wake_at();
        if due.is_some() && (self.planned.is_none() || due < self.planned) {
            self.planned = due;
            wake.notify_one();
        }
    }
}

/// Says that the driver is gone, also when its runtime ends under it.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Lets calls through when their time has come, and tells the metrics, as long as there is the gate.
async fn drive(inner: Weak<Inner>, wake: Arc<Notify>, _gone: Gone) {
    loop {
        let due = {
            let Some(inner) = inner.upgrade() else { return };
            let now = Instant::now();
            let mut state = inner.lock();
            // It needs no waking for what it is about to wait for.
            state.planned = Some(now);
            state.settle(now, &wake);
            state.planned = state.desk.wake_at();
            let due = state.planned;
            state.report();
            due
        };
        // What is left of a budget grows while nobody asks for anything.
        let report = Instant::now() + REPORTS;
        let _ = tokio::time::timeout_at(due.map_or(report, |due| due.min(report)), wake.notified()).await;
    }
}

impl State {
    /// Tells the metrics.
    fn report(&mut self) {
        let held_up = self.desk.take_held_up();
        for bound in Bound::ALL {
            metric::held_up(bound.as_str(), held_up[bound as usize]);
        }
        for (name, budget) in ["project_minute", "project_day"].into_iter().zip(self.desk.project()) {
            if let Some((limit, left)) = budget {
                metric::budget(name, limit.as_units(), left.as_units());
            }
        }
        metric::waiting(self.desk.waiting(), self.desk.lines());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Lets the driver see that it is over.
        self.wake.notify_one();
    }
}

/// A call that waits, and leaves when it is given up.
struct Waiting<'a> {
    inner: &'a Arc<Inner>,
    ticket: Ticket,
    answer: oneshot::Receiver<Result<Held, Refused>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answer.is_terminated() {
            return;
        }
        let (ticket, answer) = (self.ticket, &mut self.answer);
        self.inner.decide(|desk, now, decisions| {
            if desk.leave(now, ticket, decisions) {
                return;
            }
            if let Ok(Ok(held)) = answer.try_recv() {
                desk.finish(now, held, false, decisions);
            }
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        metric::left();
        let held = self.held;
        self.inner.decide(|desk, now, decisions| desk.finish(now, held, true, decisions));
    }
}

fn refused_as(refused: &Refused) {
    metric::refused(match refused {
        Refused::Late { .. } => "late",
        Refused::NotBefore { .. } => "not_before",
        Refused::TooDear { .. } => "too_dear",
        Refused::Full => "full",
    });
}
