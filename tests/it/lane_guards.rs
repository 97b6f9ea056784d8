//! Every protection of the lane, by the damage that its absence does. Each test runs the same story twice on the real
//! broker: with the protection switched off it must do the damage, with it on it must not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use kafka::{Fault, Point, partition_of};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::lane_process::{Hold, LaneProcess};
use crate::lane_support::{Bench, Knobs, Outputs, PARTITIONS, wait_until_open, wait_until_owned};
use crate::support::{LONG, wait_until};

/// The only key of these tests' inputs, and where it leads.
const KEY: &str = "key-0";

fn partition() -> i32 {
    partition_of(KEY.as_bytes(), PARTITIONS)
}

/// A transactional producer of nobody: a process that hangs.
fn zombie(bench: &Bench) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bench.bootstrap)
        .set("transactional.id", format!("{}zombie", bench.prefix))
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    producer.init_transactions(LONG).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

/// §4.1: a transaction of the previous owner hangs, with all inputs done and the offsets after them. Whoever takes over
/// must not start before it is decided, and then right after it, also when the group rebalances meanwhile.
async fn take_over_from_a_hung_transaction(fault: Option<Fault>) -> Outputs {
    let bench = Bench::new("guard-stable").await;
    bench.feed(20, 0, 40);
    let zombie = zombie(&bench);
    for id in 0..40 {
        zombie.send(BaseRecord::to(&bench.output).key(&id.to_string()).payload(&format!("1:{id}"))).unwrap();
    }
    zombie.flush(LONG).unwrap();
    let group: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &bench.bootstrap).set("group.id", bench.group()).create().unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let (_, end) = group.fetch_watermarks(&bench.input, partition, LONG).unwrap();
        assert!(end > 0, "partition {partition} has inputs");
        offsets.add_partition_offset(&bench.input, partition, Offset::Offset(end)).unwrap();
    }
    zombie.send_offsets_to_transaction(&offsets, &group.group_metadata().unwrap(), LONG).unwrap();

    let mut settings = bench.settings("one");
    settings.lane.faults = fault.into_iter().fold(settings.lane.faults, kafka::Faults::with);
    let knobs = Knobs::default();
    let first = bench.start(&settings, 0, &knobs);
    wait_until(LONG, "the first lane has all partitions", || std::future::ready(first.status().partitions.len() == 4))
        .await;
    let second = bench.start(&settings, 1, &knobs);
    wait_until(LONG, "the lanes share the partitions", || {
        std::future::ready(first.status().partitions.len() == 2 && second.status().partitions.len() == 2)
    })
    .await;
    if fault.is_some() {
        let seen = knobs.seen.clone();
        wait_until(LONG, "inputs are read again", || std::future::ready(seen.load(Ordering::Relaxed) > 0)).await;
    } else {
        assert!(!first.status().is_ready() && !second.status().is_ready(), "nothing is decided yet");
    }
    zombie.commit_transaction(LONG).unwrap();
    wait_until_open(&[&first, &second]).await;
    bench.feed(20, 40, 60);
    bench.wait_for(60).await;
    bench.outputs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_starts_at_the_stable_offset_and_not_where_the_library_likes() {
    let damage = take_over_from_a_hung_transaction(Some(Fault::LibraryRebalance)).await;
    assert!(!damage.twice().is_empty(), "started at auto.offset.reset");
    let outputs = take_over_from_a_hung_transaction(None).await;
    assert_eq!((outputs.lost(60), outputs.twice()), (vec![], vec![]));
}

