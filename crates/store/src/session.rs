//! One borrowed connection: every statement is prepared once per connection and bounded in time on this side too,
//! because a server that hangs does not keep its own time-outs.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Transaction};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Portal, Row};

use crate::{Error, Store};

pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How much longer than the server we wait for a statement: its own time-out should win, being the better error.
const GRACE: Duration = Duration::from_secs(1);

/// How long a connection that was left in the middle of a statement may take to finish it.
const PROBATION: Duration = Duration::from_secs(1);

/// A connection of the pool, for as long as one call takes.
pub(crate) struct Session {
    /// There until dropped.
    client: Option<Object>,
    bound: Bound,
}

/// What a statement runs under.
struct Bound {
    what: &'static str,
    timeout: Duration,
    /// A statement got no answer in time: the connection is not used again.
    suspect: AtomicBool,
    /// A statement has no answer yet.
    waits: AtomicBool,
}

/// A transaction; rolled back unless committed.
pub(crate) struct Tx<'s> {
    transaction: Transaction<'s>,
    bound: &'s Bound,
}

impl Store {
    /// A connection for `what`, words that complete "Could not …".
    pub(crate) async fn session(&self, what: &'static str) -> Result<Session, Error> {
        let client = self.pool.get().await.map_err(|error| Error::of_pool(what, error))?;
        let timeout = self.statement_timeout + GRACE;
        let bound = Bound { what, timeout, suspect: AtomicBool::new(false), waits: AtomicBool::new(false) };
        Ok(Session { client: Some(client), bound })
    }
}

impl Session {
    pub(crate) async fn rows(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        self.bound.rows(self.client(), sql, params).await
    }

    pub(crate) async fn row(&self, sql: &'static str, params: Params<'_>) -> Result<Option<Row>, Error> {
        self.bound.row(self.client(), sql, params).await
    }

    pub(crate) async fn execute(&self, sql: &'static str, params: Params<'_>) -> Result<u64, Error> {
        self.bound.execute(self.client(), sql, params).await
    }

    pub(crate) async fn transaction(&mut self) -> Result<Tx<'_>, Error> {
        let Self { client, bound } = self;
        let client = client.as_mut().expect("a session holds its connection until it is dropped");
        let transaction = bound.run(client.transaction()).await?;
        Ok(Tx { transaction, bound })
    }

    fn client(&self) -> &Object {
        self.client.as_ref().expect("a session holds its connection until it is dropped")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        if self.bound.suspect.load(Ordering::Relaxed) {
            close(client);
        } else if self.bound.waits.load(Ordering::Relaxed) {
            // Whoever waited has gone: its client left, or its own time was up before ours. If it went because Postgres
            // hangs, the next one would hang in this connection, too, and go as early, and never tell.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(probation(client))),
                Err(_) => close(client),
            }
        }
    }
}

/// Takes a connection out of the pool.
fn close(client: Object) {
    drop(Object::take(client));
}

/// Gives a connection back to the pool when it has answered what it was left with, and closes it when it does not.
async fn probation(client: Object) {
    match tokio::time::timeout(PROBATION, client.batch_execute("")).await {
        Ok(Ok(())) => drop(client),
        Ok(Err(_)) | Err(_) => close(client),
    }
}

impl Tx<'_> {
    pub(crate) async fn rows(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        self.bound.rows(&self.transaction, sql, params).await
    }

    pub(crate) async fn row(&self, sql: &'static str, params: Params<'_>) -> Result<Option<Row>, Error> {
        self.bound.row(&self.transaction, sql, params).await
    }

    pub(crate) async fn execute(&self, sql: &'static str, params: Params<'_>) -> Result<u64, Error> {
        self.bound.execute(&self.transaction, sql, params).await
    }

    /// Begins a statement whose answer is fetched in parts.
    pub(crate) async fn bind(&self, sql: &'static str, params: Params<'_>) -> Result<Portal, Error> {
        self.bound
            .run(async {
                let statement = self.transaction.prepare_cached(sql).await?;
                self.transaction.bind(&statement, params).await
            })
            .await
    }

    /// The next rows of an answer, fewer than `limit` when it is over.
    pub(crate) async fn fetch(&self, answer: &Portal, limit: u16) -> Result<Vec<Row>, Error> {
        self.bound.run(self.transaction.query_portal(answer, limit.into())).await
    }

    pub(crate) async fn commit(self) -> Result<(), Error> {
        self.bound.run(self.transaction.commit()).await
    }
}

impl Bound {
    async fn rows(&self, client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        self.run(async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        })
        .await
    }

    async fn row(&self, client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Option<Row>, Error> {
        self.run(async {
            let statement = client.prepare_cached(sql).await?;
            client.query_opt(&statement, params).await
        })
        .await
    }

    async fn execute(&self, client: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        self.run(async {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, params).await
        })
        .await
    }

    async fn run<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
        self.waits.store(true, Ordering::Relaxed);
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => {
                self.waits.store(false, Ordering::Relaxed);
                result.map_err(|error| Error::of(self.what, error))
            }
            Err(_) => {
                self.suspect.store(true, Ordering::Relaxed);
                Err(Error::unavailable(self.what, format!("no answer within {:?}", self.timeout)))
            }
        }
    }
}
