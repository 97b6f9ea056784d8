//! What the gate promises, tried in virtual time: accounts on processes that crash, start again and hand partitions
//! over, with calls that take their time and that Gmail charges whenever it likes while they are under way.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{ConnectionId, Lane};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::budget::{Service, Terms};
use super::desk::{Decision, Desk, Held, Ticket};
use super::{Admission, Reach, Refused};
use crate::token::Account;
use crate::{Quota, Settings};

const LANES: [Lane; 5] = [Lane::Live, Lane::CatchUp, Lane::Fetch, Lane::Backfill, Lane::Audit];
const PARTITIONS: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);

/// A mailbox: its partition, its account, and how many connections that has.
#[derive(Debug, Clone)]
struct Mailbox {
    partition: usize,
    account: Account,
    connection: ConnectionId,
    shares: u32,
}

struct UnderWay {
    process: usize,
    held: Held,
    mailbox: usize,
    units: u32,
    charged_at: Option<Instant>,
    ends_at: Instant,
}

/// What a call's caller is told by.
#[derive(Debug, Clone, Copy)]
struct Call {
    process: usize,
    mailbox: usize,
    units: u32,
    lane: usize,
}

/// A small cluster and the Gmail that it calls.
struct World {
    settings: Settings,
    now: Instant,
    desks: Vec<Desk<Call>>,
    /// Who has each partition.
    owners: [usize; PARTITIONS],
    mailboxes: Vec<Mailbox>,
    /// Calls that were asked for and may still wait: by process, for each mailbox.
    tickets: Vec<(usize, usize, Ticket)>,
    under_way: Vec<UnderWay>,
    /// What Gmail charged: when, to which mailbox, how much.
    charges: Vec<(Instant, usize, u32)>,
    by_lane: [u64; 5],
    refused: usize,
    /// The next numbers of a sequence that decides about times.
    dice: u64,
    /// The longest that a call takes.
    slowest: Duration,
}

