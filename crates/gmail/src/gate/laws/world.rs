//! A small cluster in virtual time: processes that crash, start again and hand partitions over, with calls that take
//! their time and that Gmail charges whenever it likes while they are under way.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{ConnectionId, Lane};
use proptest::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use crate::gate::budget::{Service, Terms};
use crate::gate::desk::{Decision, Desk, Held, Ticket};
use crate::gate::{Admission, Refused};
use crate::token::Account;
use crate::{Quota, Settings};

pub(super) const LANES: [Lane; 5] = [Lane::Live, Lane::CatchUp, Lane::Fetch, Lane::Backfill, Lane::Audit];
pub(super) const PARTITIONS: usize = 6;
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// So many calls a mailbox that always wants more has asked for.
const HUNGER: usize = 60;

/// A mailbox: its partition, its account, and how many connections that has.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    pub(super) partition: usize,
    pub(super) account: Account,
    connection: ConnectionId,
    shares: u32,
}

pub(super) struct UnderWay {
    process: usize,
    held: Held,
    mailbox: usize,
    units: u32,
    charged_at: Option<Instant>,
    ends_at: Instant,
}

/// What a call's caller is told by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    process: usize,
    mailbox: usize,
    units: u32,
    /// Which call it is.
    number: u64,
}

/// When Gmail charges a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Charged {
    Begin,
    Between,
    End,
}

/// A small cluster and the Gmail that it calls.
pub(super) struct World {
    pub(super) settings: Settings,
    /// Whose processes they are. Those of an ingress own no partitions, and any is asked about any mailbox.
    service: Service,
    pub(super) now: Instant,
    pub(super) desks: Vec<Desk<Call>>,
    /// Who has each partition.
    pub(super) owners: [usize; PARTITIONS],
    pub(super) mailboxes: Vec<Mailbox>,
    /// Calls that wait: at which process, for which mailbox.
    tickets: BTreeMap<u64, (usize, usize, Ticket)>,
    pub(super) under_way: Vec<UnderWay>,
    /// Mailboxes that always want more: of which priority, at which price.
    pub(super) hunger: Vec<Option<(usize, u32)>>,
    /// How many calls each mailbox has asked for that have not ended.
    asked: Vec<usize>,
    is_dead: Vec<bool>,
    /// A partition that is nobody's just now.
    moving: Option<usize>,
    /// What Gmail charged: when, to which mailbox, how much.
    charges: Vec<(Instant, usize, u32)>,
    n_calls: u64,
    /// The next numbers of a sequence that decides about times.
    dice: u64,
    /// The longest that a call takes, and whether Gmail charges calls at their end, their begin, or in between.
    pub(super) slowness: (Duration, Charged),
}

impl World {
    pub(super) fn new(quota: Quota, processes: usize, mailboxes: &[(usize, u32)]) -> Self {
        Self::of(Service::Poller, quota, processes, mailboxes)
    }

    pub(super) fn of(service: Service, quota: Quota, processes: usize, mailboxes: &[(usize, u32)]) -> Self {
        let settings = Settings { quota, ..Settings::default() };
        let begin = Instant::now();
        let mut all = Vec::new();
        for (number, (partition, shares)) in mailboxes.iter().enumerate() {
            let account = Account::new(&format!("account {number}"));
            for one in 0..*shares {
                let connection = ConnectionId::from_uuid(Uuid::from_u128((number as u128) << 8 | u128::from(one)));
                let partition = (partition + one as usize) % PARTITIONS;
                all.push(Mailbox { partition, account: account.clone(), connection, shares: *shares });
            }
        }
        let owners = std::array::from_fn(|partition| partition % processes);
        let mut world = Self {
            settings,
            service,
            now: begin,
            desks: Vec::new(),
            owners,
            hunger: vec![None; all.len()],
            asked: vec![0; all.len()],
            is_dead: vec![false; processes],
            moving: None,
            mailboxes: all,
            tickets: BTreeMap::new(),
            under_way: Vec::new(),
            charges: Vec::new(),
            n_calls: 0,
            dice: 1,
            slowness: (Duration::from_millis(400), Charged::Between),
        };
        for process in 0..processes {
            let desk = Desk::new(world.terms(world.part(process)), begin);
            world.desks.push(desk);
        }
        world
    }

    fn terms(&self, part: f64) -> Terms {
        Terms::new(&self.settings, self.service, part)
    }

    pub(super) fn part(&self, process: usize) -> f64 {
        if self.service == Service::Ingress {
            return 1.0;
        }
        self.owners.iter().filter(|owner| **owner == process).count() as f64 / PARTITIONS as f64
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below.max(1)
    }

