//! Chaos: a whole installation under a seeded plan of faults, and the proof that each rule of the count fires.
//!
//! `MAILTIDE_CHAOS_MINUTES` makes the run longer, `MAILTIDE_CHAOS_SEED` repeats a plan; `just chaos` is the same as a
//! program.

#![expect(clippy::unwrap_used, reason = "in a test the panic is the message")]

use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use chaos::{Damage, Options, Run};

/// Each run has the machine to itself.
static ALONE: Mutex<()> = Mutex::new(());

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn options(name: &str, minutes: u64, mailboxes: usize) -> Options {
    let program = Path::new(env!("CARGO_BIN_EXE_mailtide-under-test")).to_owned();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let seed = from_environment("MAILTIDE_CHAOS_SEED").unwrap_or_else(rand::random);
    Options { program, folder, minutes, seed, mailboxes }
}

/// One at a time, each with threads of its own.
fn alone(test: impl Future<Output = ()>) {
    // Who failed before is no reason to fail.
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap().block_on(test);
}

#[test]
fn i1_i2_i3_i4_i7_hold_under_a_seeded_plan_of_faults() {
    alone(async {
        let minutes = from_environment("MAILTIDE_CHAOS_MINUTES").unwrap_or(5);
        let mut run = Run::start(options("chaos", minutes, 40)).await.unwrap();
        run.storm(Duration::from_secs(60 * minutes), true).await.unwrap();
        run.settle().await.unwrap();
        run.stop().unwrap();
        let findings = run.finish().await.unwrap();
        assert!(findings.is_clean(), "{findings}");
        assert!(findings.looked_at.announced > 100 && findings.looked_at.jobs > 100, "there was a load: {findings}");
    });
}

/// The real topics, rows, logs and budgets of a quiet run are damaged, one after the other.
#[test]
fn every_rule_of_the_checker_fires() {
    alone(async {
        let mut run = Run::start(options("chaos-damage", 1, 8)).await.unwrap();
        run.storm(Duration::from_secs(15), false).await.unwrap();
        run.settle().await.unwrap();
        let before = run.check().await.unwrap();
        assert!(before.is_clean(), "{before}");
        run.sabotage(Damage::OverBudget).await.unwrap();
        run.settle().await.unwrap();
        run.stop().unwrap();
        let mut found = run.check().await.unwrap();
        assert!(!found.over_budget.is_empty(), "{found}");
        for damage in Damage::ALL.into_iter().filter(|damage| *damage != Damage::OverBudget) {
            let before = damage.seen_in(&found).len();
            run.sabotage(damage).await.unwrap();
            found = run.check().await.unwrap();
            assert!(damage.seen_in(&found).len() > before, "{damage:?} is not seen: {found}");
        }
    });
}