/// §4.2: a transaction of some zombie hangs in the state partition, below what a later owner committed there.
async fn restore_below_a_hung_transaction(fault: Option<Fault>) -> Outputs {
    let bench = Bench::new("guard-restore").await;
    let settings = bench.settings("one");
    let mut before = bench.start(&settings, 0, &Knobs::default());
    bench.feed(1, 0, 10);
    bench.wait_for(10).await;
    let zombie = zombie(&bench);
    zombie.send(BaseRecord::to(&bench.state).key("count:zombie").payload("1").partition(partition())).unwrap();
    zombie.flush(LONG).unwrap();
    bench.feed(1, 10, 20);
    bench.wait_for(20).await;
    before.stop();
    before.ended().await.unwrap();

    let mut settings = bench.settings("two");
    settings.lane.faults = fault.into_iter().fold(settings.lane.faults, kafka::Faults::with);
    let after = bench.start(&settings, 0, &Knobs::default());
    bench.feed(1, 20, 30);
    if fault.is_some() {
        bench.wait_for(30).await;
    } else {
        wait_until_owned(&after, "all but the hidden partition are open", |open| open == 3).await;
    }
    zombie.abort_transaction(LONG).unwrap();
    bench.wait_for(30).await;
    bench.outputs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_reads_what_a_hung_transaction_hides() {
    let damage = restore_below_a_hung_transaction(Some(Fault::StableEndOnly)).await;
    assert_eq!(damage.miscounted(), [KEY], "the counts of 11 to 20 were forgotten");
    restore_below_a_hung_transaction(None).await.assert_exactly_once(30);
}

/// §4.4: a process is held in a transaction that moves no partition, after it has made sure that the partition is its
/// own; it wakes when another has taken over.
async fn wake_after_another_took_over(hold: Hold, fault: &'static str, commits_first: bool) -> Outputs {
    let bench = Bench::new("guard-unmoved").await;
    let mut zombie = LaneProcess::new(&bench, "zombie", Duration::from_millis(300)).hold(hold).faults(fault);
    zombie.start();
    bench.feed(1, 0, 1);
    let mut zombie = zombie.wait_until_held().await;

    let mut settings = bench.settings("heir");
    settings.lane.session_timeout = Duration::from_secs(1);
    let (results, commits) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (result, known, committed) = (results.clone(), results.clone(), commits.clone());
    let knobs = Knobs {
        on_done: Some(Arc::new(move |_| _ = result.fetch_add(1, Ordering::SeqCst))),
        on_committed: Some(Arc::new(move || committed.store(known.load(Ordering::SeqCst), Ordering::SeqCst))),
        ..Knobs::default()
    };
    let heir = bench.start(&settings, 0, &knobs);
    if commits_first {
        // The heir has every other partition, and waits for the zombie's transaction to be decided.
        wait_until_owned(&heir, "all but the held partition are open", |open| open == 3).await;
    } else {
        // Its output cannot be read yet, where the zombie's transaction hides it.
        wait_until(LONG, "the heir has done it", || std::future::ready(commits.load(Ordering::SeqCst) == 1)).await;
    }
    zombie.resume();
    zombie.wait_until_decided().await.kill();
    wait_until_open(&[&heir]).await;
    bench.feed(1, 1, 2);
    bench.wait_for(2).await;
    bench.outputs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_moved_nothing_is_fenced_all_the_same() {
    let damage = wake_after_another_took_over(Hold::At(Point::Checked), "moved-offsets-only", false).await;
    assert_eq!(damage.twice(), [0], "nobody fenced the zombie");
    let outputs = wake_after_another_took_over(Hold::At(Point::Checked), "", false).await;
    assert_eq!((outputs.lost(2), outputs.twice()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_offset_makes_no_heir_wait() {
    let damage = wake_after_another_took_over(Hold::At(Point::Sent), "invalid-offsets", false).await;
    assert_eq!(damage.twice(), [0], "the offset was skipped, and the fence with it");
    let outputs = wake_after_another_took_over(Hold::At(Point::Sent), "", true).await;
    // The heir had to wait until the zombie's transaction was committed; only then could it know the result.
    assert_eq!(outputs.lost(2), [0; 0]);
}

/// How long it takes from a result to its commit, in most cases: now and then all is acknowledged before the commit
/// begins, and nothing is left to drain.
async fn usual_commit(fault: Option<Fault>) -> Duration {
    let bench = Bench::new("guard-drain").await;
    let mut settings = bench.settings("one");
    settings.lane.faults = fault.into_iter().fold(settings.lane.faults, kafka::Faults::with);
    let result = Arc::new(Mutex::new(None::<Instant>));
    let (done, (sender, commits)) = (result.clone(), mpsc::channel());
    let knobs = Knobs {
        on_done: Some(Arc::new(move |_| *done.lock().unwrap() = Some(Instant::now()))),
        on_committed: Some(Arc::new(move || {
            if let Some(begun) = result.lock().unwrap().take() {
                sender.send(begun.elapsed()).unwrap();
            }
        })),
        ..Knobs::default()
    };
    let lane = bench.start(&settings, 0, &knobs);
    wait_until_open(&[&lane]).await;
    let mut times = Vec::new();
    for id in 0..15 {
        bench.feed(1, id, id + 1);
        times.push(commits.recv_timeout(LONG).unwrap());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_before_the_commit_spares_a_tenth_of_a_second() {
    /// On a machine that does much else all of a round's commits may be slow, or acknowledged in time.
    const ROUNDS: usize = 8;
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let (drained, undrained) = (usual_commit(None).await, usual_commit(Some(Fault::NoDrain)).await);
        if undrained >= drained + Duration::from_millis(60) {
            return;
        }
        seen.push((drained, undrained));
    }
    panic!("drained and undrained: {seen:?}");
}

/// §4.5: held long enough to be given up, the process hears of that, and only then publishes. Its client has thrown its
/// member id away by then, and keeps the generation: so the broker refuses it even if the check is switched off.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_was_given_up_does_not_commit() {
    for faults in ["no-ownership-check", ""] {
        let outputs = wake_after_another_took_over(Hold::Result, faults, false).await;
        assert_eq!((outputs.lost(2), outputs.twice()), (vec![], vec![]), "faults: `{faults}`");
    }
}

/// §4.5: what the check is for. A client that has neither member id nor generation commits whatever it likes, while a
/// lane owns the partition: the broker takes it for somebody without a group.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_without_a_member_id_fences_nobody() {
    let bench = Bench::new("guard-member").await;
    let mut settings = bench.settings("one");
    let lane = bench.start(&settings, 0, &Knobs::default());
    bench.feed(1, 0, 5);
    bench.wait_for(5).await;
    let stranger: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &bench.bootstrap).set("group.id", bench.group()).create().unwrap();
    let zombie = zombie(&bench);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&bench.input, partition(), Offset::Offset(3)).unwrap();
    zombie.send_offsets_to_transaction(&offsets, &stranger.group_metadata().unwrap(), LONG).unwrap();
    zombie.commit_transaction(LONG).unwrap();
    drop(lane);
    assert_eq!(bench.offsets()[&partition()], 3, "the group's offset was taken back under its owner's feet");
    // The damage goes on: two inputs are worked on again.
    settings.instance = "two".to_owned();
    let _lane = bench.start(&settings, 0, &Knobs::default());
    bench.feed(1, 5, 6);
    bench.wait_for(6).await;
    assert_eq!(bench.outputs().twice(), [3, 4]);
}

/// §4.4: the lane dies between having written its records and the end of the transaction.
async fn die_in_a_transaction(fault: Option<Fault>) -> Outputs {
    let bench = Bench::new("guard-outside").await;
    let mut settings = bench.settings("one");
    settings.lane.faults = fault.into_iter().fold(settings.lane.faults, kafka::Faults::with);
    let transactions = AtomicUsize::new(0);
    settings.lane.faults = settings.lane.faults.holding(move |point| {
        if point == Point::Checked && transactions.fetch_add(1, Ordering::SeqCst) == 1 {
            panic!("the test wants it");
        }
    });
    let lane = bench.start(&settings, 0, &Knobs::default());
    for id in 0..5 {
        bench.feed(1, id, id + 1);
        wait_until(LONG, "it is read", || {
            let lag = lane.status().partitions.iter().map(|partition| partition.lag.unwrap_or(1)).sum::<i64>();
            std::future::ready(lane.status().is_ready() && lag == 0)
        })
        .await;
    }
    assert_eq!(lane.status().restarts, 1);
    bench.outputs()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_with_the_outputs_or_not_at_all() {
    let damage = die_in_a_transaction(Some(Fault::OffsetsOutside)).await;
    assert_eq!(damage.lost(5).len(), 1, "the offset went ahead of its outputs: {damage:?}");
    die_in_a_transaction(None).await.assert_exactly_once(5);
}