    /// Who is asked about a mailbox; none while it is nobody's, or nobody lives.
    fn home(&mut self, mailbox: usize) -> Option<usize> {
        if self.service == Service::Ingress {
            let living: Vec<_> = (0..self.desks.len()).filter(|process| !self.is_dead[*process]).collect();
            let one = self.roll(living.len() as u64);
            return living.get(usize::try_from(one).unwrap()).copied();
        }
        let partition = self.mailboxes[mailbox].partition;
        let is_home = self.moving != Some(partition) && !self.is_dead[self.owners[partition]];
        is_home.then_some(self.owners[partition])
    }

    /// Carries decisions out: what is let through is under way, and charged at some time until its end.
    fn carry_out(&mut self, decisions: Vec<Decision<Call>>) {
        for (call, decision) in decisions {
            self.tickets.remove(&call.number);
            let Ok(held) = decision else {
                self.asked[call.mailbox] -= 1;
                continue;
            };
            let (slowest, charged) = self.slowness;
            let took = self.roll(u64::try_from(slowest.as_micros()).unwrap());
            let charged = match charged {
                Charged::Begin => 0,
                Charged::Between => self.roll(took + 1),
                Charged::End => took,
            };
            self.under_way.push(UnderWay {
                process: call.process,
                held,
                mailbox: call.mailbox,
                units: call.units,
                charged_at: Some(self.now + Duration::from_micros(charged)),
                ends_at: self.now + Duration::from_micros(took),
            });
        }
    }

    pub(super) fn on<T>(
        &mut self,
        process: usize,
        change: impl FnOnce(&mut Desk<Call>, Instant, &mut Vec<Decision<Call>>) -> T,
    ) -> T {
        let mut decisions = Vec::new();
        let result = change(&mut self.desks[process], self.now, &mut decisions);
        self.desks[process].decide(self.now, &mut decisions);
        self.carry_out(decisions);
        result
    }

    pub(super) fn ask(&mut self, mailbox: usize, lane: usize, units: u32, patience: Duration) -> Result<(), Refused> {
        let Some(process) = self.home(mailbox) else { return Ok(()) };
        let Mailbox { account, connection, shares, .. } = self.mailboxes[mailbox].clone();
        let deadline = self.now + patience;
        let admission = Admission {
            account: &account,
            connection: Some(connection),
            shares,
            lane: LANES[lane],
            units,
            parts: 1,
            deadline,
        };
        self.n_calls += 1;
        let number = self.n_calls;
        let (now, desk, mut decisions) = (self.now, &mut self.desks[process], Vec::new());
        let ticket = desk.ask(now, &admission, Call { process, mailbox, units, number })?;
        desk.queued(now, ticket, &mut decisions);
        desk.decide(now, &mut decisions);
        self.tickets.insert(number, (process, mailbox, ticket));
        self.asked[mailbox] += 1;
        self.carry_out(decisions);
        Ok(())
    }

    /// The callers that `which` picks wait no longer.
    pub(super) fn leave(&mut self, which: impl Fn(usize, usize) -> bool) {
        let leaving = self.tickets.extract_if(.., |_, (process, mailbox, _)| which(*process, *mailbox));
        for (_, (process, mailbox, ticket)) in leaving.collect::<Vec<_>>() {
            // Those that left before it may have made room for it.
            if self.on(process, |desk, now, decisions| desk.leave(now, ticket, decisions)) {
                self.asked[mailbox] -= 1;
            }
        }
    }

    /// The hungry ask until enough of their calls wait.
    pub(super) fn feed(&mut self) {
        for mailbox in 0..self.mailboxes.len() {
            let Some((lane, units)) = self.hunger[mailbox] else { continue };
            if self.home(mailbox).is_none() {
                continue;
            }
            while self.asked[mailbox] < HUNGER {
                if self.ask(mailbox, lane, units, 60 * MINUTE).is_err() {
                    break;
                }
            }
        }
    }

    pub(super) fn n_charges(&self) -> usize {
        self.charges.len()
    }

    /// Gmail charges what it has to by now.
    fn charge(&mut self, until: Instant) {
        for call in &mut self.under_way {
            if let Some(at) = call.charged_at.filter(|at| *at <= until) {
                call.charged_at = None;
                self.charges.push((at, call.mailbox, call.units));
            }
        }
    }

