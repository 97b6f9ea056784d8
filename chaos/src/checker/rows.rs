//! Rows: what the topics fold to, and the tables, read with SQL of the checker's own.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::Value;

use super::evidence::{Evidence, Fact, Place};

/// The latest fact of each connection; nothing follows the forgetting of one.
pub(super) fn fold_connections(evidence: &Evidence) -> BTreeMap<String, Value> {
    let mut folded: BTreeMap<String, &Fact> = BTreeMap::new();
    for fact in &evidence.connections {
        let stands = folded.entry(fact.text("connectionId").to_owned()).or_insert(fact);
        if stands.text("status") != "forgotten" && stands.step() < fact.step() {
            *stands = fact;
        }
    }
    folded.into_iter().map(|(id, fact)| (id, of_connection(&fact.value))).collect()
}

pub(super) fn compare(
    what: &str,
    folded: &BTreeMap<String, Value>,
    rows: &BTreeMap<String, Value>,
    found: &mut Vec<String>,
) {
    let ids: BTreeSet<&String> = folded.keys().chain(rows.keys()).collect();
    for id in ids {
        let (topics, row) = (folded.get(id), rows.get(id));
        if topics != row {
            let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
            found.push(format!("{what} {id}: the topics say {}, the row {}", text(topics), text(row)));
        }
    }
}

/// The members of `value` under these names, as one object; null where it has none.
fn pick(value: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), value[*name].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// What of a fact the row of its job tells.
pub(super) fn of_job(fact: &Value) -> Value {
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

fn of_connection(fact: &Value) -> Value {
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

/// A connection to the database of a place.
pub(super) struct Rows(tokio_postgres::Client);

impl Rows {
    pub(super) async fn connect(place: &Place) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(&place.database, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(&format!("SET search_path = {}; SET timezone = 'UTC'", place.schema)).await?;
        Ok(Self(client))
    }

    async fn objects(&self, sql: &str) -> anyhow::Result<BTreeMap<String, Value>> {
        let rows = self.0.query(sql, &[]).await.context("reading the rows")?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub(super) async fn jobs(&self) -> anyhow::Result<BTreeMap<String, Value>> {
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

    pub(super) async fn connections(&self) -> anyhow::Result<BTreeMap<String, Value>> {
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
