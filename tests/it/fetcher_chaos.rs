//! kill -9 of fetchers at any moment, under load and with little memory, and then an independent count: each
//! announcement is fetched once, each mailbox's in order, and what is no announcement is put aside once.
//!
//! `MAILTIDE_CHAOS_KILLS` and `MAILTIDE_CHAOS_SEED` make it longer or repeat it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::fetcher::{PATIENCE, QUICK, all_fetched, by_key, faults};
use crate::house::{House, session};
use crate::support::{LONG, wait_until};

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Lets some time pass: the moment is what is random here, and no condition is waited for.
async fn moment(random: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_announcement_is_fetched_once_and_in_order_under_kill_9() {
    let seed: u64 = from_environment("MAILTIDE_CHAOS_SEED").unwrap_or_else(rand::random);
    let kills: usize = from_environment("MAILTIDE_CHAOS_KILLS").unwrap_or(12);
    eprintln!("seed {seed}, {kills} kills");
    let mut random = StdRng::seed_from_u64(seed);
    let settings = [
        ("MAILTIDE_GMAIL_QUOTA_USER_MINUTE", "1000000"),
        // So little fits into memory that mailboxes fall behind all the time.
        ("MAILTIDE_FETCHER_HELD_MAILBOX", "6"),
        ("MAILTIDE_FETCHER_HELD_PARTITION", "16"),
        ("MAILTIDE_FETCHER_WINDOW", "20"),
    ];
    let house = House::with("fetch-chaos", &settings).await;
    let services = house.open().await;
    let mut mailboxes = Vec::new();
    for number in 0..30 {
        let mailbox = house.mailbox(&format!("m{number}")).await;
        mailbox.deliver(random.random_range(0..30));
        mailboxes.push(mailbox);
    }
    let mut fetchers = [
        // Each of its transactions takes long, so that a kill is likely to hit one.
        house.process("fetcher-a", "fetcher").set("KAFKA_FAULTS", "dawdle"),
        house.process("fetcher-b", "fetcher"),
    ];
    for fetcher in &mut fetchers {
        fetcher.start();
    }

    let going = Arc::new(AtomicBool::new(true));
    let load = tokio::spawn({
        let (house, mailboxes, going) = (house.clone(), mailboxes.clone(), going.clone());
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(1));
        let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
        let topic = house.topics().name(Topic::Discovered).clone();
        async move {
            let mut junk = 0;
            while going.load(Ordering::Relaxed) {
                let mailbox = mailboxes.choose(&mut random).unwrap();
                mailbox.deliver(random.random_range(1..6));
                house.ask(mailbox).await;
                if random.random_ratio(1, 10) {
                    let record =
                        OutRecord::new(&topic, mailbox.id.to_string(), Bytes::from_static(b"junk"), Headers::new());
                    producer.send(&record).await.unwrap();
                    junk += 1;
                }
                moment(&mut random, 20..150).await;
            }
            junk
        }
    });
    for kill in 1..=kills {
        moment(&mut random, 200..2_500).await;
        let victim = random.random_range(0..2);
        if kill % 4 == 3 {
            // It wakes up as a zombie: others have its partitions, and it does not know.
            fetchers[victim].pause();
            tokio::time::sleep(session() + Duration::from_secs(1)).await;
            fetchers[victim].resume();
            moment(&mut random, 0..500).await;
        }
        fetchers[victim].kill();
        moment(&mut random, 0..1_000).await;
        fetchers[victim].start();
    }
    going.store(false, Ordering::Relaxed);
    let junk = load.await.unwrap();
    for mailbox in &mailboxes {
        house.sync(mailbox).await;
    }
    all_fetched(&house).await;
    let announced = by_key(&house.committed("gmail.message.discovered").await);
    assert!(announced.len() >= 25, "there was a load");
    wait_until(LONG, "what is no announcement is put aside, once", || async {
        house.committed("gmail.dead.letter").await.len() == junk
    })
    .await;
    // Whoever lived to the end must end well, and with nothing more to say.
    for fetcher in &mut fetchers {
        assert_eq!(fetcher.stop(), 0, "{}", fetcher.log());
    }
    all_fetched(&house).await;
    assert_eq!(house.committed("gmail.dead.letter").await.len(), junk);
    services.stop().await;
}

/// The count above finds the damage that the lane's protections keep away: where offsets are committed outside of the
/// transaction, what was in one when the process was killed is never fetched.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_does_damage_where_offsets_are_committed_outside_the_transaction() {
    /// Each is likely to do it: of the time in which something is fetched, most is spent in a transaction.
    const ROUNDS: usize = 20;
    let house = House::with("fetch-harmed", &[QUICK]).await;
    let services = house.open().await;
    let mut mailboxes = Vec::new();
    for number in 0..6 {
        mailboxes.push(house.mailbox(&format!("m{number}")).await);
    }
    let mut fetcher = house.process("fetcher", "fetcher").set("KAFKA_FAULTS", "dawdle,offsets-outside");
    fetcher.start().ready().await;
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        let before = house.committed("gmail.message.fetched").await.len();
        for mailbox in &mailboxes {
            mailbox.deliver(20);
            house.sync(mailbox).await;
        }
        wait_until(PATIENCE, "some are fetched", || async {
            house.committed("gmail.message.fetched").await.len() > before
        })
        .await;
        fetcher.kill();
        fetcher.start();
        // Whatever was skipped, the last of each mailbox comes after it.
        for mailbox in &mailboxes {
            mailbox.deliver(1);
            house.sync(mailbox).await;
        }
        wait_until(PATIENCE, "the last of each mailbox is fetched", || async {
            let announced = by_key(&house.committed("gmail.message.discovered").await);
            let fetched = by_key(&house.committed("gmail.message.fetched").await);
            announced.iter().all(|(key, all)| {
                let last = all.last().map(|(named, _)| named);
                fetched.get(key).is_some_and(|all| all.iter().any(|(named, _)| Some(named) == last))
            })
        })
        .await;
        found = faults(&house).await;
        if !found.is_empty() {
            break;
        }
    }
    assert!(
        found.iter().any(|fault| fault.contains("owed")),
        "{ROUNDS} kills did no harm that the count finds: {found:?}"
    );
    services.stop().await;
}
