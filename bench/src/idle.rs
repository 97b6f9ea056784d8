//! What an idle mailbox costs: a poller that owns all partitions restores a state topic in which every mailbox was written
//! again and again. Memory and time for each, and whether they stay the same when there are ten times as many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use domain::mailbox::Mailbox;
use domain::mailbox::record::{Head, MailboxState, Tail};
use domain::{ConnectionId, HistoryId, OrganisationId, Timestamp, TokenVersion};
use kafka::SoleWriter;
use kafka::topics::{self, Topic, Topics};
use poller::moving;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::syncs::start_poller;

/// How often each mailbox is written.
const CHURN: u32 = 5;

/// Remembered ids of each mailbox: a day's mail of a busy one.
const REMEMBERED: usize = 20;

/// What one may cost in memory, in bytes.
const BYTES: f64 = 1_024.0;

/// How long a million of them may take, in seconds.
const SECONDS: f64 = 15.0;

/// How much more each may cost when there are ten times as many.
const FLAT: f64 = 1.2;

/// Records of one transaction while the topic is filled.
const BATCH: usize = 5_000;

const DEADLINE: Duration = Duration::from_secs(600);

/// What a restore came to.
struct Restored {
    /// Of memory, for each mailbox.
    bytes: f64,
    seconds: f64,
}

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("idle mailboxes");
    let many = options.mailboxes;
    let mut found = Vec::new();
    for (name, count) in [("idle-few", many / 10), ("idle-many", many)] {
        progress.say(&format!("writing {count} mailboxes {CHURN} times"));
        let kafka = place.kafka(name);
        fill(&kafka, count).await?;
        progress.say(&format!("restoring {count} mailboxes"));
        let restored = restore(&kafka).await?;
        let bytes = restored.bytes / f64::from(count);
        found.push((bytes, restored.seconds / f64::from(count) * 1e6));
    }
    let [few, many] = found.as_slice() else { anyhow::bail!("Two sizes are measured") };
    Ok(vec![
        Outcome::of_bound("memory of an idle mailbox", "bytes", many.0, BYTES),
        Outcome::of_bound("restoring a million idle mailboxes", "s", many.1, SECONDS),
        Outcome::of_growth("memory of one when there are ten times as many", "bytes", many.0, few.0, FLAT),
        Outcome::of_growth("restoring a million when there are ten times as many", "s", many.1, few.1, FLAT),
    ])
}

/// The state of a mailbox that was synced a while ago.
fn state(id: ConnectionId, organisation: OrganisationId, partitions: i32) -> MailboxState {
    let taken_at = Timestamp::from_millis(1_700_000_000_000);
    let head = Head { head: HistoryId::new(rand::random::<u32>().into()), taken_at };
    let ids: Vec<u8> = (0..REMEMBERED).flat_map(|_| u128::from(rand::random::<u64>()).to_be_bytes()).collect();
    let minutes: Vec<u8> = (0..REMEMBERED).flat_map(|_| 28_333_333_u32.to_be_bytes()).collect();
    MailboxState {
        token_version: TokenVersion(1),
        heads: vec![head],
        reached_at: Some(taken_at),
        began_at: Some(taken_at),
        last_synced: Some(head),
        seen: Tail { ids: Bytes::from(ids), minutes: Bytes::from(minutes) },
        ..Mailbox::new(id, organisation).state(partitions, 0)
    }
}

/// Writes the state of so many mailboxes, all of them again and again.
async fn fill(kafka: &kafka::Settings, count: u32) -> anyhow::Result<()> {
    let names = Topics::new(&kafka.topic_prefix);
    topics::create(kafka, &names, &Topic::ALL).await?;
    let (kafka, topic) = (kafka.clone(), names.name(Topic::State).clone());
    let work = move || -> anyhow::Result<()> {
        let mut writer = SoleWriter::take_over(&kafka, "bench")?;
        let organisation = OrganisationId::from_uuid(Uuid::new_v4());
        let ids: Vec<ConnectionId> = (0..count).map(|_| ConnectionId::from_uuid(Uuid::new_v4())).collect();
        for _ in 0..CHURN {
            for batch in ids.chunks(BATCH) {
                let records: Vec<_> = batch
                    .iter()
                    .map(|id| moving::state(&topic, &state(*id, organisation, kafka.partitions), false))
                    .collect();
                writer.commit(&records)?;
            }
        }
        Ok(())
    };
    spawn_blocking(work).await?
}

/// How long a poller with one lane takes until all its partitions are open, and what it holds then.
async fn restore(kafka: &kafka::Settings) -> anyhow::Result<Restored> {
    let before = resident()?;
    let begun = Instant::now();
    let mut lane = start_poller(kafka, Arc::default())?;
    let partitions = usize::try_from(kafka.partitions)?;
    loop {
        let open = lane.status().partitions.iter().filter(|partition| partition.is_open).count();
        if open == partitions {
            break;
        }
        ensure!(begun.elapsed() < DEADLINE, "{open} of {partitions} partitions are restored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = resident()? - before;
    lane.stop();
    lane.ended().await?;
    Ok(Restored { bytes, seconds })
}

/// The memory that this process holds, in bytes.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("Reading what memory is held")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("No VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1_024.0)
}
