//! The independent checker: compares what was owed with everything that is committed.
//!
//! It shares no decision with the services. Records are decoded by the codec and looked at as JSON; rows are read with
//! SQL of its own; which origins may name a message once, which states are final and how facts fold into a row is
//! written here a second time, from the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::house::House;
use crate::support::{Place, Record};

/// What the outside world knows: all of it must be found in the topics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owed {
    /// The messages of each connection that have to be announced.
    pub(crate) messages: BTreeMap<String, BTreeSet<String>>,
    /// Messages that may be announced, but need not: kept back by policy at one time or another.
    pub(crate) allowed: BTreeMap<String, BTreeSet<String>>,
    /// The jobs that were answered with 202.
    pub(crate) accepted: BTreeSet<String>,
}

/// Everything committed in the topics of a place, and the rows in its database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// `gmail.connection.poll`, what of it decodes.
    pub(crate) commands: Vec<Fact>,
    /// `gmail.message.discovered`.
    pub(crate) discovered: Vec<Fact>,
    /// `gmail.job.status`.
    pub(crate) jobs: Vec<Fact>,
    /// `gmail.connection.status`.
    pub(crate) connections: Vec<Fact>,
    /// The table `jobs`, by id; none: nobody keeps rows here.
    pub(crate) job_rows: Option<BTreeMap<String, Value>>,
    /// The table `connection_states`, by id.
    pub(crate) connection_rows: Option<BTreeMap<String, Value>>,
}

/// One decoded record.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) key: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) value: Value,
}

impl Fact {
    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    fn step(&self) -> i64 {
        self.value["step"].as_i64().unwrap_or(i64::MIN)
    }
}

/// What is wrong. Each entry names the record or row by its ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Messages that were owed and never announced, and jobs that were accepted and never heard of.
    pub(crate) lost: Vec<String>,
    /// Messages announced more than once as live or catch-up in one connection.
    pub(crate) twice: Vec<String>,
    /// Announcements of messages that do not exist, under another id than their own, or under another key.
    pub(crate) strange: Vec<String>,
    /// Jobs without an end.
    pub(crate) open: Vec<String>,
    /// Jobs that ended more than once, or told something after their end, or went back.
    pub(crate) changed: Vec<String>,
    /// Rows that are not what the topics fold to.
    pub(crate) rows: Vec<String>,
    /// How much was looked at: messages owed, records, jobs.
    pub(crate) looked_at: (usize, usize, usize),
}

impl Findings {
    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.rows.is_empty() && self.is_clean_but_for_rows()
    }

    /// Whether nothing is wrong with the topics; rows follow them after a moment.
    pub(crate) fn is_clean_but_for_rows(&self) -> bool {
        let Self { lost, twice, strange, open, changed, rows: _, looked_at: _ } = self;
        [lost, twice, strange, open, changed].iter().all(|found| found.is_empty())
    }
}

/// So many findings of a kind are shown.
const SHOWN: usize = 10;

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, records, jobs) = self.looked_at;
        writeln!(f, "{messages} messages owed, {records} announcements, {jobs} jobs")?;
        let kinds = [
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("strange announcements", &self.strange),
            ("jobs open", &self.open),
            ("jobs that changed after their end or went back", &self.changed),
            ("rows unlike the topics", &self.rows),
        ];
        for (kind, found) in kinds {
            writeln!(f, "  {kind}: {}", found.len())?;
            for one in found.iter().take(SHOWN) {
                writeln!(f, "    {one:.400}")?;
            }
        }
        Ok(())
    }
}

/// The two origins under which a message is announced once.
const ONCE: [&str; 2] = ["live", "catch_up"];

/// Compares.
pub(crate) fn check(owed: &Owed, evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    check_messages(owed, evidence, &mut findings);
    let folded = check_jobs(owed, evidence, &mut findings);
    if let Some(rows) = &evidence.job_rows {
        compare("job", &folded, rows, &mut findings.rows);
    }
    if let Some(rows) = &evidence.connection_rows {
        compare("connection", &fold_connections(evidence), rows, &mut findings.rows);
    }
    findings.looked_at = (owed.messages.values().map(BTreeSet::len).sum(), evidence.discovered.len(), folded.len());
    findings
}

