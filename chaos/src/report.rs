//! What happened in a run, as Markdown for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::checker::Findings;
use crate::crew::CREW;
use crate::plan::Fault;

/// What became of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How many processes, brokers and databases were killed by SIGKILL.
    pub kills: usize,
    /// Why it could not be done here, if so.
    pub not_possible: Option<String>,
}

/// A fault as it was done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Struck {
    /// When, since the run began.
    pub at_ms: u64,
    /// How long it lasted until it was undone.
    pub lasted_ms: u64,
    /// Whether the system had settled from the one before.
    pub when_settled: bool,
    /// What.
    pub fault: Fault,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the system was given time to settle.
    pub waited_for: bool,
    /// How long that took, after it was undone; none: it was not waited for, or it took too long.
    pub recovered_ms: Option<u64>,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What the plan was drawn from.
    pub seed: u64,
    /// How long faults were to go on.
    pub minutes: u64,
    /// Processors of the machine.
    pub processors: usize,
    /// All faults, in their order.
    pub struck: Vec<Struck>,
    /// Processes that ended though nobody asked them to, and those that did not end well when they were; each was
    /// started again.
    pub ended: Vec<String>,
    /// How long it took after the load until all that was owed was done.
    pub settled_ms: u64,
    /// What the checker found.
    pub findings: Findings,
}

/// Counts of one kind of fault.
#[derive(Default)]
struct Counted {
    settled: usize,
    unsettled: usize,
    not_possible: usize,
    kills: usize,
    recovered: Vec<u64>,
    too_long: usize,
}

impl Report {
    pub(crate) fn new(seed: u64, minutes: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (struck, ended, findings) = (Vec::new(), Vec::new(), Findings::default());
        Self { seed, minutes, processors, struck, ended, settled_ms: 0, findings }
    }

    /// SIGKILLs that hit a settled system, and those that did not.
    #[must_use]
    pub fn kills(&self) -> (usize, usize) {
        let count = |settled| {
            let of = self.struck.iter().filter(|struck| struck.when_settled == settled);
            of.map(|struck| struck.outcome.kills).sum()
        };
        (count(true), count(false))
    }

    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let texts = [("report.md", self.to_string()), ("report.json", serde_json::to_string_pretty(self)?)];
        for (name, text) in texts {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn counted(&self) -> BTreeMap<&'static str, Counted> {
        let mut all: BTreeMap<_, Counted> = BTreeMap::new();
        for struck in &self.struck {
            let counted = all.entry(struck.fault.name()).or_default();
            if struck.outcome.not_possible.is_some() {
                counted.not_possible += 1;
            } else if struck.when_settled {
                counted.settled += 1;
            } else {
                counted.unsettled += 1;
            }
            counted.kills += struck.outcome.kills;
            counted.recovered.extend(struck.recovered_ms);
            counted.too_long += usize::from(struck.waited_for && struck.recovered_ms.is_none());
        }
        all
    }
}

/// The value below which so many percent of `sorted` are, in seconds.
fn percentile(sorted: &[u64], percent: usize) -> String {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or_else(|| "–".to_owned(), |ms| format!("{:.1}", *ms as f64 / 1000.0))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (settled, unsettled) = self.kills();
        writeln!(f, "# A run of chaos: {} minutes, seed {}\n", self.minutes, self.seed)?;
        writeln!(
            f,
            "Three brokers, Postgres, a simulated Gmail and {} processes on {} processors. {} faults; {} kills (SIGKILL) of a \
             settled system and {} of one that had not settled from the fault before. All that was owed was done {:.1} s \
             after the load ended.\n",
            CREW.len(),
            self.processors,
            self.struck.len(),
            settled,
            unsettled,
            self.settled_ms as f64 / 1000.0
        )?;
        writeln!(f, "## What the checker found\n\n```\n{}```\n", self.findings)?;
        writeln!(f, "## Faults\n")?;
        writeln!(
            f,
            "Recovery is from the moment a fault is undone until every broker serves, every process is ready and a sync \
             asked for then has ended.\n"
        )?;
        writeln!(
            f,
            "| fault | settled | not settled | not possible here | kills | recovery p50 s | p90 s | longest s | over the limit |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        for (name, mut counted) in self.counted() {
            counted.recovered.sort_unstable();
            let times = [50, 90, 100].map(|percent| percentile(&counted.recovered, percent)).join(" | ");
            let Counted { settled, unsettled, not_possible, kills, recovered: _, too_long } = counted;
            writeln!(f, "| {name} | {settled} | {unsettled} | {not_possible} | {kills} | {times} | {too_long} |")?;
        }
        let mut reasons: Vec<_> =
            self.struck.iter().filter_map(|struck| struck.outcome.not_possible.as_ref()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons.iter().try_for_each(|reason| writeln!(f, "\nNot possible here: {reason}."))?;
        writeln!(f, "\n## Processes that ended by themselves, or not well\n")?;
        if self.ended.is_empty() {
            writeln!(f, "None.")?;
        }
        self.ended.iter().try_for_each(|ended| writeln!(f, "- `{}`", ended.replace('`', "'")))?;
        writeln!(f, "\n## All faults in their order\n\n```")?;
        self.struck.iter().try_for_each(|struck| writeln!(f, "{:>8.1} s  {struck}", struck.at_ms as f64 / 1000.0))?;
        writeln!(f, "```")
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault)?;
        if let Some(reason) = &self.outcome.not_possible {
            write!(f, ": not possible here, {reason}")?;
        }
        if !self.when_settled {
            f.write_str(", before the last one had settled")?;
        }
        match self.recovered_ms {
            Some(ms) => write!(f, "; settled after {:.1} s", ms as f64 / 1000.0),
            None if self.waited_for => f.write_str("; not settled in time"),
            None => f.write_str("; not waited for"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |process: &usize| CREW[*process].name;
        f.write_str(self.name())?;
        match self {
            Self::Kill { processes, down_ms } => {
                let names: Vec<_> = processes.iter().map(name).collect();
                write!(f, ": {} for {down_ms} ms", names.join(", "))
            }
            Self::Hang { process } => write!(f, ": {}", name(process)),
            Self::RebalanceStorm { times, pause_ms } => write!(f, ": {times} times, every {pause_ms} ms"),
            Self::RollingRestart | Self::RollingUpgrade | Self::PostgresRestarted => Ok(()),
            Self::BrokerKilled { broker, down_ms } => write!(f, ": {} for {down_ms} ms", broker + 1),
            Self::ControllerLost { down_ms } | Self::PostgresLost { down_ms } => write!(f, " for {down_ms} ms"),
            Self::LeadersMoved { broker } | Self::BrokerHung { broker } => write!(f, ": {}", broker + 1),
            Self::DiskFull { broker, full_ms } => write!(f, ": {} for {full_ms} ms", broker + 1),
            Self::Partition { process, from, how, lasts_ms } => {
                write!(f, ": {} from {from:?}, {how:?} for {lasts_ms} ms", name(process))
            }
            Self::ClockJump { process, by_seconds, lasts_ms } => {
                write!(f, ": {} by {by_seconds} s for {lasts_ms} ms", name(process))
            }
            Self::BadDay { scenario, lasts_ms } => write!(f, ": {scenario:?} for {lasts_ms} ms"),
        }
    }
}
