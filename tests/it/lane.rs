//! The lane on a real broker: what it promises when nothing is switched off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use devstack::{Kafka, KafkaOptions};
use kafka::lane::{Error, Phase};

use crate::lane_support::{Bench, Knobs, PARTITIONS, wait_until_open, wait_until_owned};
use crate::support::{LONG, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_reads_works_and_writes_exactly_once() {
    let bench = Bench::new("lane-plain").await;
    bench.feed(50, 0, 1000);
    let mut lane = bench.start(&bench.settings("one"), 0, &Knobs::default());
    bench.wait_for(1000).await;
    bench.feed(50, 1000, 2000);
    bench.wait_for(2000).await;
    bench.outputs().assert_exactly_once(2000);
    wait_until(LONG, "the lag is gone", || {
        let status = lane.status();
        let done = status.is_ready() && status.partitions.iter().all(|partition| partition.lag == Some(0));
        std::future::ready(done)
    })
    .await;
    assert_eq!(bench.offsets().values().sum::<i64>(), 2000, "every offset is committed: {:?}", bench.offsets());
    let status = lane.status();
    assert_eq!((status.restarts, status.aborted), (0, 0), "{status:?}");
    lane.stop();
    lane.ended().await.unwrap();
    assert_eq!(lane.status().phase, Phase::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_lanes_and_nothing_is_lost_or_doubled() {
    let bench = Bench::new("lane-moves").await;
    let knobs = Knobs { work: Duration::from_millis(5), ..Knobs::default() };
    let settings = bench.settings("one");
    let first = bench.start(&settings, 0, &knobs);
    wait_until_open(&[&first]).await;
    bench.feed(50, 0, 1000);
    let mut second = bench.start(&settings, 1, &knobs);
    wait_until_owned(&second, "the second lane has its half", |open| open == 2).await;
    bench.feed(50, 1000, 2000);
    second.stop();
    bench.feed(50, 2000, 3000);
    second.ended().await.unwrap();
    wait_until_open(&[&first]).await;
    bench.wait_for(3000).await;
    bench.outputs().assert_exactly_once(3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_is_read_to_its_end() {
    let bench = Bench::new("lane-paused").await;
    let knobs = Knobs { work: Duration::from_millis(2), at_once: Some(3), ..Knobs::default() };
    bench.feed(50, 0, 500);
    let lane = bench.start(&bench.settings("one"), 0, &knobs);
    bench.wait_for(500).await;
    bench.outputs().assert_exactly_once(500);
    assert_eq!(knobs.seen.load(Ordering::Relaxed), 500, "what a pause drops is read again, but shown once");
    drop(lane);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_application_panics_is_built_anew() {
    let bench = Bench::new("lane-panic").await;
    let panics = Arc::new(AtomicUsize::new(0));
    let counter = panics.clone();
    let on_done = move |id| {
        if id == 100 && counter.fetch_add(1, Ordering::Relaxed) < 2 {
            panic!("the test wants it");
        }
    };
    let knobs = Knobs { on_done: Some(Arc::new(on_done)), ..Knobs::default() };
    let lane = bench.start(&bench.settings("one"), 0, &knobs);
    bench.feed(50, 0, 500);
    bench.wait_for(500).await;
    bench.outputs().assert_exactly_once(500);
    let status = lane.status();
    assert_eq!(status.restarts, 2, "{status:?}");
    assert!(status.last_failure.as_deref().is_some_and(|text| text.contains("the test wants it")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_under_one_name_fence_each_other_until_one_gives_up() {
    let bench = Bench::new("lane-fenced").await;
    let mut settings = bench.settings("same");
    settings.lane.max_failures = 1;
    let knobs = Knobs::default();
    let mut first = bench.start(&settings, 0, &knobs);
    wait_until_open(&[&first]).await;
    let second = bench.start(&settings, 0, &knobs);
    wait_until(LONG, "the second has joined", || std::future::ready(second.status().is_ready())).await;
    bench.feed(50, 0, 500);
    bench.wait_for(500).await;
    let error = first.ended().await.unwrap_err();
    assert!(matches!(error, Error::GivenUp { failures: 1, .. }), "{error}");
    assert!(error.to_string().contains("kafka.instance"), "{error}");
    bench.wait_for(500).await;
    bench.outputs().assert_exactly_once(500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restart_cannot_mend_ends_the_lane_at_once() {
    let bench = Bench::new("lane-refused").await;
    let knobs = Knobs { refuse: Some("its state is stamped for 8 partitions"), ..Knobs::default() };
    let error = bench.start(&bench.settings("one"), 0, &knobs).ended().await.unwrap_err();
    assert!(error.to_string().contains("its state is stamped for 8 partitions"), "{error}");

    let other = Bench { state: bench.prefix.clone().into(), ..bench.clone() };
    other.create(&other.state, PARTITIONS + 1).await;
    let error = other.start(&bench.settings("one"), 0, &Knobs::default()).ended().await.unwrap_err().to_string();
    for part in [&*other.input, &*other.state, "4 partitions", "has 5"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_rides_out_a_broker_that_is_killed() {
    let kafka = Kafka::start(&KafkaOptions { own: true, ..KafkaOptions::default() }).unwrap();
    let bench = Bench::on(kafka.bootstrap(), "lane-broker").await;
    let knobs = Knobs { work: Duration::from_millis(20), at_once: Some(4), ..Knobs::default() };
    let mut settings = bench.settings("one");
    // A busy machine may take half a minute to start a broker. A transaction that the broker gives up while it comes back
    // is a fact of its own: one that keeps a single copy may leave readers waiting for minutes then.
    settings.lane.transaction_timeout = Duration::from_secs(120);
    settings.lane.delivery_timeout = Duration::from_secs(100);
    settings.lane.max_poll_interval = Duration::from_secs(240);
    let mut lane = bench.start(&settings, 0, &knobs);
    wait_until_open(&[&lane]).await;
    bench.feed(50, 0, 500);
    bench.wait_for(20).await;
    // Now, in the midst of the work on them.
    let kafka = restarted(kafka).await;
    bench.feed(50, 500, 1000);
    bench.wait_for_within(LONG * 5, 1000).await;
    bench.outputs().assert_exactly_once(1000);
    assert_ne!(lane.status().phase, Phase::Stopped, "{:?}", lane.status());
    lane.stop();
    lane.ended().await.unwrap();
    drop(kafka);
}

/// Kills a broker and starts it again.
async fn restarted(mut kafka: Kafka) -> Kafka {
    tokio::task::spawn_blocking(move || {
        kafka.kill().unwrap();
        kafka.restart().unwrap();
        kafka
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_without_a_broker_waits_and_can_be_stopped() {
    // Nobody listens there: the port was free a moment ago, and is not given out again so soon.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::at(&address.to_string(), "lane-nobody.");
    let mut settings = bench.settings("one");
    settings.lane.max_failures = 1;
    let mut lane = bench.start(&settings, 0, &Knobs::default());
    wait_until(LONG, "it has failed twice", || std::future::ready(lane.status().restarts >= 2)).await;
    assert_eq!(lane.status().phase, Phase::Recovering, "{:?}", lane.status());
    let asked = Instant::now();
    lane.stop();
    lane.ended().await.unwrap();
    assert!(asked.elapsed() < LONG / 2, "stopping took {:?}", asked.elapsed());
}
