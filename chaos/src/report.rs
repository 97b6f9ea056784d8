//! What happened in a run, as Markdown for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::checker::{Findings, LookedAt};
use crate::crew::CREW;
use crate::plan::{Fault, Kind, Severance};
use crate::run::{Options, SETTLES};

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

/// A run. It is written as it goes, so that what has happened is known whatever becomes of the rest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When it began.
    pub begun_at: jiff::Timestamp,
    /// What plan and load were drawn from.
    pub seed: u64,
    /// How long faults went on.
    pub minutes: u64,
    /// The kinds that were chosen; none: all.
    pub only: Vec<Kind>,
    /// Processors of the machine.
    pub processors: usize,
    /// All faults, in their order.
    pub struck: Vec<Struck>,
    /// Processes that ended though nobody asked them to, and those that did not end well when they were; each was
    /// started again.
    pub ended: Vec<String>,
    /// Syncs and backfills that the API accepted.
    pub accepted: usize,
    /// How long it took after the load until all that was owed was done; none: it has not yet.
    pub settled_ms: Option<u64>,
    /// What the checker found; none: it has not looked yet.
    pub findings: Option<Findings>,
    /// Why the run could not go on, if so.
    pub broken_off: Option<String>,
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

/// What each of [`Findings::kinds`] is, in a few words.
const MEANINGS: [&str; 9] = [
    "messages owed and not announced, or announced and not fetched; jobs and connections accepted that came to nothing",
    "messages announced twice as live or catch-up mail; announcements fetched twice",
    "announcements, fetched messages and steps of jobs that are not in their order",
    "jobs that did not end",
    "jobs that ended twice, or went on after their end",
    "calls that Gmail refused because they were too many",
    "keys, passwords and tokens in any log or on any topic",
    "rows in Postgres that are not what the topics tell",
    "mail that is nobody's, ids that do not fit, dead letters",
];

