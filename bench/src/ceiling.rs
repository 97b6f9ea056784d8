//! How much of a quota fetching uses where there is more to be fetched than there is quota for: of one mailbox, and of a
//! thousand at once. Against a simulated Gmail that counts as Gmail does and refuses what is too much, for more than a
//! minute, so that every unit is in a full window.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use gmail::{Quota, Tariff};
use simulator::Spent;
use store::Store;

use crate::bare::Bytes;
use crate::fetching::Fetching;
use crate::governor::{TIME, WARM_UP};
use crate::inboxes::{Inboxes, Wanted, written};
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;

/// The project's minute where many mailboxes are fetched; it is the bound there. That of one mailbox is its user's.
const PROJECT_MINUTE: u64 = 240_000;

/// What is measured.
struct Scenario {
    name: &'static str,
    /// Of its topics and mailboxes.
    short: &'static str,
    mailboxes: usize,
}

const SCENARIOS: [Scenario; 2] = [
    Scenario { name: "quota used by fetching, one mailbox", short: "ceiling-one", mailboxes: 1 },
    Scenario { name: "quota used by fetching, 1,000 mailboxes", short: "ceiling-many", mailboxes: 1_000 },
];

/// Units spent in a second, and those that the quota has.
async fn measure(scenario: &Scenario, place: &Place, store: &Store) -> anyhow::Result<(f64, f64)> {
    let tariff = Tariff::default();
    let is_one = scenario.mailboxes == 1;
    let project_minute = if is_one { tariff.project_minute } else { PROJECT_MINUTE };
    let a_minute = if is_one { tariff.user_minute } else { project_minute };
    // Half as many again as there is quota for.
    let units = a_minute as f64 * (WARM_UP + TIME).as_secs_f64() / 60.0;
    let messages = units * 1.5 / PRICE / scenario.mailboxes as f64;
    let wanted = Wanted { name: scenario.short, mailboxes: scenario.mailboxes, messages: messages.ceil() as usize };
    let settings = simulator::Settings { project_minute: Some(project_minute), ..simulator::Settings::default() };
    let inboxes = Inboxes::start(store, settings, &wanted).await?;
    let quota = Quota { project_minute: Some(project_minute), project_day: Some(1_000_000_000), ..Quota::default() };
    let gmail = inboxes.client(tariff, quota)?;
    let kafka = place.kafka(scenario.short);
    let (ours, store) = (kafka.clone(), store.clone());
    let fetching = Fetching::start(&kafka, move |health, shutdown| async move {
        fetcher::run(&fetcher::Settings::default(), &ours, &gmail, store, health, shutdown).await
    })
    .await?;
    let announcements: Vec<Bytes> =
        inboxes.all.iter().flat_map(|inbox| &inbox.messages).map(|event| written(event, kafka.partitions)).collect();
    fetching.announce(&announcements)?;
    tokio::time::sleep(WARM_UP).await;
    let (before, began) = spent(&inboxes).await?;
    tokio::time::sleep(TIME).await;
    let (after, ended) = spent(&inboxes).await?;
    let took = ended - began;
    ensure!(after.throttled == 0, "{}: Gmail refused {} calls", scenario.name, after.throttled);
    let read = after.calls.get("getMessage").copied().unwrap_or_default();
    ensure!(read < announcements.len() as u64, "{}: all was fetched before the end", scenario.name);
    fetching.stop().await.with_context(|| format!("{}: stopping", scenario.name))?;
    inboxes.simulator.shutdown().await;
    Ok(((after.units - before.units) as f64 / took.as_secs_f64(), a_minute as f64 / 60.0))
}

/// Waits until something is spent: what has been by then, and when that was. Units are spent in batches, so between two
/// moments of any kind there would be one more or less of them.
async fn spent(inboxes: &Inboxes) -> anyhow::Result<(Spent, Instant)> {
    let usage = || inboxes.simulator.control().usage().total;
    let (known, begun) = (usage().units, Instant::now());
    loop {
        let now = usage();
        if now.units > known {
            return Ok((now, Instant::now()));
        }
        ensure!(begun.elapsed() < PATIENCE, "Nothing was fetched for {PATIENCE:?}");
        tokio::time::sleep(LOOKS).await;
    }
}

/// How often it is looked whether something was spent, and for how long.
const LOOKS: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// Units of reading one message.
const PRICE: f64 = 20.0;

/// Both side by side: neither is busy.
pub(crate) async fn run(place: &Place) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("ceiling");
    let about: Duration = WARM_UP + TIME;
    progress.say(&format!("spending quotas for {} s", about.as_secs()));
    let store = place.store().await?;
    let measured = try_join_all(SCENARIOS.iter().map(|scenario| measure(scenario, place, &store))).await?;
    let outcome =
        |(scenario, rates): (&Scenario, (f64, f64))| Outcome::of_rates(scenario.name, "units/s", &[rates], 0.98);
    Ok(SCENARIOS.iter().zip(measured).map(outcome).collect())
}
