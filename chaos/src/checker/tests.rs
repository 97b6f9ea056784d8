use serde_json::{Value, json};

use super::messages::ONCE;
use super::*;

fn fact(key: &str, offset: i64, value: Value) -> Fact {
    Fact { key: key.to_owned(), partition: 0, offset, value }
}

fn message(id: &str, origin: &str, offset: i64) -> Fact {
    let value = json!({"connectionId": "c", "messageId": id, "eventId": format!("e-{id}"), "origin": origin,
                       "historyId": format!("{}0", id)});
    fact("c", offset, value)
}

fn job(state: &str, step: i64) -> Fact {
    fact("j", step, json!({"jobId": "j", "state": state, "step": step, "progress": {"window": null}}))
}

fn connection(step: i64) -> Fact {
    fact("c", step, json!({"connectionId": "c", "status": "active", "step": step}))
}

/// Two messages, announced and fetched once; a job, ended once; a connection; their rows.
fn sound() -> (Owed, Evidence) {
    let owed = Owed {
        messages: BTreeMap::from([("c".to_owned(), BTreeSet::from(["1".to_owned(), "2".to_owned()]))]),
        accepted: BTreeSet::from(["j".to_owned()]),
        prompt: BTreeSet::from(["c".to_owned()]),
        ..Owed::default()
    };
    let jobs = vec![job("queued", 1), job("running", 2), job("succeeded", 3)];
    let mut evidence = Evidence {
        commands: vec![fact("c", 0, json!({"jobId": "j"}))],
        discovered: vec![message("1", "live", 0), message("2", "live", 1)],
        fetched: Some(vec![message("1", "live", 0), message("2", "live", 1)]),
        job_rows: Some(BTreeMap::from([("j".to_owned(), rows::of_job(&jobs[2].value))])),
        jobs,
        connections: vec![connection(1), connection(2)],
        ..Evidence::default()
    };
    evidence.connection_rows = Some(rows::fold_connections(&evidence));
    (owed, evidence)
}

/// What is found after one thing went wrong: how many of each kind, of those of which there are any.
fn after(damage: impl FnOnce(&mut Owed, &mut Evidence)) -> Vec<(&'static str, usize)> {
    let (mut owed, mut evidence) = sound();
    damage(&mut owed, &mut evidence);
    let findings = check(&owed, &evidence);
    let counted = findings.kinds().map(|(kind, found)| (kind, found.len()));
    let counted: Vec<_> = counted.into_iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted.is_empty(), findings.is_clean());
    counted
}

fn fetched(evidence: &mut Evidence) -> &mut Vec<Fact> {
    evidence.fetched.as_mut().expect("somebody fetches")
}

/// The same announced and fetched again.
fn again(evidence: &mut Evidence, origin: &str) {
    evidence.discovered.push(message("1", origin, 2));
    fetched(evidence).push(message("1", origin, 2));
}

#[test]
fn the_checker_finds_nothing_wrong_where_nothing_is() {
    assert_eq!(after(|_, _| {}), []);
    // Other origins may name a message again.
    for origin in ["gap", "backfill", "audit", "replay"] {
        assert_eq!(after(|_, evidence| again(evidence, origin)), []);
    }
    // What belonged to a deleted connection need not be fetched.
    let deleted = after(|owed, evidence| {
        owed.deleted.insert("c".to_owned());
        fetched(evidence).pop();
    });
    assert_eq!(deleted, []);
    // A mailbox that hides its history for a while is announced as it shows.
    let late = after(|owed, evidence| {
        owed.prompt.clear();
        evidence.discovered.swap(0, 1);
        fetched(evidence).swap(0, 1);
    });
    assert_eq!(late, []);
}

