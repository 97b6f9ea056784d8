//! `mailtide-chaos [MINUTES] [SEED]`: one run; exit code 1 when the checker found anything.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use chaos::plan::Kind;
use chaos::{Options, Run};
use clap::Parser;

/// Troubles a whole installation by a seeded plan of faults, and then counts
#[derive(Parser)]
struct Arguments {
    /// How long faults go on
    #[arg(default_value_t = 5)]
    minutes: u64,
    /// What the plan and the load are drawn from; random when left out
    seed: Option<u64>,
    /// Faults of these kinds only, with commas between; all when left out
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    only: Vec<Kind>,
    /// Mailboxes that are connected from the start
    #[arg(long, default_value_t = 60)]
    mailboxes: usize,
    /// The program, built with its deliberate faults; beside this one when left out
    #[arg(long)]
    program: Option<PathBuf>,
    /// Where reports and logs go
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { minutes, seed, only, mailboxes, program, folder } = Arguments::parse();
    let own = std::env::current_exe().context("finding this program")?;
    let program = program.unwrap_or_else(|| own.with_file_name("mailtide-under-test"));
    let seed = seed.unwrap_or_else(rand::random);
    let folder = std::path::absolute(folder)?;
    let mut run = Run::start(Options { program, folder, minutes, seed, only, mailboxes }).await?;
    let findings = run.go_through().await?;
    Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
