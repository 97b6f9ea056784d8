//! What the gate promises, tried in virtual time.

mod load;
mod world;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use self::load::saturate;
use self::world::{Charged, MINUTE, PARTITIONS, World};
use super::{Reach, Service};
use crate::{Quota, Tariff};

#[derive(Debug, Clone)]
enum Step {
    /// A mailbox begins to want more and more, or to want nothing more.
    Hunger {
        mailbox: usize,
        wants: Option<(usize, u32)>,
    },
    Ask {
        mailbox: usize,
        lane: usize,
        units: u32,
        times: usize,
        patience: Duration,
    },
    Pass(Duration),
    Crash {
        process: usize,
        pause: Duration,
    },
    HandOver {
        partition: usize,
        to: usize,
        pause: Duration,
    },
    PushBack {
        mailbox: usize,
        reach: Reach,
        pause: Option<Duration>,
    },
    Slowness(Duration, Charged),
    Leave {
        mailbox: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let millis = |most: u64| (0..most).prop_map(Duration::from_millis);
    let units = || prop::sample::select(vec![1_u32, 2, 2, 5, 5, 20, 20, 50, 100]);
    let reach = prop::sample::select(vec![Reach::User, Reach::Concurrency, Reach::Project, Reach::Day, Reach::Unknown]);
    let charged = prop::sample::select(vec![Charged::Begin, Charged::Between, Charged::End]);
    prop_oneof![
        6 => (0..4_usize, 0..5_usize, units())
            .prop_map(|(mailbox, lane, units)| Step::Hunger { mailbox, wants: Some((lane, units)) }),
        1 => (0..4_usize).prop_map(|mailbox| Step::Hunger { mailbox, wants: None }),
        2 => (0..4_usize, 0..5_usize, units(), 1..60_usize, millis(90_000)).prop_map(
            |(mailbox, lane, units, times, patience)| Step::Ask { mailbox, lane, units, times, patience }
        ),
        10 => millis(6_000).prop_map(Step::Pass),
        2 => millis(90_000).prop_map(Step::Pass),
        5 => (0..4_usize, millis(2_000)).prop_map(|(process, pause)| Step::Crash { process, pause }),
        5 => (0..PARTITIONS, 0..4_usize, millis(1_500))
            .prop_map(|(partition, to, pause)| Step::HandOver { partition, to, pause }),
        1 => (0..4_usize, reach, prop::option::of(millis(5_000)))
            .prop_map(|(mailbox, reach, pause)| Step::PushBack { mailbox, reach, pause }),
        4 => (1..30_000_u64, charged).prop_map(|(most, charged)| Step::Slowness(Duration::from_millis(most), charged)),
        1 => (0..4_usize).prop_map(|mailbox| Step::Leave { mailbox }),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Hunger { mailbox, wants } => {
                let mailbox = mailbox % self.mailboxes.len();
                self.hunger[mailbox] = wants;
                if wants.is_none() {
                    self.leave(|_, of| of == mailbox);
                }
            }
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
            Step::Slowness(most, charged) => self.slowness = (most, charged),
            Step::Leave { mailbox } => {
                let mailbox = mailbox % self.mailboxes.len();
                self.leave(|_, of| of == mailbox);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    /// I4, for every budget at once.
    #[test]
    fn no_schedule_of_calls_exceeds_any_window(
        user_minute in prop::sample::select(vec![400_u64, 1_500, 4_000]),
        project in prop::sample::select(vec![2_u64, 3, 40]),
        day in prop::option::of(2..6_u64),
        processes in 1..4_usize,
        mailboxes in vec((0..PARTITIONS, 1..3_u32), 1..4),
        steps in vec(step(), 10..60),
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
        world.pass(MINUTE);
        world.check()?;
        world.rest()?;
    }
}

/// What befalls mailboxes that always want more, so that nothing of their quota is ever left to spare.
fn misfortune() -> impl Strategy<Value = Step> {
    let millis = |least: u64, most: u64| (least..most).prop_map(Duration::from_millis);
    let units = prop::sample::select(vec![1_u32, 1, 2, 2, 5, 100]);
    let charged = prop::sample::select(vec![Charged::Begin, Charged::Begin, Charged::End]);
    prop_oneof![
        10 => millis(500, 5_000).prop_map(Step::Pass),
        2 => (0..4_usize, 0..5_usize, units)
            .prop_map(|(mailbox, lane, units)| Step::Hunger { mailbox, wants: Some((lane, units)) }),
        4 => (0..4_usize).prop_map(|process| Step::Crash { process, pause: Duration::ZERO }),
        4 => (0..PARTITIONS, 0..4_usize)
            .prop_map(|(partition, to)| Step::HandOver { partition, to, pause: Duration::ZERO }),
        2 => (prop::sample::select(vec![1_u64, 20_000]), charged)
            .prop_map(|(most, charged)| Step::Slowness(Duration::from_millis(most), charged)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// I4, where every unit is wanted.
    #[test]
    fn no_misfortune_of_the_hungry_exceeds_any_window(
        // Either the account's minute is the bound, or the project's.
        project in prop::sample::select(vec![10_000_u64, 1_500]),
        processes in 1..3_usize,
        mailboxes in vec((0..PARTITIONS, 1..3_u32), 1..3),
        steps in vec(misfortune(), 40..80),
    ) {
        let quota = Quota {
            user_minute: Some(1_500),
            project_minute: Some(project),
            ..whole()
        };
        let mut world = World::new(quota, processes, &mailboxes);
        world.hunger.fill(Some((0, 2)));
        for step in &steps {
            world.take(step);
        }
        world.check()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// I4, where any process is asked about any connection, and an account's share a budget.
    #[test]
    fn no_schedule_of_calls_exceeds_any_window_of_a_budget_that_connections_share(
        user_minute in prop::sample::select(vec![300_u64, 1_500]),
        project in prop::sample::select(vec![1_u64, 3]),
        processes in 1..4_usize,
        mailboxes in vec((0..PARTITIONS, 1..6_u32), 1..4),
        steps in vec(step(), 10..60),
    ) {
        let quota = Quota {
            user_minute: Some(user_minute),
            project_minute: Some(user_minute * project),
            poller: 0.0,
            ingress: 1.0,
            ingress_instances: u16::try_from(processes).unwrap(),
            ..whole()
        };
        let mut world = World::of(Service::Ingress, quota, processes, &mailboxes);
        for step in &steps {
            world.take(step);
        }
        world.pass(MINUTE);
        world.check()?;
        world.rest()?;
    }
}

/// Mailboxes that always want more, with an account's 1,500 units a minute.
fn hungry(processes: usize, mailboxes: &[(usize, u32)], units: u32) -> World {
    let quota = Quota { user_minute: Some(1_500), ..whole() };
    let mut world = World::new(quota, processes, mailboxes);
    world.hunger.fill(Some((0, units)));
    world
}

#[test]
fn calls_that_were_slow_take_their_part_of_the_minute_in_which_they_arrive() {
    let mut world = hungry(1, &[(0, 1)], 5);
    world.slowness = (Duration::from_secs(20), Charged::End);
    world.pass(2 * MINUTE);
    world.slowness = (Duration::from_millis(1), Charged::Begin);
    world.pass(2 * MINUTE);
    world.check().unwrap();
}

#[test]
fn a_successor_makes_up_for_the_lump_of_the_last_moment() {
    let mut world = hungry(1, &[(0, 1)], 100);
    world.slowness = (Duration::from_millis(1), Charged::Begin);
    world.pass(2 * MINUTE);
    let so_far = world.n_charges();
    while world.n_charges() == so_far {
        world.pass(Duration::from_millis(5));
    }
    world.hunger.fill(Some((0, 1)));
    world.crash(0, Duration::ZERO);
    world.pass(2 * MINUTE);
    world.check().unwrap();
}

#[test]
fn a_lump_is_made_up_for_whenever_it_comes() {
    // Before, at and after each turn of the budget's memory, by the second.
    for second in 50..70 {
        let mut world = hungry(1, &[(0, 1)], 1);
        world.slowness = (Duration::from_millis(1), Charged::Begin);
        world.pass(Duration::from_secs(second));
        world.hunger.fill(Some((0, 100)));
        world.leave(|_, _| true);
        world.pass(Duration::from_secs(5));
        world.hunger.fill(Some((0, 1)));
        world.leave(|_, _| true);
        world.pass(2 * MINUTE);
        world.check().unwrap();
    }
}

#[test]
fn a_mailbox_that_goes_to_and_fro_brings_no_credit_along() {
    // The other mailbox keeps its process busy, so that what is idle there is forgotten.
    for period in [1, 4] {
        let mut world = hungry(2, &[(0, 1), (2, 1)], 1);
        for turn in 1..60 {
            world.hand_over(0, turn % 2, Duration::ZERO);
            world.pass(Duration::from_secs(period));
        }
        world.check().unwrap();
    }
}

/// A budget begins as if its predecessor had just made the dearest call.
const WARM: Duration = Duration::from_secs(130);

fn whole() -> Quota {
    Quota { project_day: Some(1 << 40), poller: 1.0, fetcher: 0.0, ingress: 0.0, concurrency: 50, ..Quota::default() }
}

/// Of what `limit` units a minute are in `time`.
fn used(got: &[u64], limit: f64, time: Duration) -> f64 {
    got.iter().sum::<u64>() as f64 / (limit * time.as_secs_f64() / 60.0)
}

#[test]
fn an_accounts_budget_is_used_to_98_percent() {
    let time = 5 * MINUTE;
    for tariff in [Tariff::SINCE_2026_05, Tariff::BEFORE_2026_05] {
        for service in [1.0, 0.4] {
            let quota = Quota { poller: service, ..whole() };
            let limit = tariff.user_minute as f64 * service;
            let one = [("a", 1, 0, tariff.history_list), ("a", 1, 2, tariff.get), ("a", 1, 3, tariff.messages_list)];
            // Three connections have a third each, which is all of it if they are here.
            let one = one.map(|(name, _, lane, units)| (name, 3, lane, units));
            let three = used(&saturate(&quota, tariff, &one, WARM, time), limit, time);
            // Where one read is more than the usual reserve, of 800 units a minute, the reserve is larger.
            let least = if tariff.get as f64 > limit / 3.0 / 80.0 { 0.94 } else { 0.98 };
            assert!((least..=1.0).contains(&three), "{tariff} {service}: {three}");
            let reads = used(&saturate(&quota, tariff, &[("a", 1, 2, tariff.get)], WARM, time), limit, time);
            assert!((0.98..=1.0).contains(&reads), "{tariff} {service}: {reads}");
        }
    }
}

#[test]
fn the_projects_budgets_are_used_to_98_percent() {
    let time = 5 * MINUTE;
    let names: Vec<_> = (0..40).map(|n| format!("account {n}")).collect();
    for tariff in [Tariff::SINCE_2026_05, Tariff::BEFORE_2026_05] {
        let callers: Vec<_> = names.iter().map(|name| (name.as_str(), 1, 3, tariff.get)).collect();
        let quota = Quota { project_minute: Some(60_000), ..whole() };
        let minute = used(&saturate(&quota, tariff, &callers, WARM, time), 60_000.0, time);
        assert!((0.98..=1.0).contains(&minute), "{tariff}: {minute}");
        let quota = Quota { project_day: Some(60_000 * 24 * 60), ..whole() };
        let day = used(&saturate(&quota, tariff, &callers, WARM, time), 60_000.0, time);
        assert!((0.98..=1.0).contains(&day), "{tariff}: {day}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// While all priorities wait each gets its weight's part, to the price of a call, in a mailbox and among mailboxes.
    #[test]
    fn no_priority_starves(
        prices in prop::array::uniform5(prop::sample::select(vec![1_u32, 2, 5, 20, 50])),
        is_one_mailbox in any::<bool>(),
    ) {
        let names: [&str; 5] = if is_one_mailbox { ["a"; 5] } else { ["a", "b", "c", "d", "e"] };
        let callers: Vec<_> = (0..5).map(|lane| (names[lane], 1, lane, prices[lane])).collect();
        // In one mailbox its own budget is short, among mailboxes the project's.
        let quota = Quota { project_minute: Some(6_000), ..whole() };
        let quota = if is_one_mailbox { Quota { project_minute: None, ..quota } } else { quota };
        let quota = Quota { user_minute: Some(if is_one_mailbox { 6_000 } else { 600_000 }), ..quota };
        let tariff = Tariff::default();
        let got = saturate(&quota, tariff, &callers, Duration::ZERO, 4 * MINUTE);
        let cost = [1_u64, 4, 16, 64, 256];
        for (one, other) in (0..5).flat_map(|one| (0..5).map(move |other| (one, other))) {
            let apart = (got[one] * cost[one]).abs_diff(got[other] * cost[other]);
            let bound = u64::from(prices[one]) * cost[one] + u64::from(prices[other]) * cost[other];
            prop_assert!(apart <= bound, "{got:?}: {one} and {other} are {apart} apart, not {bound}");
        }
    }
}