#[test]
fn what_is_lost_is_found() {
    let owed_more = after(|owed, _| owed.messages.get_mut("c").expect("it has mail").extend(["3".to_owned()]));
    assert_eq!(owed_more, [("lost", 1)]);
    assert_eq!(after(|_, evidence| drop(fetched(evidence).pop())), [("lost", 1)]);
    assert_eq!(after(|owed, _| owed.accepted.extend(["k".to_owned()])), [("lost", 1)]);
    assert_eq!(after(|owed, _| owed.promises_broken.push("a deletion".to_owned())), [("lost", 1)]);
}

#[test]
fn what_comes_twice_is_found() {
    for origin in ONCE {
        let found = after(|owed, evidence| {
            // Its order is another rule's.
            owed.prompt.clear();
            again(evidence, origin);
        });
        assert_eq!(found, [("twice", 1)]);
    }
    assert_eq!(after(|_, evidence| fetched(evidence).push(message("2", "live", 2))), [("twice", 1)]);
}

#[test]
fn what_is_out_of_order_is_found() {
    let kind = "out of order per key";
    let announced = after(|_, evidence| {
        evidence.discovered.swap(0, 1);
        fetched(evidence).swap(0, 1);
    });
    assert_eq!(announced, [(kind, 1)]);
    assert_eq!(after(|_, evidence| fetched(evidence).swap(0, 1)), [(kind, 1)]);
    assert_eq!(after(|_, evidence| evidence.jobs[1].value["step"] = 1.into()), [(kind, 1)]);
    assert_eq!(after(|_, evidence| evidence.connections.swap(0, 1)), [(kind, 1)]);
    // Partitions were added, and the later ones are read last.
    let moved = after(|_, evidence| {
        evidence.connections.swap(0, 1);
        evidence.connections[1].partition = 1;
    });
    assert_eq!(moved, []);
}

#[test]
fn jobs_without_an_end_and_with_several_are_found() {
    let open = after(|_, evidence| {
        evidence.jobs.truncate(2);
        evidence.job_rows = None;
    });
    assert_eq!(open, [("jobs open", 1)]);
    let changed = after(|_, evidence| evidence.jobs.push(job("failed", 4)));
    assert_eq!(changed, [("jobs that changed after their end", 1)]);
    let went_on = after(|_, evidence| evidence.jobs.push(job("running", 4)));
    assert!(went_on.contains(&("jobs that changed after their end", 1)), "{went_on:?}");
}

#[test]
fn rows_budgets_secrets_and_strange_records_are_found() {
    let kind = "rows unlike the topics";
    let tampered = after(|_, evidence| {
        evidence.job_rows.iter_mut().flat_map(BTreeMap::values_mut).for_each(|row| row["state"] = "failed".into());
    });
    assert_eq!(tampered, [(kind, 1)]);
    assert_eq!(after(|_, evidence| evidence.job_rows = Some(BTreeMap::new())), [(kind, 1)]);
    assert_eq!(after(|_, evidence| evidence.connection_rows = Some(BTreeMap::new())), [(kind, 1)]);
    assert_eq!(after(|owed, _| owed.over_budget.push("a@b.c".to_owned())), [("calls over budget", 1)]);
    assert_eq!(after(|_, evidence| evidence.secrets_seen.push("a key".to_owned())), [("secrets seen", 1)]);
    let kind = "strange records";
    assert_eq!(after(|_, evidence| evidence.dead.push("c".to_owned())), [(kind, 1)]);
    let nobodys = after(|_, evidence| {
        evidence.discovered.push(message("3", "live", 2));
        fetched(evidence).push(message("3", "live", 2));
    });
    assert_eq!(nobodys, [(kind, 1)]);
    let never_announced = after(|_, evidence| fetched(evidence).push(message("3", "live", 2)));
    assert_eq!(never_announced, [(kind, 1)]);
    let other_id = after(|_, evidence| {
        again(evidence, "backfill");
        for fact in evidence.discovered.last_mut().into_iter().chain(evidence.fetched.iter_mut().flatten().last()) {
            fact.value["eventId"] = "another".into();
        }
    });
    assert_eq!(other_id, [(kind, 1)]);
}
