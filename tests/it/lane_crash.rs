//! `kill -9` of counting lanes, at any moment, under load.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::lane_process::LaneProcess;
use crate::lane_support::Bench;

/// How often a process is killed.
const KILLS: usize = 12;

/// How many inputs are written between two kills.
const INPUTS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_lose_nothing_and_double_nothing() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bench = Bench::new("lane-crash").await;
    let work = Duration::from_millis(3);
    let mut processes = [LaneProcess::new(&bench, "one", work), LaneProcess::new(&bench, "two", work)];
    for process in &mut processes {
        process.start();
    }
    for round in 0..KILLS {
        bench.feed(40, round * INPUTS, (round + 1) * INPUTS);
        // Right into the work, or when it is done, or while the last kill is still being got over.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2500))).await;
        let process = &mut processes[random.random_range(0..2)];
        process.kill();
        process.start();
    }
    bench.wait_for(KILLS * INPUTS).await;
    bench.outputs().assert_exactly_once(KILLS * INPUTS);
}