fn check_messages(owed: &Owed, evidence: &Evidence, findings: &mut Findings) {
    let mut announced: BTreeMap<(&str, &str), Vec<&Fact>> = BTreeMap::new();
    let mut event_ids: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
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
            findings.strange.push(format!("{name:?} at {}/{} is nobody's mail", fact.partition, fact.offset));
        }
    }
    for (name, facts) in &announced {
        let ids: BTreeSet<&str> = facts.iter().map(|fact| fact.text("eventId")).collect();
        if ids.len() > 1 {
            findings.strange.push(format!("{name:?} has several event ids: {ids:?}"));
        }
        let once: Vec<_> = facts.iter().filter(|fact| ONCE.contains(&fact.text("origin"))).collect();
        if once.len() > 1 {
            let places: Vec<_> = once.iter().map(|fact| (fact.partition, fact.offset, fact.text("origin"))).collect();
            findings.twice.push(format!("{name:?} at {places:?}"));
        }
    }
    for (connection, messages) in &owed.messages {
        let missing = messages.iter().filter(|id| !announced.contains_key(&(connection.as_str(), id.as_str())));
        findings.lost.extend(missing.map(|id| format!("message {id} of {connection}")));
    }
}

fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled")
}

/// Checks the jobs; gives what each folds to: the first final fact, else the latest.
fn check_jobs(owed: &Owed, evidence: &Evidence, findings: &mut Findings) -> BTreeMap<String, Value> {
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
                let states: Vec<_> = facts.iter().map(|fact| (fact.text("state"), fact.step(), fact.offset)).collect();
                findings.changed.push(format!("job {id}: {states:?}"));
            }
        }
        if facts.windows(2).any(|pair| pair[0].step() >= pair[1].step() || rank(pair[0]) > rank(pair[1])) {
            let steps: Vec<_> = facts.iter().map(|fact| (fact.text("state"), fact.step())).collect();
            findings.changed.push(format!("job {id} went back: {steps:?}"));
        }
        let stands = finals.first().copied().or(facts.iter().max_by_key(|fact| (rank(fact), fact.step())));
        if let Some(stands) = stands {
            folded.insert(id.to_owned(), job_row(&stands.value));
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

/// The latest fact of each connection; nothing follows the forgetting of one.
fn fold_connections(evidence: &Evidence) -> BTreeMap<String, Value> {
    let mut folded: BTreeMap<String, &Fact> = BTreeMap::new();
    for fact in &evidence.connections {
        let stands = folded.entry(fact.text("connectionId").to_owned()).or_insert(fact);
        if stands.text("status") != "forgotten" && stands.step() < fact.step() {
            *stands = fact;
        }
    }
    folded.into_iter().map(|(id, fact)| (id, connection_row(&fact.value))).collect()
}

fn compare(what: &str, folded: &BTreeMap<String, Value>, rows: &BTreeMap<String, Value>, found: &mut Vec<String>) {
    let ids: BTreeSet<&String> = folded.keys().chain(rows.keys()).collect();
    for id in ids {
        let (topics, row) = (folded.get(id), rows.get(id));
        if topics != row {
            let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
            found.push(format!("{what} {id}: the topics say {}, the row {}", text(topics), text(row)));
        }
    }
}

/// The members of `value` under these names, as one object.
fn pick(value: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), value[*name].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// What of a fact the row of its job tells.
fn job_row(fact: &Value) -> Value {
    let names = [
        "organisationId",
        "connectionId",
        "trigger",
        "state",
        "step",
        "progress",
        "requestedAt",
        "startedAt",
        "endedAt",
        "deadline",
        "code",
        "detail",
        "at",
    ];
    let mut row = pick(fact, &names);
    // The row keeps the window as milliseconds.
    if let Some(window) = row["progress"]["window"].as_object_mut() {
        for instant in window.values_mut() {
            let at: Option<jiff::Timestamp> = instant.as_str().and_then(|text| text.parse().ok());
            *instant = at.map_or(Value::Null, |at| at.as_millisecond().into());
        }
    }
    row
}

fn connection_row(fact: &Value) -> Value {
    let names = [
        "organisationId",
        "status",
        "step",
        "lastHistoryId",
        "lastSyncedAt",
        "tokenVersion",
        "code",
        "at",
        "watchExpiresAt",
        "lastPushAt",
        "unitsToday",
        "unitsDay",
    ];
    pick(fact, &names)
}

impl Evidence {
    /// Reads everything that is committed in a house's topics. `rows`: also the tables that its projector keeps.
    pub(crate) async fn gather(house: &House, rows: bool) -> Self {
        let facts = async |topic: &str| facts(&house.committed(topic).await, topic);
        let mut evidence = Self {
            commands: facts("gmail.connection.poll").await,
            discovered: facts("gmail.message.discovered").await,
            jobs: facts("gmail.job.status").await,
            connections: facts("gmail.connection.status").await,
            ..Self::default()
        };
        if rows {
            let database = Rows::connect(&house.place).await;
            evidence.job_rows = Some(database.jobs().await);
            evidence.connection_rows = Some(database.connections().await);
        }
        evidence
    }
}

/// The records that decode. Only commands may fail to, since anybody may write them.
fn facts(records: &[Record], topic: &str) -> Vec<Fact> {
    let facts = records.iter().filter_map(|record| {
        let value = record.value.as_deref()?;
        match events::to_json(value) {
            Ok(value) => {
                Some(Fact { key: record.key_text(), partition: record.partition, offset: record.offset, value })
            }
            Err(_) if topic == "gmail.connection.poll" => None,
            Err(error) => panic!("{topic} {}/{} does not decode: {error}", record.partition, record.offset),
        }
    });
    facts.collect()
}

/// The tables, read with SQL of the checker's own.
pub(crate) struct Rows(tokio_postgres::Client);

impl Rows {
    /// Connects to the database of `place`.
    pub(crate) async fn connect(place: &Place) -> Self {
        let settings = place.settings();
        let schema = settings.get("MAILTIDE_DATABASE_SCHEMA").map_or("mailtide", String::as_str);
        let (client, connection) = tokio_postgres::connect(place.database_url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("SET search_path = {schema}; SET timezone = 'UTC'")).await.unwrap();
        Self(client)
    }

    async fn objects(&self, sql: &str) -> BTreeMap<String, Value> {
        let rows = self.0.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn jobs(&self) -> BTreeMap<String, Value> {
        let sql = format!(
            "SELECT job_id::text, json_build_object(
                 'organisationId', organisation_id, 'connectionId', connection_id, 'trigger', trigger, 'state', state,
                 'step', step, 'progress', progress, 'requestedAt', {}, 'startedAt', {}, 'endedAt', {}, 'deadline', {},
                 'code', code, 'detail', detail, 'at', {}) FROM jobs",
            rfc3339("requested_at"),
            rfc3339("started_at"),
            rfc3339("ended_at"),
            rfc3339("deadline"),
            rfc3339("changed_at"),
        );
        self.objects(&sql).await
    }

    async fn connections(&self) -> BTreeMap<String, Value> {
        let sql = format!(
            "SELECT connection_id::text, json_build_object(
                 'organisationId', organisation_id, 'status', state, 'step', step, 'lastHistoryId', last_history_id,
                 'lastSyncedAt', {}, 'tokenVersion', token_version, 'code', code, 'at', {}, 'watchExpiresAt', {},
                 'lastPushAt', {}, 'unitsToday', units_today, 'unitsDay', {}) FROM connection_states",
            rfc3339("last_synced_at"),
            rfc3339("changed_at"),
            rfc3339("watch_expires_at"),
            rfc3339("last_push_at"),
            rfc3339("units_day"),
        );
        self.objects(&sql).await
    }
}

