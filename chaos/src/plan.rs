//! Which fault comes when: drawn from a seed, so that a run can be repeated.
//!
//! A round has one kind of every family, in another order each time, and as many kills in between; the members of a family
//! take turns. So a short run has seen most families, and a long one every kind many times. Or there are chosen kinds
//! only, each once a round.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::crew::{CREW, Dependency};
pub use crate::kind::Kind;

/// What is done to the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fault {
    /// SIGKILL of processes at the same moment.
    Kill {
        /// Their places in the crew.
        processes: Vec<usize>,
        /// How long they are down.
        down_ms: u64,
    },
    /// SIGSTOP until others have taken over, then SIGCONT: a zombie.
    Hang {
        /// Its place in the crew.
        process: usize,
    },
    /// All pollers and fetchers end and come back in turn, so that the groups rebalance all the time.
    RebalanceStorm {
        /// How many leave and come back.
        times: usize,
        /// How long after one the next goes.
        pause_ms: u64,
    },
    /// Every process ends in order and comes back, one after the other.
    RollingRestart,
    /// The same, and each comes back writing the other version of the schemas: the next one or, if that is written
    /// already, the one before.
    RollingUpgrade,
    /// SIGKILL of a broker.
    BrokerKilled {
        /// Its number.
        broker: usize,
        /// How long it is down.
        down_ms: u64,
    },
    /// SIGKILL of the broker that leads the controllers at that moment.
    ControllerLost {
        /// How long it is down.
        down_ms: u64,
    },
    /// A broker ends in order, so its leaders move at once, and move back when it has come back.
    LeadersMoved {
        /// Its number.
        broker: usize,
    },
    /// SIGSTOP of a broker until it is given up by the others, then SIGCONT.
    BrokerHung {
        /// Its number.
        broker: usize,
    },
    /// A broker's disk is full until it ends, and for a while; then there is room and it comes back.
    DiskFull {
        /// Its number.
        broker: usize,
        /// How long it stays full.
        full_ms: u64,
    },
    /// Postgres ends in order and comes back.
    PostgresRestarted,
    /// SIGKILL of Postgres; connections are refused until it is back.
    PostgresLost {
        /// How long it is down.
        down_ms: u64,
    },
    /// One process loses, or nearly loses, one of the things that it depends on.
    Partition {
        /// Its place in the crew.
        process: usize,
        /// What it depends on.
        from: Dependency,
        /// What is wrong with the way.
        how: Severance,
        /// For how long.
        lasts_ms: u64,
    },
    /// The wall clock of a process jumps, and later back.
    ClockJump {
        /// Its place in the crew.
        process: usize,
        /// How far.
        by_seconds: i64,
        /// How long until it jumps back.
        lasts_ms: u64,
    },
    /// Gmail misbehaves.
    BadDay {
        /// How.
        scenario: Scenario,
        /// For how long.
        lasts_ms: u64,
    },
}

/// What is wrong with a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severance {
    /// Connections are reset.
    Cut,
    /// Nothing arrives.
    BlackHole,
    /// All is late.
    Delay {
        /// By how much.
        ms: u64,
    },
    /// Little gets through.
    Throttle {
        /// Bytes a second of each connection.
        rate: u32,
    },
}

/// How Gmail misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Scenario {
    /// Many calls are answered with 503.
    Unavailable,
    /// Connections break, answers are cut short.
    Broken,
    /// Calls take long, some very long.
    Slow,
    /// Users are told to wait.
    Throttling,
    /// Good tokens are refused, and the token endpoint fails.
    Tokens,
    /// Pages of HTML instead of answers.
    Html,
}

/// The clock runs on when a fault is over: when does the next one come?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// So long after the system has settled.
    Settled {
        /// How long.
        after_ms: u64,
    },
    /// So long after the last fault, settled or not.
    Regardless {
        /// How long.
        after_ms: u64,
    },
}

/// A fault and when it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When.
    pub when: When,
    /// What.
    pub fault: Fault,
}

/// The steps of a seed, without end: of all kinds or, if any are named, of `only` these.
pub fn steps(seed: u64, only: &[Kind]) -> impl Iterator<Item = Step> + use<> {
    let only = only.to_vec();
    let mut random = StdRng::seed_from_u64(seed);
    let mut turns = Kind::FAMILIES.map(|family| random.random_range(0..family.len()));
    let mut round: Vec<Kind> = Vec::new();
    std::iter::from_fn(move || {
        if round.is_empty() {
            round = if only.is_empty() { of_all(&mut turns) } else { only.clone() };
            round.shuffle(&mut random);
        }
        let kind = round.pop().expect("it was filled");
        let fault = draw(kind, &mut random);
        let when = if random.random_ratio(1, 6) {
            When::Regardless { after_ms: random.random_range(0..1_500) }
        } else {
            When::Settled { after_ms: random.random_range(0..2_500) }
        };
        Some(Step { when, fault })
    })
}

/// The one whose turn it is of each family, and a kill for each.
fn of_all(turns: &mut [usize]) -> Vec<Kind> {
    let others = Kind::FAMILIES.iter().zip(turns).map(|(family, turn)| {
        *turn = (*turn + 1) % family.len();
        family[*turn]
    });
    others.flat_map(|kind| [kind, Kind::Kill]).collect()
}

fn process(random: &mut StdRng) -> usize {
    random.random_range(0..CREW.len())
}

fn kill(random: &mut StdRng) -> Fault {
    let mut processes: Vec<usize> = (0..CREW.len()).collect();
    processes.shuffle(random);
    processes.truncate(random.random_range(1..=3));
    processes.sort_unstable();
    Fault::Kill { processes, down_ms: random.random_range(0..1_500) }
}

