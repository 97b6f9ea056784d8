//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures Mailtide against what the same Kafka, Postgres and clients give without it.
///
/// Exits with 1 when a goal is missed.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
pub(crate) struct Options {
    /// Which benchmarks to run; all of them if none is named.
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    /// How often each side is measured.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// About how long one side is measured in one round, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Mailboxes and connections where there are to be many.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub(crate) mailboxes: u32,
    /// Exit with 0 also when a goal is missed.
    #[arg(long)]
    pub(crate) report_only: bool,
    /// Where the results go, as JSON.
    #[arg(long, value_name = "FILE", default_value = "target/bench/results.json")]
    pub(crate) output: PathBuf,
    /// Only restores the state topic of this prefix at these brokers, and tells what that took: a part of `idle`.
    #[arg(long, hide = true, num_args = 2, value_names = ["BROKERS", "PREFIX"])]
    pub(crate) restore: Option<Vec<String>>,
}

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Benchmark {
    /// Messages announced per second, Gmail answering from memory.
    Throughput,
    /// From a POST to the event in a committed read.
    Latency,
    /// Sync requests per second, of 64 clients, without and with an Idempotency-Key.
    Requests,
    /// The time of admitted syncs with four times as many clients as are admitted.
    Overload,
    /// Pages of history and messages per second of the simulated Gmail.
    Simulator,
    /// Syncs of a thousand mailboxes, one of which does not answer.
    Slow,
    /// Messages fetched per second, Gmail being simulated without quotas.
    Fetch,
    /// Work in each key's order, of few keys and of many, against what it takes at least.
    Keys,
    /// Facts of jobs that the projector makes rows of per second.
    Rows,
    /// The scheduler's pass over as many connections as --mailboxes says, and over a tenth of them.
    Pass,
    /// Restoring as many idle mailboxes as --mailboxes says, and a tenth of them; writes 6 GB and takes minutes.
    Idle,
    /// Quota units used by fetching one mailbox, and a thousand; takes three and a half minutes.
    Ceiling,
    /// Quota units used under more load than there is quota for; takes four minutes.
    Governor,
}

impl Options {
    /// What to run, in order.
    pub(crate) fn benchmarks(&self) -> &[Benchmark] {
        if self.benchmarks.is_empty() { Benchmark::value_variants() } else { &self.benchmarks }
    }

    /// How long one side is measured in one round.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
