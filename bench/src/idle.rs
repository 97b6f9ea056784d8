//! What an idle mailbox costs: a poller that owns all partitions restores a state topic in which every mailbox was written
//! again and again. Memory and time for each, restored and at rest, and whether they stay the same when there are ten times
//! as many.
//!
//! Each poller is a process of its own, this program once more: memory that another measure has had and given back is not
//! in its figures. One that owns no mailbox at all shows what does not belong to any.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::{Context, ensure};
use bytes::Bytes;
use domain::mailbox::Mailbox;
use domain::mailbox::record::{Head, MailboxState, Tail};
use domain::{ConnectionId, HistoryId, OrganisationId, Timestamp, TokenVersion};
use kafka::SoleWriter;
use kafka::topics::{self, Topic, Topics};
use poller::moving;
use rand::seq::SliceRandom;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::restoring::Restored;

/// How often each mailbox is written: once, and then anew, each time all of them in another order.
const WRITTEN: u32 = 1 + 5;

/// Messages that each remembers: those of a day and a half, of which there are seven a day.
const SEEN: usize = 10;

/// Ended jobs that each remembers: those of a week, two syncs and an audit a day.
const ENDED: usize = 21;

/// What one may cost in memory, in bytes.
const BYTES: f64 = 1_024.0;

/// How long a million of them may take, or fewer, in seconds.
const SECONDS: f64 = 15.0;

/// How much more each may cost when there are ten times as many.
const FLAT: f64 = 1.2;

/// Records of one transaction while the topic is filled.
const BATCH: usize = 5_000;

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("idle mailboxes");
    let many = options.mailboxes;
    let mut found = Vec::new();
    for (name, count) in [("idle-none", 0), ("idle-few", many / 10), ("idle-many", many)] {
        progress.say(&format!("writing {count} mailboxes {WRITTEN} times"));
        let kafka = place.kafka(name);
        fill(&kafka, count).await?;
        progress.say(&format!("restoring {count} mailboxes"));
        let restored = restore(&kafka).await?;
        let Restored { seconds, busy_seconds, records, megabytes, idle_millis } = restored;
        progress.say(&format!(
            "{count} mailboxes: {seconds:.2} s and {busy_seconds:.2} s of the processor's time for {records} records, then \
             {megabytes:.1} MB and {idle_millis:.1} ms of the processor's time a second"
        ));
        ensure!(records >= f64::from(count), "{records} records are not {count} mailboxes");
        found.push((f64::from(count), restored));
    }
    let [(_, none), few, many] = found.as_slice() else { anyhow::bail!("Three sizes are measured") };
    let bytes = |(count, restored): &(f64, Restored)| (restored.megabytes - none.megabytes) * 1e6 / count;
    let micros = |(count, restored): &(f64, Restored)| restored.seconds * 1e6 / count;
    let idle = |(count, restored): &(f64, Restored)| restored.idle_millis * 1e6 / count;
    Ok(vec![
        Outcome::of_bound("memory of an idle mailbox", "bytes", bytes(many), BYTES),
        Outcome::of_bound("restoring all idle mailboxes", "s", many.1.seconds, SECONDS * (many.0 / 1e6).max(1.0)),
        Outcome::of_growth("memory of one when there are ten times as many", "bytes", bytes(many), bytes(few), FLAT),
        Outcome::of_growth("restoring one when there are ten times as many", "µs", micros(many), micros(few), FLAT),
        Outcome::of_growth("an idle second of one when there are ten times as many", "ns", idle(many), idle(few), FLAT),
    ])
}

/// The state of a mailbox that was synced a while ago.
fn state(id: ConnectionId, organisation: OrganisationId, partitions: i32) -> MailboxState {
    let taken_at = Timestamp::from_millis(1_700_000_000_000);
    let head = Head { head: HistoryId::new(rand::random::<u32>().into()), taken_at };
    MailboxState {
        token_version: TokenVersion(1),
        heads: vec![head],
        reached_at: Some(taken_at),
        began_at: Some(taken_at),
        last_synced: Some(head),
        seen: tail(SEEN, || u128::from(rand::random::<u64>())),
        ended: tail(ENDED, rand::random),
        ..Mailbox::new(id, organisation).state(partitions, 0)
    }
}

/// So many ids, some minutes apart.
fn tail(count: usize, id: impl Fn() -> u128) -> Tail {
    let ids: Vec<u8> = (0..count).flat_map(|_| id().to_be_bytes()).collect();
    let minutes: Vec<u8> = (28_333_333_u32..).step_by(97).take(count).flat_map(u32::to_be_bytes).collect();
    Tail { ids: Bytes::from(ids), minutes: Bytes::from(minutes) }
}

/// Writes the state of so many mailboxes, all of them again and again. Kafka compacts the topic meanwhile, as it is set to.
async fn fill(kafka: &kafka::Settings, count: u32) -> anyhow::Result<()> {
    let names = Topics::new(&kafka.topic_prefix);
    topics::create(kafka, &names, &Topic::ALL).await?;
    let (kafka, topic) = (kafka.clone(), names.name(Topic::State).clone());
    let work = move || -> anyhow::Result<()> {
        let mut writer = SoleWriter::take_over(&kafka, "bench")?;
        let organisation = OrganisationId::from_uuid(Uuid::new_v4());
        let mut ids: Vec<ConnectionId> = (0..count).map(|_| ConnectionId::from_uuid(Uuid::new_v4())).collect();
        for _ in 0..WRITTEN {
            ids.shuffle(&mut rand::rng());
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

/// Lets a process of its own restore what is there.
async fn restore(kafka: &kafka::Settings) -> anyhow::Result<Restored> {
    let program = std::env::current_exe().context("Finding this program")?;
    let arguments: [OsString; 3] =
        ["--restore".into(), (&kafka.bootstrap_servers).into(), (&kafka.topic_prefix).into()];
    let child = Command::new(&program).args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let child = child.with_context(|| format!("Starting {}", program.display()))?;
    let output = child.wait_with_output().await.context("Waiting for the process that restores")?;
    ensure!(output.status.success(), "The process that restores ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("Reading what the process that restores has measured")
}
