//! Messages announced per second: the poller on mailboxes in memory, against a loop that writes the very same records.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use domain::OrganisationId;
use kafka::OwnedRecord;
use kafka::topics::Topic;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::util::Timeout;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::bare::{self, Bytes};
use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::syncs::Syncs;

/// Mailboxes that are walked at a time.
const MAILBOXES: usize = 48;

/// Records of one page of history.
const PAGE: usize = 500;

/// Pages of each mailbox while warming up, the last of which tells how fast the machine is.
const FIRST_PAGES: usize = 4;

/// How often both sides are warmed up: the broker's virtual machine needs a while.
const WARM_UPS: usize = 3;

/// How often the status of a lane is written, and then some: after it the count of transactions is the last.
const STATUS: Duration = Duration::from_millis(300);

/// What one round took.
struct Round {
    took: Duration,
    transactions: u64,
}

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("throughput");
    let kafka = place.kafka("throughput");
    progress.say("warming up");
    let mut syncs = Syncs::start(&kafka).await?;
    let events = MAILBOXES * PAGE * FIRST_PAGES;
    round(&mut syncs, FIRST_PAGES).await?;
    let records = as_written(syncs.first(Topic::Discovered, events).await?);
    let bare =
        Bare { producer: bare::transactional(&kafka)?, topic: bare::create_topic(&kafka, "bare").await?, records };
    let mut rate = 0.0;
    for _ in 0..WARM_UPS {
        let warm = round(&mut syncs, FIRST_PAGES).await?;
        rate = events as f64 / warm.took.as_secs_f64();
        bare.write(events, interval(&warm))?;
    }

    let pages = (rate * options.time().as_secs_f64() / (MAILBOXES * PAGE) as f64).ceil() as usize;
    let events = MAILBOXES * PAGE * pages;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let ours = round(&mut syncs, pages).await?;
        let limit = bare.write(events, interval(&ours))?;
        let (ours_rate, limit) = (events as f64 / ours.took.as_secs_f64(), events as f64 / limit.as_secs_f64());
        progress.say(&format!(
            "round {number} of {}: {events} events at {ours_rate:.0}/s in {} transactions, bare {limit:.0}/s",
            options.rounds, ours.transactions
        ));
        rounds.push((ours_rate, limit));
    }
    syncs.stop().await?;
    Ok(vec![Outcome::of_rates("discovered events through the lane", "events/s", &rounds, 0.5)])
}

/// The records in the order in which the poller writes them: a page of each mailbox in turn. A read gives them in whatever
/// order the broker answered for partitions, and how long the runs of one partition are decides how the writer's batches
/// fill: without this the limit is one thing in one run and half of it in the next.
fn as_written(records: Vec<OwnedRecord>) -> Vec<Bytes> {
    let mut mailboxes: BTreeMap<Vec<u8>, Vec<Bytes>> = BTreeMap::new();
    for record in records.into_iter().map(Bytes::from) {
        mailboxes.entry(record.key.clone()).or_default().push(record);
    }
    let mut mailboxes: Vec<_> = mailboxes.into_values().map(Vec::into_iter).collect();
    let mut written = Vec::new();
    while mailboxes.iter().any(|mailbox| mailbox.len() > 0) {
        written.extend(mailboxes.iter_mut().flat_map(|mailbox| mailbox.take(PAGE)));
    }
    written
}

/// From one transaction to the next.
fn interval(round: &Round) -> Duration {
    round.took / u32::try_from(round.transactions.max(1)).unwrap_or(u32::MAX)
}

/// Walks fresh mailboxes of so many pages each: from the commands to the last job's end, seen in a committed read.
async fn round(syncs: &mut Syncs, pages: usize) -> anyhow::Result<Round> {
    let mailboxes = syncs.mailboxes(MAILBOXES).await?;
    let messages = pages * PAGE;
    for mailbox in &mailboxes {
        syncs.memory.deliver(*mailbox, messages as u64);
    }
    tokio::time::sleep(STATUS).await;
    let before = syncs.transactions();
    let begun = Instant::now();
    syncs.ask(OrganisationId::from_uuid(Uuid::new_v4()), &mailboxes).await?;
    let jobs = syncs.ended(MAILBOXES).await?;
    let took = begun.elapsed();
    for job in jobs {
        let discovered = job.progress.discovered;
        ensure!(discovered == messages as i64, "A walk announced {discovered} of {messages} messages");
    }
    tokio::time::sleep(STATUS).await;
    Ok(Round { took, transactions: syncs.transactions() - before })
}

/// The loop without Mailtide.
struct Bare {
    producer: BaseProducer,
    topic: String,
    records: Vec<Bytes>,
}

impl Bare {
    /// Writes so many records, in transactions of `interval`.
    fn write(&self, n: usize, interval: Duration) -> anyhow::Result<Duration> {
        block_in_place(|| {
            let begun = Instant::now();
            let mut records = self.records.iter().cycle().take(n).peekable();
            while records.peek().is_some() {
                let until = Instant::now() + interval;
                self.producer.begin_transaction()?;
                for record in records.by_ref() {
                    bare::enqueue(&self.producer, &self.topic, record, record.partition)?;
                    if Instant::now() >= until {
                        break;
                    }
                }
                bare::drain(&self.producer);
                self.producer.commit_transaction(Timeout::Never)?;
            }
            Ok(begun.elapsed())
        })
    }
}
