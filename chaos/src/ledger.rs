//! What was promised: noted by the load as it is answered, and held against what came true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use anyhow::Context;
use simulator::Control;
use tokio_postgres::NoTls;

use crate::checker::Owed;
use crate::world::World;

/// Labels that keep a message out of the announcements for good, and those that keep it back until they are gone.
const OUT: [&str; 2] = ["DRAFT", "CHAT"];
const KEPT_BACK: [&str; 2] = ["SPAM", "TRASH"];

/// What was answered with success.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    accepted: Vec<String>,
    connected: BTreeMap<String, String>,
    deleted: BTreeSet<String>,
    /// Mailboxes that hide their history for a while.
    lagging: BTreeSet<String>,
}

impl Ledger {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with the ledger")
    }

    pub(crate) fn accepted(&self, job: String) {
        self.inner().accepted.push(job);
    }

    pub(crate) fn n_accepted(&self) -> usize {
        self.inner().accepted.len()
    }

    /// One of the jobs accepted of late.
    pub(crate) fn recent(&self, back: usize) -> Option<String> {
        let inner = self.inner();
        inner.accepted.iter().rev().nth(back).cloned()
    }

    pub(crate) fn lags(&self, email: &str) {
        self.inner().lagging.insert(email.to_owned());
    }

    pub(crate) fn connected(&self, connection: &str, email: &str) {
        self.inner().connected.insert(connection.to_owned(), email.to_owned());
    }

    pub(crate) fn deleted(&self, connection: &str) {
        self.inner().deleted.insert(connection.to_owned());
    }

    /// Connections that are there, as far as was answered.
    pub(crate) fn living(&self) -> Vec<(String, String)> {
        let inner = self.inner();
        let living = inner.connected.iter().filter(|(id, _)| !inner.deleted.contains(*id));
        living.map(|(id, email)| (id.clone(), email.clone())).collect()
    }

    /// All that is owed: the promises, the connections as the database has them, and what is in their mailboxes.
    pub(crate) async fn owed(&self, world: &World) -> anyhow::Result<Owed> {
        let connections = Connections::read(world).await?;
        let control = world.simulator.control();
        let inner = self.inner();
        let mut owed = Owed { accepted: inner.accepted.iter().cloned().collect(), ..Owed::default() };
        for (id, email) in &inner.connected {
            if !connections.0.contains_key(id) {
                owed.promises_broken.push(format!("connection {id} of {email} was made and is not there"));
            }
        }
        for id in &inner.deleted {
            if connections.0.get(id).is_some_and(|connection| !connection.revoked) {
                owed.promises_broken.push(format!("connection {id} was deleted and is there"));
            }
        }
        for (id, connection) in &connections.0 {
            // Whose address is forgotten with the connection is known by who connected it.
            let email = inner.connected.get(id).unwrap_or(&connection.email);
            let (messages, allowed) = mail(control, email)?;
            if connection.revoked {
                owed.deleted.insert(id.clone());
                owed.allowed.insert(id.clone(), messages.into_iter().chain(allowed).collect());
            } else {
                owed.messages.insert(id.clone(), messages);
                owed.allowed.insert(id.clone(), allowed);
            }
            if !inner.lagging.contains(email) {
                owed.prompt.insert(id.clone());
            }
        }
        let refused = control.usage().mailboxes.into_iter().filter(|(_, spent)| spent.throttled > 0);
        owed.over_budget =
            refused.map(|(email, spent)| format!("{} calls for {email} were refused", spent.throttled)).collect();
        Ok(owed)
    }
}

/// The messages of a mailbox that have to be announced, and those that may.
fn mail(control: &Control, email: &str) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut owed, mut allowed) = (BTreeSet::new(), BTreeSet::new());
    for message in control.messages(email)? {
        let has = |labels: &[&str]| message.label_ids.iter().any(|label| labels.contains(&label.as_str()));
        if has(&OUT) {
            continue;
        }
        if message.gone || has(&KEPT_BACK) {
            allowed.insert(message.id);
        } else {
            owed.insert(message.id);
        }
    }
    Ok((owed, allowed))
}

/// The connections of the database, by id.
pub(crate) struct Connections(pub(crate) BTreeMap<String, Connection>);

pub(crate) struct Connection {
    pub(crate) email: String,
    pub(crate) revoked: bool,
}

impl Connections {
    pub(crate) async fn read(world: &World) -> anyhow::Result<Self> {
        let rows = query(world, "SELECT connection_id::text, email, revoked_at IS NOT NULL FROM connections").await?;
        let connection =
            |row: &tokio_postgres::Row| (row.get(0), Connection { email: row.get(1), revoked: row.get(2) });
        Ok(Self(rows.iter().map(connection).collect()))
    }
}

/// How much is still to be done, as the database sees it: jobs without an end, deletions and consents half done.
pub(crate) async fn unfinished(world: &World) -> anyhow::Result<i64> {
    let sql = "SELECT (SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled'))
                    + (SELECT count(*) FROM connections WHERE revoked_at IS NOT NULL AND forgotten_at IS NULL)
                    + (SELECT count(*) FROM first_syncs)";
    let rows = query(world, sql).await?;
    Ok(rows.first().context("a count is a row")?.get(0))
}

/// Asks the database, by no way of ours.
pub(crate) async fn query(world: &World, sql: &str) -> anyhow::Result<Vec<tokio_postgres::Row>> {
    let (client, connection) = tokio_postgres::connect(world.database.url(), NoTls).await.context("connecting")?;
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path = {}", world.database.schema().unwrap_or("mailtide"))).await?;
    let rows = client.query(sql, &[]).await.with_context(|| format!("asking the database: {sql}"))?;
    drop(client);
    connection.await??;
    Ok(rows)
}