/// So many processes that ended are told of one by one.
const SHOWN: usize = 40;

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let Options { minutes, seed, only, .. } = options;
        Self {
            begun_at: jiff::Timestamp::now(),
            seed: *seed,
            minutes: *minutes,
            only: only.clone(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            struck: Vec::new(),
            ended: Vec::new(),
            accepted: 0,
            settled_ms: None,
            findings: None,
            broken_off: None,
        }
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

    /// Writes it beside an earlier one and then in its place, so that there is a whole one at any moment.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let texts = [("report.md", self.to_string()), ("report.json", serde_json::to_string_pretty(self)?)];
        for (name, text) in texts {
            let (path, beside) = (folder.join(name), folder.join(format!("{name}.new")));
            std::fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
            std::fs::rename(&beside, &path).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn counted(&self) -> BTreeMap<Kind, Counted> {
        let mut all: BTreeMap<_, Counted> = BTreeMap::new();
        for struck in &self.struck {
            let counted = all.entry(struck.fault.kind()).or_default();
            if struck.outcome.not_possible.is_some() {
                counted.not_possible += 1;
                continue;
            }
            if struck.when_settled {
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

    fn write_summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# A run of chaos: {} minutes, seed {}\n", self.minutes, self.seed)?;
        if let Some(why) = &self.broken_off {
            writeln!(f, "**The run broke off**: {why}\n")?;
        }
        writeln!(
            f,
            "Begun {:.0} on {} processors. Three Kafka brokers, Postgres, a simulated Gmail and {} processes of Mailtide were \
             troubled by a plan drawn from the seed, while mail arrived, syncs were asked for and cancelled, and mailboxes \
             were connected and deleted. Then all was left in peace, and a checker that shares no code with the services \
             read everything that was committed. What each fault and each count is: \
             `docs/chaos.md`.\n",
            self.begun_at,
            self.processors,
            CREW.len(),
        )?;
        if !self.only.is_empty() {
            let names: Vec<_> = self.only.iter().map(|kind| kind.name()).collect();
            writeln!(f, "Chosen kinds of faults only: {}.\n", names.join(", "))?;
        }
        let (settled, unsettled) = self.kills();
        let n_struck = self.struck.iter().filter(|struck| struck.outcome.not_possible.is_none()).count();
        writeln!(f, "| | |\n|---|---:|")?;
        writeln!(f, "| faults | {n_struck} |")?;
        writeln!(f, "| kills (SIGKILL) of a settled system | {settled} |")?;
        writeln!(f, "| kills of one that had not settled from the fault before | {unsettled} |")?;
        writeln!(f, "| syncs and backfills accepted | {} |", self.accepted)?;
        if let Some(ms) = self.settled_ms {
            writeln!(f, "| from the last of the load until all that was owed was done | {} s |", seconds(ms))?;
        }
        Ok(())
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## What was counted\n")?;
        let Some(findings) = &self.findings else {
            return writeln!(f, "Nothing yet: the run goes on, or was broken off.");
        };
        let LookedAt { messages, announced, fetched, jobs, rows, bytes } = findings.looked_at;
        writeln!(
            f,
            "{messages} messages were owed. Looked at: {announced} announcements, {fetched} fetched messages, {jobs} jobs, {rows} \
             rows, and {bytes} bytes of topics and logs for secrets.\n"
        )?;
        writeln!(f, "| | | found |\n|---|---|---:|")?;
        for ((kind, found), meaning) in findings.kinds().into_iter().zip(MEANINGS) {
            writeln!(f, "| {kind} | {meaning} | {} |", found.len())?;
        }
        if !findings.is_clean() {
            writeln!(f, "\n```\n{findings}```")?;
        }
        Ok(())
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n## Faults and recovery\n\nRecovery is from the moment a fault is undone until every broker serves, every \
             process is ready and a sync asked for then has ended; seconds. What took longer than {} s is under *too long*, and \
             the next fault came all the same. One in six is not waited for, so that faults meet a system that has not settled.\n",
            SETTLES.as_secs()
        )?;
        writeln!(
            f,
            "| fault | | of a settled system | not settled | kills | median | worst | too long |\n\
             |---|---|---:|---:|---:|---:|---:|---:|"
        )?;
        for (kind, mut counted) in self.counted() {
            counted.recovered.sort_unstable();
            let Counted { settled, unsettled, not_possible, kills, recovered, too_long } = counted;
            let (name, how) = (kind.name(), kind.how());
            if settled + unsettled == 0 {
                writeln!(f, "| {name} | not possible here, {not_possible} times | | | | | | |")?;
                continue;
            }
            let time = |at: Option<usize>| {
                at.and_then(|at| recovered.get(at)).map_or_else(|| "–".to_owned(), |ms| seconds(*ms))
            };
            let (median, worst) = (time(Some(recovered.len() / 2)), time(recovered.len().checked_sub(1)));
            writeln!(f, "| {name} | {how} | {settled} | {unsettled} | {kills} | {median} | {worst} | {too_long} |")?;
        }
        let mut reasons: Vec<_> =
            self.struck.iter().filter_map(|struck| struck.outcome.not_possible.as_ref()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons.iter().try_for_each(|reason| writeln!(f, "\nNot possible here: {reason}."))
    }
}

fn seconds(ms: u64) -> String {
    format!("{:.1}", ms as f64 / 1000.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_summary(f)?;
        self.write_findings(f)?;
        self.write_faults(f)?;
        writeln!(f, "\n## Processes that ended by themselves, or not well\n")?;
        writeln!(f, "{}. Each was started again, as whatever runs services does.\n", self.ended.len())?;
        self.ended.iter().take(SHOWN).try_for_each(|ended| writeln!(f, "- `{}`", ended.replace('`', "'")))?;
        if self.ended.len() > SHOWN {
            writeln!(f, "- and {} more", self.ended.len() - SHOWN)?;
        }
        writeln!(f, "\n## All faults in their order\n\n```")?;
        self.struck.iter().try_for_each(|struck| writeln!(f, "{:>8} s  {struck}", seconds(struck.at_ms)))?;
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
        f.write_str(self.kind().name())?;
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
                write!(f, ": {} and {from:?}", name(process))?;
                match how {
                    Severance::Cut | Severance::BlackHole => {}
                    Severance::Delay { ms } => write!(f, " by {ms} ms")?,
                    Severance::Throttle { rate } => write!(f, " to {rate} bytes/s")?,
                }
                write!(f, " for {lasts_ms} ms")
            }
            Self::ClockJump { process, by_seconds, lasts_ms } => {
                write!(f, ": {} by {by_seconds} s for {lasts_ms} ms", name(process))
            }
            Self::BadDay { scenario: _, lasts_ms } => write!(f, " for {lasts_ms} ms"),
        }
    }
}
