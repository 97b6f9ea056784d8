//! Which fault comes when: drawn from a seed, so that a run can be repeated.
//!
//! Every kind comes in every round, in another order, and between the kinds there are kills; so a short run has seen most
//! of them, and a long one all of them many times.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::crew::{CREW, Dependency};

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

const SCENARIOS: [Scenario; 6] =
    [Scenario::Unavailable, Scenario::Broken, Scenario::Slow, Scenario::Throttling, Scenario::Tokens, Scenario::Html];

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

/// So many kinds beside the kill, see [`draw`].
const KINDS: usize = 14;

/// The steps of a seed, without end.
pub fn steps(seed: u64) -> impl Iterator<Item = Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut round: Vec<Option<usize>> = Vec::new();
    std::iter::from_fn(move || {
        if round.is_empty() {
            // A kill for each other kind.
            round = (0..KINDS).map(Some).chain(std::iter::repeat_n(None, KINDS)).collect();
            round.shuffle(&mut random);
        }
        let kind = round.pop().expect("it was filled");
        let fault = match kind {
            Some(kind) => draw(kind, &mut random),
            None => kill(&mut random),
        };
        let when = if random.random_ratio(1, 6) {
            When::Regardless { after_ms: random.random_range(0..1_500) }
        } else {
            When::Settled { after_ms: random.random_range(0..2_500) }
        };
        Some(Step { when, fault })
    })
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

fn draw(kind: usize, random: &mut StdRng) -> Fault {
    let broker = random.random_range(0..devstack::NODES);
    match kind {
        0 => Fault::Hang { process: process(random) },
        1 => Fault::RebalanceStorm { times: random.random_range(4..9), pause_ms: random.random_range(100..1_500) },
        2 => Fault::RollingRestart,
        3 => Fault::RollingUpgrade,
        4 => Fault::BrokerKilled { broker, down_ms: random.random_range(500..8_000) },
        5 => Fault::ControllerLost { down_ms: random.random_range(500..8_000) },
        6 => Fault::LeadersMoved { broker },
        7 => Fault::BrokerHung { broker },
        8 => Fault::DiskFull { broker, full_ms: random.random_range(1_000..4_000) },
        9 => Fault::PostgresRestarted,
        10 => Fault::PostgresLost { down_ms: random.random_range(1_000..8_000) },
        11 => partition(random),
        12 => {
            let by_seconds = random.random_range(5..90) * if random.random() { 1 } else { -1 };
            Fault::ClockJump { process: process(random), by_seconds, lasts_ms: random.random_range(3_000..10_000) }
        }
        _ => {
            let scenario = SCENARIOS[random.random_range(0..SCENARIOS.len())];
            Fault::BadDay { scenario, lasts_ms: random.random_range(4_000..12_000) }
        }
    }
}

fn partition(random: &mut StdRng) -> Fault {
    let process = process(random);
    let dependencies = CREW[process].dependencies();
    let from = dependencies[random.random_range(0..dependencies.len())];
    let how = match random.random_range(0..4) {
        0 => Severance::Cut,
        1 => Severance::BlackHole,
        2 => Severance::Delay { ms: random.random_range(100..1_500) },
        _ => Severance::Throttle { rate: random.random_range(500..10_000) },
    };
    Fault::Partition { process, from, how, lasts_ms: random.random_range(2_000..12_000) }
}

impl Fault {
    /// Its name in counts and reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "processes killed",
            Self::Hang { .. } => "process hung until fenced",
            Self::RebalanceStorm { .. } => "rebalance storm",
            Self::RollingRestart => "rolling restart",
            Self::RollingUpgrade => "rolling upgrade of schemas",
            Self::BrokerKilled { .. } => "broker killed",
            Self::ControllerLost { .. } => "controller lost",
            Self::LeadersMoved { .. } => "leaders moved",
            Self::BrokerHung { .. } => "broker hung until fenced",
            Self::DiskFull { .. } => "broker's disk full",
            Self::PostgresRestarted => "Postgres restarted",
            Self::PostgresLost { .. } => "Postgres lost",
            Self::Partition { how: Severance::Cut, .. } => "way cut",
            Self::Partition { how: Severance::BlackHole, .. } => "way a black hole",
            Self::Partition { how: Severance::Delay { .. }, .. } => "way delayed",
            Self::Partition { how: Severance::Throttle { .. }, .. } => "way throttled",
            Self::ClockJump { .. } => "clock jump",
            Self::BadDay { .. } => "Gmail's bad day",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_another() {
        let plan = |seed| steps(seed).take(200).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_round_has_every_kind_and_as_many_kills() {
        let kind = |fault: &Fault| if matches!(fault, Fault::Partition { .. }) { "partition" } else { fault.name() };
        let steps: Vec<_> = steps(3).take(4 * 2 * KINDS).collect();
        for round in steps.chunks(2 * KINDS) {
            let kinds: BTreeSet<_> = round.iter().map(|step| kind(&step.fault)).collect();
            assert_eq!(kinds.len(), KINDS + 1);
            assert_eq!(round.iter().filter(|step| matches!(step.fault, Fault::Kill { .. })).count(), KINDS);
        }
    }
}