/// SQL for a time as the records have it.
fn rfc3339(column: &str) -> String {
    format!("to_char({column}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fact(key: &str, offset: i64, value: Value) -> Fact {
        Fact { key: key.to_owned(), partition: 0, offset, value }
    }

    fn discovered(message: &str, origin: &str, offset: i64) -> Fact {
        let value =
            json!({"connectionId": "c", "messageId": message, "eventId": format!("e-{message}"), "origin": origin});
        fact("c", offset, value)
    }

    fn job(state: &str, step: i64) -> Fact {
        fact("j", step, json!({"jobId": "j", "state": state, "step": step, "progress": {"window": null}}))
    }

    /// A message, announced once; a job, ended once; its row.
    fn sound() -> (Owed, Evidence) {
        let owed = Owed {
            messages: BTreeMap::from([("c".to_owned(), BTreeSet::from(["1".to_owned()]))]),
            accepted: BTreeSet::from(["j".to_owned()]),
            ..Owed::default()
        };
        let jobs = vec![job("queued", 1), job("running", 2), job("succeeded", 3)];
        let evidence = Evidence {
            commands: vec![fact("c", 0, json!({"jobId": "j"}))],
            discovered: vec![discovered("1", "live", 0)],
            job_rows: Some(BTreeMap::from([("j".to_owned(), job_row(&jobs[2].value))])),
            jobs,
            ..Evidence::default()
        };
        (owed, evidence)
    }

    /// The findings after one thing went wrong.
    fn after(damage: impl FnOnce(&mut Owed, &mut Evidence)) -> Findings {
        let (mut owed, mut evidence) = sound();
        damage(&mut owed, &mut evidence);
        check(&owed, &evidence)
    }

    #[test]
    fn the_checker_finds_nothing_wrong_where_nothing_is() {
        let findings = after(|_, _| {});
        assert!(findings.is_clean(), "{findings}");
        // Other origins may name a message again.
        for origin in ["gap", "backfill", "audit", "replay"] {
            let findings = after(|_, evidence| evidence.discovered.push(discovered("1", origin, 1)));
            assert!(findings.is_clean(), "{findings}");
        }
    }

    #[test]
    fn the_checker_finds_each_kind_of_damage() {
        let lost = after(|_, evidence| evidence.discovered.clear());
        assert_eq!(lost.lost.len(), 1, "{lost}");
        for again in ONCE {
            let twice = after(|_, evidence| evidence.discovered.push(discovered("1", again, 1)));
            assert_eq!(twice.twice.len(), 1, "{twice}");
        }
        let strange = after(|_, evidence| evidence.discovered.push(discovered("2", "live", 1)));
        assert_eq!(strange.strange.len(), 1, "{strange}");
        let other_id = after(|_, evidence| {
            let mut again = discovered("1", "backfill", 1);
            again.value["eventId"] = "another".into();
            evidence.discovered.push(again);
        });
        assert_eq!(other_id.strange.len(), 1, "{other_id}");
        let open = after(|_, evidence| evidence.jobs.truncate(2));
        assert_eq!(open.open.len(), 1, "{open}");
        let never_heard_of = after(|owed, _| owed.accepted.extend(["k".to_owned()]));
        assert_eq!(never_heard_of.lost.len(), 1, "{never_heard_of}");
        let changed = after(|_, evidence| evidence.jobs.push(job("failed", 4)));
        assert_eq!(changed.changed.len(), 1, "{changed}");
        let after_the_end = after(|_, evidence| evidence.jobs.push(job("running", 4)));
        assert!(!after_the_end.changed.is_empty(), "{after_the_end}");
        let back = after(|_, evidence| evidence.jobs[1].value["step"] = 1.into());
        assert_eq!(back.changed.len(), 1, "{back}");
        let row = after(|_, evidence| {
            evidence.job_rows.iter_mut().flat_map(BTreeMap::values_mut).for_each(|row| row["state"] = "failed".into());
        });
        assert_eq!(row.rows.len(), 1, "{row}");
        let no_row = after(|_, evidence| evidence.job_rows = Some(BTreeMap::new()));
        assert_eq!(no_row.rows.len(), 1, "{no_row}");
    }
}
