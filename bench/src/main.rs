//! Benchmarks of Mailtide, each against a limit that is measured in the same run: what the same clients and servers
//! give without Mailtide. The two sides take turns, so that a machine that is busy elsewhere slows both.

mod api;
mod bare;
mod ceiling;
mod fetch;
mod fetching;
mod governor;
mod idle;
mod inboxes;
mod keys;
mod latency;
mod load;
mod memory;
mod options;
mod overload;
mod pass;
mod place;
mod progress;
mod report;
mod requests;
mod restoring;
mod rows;
mod simulated;
mod slow;
mod syncs;
mod throughput;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Benchmark, Options};
use crate::place::Place;
use crate::report::Report;

/// The binary's own; both sides have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some([bootstrap_servers, prefix]) = options.restore.as_deref() {
        restoring::run(bootstrap_servers, prefix).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = Place::start().await?;
    let mut report = Report::default();
    for benchmark in options.benchmarks() {
        report.extend(match benchmark {
            Benchmark::Throughput => throughput::run(&place, &options).await?,
            Benchmark::Latency => latency::run(&place, &options).await?,
            Benchmark::Requests => requests::run(&place, &options).await?,
            Benchmark::Overload => overload::run(&place, &options).await?,
            Benchmark::Simulator => simulated::run(&options).await?,
            Benchmark::Slow => slow::run(&place, &options).await?,
            Benchmark::Fetch => fetch::run(&place, &options).await?,
            Benchmark::Keys => keys::run(&place, &options).await?,
            Benchmark::Rows => rows::run(&place, &options).await?,
            Benchmark::Pass => pass::run(&place, &options).await?,
            Benchmark::Idle => idle::run(&place, &options).await?,
            Benchmark::Ceiling => ceiling::run(&place).await?,
            Benchmark::Governor => governor::run().await?,
        });
    }
    place.stop().await?;
    report.write(&options.output)?;
    println!("{}", report.table());
    println!("Written to {}", options.output.display());
    let is_well = options.report_only || report.is_met();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
