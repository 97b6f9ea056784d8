//! What jobs and connections told of themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::evidence::{Evidence, Fact};
use super::{Findings, Owed, rows};

fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled")
}

/// Checks the jobs; gives what each folds to: the first final fact, else the latest.
pub(super) fn check(owed: &Owed, evidence: &Evidence, findings: &mut Findings) -> BTreeMap<String, Value> {
    let mut facts: BTreeMap<&str, Vec<&Fact>> = BTreeMap::new();
    for fact in &evidence.jobs {
        facts.entry(fact.text("jobId")).or_default().push(fact);
        if fact.key != fact.text("jobId") {
            findings.strange.push(format!("job {} under the key {}", fact.text("jobId"), fact.key));
        }
    }
    let asked = evidence.commands.iter().map(|command| command.text("jobId")).filter(|id| !id.is_empty());
    let known: BTreeSet<&str> =
        asked.chain(owed.accepted.iter().map(String::as_str)).chain(facts.keys().copied()).collect();
    let mut folded = BTreeMap::new();
    for id in known {
        let facts = facts.get(id).map(Vec::as_slice).unwrap_or_default();
        let finals: Vec<_> = facts.iter().filter(|fact| is_final(fact.text("state"))).collect();
        match finals.as_slice() {
            [] => match facts.last() {
                None => findings.lost.push(format!("job {id}")),
                Some(last) => findings.open.push(format!("job {id}: last said {}", last.text("state"))),
            },
            [one] if std::ptr::eq(**one, facts[facts.len() - 1]) => {}
            _ => {
                let states: Vec<_> = facts.iter().map(|fact| (fact.text("state"), fact.step(), fact.place())).collect();
                findings.changed.push(format!("job {id}: {states:?}"));
            }
        }
        if facts.windows(2).any(|pair| pair[0].step() >= pair[1].step() || rank(pair[0]) > rank(pair[1])) {
            let steps: Vec<_> = facts.iter().map(|fact| (fact.text("state"), fact.step(), fact.place())).collect();
            findings.disorder.push(format!("job {id} went back: {steps:?}"));
        }
        let stands = finals.first().copied().or(facts.iter().max_by_key(|fact| (rank(fact), fact.step())));
        if let Some(stands) = stands {
            folded.insert(id.to_owned(), rows::of_job(&stands.value));
        }
    }
    folded
}

fn rank(fact: &Fact) -> u8 {
    match fact.text("state") {
        "queued" => 0,
        "running" => 1,
        _ => 2,
    }
}

/// A connection tells of itself in the order in which things happen to it. Where partitions were added it may have told
/// in more than one, and no offset says what came first of two that are in different ones.
pub(super) fn check_connections(evidence: &Evidence, findings: &mut Findings) {
    let mut last: BTreeMap<(&str, i32), &Fact> = BTreeMap::new();
    for fact in &evidence.connections {
        let id = fact.text("connectionId");
        let key = (id, fact.partition);
        if fact.key != id {
            findings.strange.push(format!("connection {id} under the key {}", fact.key));
        }
        // Nothing counts that a connection tells after it was forgotten: a command that came late found nobody.
        if last.get(&key).is_some_and(|before| before.text("status") == "forgotten") {
            continue;
        }
        if let Some(before) = last.insert(key, fact)
            && fact.step() < before.step()
        {
            findings.disorder.push(format!(
                "connection {id} went back from step {} at {} to {} at {}",
                before.step(),
                before.place(),
                fact.step(),
                fact.place()
            ));
        }
    }
}
