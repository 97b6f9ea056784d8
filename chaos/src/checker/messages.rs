//! What was announced and fetched.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Evidence, Fact};
use super::{Findings, Owed};

/// The two origins under which a message is announced once.
pub(super) const ONCE: [&str; 2] = ["live", "catch_up"];

/// A message: its connection and Gmail's id.
type Name<'a> = (&'a str, &'a str);

pub(super) fn check(owed: &Owed, evidence: &Evidence, findings: &mut Findings) {
    let mut announced: BTreeMap<Name<'_>, Vec<&Fact>> = BTreeMap::new();
    let mut event_ids: BTreeMap<&str, Name<'_>> = BTreeMap::new();
    for fact in &evidence.discovered {
        let name = (fact.text("connectionId"), fact.text("messageId"));
        announced.entry(name).or_default().push(fact);
        if fact.key != name.0 {
            findings.strange.push(format!("{name:?} under the key {}", fact.key));
        }
        // One id for all announcements of a message, and none for two messages.
        if *event_ids.entry(fact.text("eventId")).or_insert(name) != name {
            findings.strange.push(format!("{name:?} has the event id of {:?}", event_ids[fact.text("eventId")]));
        }
        let is_in =
            |known: &BTreeMap<String, BTreeSet<String>>| known.get(name.0).is_some_and(|ids| ids.contains(name.1));
        if !is_in(&owed.messages) && !is_in(&owed.allowed) {
            findings.strange.push(format!("{name:?} at {} is nobody's mail", fact.place()));
        }
    }
    for (name, facts) in &announced {
        let ids: BTreeSet<&str> = facts.iter().map(|fact| fact.text("eventId")).collect();
        if ids.len() > 1 {
            findings.strange.push(format!("{name:?} has several event ids: {ids:?}"));
        }
        let once: Vec<_> = facts.iter().filter(|fact| ONCE.contains(&fact.text("origin"))).collect();
        if once.len() > 1 {
            let places: Vec<_> = once.iter().map(|fact| (fact.place(), fact.text("origin"))).collect();
            findings.twice.push(format!("{name:?} at {places:?}"));
        }
    }
    for (connection, messages) in &owed.messages {
        let missing = messages.iter().filter(|id| !announced.contains_key(&(connection.as_str(), id.as_str())));
        findings.lost.extend(missing.map(|id| format!("message {id} of {connection}")));
    }
    check_history(owed, evidence, findings);
    if let Some(fetched) = &evidence.fetched {
        check_fetched(owed, evidence, fetched, findings);
    }
}

/// Live mail of a mailbox that hides nothing comes in the order of its history.
fn check_history(owed: &Owed, evidence: &Evidence, findings: &mut Findings) {
    let mut last: BTreeMap<&str, (u64, &Fact)> = BTreeMap::new();
    for fact in evidence.discovered.iter().filter(|fact| fact.text("origin") == "live") {
        let connection = fact.text("connectionId");
        let Ok(record) = fact.text("historyId").parse::<u64>() else { continue };
        if !owed.prompt.contains(connection) {
            continue;
        }
        match last.get(connection) {
            Some((before, earlier)) if record < *before => findings.disorder.push(format!(
                "message {} of {connection}, record {record}, is announced at {}, after record {before} at {}",
                fact.text("messageId"),
                fact.place(),
                earlier.place()
            )),
            _ => {
                last.insert(connection, (record, fact));
            }
        }
    }
}

/// What tells one announcement from another: a message may be announced again, under another origin.
fn announcement(fact: &Fact) -> (&str, &str) {
    (fact.text("eventId"), fact.text("origin"))
}

/// Each announcement is fetched once, and those of one connection in their order.
fn check_fetched(owed: &Owed, evidence: &Evidence, fetched: &[Fact], findings: &mut Findings) {
    let by_key = |facts: &'_ [Fact]| {
        let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, fact) in facts.iter().enumerate() {
            found.entry(fact.key.clone()).or_default().push(at);
        }
        found
    };
    let (announced, done) = (by_key(&evidence.discovered), by_key(fetched));
    for (key, done) in &done {
        let announced = announced.get(key).map(Vec::as_slice).unwrap_or_default();
        // Where each announcement stands among those of its key; the same may stand there several times.
        let mut places: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (place, at) in announced.iter().enumerate() {
            places.entry(announcement(&evidence.discovered[*at])).or_default().push(place);
        }
        places.values_mut().for_each(|places| places.reverse());
        let mut reached = None;
        for at in done {
            let fact = &fetched[*at];
            let what = format!("message {} of {key}, fetched at {}", fact.text("messageId"), fact.place());
            match places.get_mut(&announcement(fact)) {
                None => findings.strange.push(format!("{what}, was not announced")),
                Some(places) => match places.pop() {
                    None => findings.twice.push(format!("{what}, was fetched before")),
                    Some(place) if reached.is_some_and(|reached| place < reached) => {
                        findings.disorder.push(format!("{what}, comes after what was announced later"));
                    }
                    Some(place) => reached = Some(place),
                },
            }
        }
    }
    for (key, announced) in announced.iter().filter(|(key, _)| !owed.deleted.contains(*key)) {
        let (n_announced, n_done) = (announced.len(), done.get(key).map_or(0, Vec::len));
        if n_done < n_announced {
            findings.lost.push(format!("{} of {n_announced} announcements of {key} not fetched", n_announced - n_done));
        }
    }
}
