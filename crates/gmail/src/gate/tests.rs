use futures_util::future::join_all;

use super::*;
use crate::{Quota, Tariff};

fn settings() -> Settings {
    let quota = Quota { poller: 1.0, fetcher: 0.0, ingress: 0.0, ..Quota::default() };
    Settings { quota, ..Settings::default() }
}

fn gate() -> Gate {
    Gate::new(&settings(), Service::Poller)
}

fn call(account: &Account, lane: Lane, units: u32, within: Duration) -> Admission<'_> {
    let deadline = Instant::now() + within;
    Admission { account, connection: None, shares: 1, lane, units, parts: 1, deadline }
}

const SECOND: Duration = Duration::from_secs(1);

/// Nothing waits, nothing is under way, and the budgets are as full as they get.
async fn assert_at_rest(gate: &Gate) {
    tokio::time::sleep(200 * SECOND).await;
    gate.inner.decide(|_, _, _| ());
    let state = gate.inner.lock();
    let [minute, _] = state.desk.project();
    let (limit, left) = minute.unwrap();
    assert_eq!((state.desk.waiting(), left.milli()), (0, limit.milli() / 80));
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_a_start_waits_for_its_price_alone_and_later_ones_for_nothing() {
    let (gate, account) = (gate(), Account::new("a"));
    let began = Instant::now();
    drop(gate.admit(call(&account, Lane::Live, 2, SECOND)).await.unwrap());
    assert!(began.elapsed() <= Duration::from_millis(22), "{:?}", began.elapsed());
    tokio::time::sleep(SECOND).await;
    // Also of an account that nobody has called for yet.
    for account in [account, Account::new("b")] {
        let began = Instant::now();
        drop(gate.admit(call(&account, Lane::Live, 20, SECOND)).await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
    assert_at_rest(&gate).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_process_holds_a_call_until_its_deadline_or_a_place() {
    let gate = Gate::new(&Settings { max_in_flight: 1, ..settings() }, Service::Poller);
    let account = Account::new("a");
    let first = gate.admit(call(&account, Lane::Live, 2, SECOND)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let late = gate.admit(call(&account, Lane::Live, 2, SECOND)).await.unwrap_err();
    assert_eq!(late, Refused::Late { waited: SECOND });
    let (second, ()) = tokio::join!(gate.admit(call(&account, Lane::Live, 2, SECOND)), async { drop(first) });
    drop(second.unwrap());
    assert_at_rest(&gate).await;
}

#[tokio::test(start_paused = true)]
async fn patient_calls_leave_places_to_live_ones() {
    let gate = Gate::new(&Settings { max_in_flight: 4, ..settings() }, Service::Poller);
    tokio::time::sleep(SECOND).await;
    let account = Account::new("a");
    let mut held = Vec::new();
    while let Ok(permit) = gate.admit(call(&account, Lane::Backfill, 5, SECOND)).await {
        held.push(permit);
    }
    assert_eq!(held.len(), 3);
    gate.admit(call(&account, Lane::Live, 2, SECOND)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callers_that_go_away_give_back_what_they_hold() {
    let gate = gate();
    let accounts: Vec<_> = (0..7).map(|n| Account::new(&n.to_string())).collect();
    let mut tasks = Vec::new();
    for n in 0..3_000_usize {
        let (gate, account) = (gate.clone(), accounts[n % accounts.len()].clone());
        let lane = [Lane::Live, Lane::Fetch, Lane::Audit][n % 3];
        tasks.push(tokio::spawn(async move {
            let permit = gate.admit(call(&account, lane, 20, 1_000 * SECOND)).await.unwrap();
            tokio::time::sleep(SECOND / 10).await;
            drop(permit);
        }));
    }
    // Some of them while they wait, some as they are let through, some under way.
    for (n, task) in tasks.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        if n % 64 == 0 {
            tokio::time::sleep(SECOND / 50).await;
        }
        task.abort();
    }
    for (n, task) in tasks.into_iter().enumerate() {
        let ended = task.await;
        assert!(ended.is_ok() || n % 2 == 0, "one that stayed was let through");
    }
    assert_at_rest(&gate).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_accounts_at_once_are_let_through_as_the_project_allows_and_forgotten() {
    let gate = Gate::new(&Settings { tariff: Tariff::BEFORE_2026_05, ..settings() }, Service::Poller);
    let began = Instant::now();
    let calls = (0..10_000).map(|n| {
        let gate = &gate;
        async move {
            let account = Account::new(&format!("account {n}"));
            gate.admit(call(&account, Lane::Live, 5, 60 * SECOND)).await.map(drop)
        }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    // 50,000 units at 1,200,000 a minute.
    let took = began.elapsed().as_secs_f64();
    assert!((2.5..2.56).contains(&took), "{took}");
    assert_eq!(gate.inner.lock().desk.lines(), 10_000);
    tokio::time::sleep(10 * SECOND).await;
    let account = Account::new("another");
    for _ in 0..5_001 {
        drop(gate.admit(call(&account, Lane::Live, 1, 60 * SECOND)).await.unwrap());
    }
    assert_eq!(gate.inner.lock().desk.lines(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_storm_on_one_account_is_refused_at_once_if_it_cannot_be_in_time_and_delays_no_other() {
    let gate = gate();
    let (stormy, calm) = (Account::new("stormy"), Account::new("calm"));
    tokio::time::sleep(SECOND).await;
    drop(gate.admit(call(&stormy, Lane::Live, 2, SECOND)).await.unwrap());
    let began = Instant::now();
    let wait = Some(in_a_while(10 * SECOND));
    gate.pushed_back(&stormy, Reach::User, wait);
    let storm = join_all((0..10_000).map(|_| gate.admit(call(&stormy, Lane::Live, 2, 5 * SECOND)))).await;
    assert!(storm.iter().all(|refused| matches!(refused, Err(Refused::NotBefore { .. }))));
    let patient = (0..1_000).map(|_| async { gate.admit(call(&stormy, Lane::Live, 2, 15 * SECOND)).await.map(drop) });
    let mut patient = std::pin::pin!(join_all(patient));
    assert!(futures_util::poll!(&mut patient).is_pending());
    drop(gate.admit(call(&calm, Lane::Audit, 20, SECOND)).await.unwrap());
    assert_eq!(began.elapsed(), Duration::ZERO);
    let patient = patient.await;
    // Five seconds' worth of them made it.
    let made_it = patient.iter().filter(|permit| permit.is_ok()).count();
    assert!((200..=250).contains(&made_it), "{made_it}");
    assert!(began.elapsed() <= 15 * SECOND);
    assert_at_rest(&gate).await;
}

fn in_a_while(pause: Duration) -> Timestamp {
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + pause;
    Timestamp::from_millis(i64::try_from(at.as_millis()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_push_back_of_the_project_pauses_all_and_for_no_longer_than_a_quarter_of_an_hour() {
    let (gate, account) = (gate(), Account::new("a"));
    gate.pushed_back(&account, Reach::Day, Some(in_a_while(24 * 3_600 * SECOND)));
    let other = Account::new("b");
    let began = Instant::now();
    let refused = gate.admit(call(&other, Lane::Live, 2, 30 * SECOND)).await.unwrap_err();
    assert!(refused.until().is_some(), "{refused}");
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(gate.admit(call(&other, Lane::Live, 2, 3_600 * SECOND)).await.unwrap());
    let took = began.elapsed();
    assert!((900 * SECOND..901 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_at_a_time_are_halved_by_a_push_back_and_grow_again() {
    let (gate, account) = (gate(), Account::new("a"));
    let parts = || gate.most(&account, None, 1).parts;
    // Counts how many are let through while none ends.
    let at_once = async || {
        let mut held = Vec::new();
        while let Ok(permit) = gate.admit(call(&account, Lane::Live, 1, SECOND)).await {
            held.push(permit);
        }
        held.len()
    };
    assert_eq!((at_once().await, parts()), (10, 10));
    gate.pushed_back(&account, Reach::Concurrency, None);
    // Those that were under way together count once.
    gate.pushed_back(&account, Reach::Concurrency, None);
    assert_eq!(parts(), 5);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(at_once().await, 5);
    gate.pushed_back(&account, Reach::Unknown, None);
    assert_eq!(parts(), 2);
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(parts(), 4);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((at_once().await, parts()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_batch_counts_as_its_parts_and_what_is_too_large_is_said() {
    let (gate, account) = (gate(), Account::new("a"));
    let most = gate.most(&account, None, 1);
    assert_eq!(most, Most { units: 37, parts: 10 });
    assert_eq!([1, 5, 20, 100].map(|price| most.calls(price)), [10, 7, 2, 1]);
    let batch = |parts| Admission { parts, ..call(&account, Lane::Fetch, 20 * parts, 30 * SECOND) };
    assert_eq!(gate.admit(batch(6)).await.unwrap_err(), Refused::TooDear { units: 120, most: 100 });
    let first = gate.admit(Admission { units: 5, ..batch(9) }).await.unwrap();
    let one = gate.admit(call(&account, Lane::Fetch, 1, SECOND)).await.unwrap();
    assert!(gate.admit(call(&account, Lane::Fetch, 1, SECOND)).await.is_err());
    drop((first, one));
    drop(gate.admit(batch(5)).await.unwrap());
    assert_at_rest(&gate).await;
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_is_read_in_batches_uses_its_minute_though_answers_take_their_time() {
    for (tariff, limit) in [(Tariff::SINCE_2026_05, 6_000.0), (Tariff::BEFORE_2026_05, 15_000.0)] {
        let quota = Quota { concurrency: 50, ..settings().quota };
        let settings = Settings { tariff, quota, ..settings() };
        let gate = Gate::new(&settings, Service::Poller);
        let account = Account::new("a");
        let limit = limit * settings.quota.poller;
        for latency in [20, 100, 300].map(Duration::from_millis) {
            // A budget begins as if its predecessor had just made the dearest call.
            let (warm, end) = (Instant::now() + 130 * SECOND, Instant::now() + 430 * SECOND);
            let mut used = 0;
            while Instant::now() < end {
                let calls = gate.most(&account, None, 1).calls(tariff.get);
                let batch = Admission { parts: calls, ..call(&account, Lane::Fetch, tariff.get * calls, 60 * SECOND) };
                let permit = gate.admit(batch).await.unwrap();
                used += if Instant::now() > warm { batch.units } else { 0 };
                tokio::time::sleep(latency).await;
                drop(permit);
            }
            let part = f64::from(used) / (limit * 5.0);
            assert!((0.98..=1.0).contains(&part), "{tariff}, {latency:?}: {part}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_part_of_the_project_goes_by_the_partitions() {
    let gate = Gate::by_partitions(&settings(), Service::Poller);
    let account = Account::new("a");
    let limit = || gate.inner.lock().desk.project()[0].unwrap().0.as_units();
    let refused = gate.admit(call(&account, Lane::Live, 2, SECOND)).await.unwrap_err();
    assert_eq!(refused, Refused::Late { waited: SECOND });
    let (one, other) = (gate.holding(), gate.holding());
    let (permit, ()) = tokio::join!(gate.admit(call(&account, Lane::Live, 2, SECOND)), async { one.set(3, 12) });
    drop(permit.unwrap());
    assert_eq!(limit(), 300_000.0);
    other.set(6, 12);
    assert_eq!(limit(), 900_000.0);
    one.set(0, 12);
    assert_eq!(limit(), 600_000.0);
    drop(other);
    assert_eq!(limit(), 0.0);
}

/// The gate of a service that is asked about all connections, with its part by default.
fn shared_gate(instances: u16) -> Gate {
    let quota = Quota { ingress_instances: instances, ..Quota::default() };
    Gate::new(&Settings { quota, ..Settings::default() }, Service::Ingress)
}

fn connection(number: u128) -> Option<ConnectionId> {
    Some(ConnectionId::from_uuid(uuid::Uuid::from_u128(number)))
}

#[tokio::test(start_paused = true)]
async fn connections_that_share_a_budget_have_turns_and_each_finds_room_for_a_file() {
    let (gate, account) = (shared_gate(1), Account::new("a"));
    let file = |number| Admission {
        connection: connection(number),
        shares: 20,
        ..call(&account, Lane::Fetch, 40, 20 * SECOND)
    };
    for number in 0..20 {
        drop(gate.admit(file(number)).await.unwrap());
    }
    // One has many that wait; another's is the second or the third of all.
    let order = Mutex::new(Vec::new());
    let ask = async |number| {
        drop(gate.admit(Admission { deadline: Instant::now() + 3_600 * SECOND, ..file(number) }).await.unwrap());
        order.lock().unwrap().push(number);
    };
    let many = join_all((0..10).map(|_| ask(1)));
    let others = async {
        for _ in 0..3 {
            ask(2).await;
        }
    };
    tokio::join!(many, others);
    let order = order.into_inner().unwrap();
    assert_eq!(order[..6].iter().filter(|number| **number == 2).count(), 3, "{order:?}");
    assert_at_rest(&gate).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_when_it_was_told_to_finds_the_credit_however_small_the_budget() {
    // A third of the part by default: a file is more than its reserve, and takes longer than anybody waits.
    let (gate, account) = (shared_gate(3), Account::new("a"));
    let file = || Admission { connection: connection(1), shares: 1, ..call(&account, Lane::Fetch, 40, 20 * SECOND) };
    for _ in 0..4 {
        let Err(Refused::NotBefore { until }) = gate.admit(file()).await else { panic!("there is no credit yet") };
        assert!(until - Instant::now() < 90 * SECOND);
        tokio::time::sleep_until(until + SECOND).await;
        let asks = Instant::now();
        drop(gate.admit(file()).await.unwrap());
        assert_eq!(asks.elapsed(), Duration::ZERO);
    }
    assert_at_rest(&gate).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_keeps_its_place_and_no_budget() {
    let (gate, account) = (shared_gate(1), Account::new("a"));
    let file = || call(&account, Lane::Fetch, 40, 20 * SECOND);
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut permit = gate.admit(file()).await.unwrap();
        permit.charged();
        held.push(permit);
    }
    assert!(matches!(gate.admit(file()).await, Err(Refused::Late { .. } | Refused::NotBefore { .. })));
    drop(held);
    drop(gate.admit(file()).await.unwrap());
    assert_at_rest(&gate).await;
}

#[test]
fn another_runtime_takes_over_when_one_ends() {
    let (gate, account) = (gate(), Account::new("a"));
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..3 {
            // More than the reserve, so that it has to wait.
            let permit = runtime.block_on(gate.admit(call(&account, Lane::Live, 90, 60 * SECOND)));
            drop(permit.unwrap());
        }
    }
}