    /// Time passes, and all that it brings happens.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.feed();
        loop {
            let ends = self.under_way.iter().map(|call| call.ends_at).min();
            let wakes = self.desks.iter().filter_map(Desk::wake_at).min();
            let Some(next) = [ends, wakes].into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.charge(self.now);
            let mut at = 0;
            while at < self.under_way.len() {
                if self.under_way[at].ends_at > self.now {
                    at += 1;
                    continue;
                }
                let call = self.under_way.swap_remove(at);
                self.asked[call.mailbox] -= 1;
                self.on(call.process, |desk, now, decisions| desk.finish(now, call.held, true, decisions));
            }
            for process in 0..self.desks.len() {
                self.on(process, |_, _, _| ());
            }
            self.feed();
        }
        self.now = end;
        self.charge(end);
    }

    /// The process dies, and starts again after a while.
    pub(super) fn crash(&mut self, process: usize, pause: Duration) {
        self.charge_at_once(|call| call.process == process);
        for call in self.under_way.extract_if(.., |call| call.process == process) {
            self.asked[call.mailbox] -= 1;
        }
        for (_, (_, mailbox, _)) in self.tickets.extract_if(.., |_, (of, ..)| *of == process) {
            self.asked[mailbox] -= 1;
        }
        let (terms, dead) = (self.terms(self.part(process)), self.terms(0.0));
        self.desks[process] = Desk::new(dead, self.now);
        self.is_dead[process] = true;
        self.pass(pause);
        self.is_dead[process] = false;
        self.desks[process] = Desk::new(terms, self.now);
    }

    /// What is under way when its budget changes hands has reached Gmail.
    fn charge_at_once(&mut self, which: impl Fn(&UnderWay) -> bool) {
        let now = self.now;
        for call in self.under_way.iter_mut().filter(|call| which(call)) {
            if let Some(at) = call.charged_at.take() {
                self.charges.push((at.min(now), call.mailbox, call.units));
            }
        }
    }

    /// A partition changes hands: lost first, then gained.
    pub(super) fn hand_over(&mut self, partition: usize, to: usize, pause: Duration) {
        let from = self.owners[partition];
        let to = to % self.desks.len();
        if from == to || self.service == Service::Ingress {
            return;
        }
        let mailboxes: Vec<_> = self.mailboxes.iter().map(|mailbox| mailbox.partition == partition).collect();
        // Its calls that wait are given up with it.
        self.leave(|process, mailbox| process == from && mailboxes[mailbox]);
        self.owners[partition] = usize::MAX;
        let part = self.part(from);
        self.on(from, |desk, now, decisions| desk.set_part(now, part, decisions));
        self.owners[partition] = from;
        self.moving = Some(partition);
        self.pass(pause);
        self.moving = None;
        self.charge_at_once(|call| call.process == from);
        self.owners[partition] = to;
        let part = self.part(to);
        self.on(to, |desk, now, decisions| desk.set_part(now, part, decisions));
    }

    /// The most that was charged in any window, of the charges that `which` picks.
    fn most_in_a_window(&self, window: Duration, which: impl Fn(usize) -> bool) -> u64 {
        let mut charges: Vec<_> = self.charges.iter().filter(|(_, mailbox, _)| which(*mailbox)).collect();
        charges.sort_by_key(|(at, ..)| *at);
        let (mut first, mut sum, mut most) = (0, 0, 0);
        for (at, _, units) in &charges {
            sum += u64::from(*units);
            while *at - charges[first].0 > window {
                sum -= u64::from(charges[first].2);
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// No window of any budget has seen more than the limit.
    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let terms = self.terms(1.0);
        // Each instance of an ingress has a part of its own.
        let parts = if self.service == Service::Ingress { self.desks.len() as f64 } else { 1.0 };
        let mut accounts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, mailbox) in self.mailboxes.iter().enumerate() {
            accounts.entry(mailbox.account.as_str()).or_default().push(number);
        }
        let limit = terms.user_limit(1).as_units() * parts;
        for mailboxes in accounts.values() {
            let most = self.most_in_a_window(MINUTE, |mailbox| mailboxes.contains(&mailbox));
            prop_assert!(most as f64 <= limit, "an account spent {most} in a minute, of {limit}");
        }
        let limit = terms.project_minute_limit().as_units() * parts;
        let most = self.most_in_a_window(MINUTE, |_| true);
        prop_assert!(most as f64 <= limit, "the project spent {most} in a minute, of {limit}");
        if let Some(limit) = terms.project_day_limit() {
            let most = self.most_in_a_window(Duration::from_secs(86_400), |_| true);
            let limit = limit.as_units() * parts;
            prop_assert!(most as f64 <= limit, "the project spent {most} in a day, of {limit}");
        }
        Ok(())
    }

    /// When all is over nothing is held, and hardly anything is remembered.
    pub(super) fn rest(&mut self) -> Result<(), TestCaseError> {
        self.hunger.fill(None);
        self.leave(|_, _| true);
        self.pass(20 * MINUTE);
        prop_assert!(self.under_way.is_empty());
        let (now, terms) = (self.now, self.terms(1.0));
        for process in 0..self.desks.len() {
            let part = self.part(process);
            self.on(process, |_, _, _| ());
            let desk = &mut self.desks[process];
            prop_assert_eq!(desk.waiting(), 0);
            let [minute, _] = desk.project();
            let (limit, left) = minute.expect("there is a minute");
            prop_assert_eq!(left.milli(), limit.milli() / 80, "a budget that nobody uses fills up");
            prop_assert!(limit.as_units() <= terms.project_minute_limit().as_units() * part + 0.01);
            // Each look at the desk forgets some.
            for _ in 0..16 {
                desk.let_leave(now);
            }
            prop_assert_eq!(desk.lines(), 0);
        }
        Ok(())
    }
}
