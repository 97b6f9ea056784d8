//! A mailbox of a million messages is small.
//!
//! Alone in its process, because it reads what the process holds.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use simulator::{Delivery, NewMailbox, Settings};

const EMAIL: &str = "big@example.org";
const MESSAGES: usize = 1_000_000;

/// Bytes that the process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_million_messages_take_less_than_300_megabytes() {
    let simulator = simulator::start(Settings::default()).await.unwrap();
    let control = simulator.control();
    control.create(&NewMailbox { email: EMAIL.to_owned(), ..NewMailbox::default() }).unwrap();
    let before = resident();
    let how = Delivery { internal_ms: Some(1_500_000_000_000), step_ms: 60_000, ..Delivery::default() };
    control.fill(EMAIL, MESSAGES, &how).unwrap();
    let held = resident() - before;
    assert!(held < 300_000_000, "{MESSAGES} messages hold {held} bytes");
    assert!(held > 50_000_000, "{held} bytes are too few to be true");
    simulator.shutdown().await;
}
