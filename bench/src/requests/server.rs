//! The bare route: fills a template, writes it, inserts the row with the rows of others, answers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

use crate::bare::{self, Bytes};

/// Rows of one insert at most.
const BATCH: usize = 1_000;

/// A command that Mailtide wrote, in which only the ids are exchanged.
pub(super) struct Template {
    command: Bytes,
    job_at: usize,
    connection_at: usize,
    job: String,
}

impl Template {
    /// The ids are those that the command has.
    pub(super) fn new(command: Bytes, job: Uuid, connection: Uuid) -> anyhow::Result<Self> {
        let find = |id: &str| command.value.windows(id.len()).position(|window| window == id.as_bytes());
        let (job, connection) = (job.to_string(), connection.to_string());
        let job_at = find(&job).context("The command's value holds the job's id as text")?;
        let connection_at = find(&connection).context("The command's value holds the connection's id as text")?;
        Ok(Self { command, job_at, connection_at, job })
    }

    /// The value for a job.
    fn value(&self, job: &str, connection: &str) -> Vec<u8> {
        let mut value = self.command.value.clone();
        value[self.job_at..self.job_at + job.len()].copy_from_slice(job.as_bytes());
        value[self.connection_at..self.connection_at + connection.len()].copy_from_slice(connection.as_bytes());
        value
    }

    /// The headers for a job.
    fn headers(&self, job: &str) -> rdkafka::message::OwnedHeaders {
        let headers = self.command.headers.iter().map(|(name, value)| {
            let is_job = value.as_slice() == self.job.as_bytes();
            (name.as_str(), if is_job { job.as_bytes() } else { value.as_slice() })
        });
        bare::headers(headers, self.command.headers.len())
    }
}

struct Row {
    job: Uuid,
    connection: Uuid,
    done: oneshot::Sender<()>,
}

struct Route {
    producer: FutureProducer,
    topic: String,
    template: Template,
    rows: mpsc::Sender<Row>,
}

/// The server.
pub(super) struct Bare {
    /// Where it listens.
    pub(super) address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Bare {
    pub(super) async fn start(
        kafka: &kafka::Settings,
        database: &str,
        schema: &str,
        template: Template,
    ) -> anyhow::Result<Self> {
        let topic = bare::create_topic(kafka, "bare").await?;
        let producer = bare::producer(kafka).create()?;
        let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
        tokio::spawn(connection);
        // As the table of jobs is, indices and all.
        let table = "CREATE TABLE bare_jobs (LIKE jobs INCLUDING ALL) WITH (fillfactor = 70)";
        client.batch_execute(&format!("SET search_path TO {schema}; {table}")).await?;
        let insert = client.prepare(INSERT).await?;
        let (rows, waiting) = mpsc::channel(4_096);
        let inserting = tokio::spawn(insert_all(client, insert, waiting));
        let route = Arc::new(Route { producer, topic, template, rows });
        let router = Router::new().route("/gmail-connections/{id}/sync", post(sync)).with_state(route);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| {
            // Only slower without it.
            let _ = stream.set_nodelay(true);
        });
        let serving = tokio::spawn(async move {
            // It never ends by itself.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, tasks: [inserting, serving] })
    }

    /// Stops it.
    pub(super) fn stop(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn sync(State(route): State<Arc<Route>>, Path(connection): Path<Uuid>) -> Response {
    match start(&route, connection).await {
        Ok(job) => {
            let location = HeaderValue::try_from(format!("/jobs/{job}")).expect("a UUID's text is a header value");
            let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (LOCATION, location)];
            (StatusCode::ACCEPTED, headers, format!(r#"{{"jobId":"{job}"}}"#)).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// Ends when the broker has the command and the row is there.
async fn start(route: &Route, connection: Uuid) -> anyhow::Result<String> {
    let now = crate::syncs::now().as_millis();
    let job = uuid::Builder::from_unix_timestamp_millis(u64::try_from(now)?, &rand::random()).into_uuid();
    let (text, key) = (job.to_string(), connection.to_string());
    let value = route.template.value(&text, &key);
    let headers = route.template.headers(&text);
    let record = FutureRecord::to(&route.topic).key(&key).payload(&value).headers(headers);
    let delivery = route.producer.send_result(record).map_err(|(error, _)| error)?;
    delivery.await?.map_err(|(error, _)| error)?;
    let (done, inserted) = oneshot::channel();
    route.rows.try_send(Row { job, connection, done })?;
    inserted.await?;
    Ok(text)
}

const INSERT: &str = "
    INSERT INTO bare_jobs (job_id, organisation_id, connection_id, trigger, state, rank, step, progress,
                           requested_at, deadline, changed_at)
    SELECT u.job_id, u.connection_id, u.connection_id, 'api', 'queued', 0, -1, $3,
           now(), now() + interval '1 hour', now()
    FROM unnest($1::uuid[], $2::uuid[]) AS u(job_id, connection_id)";

/// One insert at a time, each with all rows that came while the one before it ran.
async fn insert_all(client: Client, insert: Statement, mut waiting: mpsc::Receiver<Row>) {
    let progress = serde_json::to_value(domain::Progress::default()).expect("progress is numbers and names");
    let mut rows = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut rows, BATCH).await > 0 {
        let jobs: Vec<Uuid> = rows.iter().map(|row| row.job).collect();
        let connections: Vec<Uuid> = rows.iter().map(|row| row.connection).collect();
        let done = client.execute(&insert, &[&jobs, &connections, &progress]).await;
        for row in rows.drain(..) {
            // Whoever waits for a row that failed finds its sender dropped.
            if done.is_ok() {
                let _ = row.done.send(());
            }
        }
    }
}
