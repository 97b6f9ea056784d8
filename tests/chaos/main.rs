//! Chaos: a whole installation under a seeded plan of faults, and the proof that each rule of the count fires.
//!
//! `MAILTIDE_CHAOS_MINUTES` makes the run longer, `MAILTIDE_CHAOS_SEED` takes another plan; `just chaos` is the same as a
//! program.

use std::path::Path;
use std::str::FromStr;

use chaos::{Damage, Options, Run};

/// Always the same plan, so that who changes something is troubled as those before; other seeds are `just chaos`'.
const SEED: u64 = 7;

/// How long faults go on.
const MINUTES: u64 = 5;

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The real topics, rows, logs and budgets of the run are damaged when it has been counted, one after the other: so the
/// proof that each rule fires needs no installation of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i1_i2_i3_i4_i7_hold_under_a_seeded_plan_of_faults_and_every_rule_of_the_count_fires() {
    let options = Options {
        program: Path::new(env!("CARGO_BIN_EXE_mailtide-under-test")).to_owned(),
        folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos"),
        minutes: from_environment("MAILTIDE_CHAOS_MINUTES").unwrap_or(MINUTES),
        seed: from_environment("MAILTIDE_CHAOS_SEED").unwrap_or(SEED),
        only: Vec::new(),
        mailboxes: 40,
    };
    let mut run = Run::start(options).await.unwrap();
    let findings = run.go_through().await.unwrap();
    assert!(findings.is_clean(), "{findings}");
    assert!(findings.looked_at.announced > 100 && findings.looked_at.jobs > 100, "there was a load: {findings}");

    let mut found = findings;
    for damage in Damage::ALL {
        let before = damage.seen_in(&found).len();
        run.sabotage(damage).await.unwrap();
        found = run.check().await.unwrap();
        assert!(damage.seen_in(&found).len() > before, "{damage:?} is not seen: {found}");
    }
}
