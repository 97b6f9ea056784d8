//! A process that does nothing but restore a state topic, and tells what that took.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kafka::lane::Lane;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::place;
use crate::syncs::start_poller;

/// How long a restore may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// What was needed only to restore is given back within this.
const SETTLING: Duration = Duration::from_secs(3);

/// How long the poller is watched at rest.
const REST: Duration = Duration::from_secs(10);

/// The counter of the records that were read.
const RECORDS: &str = "mailtide_lane_restored_records_total";

/// What a restore came to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Restored {
    /// From the poller's start until the last partition was open.
    pub(crate) seconds: f64,
    /// Of the processor's time in those, in all threads.
    pub(crate) busy_seconds: f64,
    /// Records that were read, those included that a later one of the same mailbox made void.
    pub(crate) records: f64,
    /// How much more memory the process has than before, at rest.
    pub(crate) megabytes: f64,
    /// Of the processor's time in a second at rest.
    pub(crate) idle_millis: f64,
}

/// Starts a poller with one lane, which owns all partitions, and writes what that took to standard output.
pub(crate) async fn run(bootstrap_servers: &str, prefix: &str) -> anyhow::Result<()> {
    let metrics = place::telemetry()?;
    let kafka = kafka::Settings::for_brokers(bootstrap_servers).with_prefix(prefix);
    let before = memory()?;
    let (busy, begun) = (processor()?, Instant::now());
    let mut lane = start_poller(&kafka, Arc::default())?;
    open(&lane, usize::try_from(kafka.partitions)?).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let busy_seconds = (processor()? - busy).as_secs_f64();
    sleep(SETTLING).await;
    let megabytes = (memory()? - before) / 1e6;
    let (busy, begun) = (processor()?, Instant::now());
    sleep(REST).await;
    let idle_millis = (processor()? - busy).as_secs_f64() * 1e3 / begun.elapsed().as_secs_f64();
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with(RECORDS)).context("Nothing was counted")?;
    let records = line.rsplit(' ').next().and_then(|value| value.parse().ok()).context("The count is no number")?;
    println!("{}", serde_json::to_string(&Restored { seconds, busy_seconds, records, megabytes, idle_millis })?);
    lane.stop();
    Ok(lane.ended().await?)
}

/// Waits until so many partitions are open.
async fn open(lane: &Lane, partitions: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status = lane.status();
        let open = status.partitions.iter().filter(|partition| partition.is_open).count();
        if open == partitions {
            return Ok(());
        }
        if let Some(failure) = status.last_failure {
            bail!("The poller failed: {failure}");
        }
        ensure!(begun.elapsed() < DEADLINE, "{open} of {partitions} partitions are restored after {DEADLINE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The memory of this process that is no file's, in bytes.
fn memory() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("Reading what memory is held")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("No RssAnon")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1_024.0)
}

/// The time for which the threads of this process that still live have had a processor.
fn processor() -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir("/proc/self/task").context("Listing the threads")? {
        // One that ended meanwhile counts no more, and at rest none ends.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>().context("Reading a thread's time")?;
    }
    Ok(Duration::from_nanos(nanos))
}