impl World {
    fn new(quota: Quota, processes: usize, mailboxes: &[(usize, u32)]) -> Self {
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
            now: begin,
            desks: Vec::new(),
            owners,
            mailboxes: all,
            tickets: Vec::new(),
            under_way: Vec::new(),
            charges: Vec::new(),
            by_lane: [0; 5],
            refused: 0,
            dice: 1,
            slowest: Duration::from_millis(400),
        };
        for process in 0..processes {
            let desk = Desk::new(Terms::new(&world.settings, Service::Poller, world.part(process)), begin);
            world.desks.push(desk);
        }
        world
    }

    fn part(&self, process: usize) -> f64 {
        self.owners.iter().filter(|owner| **owner == process).count() as f64 / PARTITIONS as f64
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below.max(1)
    }

    /// Carries decisions out: what is let through is under way, and charged at some time until its end.
    fn carry_out(&mut self, decisions: Vec<Decision<Call>>) {
        for (call, decision) in decisions {
            let Ok(held) = decision else {
                self.refused += 1;
                continue;
            };
            let slowest = u64::try_from(self.slowest.as_micros()).unwrap();
            let took = self.roll(slowest);
            let charged = self.roll(took + 1);
            self.by_lane[call.lane] += u64::from(call.units);
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

    fn on<T>(
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

    fn ask(&mut self, mailbox: usize, lane: usize, units: u32, patience: Duration) -> Result<Ticket, Refused> {
        let Mailbox { partition, account, connection, shares } = self.mailboxes[mailbox].clone();
        let process = self.owners[partition];
        let deadline = self.now + patience;
        let asked = self.on(process, |desk, now, decisions| {
            let admission = Admission {
                account: &account,
                connection: Some(connection),
                shares,
                lane: LANES[lane],
                units,
                parts: 1,
                deadline,
            };
            let ticket = desk.ask(now, &admission, Call { process, mailbox, units, lane })?;
            desk.queued(now, ticket, decisions);
            Ok(ticket)
        });
        if let Ok(ticket) = asked {
            self.tickets.push((process, mailbox, ticket));
        }
        asked
    }

    /// The callers that `which` picks wait no longer.
    fn leave(&mut self, which: impl Fn(usize, usize) -> bool) {
        let leaving: Vec<_> = self.tickets.extract_if(.., |(process, mailbox, _)| which(*process, *mailbox)).collect();
        for (process, _, ticket) in leaving {
            self.on(process, |desk, now, decisions| desk.leave(now, ticket, decisions));
        }
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
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
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
                self.on(call.process, |desk, now, decisions| desk.finish(now, call.held, true, decisions));
            }
            for process in 0..self.desks.len() {
                self.on(process, |_, _, _| ());
            }
        }
        self.now = end;
        self.charge(end);
    }

    /// The process dies, and starts again after a while.
    fn crash(&mut self, process: usize, pause: Duration) {
        self.charge_at_once(|call| call.process == process);
        self.under_way.retain(|call| call.process != process);
        self.tickets.retain(|(of, ..)| *of != process);
        let part = self.part(process);
        // Nothing happens in it until it is back.
        let terms = Terms::new(&self.settings, Service::Poller, part);
        self.desks[process] = Desk::new(terms.clone(), self.now);
        self.pass(pause);
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
    fn hand_over(&mut self, partition: usize, to: usize, pause: Duration) {
        let from = self.owners[partition];
        let to = to % self.desks.len();
        if from == to {
            return;
        }
        let mailboxes: Vec<_> = self.mailboxes.iter().map(|mailbox| mailbox.partition == partition).collect();
        // Its calls that wait are given up with it.
        self.leave(|process, mailbox| process == from && mailboxes[mailbox]);
        self.owners[partition] = usize::MAX;
        let part = self.part(from);
        self.on(from, |desk, now, decisions| desk.set_part(now, part, decisions));
        self.owners[partition] = from;
        // Nobody asks in the meantime.
        self.pass(pause);
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
    fn check(&self) -> Result<(), TestCaseError> {
        let terms = Terms::new(&self.settings, Service::Poller, 1.0);
        let mut accounts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, mailbox) in self.mailboxes.iter().enumerate() {
            accounts.entry(mailbox.account.as_str()).or_default().push(number);
        }
        let limit = terms.user_limit(1).as_units();
        for mailboxes in accounts.values() {
            let most = self.most_in_a_window(MINUTE, |mailbox| mailboxes.contains(&mailbox));
            prop_assert!(most as f64 <= limit, "an account spent {most} in a minute, of {limit}");
        }
        let limit = terms.project_minute_limit().as_units();
        let most = self.most_in_a_window(MINUTE, |_| true);
        prop_assert!(most as f64 <= limit, "the project spent {most} in a minute, of {limit}");
        if let Some(limit) = terms.project_day_limit() {
            let most = self.most_in_a_window(Duration::from_secs(86_400), |_| true);
            prop_assert!(most as f64 <= limit.as_units(), "the project spent {most} in a day, of {limit:?}");
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask { mailbox: usize, lane: usize, units: u32, times: usize, patience: Duration },
    Pass(Duration),
    Crash { process: usize, pause: Duration },
    HandOver { partition: usize, to: usize, pause: Duration },
    PushBack { mailbox: usize, reach: Reach, pause: Option<Duration> },
    Slowness(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let millis = |most: u64| (0..most).prop_map(Duration::from_millis);
    let units = prop::sample::select(vec![1, 2, 2, 2, 5, 5, 20, 20, 50, 100]);
    let reach = prop::sample::select(vec![Reach::User, Reach::Concurrency, Reach::Project, Reach::Day, Reach::Unknown]);
    prop_oneof![
        12 => (0..8_usize, 0..5_usize, units, 1..400_usize, millis(90_000)).prop_map(
            |(mailbox, lane, units, times, patience)| Step::Ask { mailbox, lane, units, times, patience }
        ),
        8 => millis(8_000).prop_map(Step::Pass),
        3 => millis(90_000).prop_map(Step::Pass),
        2 => (0..4_usize, millis(3_000)).prop_map(|(process, pause)| Step::Crash { process, pause }),
        2 => (0..PARTITIONS, 0..4_usize, millis(1_500))
            .prop_map(|(partition, to, pause)| Step::HandOver { partition, to, pause }),
        1 => (0..8_usize, reach, prop::option::of(millis(20_000)))
            .prop_map(|(mailbox, reach, pause)| Step::PushBack { mailbox, reach, pause }),
        1 => (1..30_000_u64).prop_map(|most| Step::Slowness(Duration::from_millis(most))),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask { mailbox, lane, units, times, patience } => {
                for _ in 0..times {
                    let _ = self.ask(mailbox % self.mailboxes.len(), lane, units, patience);
                }
            }
            Step::Pass(time) => self.pass(time),
            Step::Crash { process, pause } => self.crash(process % self.desks.len(), pause),
            Step::HandOver { partition, to, pause } => self.hand_over(partition, to, pause),
            Step::PushBack { mailbox, reach, pause } => {
                let mailbox = self.mailboxes[mailbox % self.mailboxes.len()].clone();
                let process = self.owners[mailbox.partition];
                self.on(process, |desk, now, decisions| desk.push_back(now, &mailbox.account, reach, pause, decisions));
            }
            Step::Slowness(most) => self.slowest = most,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// I4, for every budget at once.
    #[test]
    fn no_schedule_of_calls_exceeds_any_window(
        user_minute in prop::sample::select(vec![250_u64, 1_500, 6_000, 15_000]),
        project in 1..20_u64,
        day in prop::option::of(1..4_u64),
        processes in 1..4_usize,
        mailboxes in vec((0..PARTITIONS, 1..3_u32), 1..5),
        steps in vec(step(), 5..60),
    ) {
        let project_minute = user_minute * project / 4;
        let quota = Quota {
            user_minute: Some(user_minute),
            project_minute: Some(project_minute),
            project_day: day.map(|times| project_minute * times * 2),
            poller: 1.0,
            fetcher: 0.0,
            ingress: 0.0,
            concurrency: 50,
            ..Quota::default()
        };
        let mut world = World::new(quota, processes, &mailboxes);
        for step in &steps {
            world.take(step);
        }
        world.pass(Duration::from_secs(30));
        world.check()?;
    }
}
