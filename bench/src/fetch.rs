//! Messages fetched per second where no quota is in the way: the fetcher on a simulated Gmail, against a loop that does
//! the same without its promises, and against the program that one would write in Python.

mod plain;
mod python;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gmail::{Quota, Tariff};
use simulator::Limits;

use crate::bare::{self, Bytes};
use crate::fetching::{Fetching, seen};
use crate::inboxes::{Inbox, Inboxes, Wanted, written};
use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::syncs::read_on;
use plain::Plain;
use python::Python;

/// Mailboxes that are read at a time.
const MAILBOXES: usize = 16;

/// Messages of each. In a longer round they are announced again, and read again.
const MESSAGES: usize = 1_000;

/// Announcements of one mailbox that follow each other, as a page of history has them.
const PAGE: usize = 500;

/// Messages of each mailbox in a round of Python's, to begin with.
const PYTHONS: usize = 50;

/// How often the sides are warmed up: the broker's virtual machine needs a while.
const WARM_UPS: usize = 3;

/// More than is ever spent, and less than the budgets' arithmetic ends at.
const UNBOUNDED: u64 = 1_000_000_000;

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("fetch");
    progress.say("warming up");
    let kafka = place.kafka("fetch");
    let store = place.store().await?;
    let wanted = Wanted { name: "fetch", mailboxes: MAILBOXES, messages: MESSAGES };
    let inboxes = Inboxes::start(&store, simulator::Settings::default(), &wanted).await?;
    let limits = Limits {
        user_minute: u64::MAX,
        project_minute: u64::MAX,
        project_day: u64::MAX,
        concurrent_per_user: u32::MAX,
    };
    inboxes.simulator.control().set_tariff(simulator::Tariff::default(), limits);
    let quota = Quota {
        user_minute: Some(UNBOUNDED),
        project_minute: Some(UNBOUNDED),
        project_day: Some(UNBOUNDED * 1_000),
        ..Quota::default()
    };
    let gmail = inboxes.client(Tariff::default(), quota)?;

    let plain = Plain::start(&kafka, &gmail, &store, bare::create_topic(&kafka, "plain").await?)?;
    let topic = bare::create_topic(&kafka, "python").await?;
    let mut pythons = read_on(&kafka, &Arc::from(topic.as_str())).await?;
    let mut python = Python::start(&inboxes.simulator.base_url, &kafka.bootstrap_servers, &topic).await?;
    let (ours_kafka, ours_gmail, ours_store) = (kafka.clone(), gmail.clone(), store.clone());
    let mut fetching = Fetching::start(&kafka, move |health, shutdown| async move {
        fetcher::run(&fetcher::Settings::default(), &ours_kafka, &ours_gmail, ours_store, health, shutdown).await
    })
    .await?;
    let mut plains = read_on(&kafka, &Arc::from(plain.topic.as_str())).await?;

    let announcements = announcements(&inboxes.all, kafka.partitions);
    let (mut pages, mut python_each) = (1, PYTHONS);
    let mut rounds = Vec::new();
    for number in 0..WARM_UPS + options.rounds as usize {
        let each = pages * PAGE;
        let n = each * MAILBOXES;
        let begun = fetching.announce(in_pages(&announcements, pages))?;
        fetching.fetched(n).await?;
        let ours = rate(n, begun.elapsed());

        let begun = Instant::now();
        tokio::try_join!(plain.fetch(&inboxes.all, each), seen(&mut plains, n))?;
        let limit = rate(n, begun.elapsed());

        let n = python_each * MAILBOXES;
        let begun = Instant::now();
        tokio::try_join!(python.fetch(&inboxes.all, python_each), seen(&mut pythons, n))?;
        let straightforward = rate(n, begun.elapsed());

        let what = match (number + 1).checked_sub(WARM_UPS) {
            None | Some(0) => {
                let a_side = options.time().as_secs_f64() / MAILBOXES as f64;
                pages = (ours * a_side / PAGE as f64).ceil() as usize;
                python_each = (straightforward * a_side).ceil() as usize;
                "warming up".to_owned()
            }
            Some(number) => {
                rounds.push((ours, limit, straightforward));
                format!("round {number} of {}", options.rounds)
            }
        };
        progress.say(&format!("{what}: {ours:.0} messages/s, plain {limit:.0}/s, Python {straightforward:.0}/s"));
    }
    fetching.stop().await?;
    python.stop().await?;
    inboxes.simulator.shutdown().await;
    let against_plain: Vec<_> = rounds.iter().map(|(ours, limit, _)| (*ours, *limit)).collect();
    let against_python: Vec<_> = rounds.iter().map(|(ours, _, limit)| (*ours, *limit)).collect();
    Ok(vec![
        Outcome::of_rates("fetched messages, a plain loop as the limit", "messages/s", &against_plain, 0.7),
        Outcome::of_rates("fetched messages, Python beside it", "messages/s", &against_python, 5.0),
    ])
}

fn rate(n: usize, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64()
}

/// The announcements of each mailbox.
fn announcements(inboxes: &[Arc<Inbox>], partitions: i32) -> Vec<Vec<Bytes>> {
    let of = |inbox: &Arc<Inbox>| inbox.messages.iter().map(|event| written(event, partitions)).collect();
    inboxes.iter().map(of).collect()
}

/// So many pages of each mailbox, a page of each in turn, as the poller writes them.
fn in_pages(announcements: &[Vec<Bytes>], pages: usize) -> impl Iterator<Item = &Bytes> {
    (0..pages).flat_map(move |page| {
        announcements.iter().flat_map(move |all| all.iter().cycle().skip(page * PAGE % all.len()).take(PAGE))
    })
}