fn draw(kind: Kind, random: &mut StdRng) -> Fault {
    let broker = random.random_range(0..devstack::NODES);
    match kind {
        Kind::Kill => kill(random),
        Kind::Hang => Fault::Hang { process: process(random) },
        Kind::RebalanceStorm => {
            Fault::RebalanceStorm { times: random.random_range(4..9), pause_ms: random.random_range(100..1_500) }
        }
        Kind::RollingRestart => Fault::RollingRestart,
        Kind::RollingUpgrade => Fault::RollingUpgrade,
        Kind::BrokerKilled => Fault::BrokerKilled { broker, down_ms: random.random_range(500..8_000) },
        Kind::ControllerLost => Fault::ControllerLost { down_ms: random.random_range(500..8_000) },
        Kind::LeadersMoved => Fault::LeadersMoved { broker },
        Kind::BrokerHung => Fault::BrokerHung { broker },
        Kind::DiskFull => Fault::DiskFull { broker, full_ms: random.random_range(1_000..4_000) },
        Kind::PostgresRestarted => Fault::PostgresRestarted,
        Kind::PostgresLost => Fault::PostgresLost { down_ms: random.random_range(1_000..8_000) },
        Kind::WayCut => partition(Severance::Cut, random),
        Kind::WayBlackHole => partition(Severance::BlackHole, random),
        Kind::WayDelayed => partition(Severance::Delay { ms: random.random_range(100..1_500) }, random),
        Kind::WayThrottled => partition(Severance::Throttle { rate: random.random_range(500..10_000) }, random),
        Kind::ClockAhead => clock(1, random),
        Kind::ClockBehind => clock(-1, random),
        Kind::GmailUnavailable => bad_day(Scenario::Unavailable, random),
        Kind::GmailBroken => bad_day(Scenario::Broken, random),
        Kind::GmailSlow => bad_day(Scenario::Slow, random),
        Kind::GmailThrottling => bad_day(Scenario::Throttling, random),
        Kind::GmailTokens => bad_day(Scenario::Tokens, random),
        Kind::GmailHtml => bad_day(Scenario::Html, random),
    }
}

fn partition(how: Severance, random: &mut StdRng) -> Fault {
    let process = process(random);
    let dependencies = CREW[process].dependencies();
    let from = dependencies[random.random_range(0..dependencies.len())];
    Fault::Partition { process, from, how, lasts_ms: random.random_range(2_000..12_000) }
}

fn clock(direction: i64, random: &mut StdRng) -> Fault {
    let by_seconds = random.random_range(5..90) * direction;
    Fault::ClockJump { process: process(random), by_seconds, lasts_ms: random.random_range(3_000..10_000) }
}

fn bad_day(scenario: Scenario, random: &mut StdRng) -> Fault {
    Fault::BadDay { scenario, lasts_ms: random.random_range(4_000..12_000) }
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Hang { .. } => Kind::Hang,
            Self::RebalanceStorm { .. } => Kind::RebalanceStorm,
            Self::RollingRestart => Kind::RollingRestart,
            Self::RollingUpgrade => Kind::RollingUpgrade,
            Self::BrokerKilled { .. } => Kind::BrokerKilled,
            Self::ControllerLost { .. } => Kind::ControllerLost,
            Self::LeadersMoved { .. } => Kind::LeadersMoved,
            Self::BrokerHung { .. } => Kind::BrokerHung,
            Self::DiskFull { .. } => Kind::DiskFull,
            Self::PostgresRestarted => Kind::PostgresRestarted,
            Self::PostgresLost { .. } => Kind::PostgresLost,
            Self::Partition { how: Severance::Cut, .. } => Kind::WayCut,
            Self::Partition { how: Severance::BlackHole, .. } => Kind::WayBlackHole,
            Self::Partition { how: Severance::Delay { .. }, .. } => Kind::WayDelayed,
            Self::Partition { how: Severance::Throttle { .. }, .. } => Kind::WayThrottled,
            Self::ClockJump { by_seconds: ..0, .. } => Kind::ClockBehind,
            Self::ClockJump { .. } => Kind::ClockAhead,
            Self::BadDay { scenario, .. } => match scenario {
                Scenario::Unavailable => Kind::GmailUnavailable,
                Scenario::Broken => Kind::GmailBroken,
                Scenario::Slow => Kind::GmailSlow,
                Scenario::Throttling => Kind::GmailThrottling,
                Scenario::Tokens => Kind::GmailTokens,
                Scenario::Html => Kind::GmailHtml,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_another() {
        let plan = |seed| steps(seed, &[]).take(200).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_round_has_every_family_and_as_many_kills_and_six_have_every_kind() {
        let each = Kind::FAMILIES.len();
        let kinds: Vec<Kind> = steps(3, &[]).take(6 * 2 * each).map(|step| step.fault.kind()).collect();
        for round in kinds.chunks(2 * each) {
            assert_eq!(round.iter().filter(|kind| **kind == Kind::Kill).count(), each);
            for family in Kind::FAMILIES {
                assert_eq!(round.iter().filter(|kind| family.contains(kind)).count(), 1, "{family:?}");
            }
        }
        assert_eq!(kinds.iter().collect::<BTreeSet<_>>().len(), Kind::value_variants().len());
    }

    #[test]
    fn a_kind_that_is_chosen_comes_alone_and_as_itself() {
        for kind in Kind::value_variants() {
            assert!(steps(5, &[*kind]).take(20).all(|step| step.fault.kind() == *kind), "{kind:?}");
        }
    }
}
