//! Jobs followed by server-sent events.

use std::collections::BTreeMap;

use domain::{GmailJobStatusChanged, JobState, Progress, Trigger};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use store::keys;

use super::api::{Api, KEY, assert_problem, now, tenant};
use super::facts::{fact, project};
use crate::support::{LONG, Place, wait_until};

/// One event as it came.
#[derive(Debug)]
struct Event {
    id: String,
    job: Value,
}

impl Event {
    fn state(&self) -> &str {
        self.job["state"].as_str().unwrap()
    }
}

/// A stream that is read.
struct Reader {
    answer: Response,
    text: String,
    comments: usize,
}

impl Reader {
    fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Self { answer, text: String::new(), comments: 0 }
    }

    /// The next event; none when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let fields: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once(':')).collect();
                if block.starts_with(':') {
                    self.comments += 1;
                    continue;
                }
                assert_eq!(fields["event"].trim(), "job", "{block}");
                let job = serde_json::from_str(fields["data"]).unwrap();
                return Some(Event { id: fields["id"].trim().to_owned(), job });
            }
            let bytes = tokio::time::timeout(LONG, self.answer.chunk()).await.expect("the stream says something");
            self.text += std::str::from_utf8(&bytes.ok()??).unwrap();
        }
    }

    /// Reads until the stream has ended.
    async fn end(&mut self) {
        while self.next().await.is_some() {}
    }
}

fn events(job: &GmailJobStatusChanged) -> String {
    format!("/jobs/{}/events", job.job_id)
}

async fn follow(api: &Api, path: &str) -> Reader {
    Reader::of(api.request(Method::GET, path).send().await.unwrap())
}

async fn queued(api: &Api) -> GmailJobStatusChanged {
    let job = fact(api, JobState::Queued, Trigger::Api, now());
    project(api, std::slice::from_ref(&job)).await;
    job
}

/// The next fact about a job.
fn next(job: &GmailJobStatusChanged, state: JobState, pages: i64) -> GmailJobStatusChanged {
    let progress = Progress { pages, ..Progress::default() };
    let ended_at = state.is_terminal().then(now);
    GmailJobStatusChanged { state, step: job.step + 1, progress, ended_at, at: now(), ..job.clone() }
}

async fn with(name: &str, changes: &[(&str, &str)]) -> Api {
    let place = Place::new(name);
    let mut settings = place.settings();
    settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Api::start_with(place, settings).await
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_on_every_instance() {
    let api = Api::start("follow").await;
    let beside = api.beside().await;
    let job = queued(&api).await;
    let path = events(&job);
    let there = api.client.get(format!("{}{path}", beside.base)).header(KEY, &api.tenant.key).send().await.unwrap();
    let mut readers = [follow(&api, &path).await, Reader::of(there)];
    for reader in &mut readers {
        assert_eq!(reader.next().await.unwrap().state(), "queued");
    }
    let running = next(&job, JobState::Running, 1);
    project(&api, std::slice::from_ref(&running)).await;
    for reader in &mut readers {
        let event = reader.next().await.unwrap();
        assert_eq!((event.state(), &event.job["progress"]["pages"]), ("running", &1.into()));
    }
    let further = next(&running, JobState::Running, 2);
    project(&api, std::slice::from_ref(&further)).await;
    for reader in &mut readers {
        assert_eq!(reader.next().await.unwrap().job["progress"]["pages"], 2);
    }
    let ended = next(&further, JobState::Succeeded, 3);
    project(&api, std::slice::from_ref(&ended)).await;
    let shown: Value =
        api.request(Method::GET, &format!("/jobs/{}", job.job_id)).send().await.unwrap().json().await.unwrap();
    for reader in &mut readers {
        let event = reader.next().await.unwrap();
        assert_eq!(event.job, shown, "the event is what a look shows");
        assert!(reader.next().await.is_none(), "it ends at the end");
    }
}

#[tokio::test]
async fn a_stream_is_resumed_without_what_was_seen() {
    let api = Api::start("resume").await;
    let job = queued(&api).await;
    let path = events(&job);
    let first = follow(&api, &path).await.next().await.unwrap();
    let resume = async |id: &str| api.request(Method::GET, &path).header("last-event-id", id).send().await.unwrap();

    let mut reader = Reader::of(resume(&first.id).await);
    let running = next(&job, JobState::Running, 1);
    project(&api, std::slice::from_ref(&running)).await;
    assert_eq!(reader.next().await.unwrap().state(), "running", "what was seen is not sent again");

    // What was missed is: the newest state tells all of it.
    let ended = next(&running, JobState::Failed, 2);
    project(&api, std::slice::from_ref(&ended)).await;
    let mut reader = Reader::of(resume(&first.id).await);
    let last = reader.next().await.unwrap();
    assert_eq!(last.state(), "failed");
    assert!(reader.next().await.is_none());

    assert_eq!(resume(&last.id).await.status(), StatusCode::NO_CONTENT, "an EventSource comes back no more");
    for nonsense in ["", "x", "9.9.9", "-1"] {
        assert_eq!(Reader::of(resume(nonsense).await).next().await.unwrap().state(), "failed", "{nonsense}");
    }
}

#[tokio::test]
async fn a_stream_that_says_nothing_shows_that_it_lives_and_ends_in_time() {
    let changes = [("MAILTIDE_INGRESS_STREAM_HEARTBEAT", "50ms"), ("MAILTIDE_INGRESS_STREAM_AGE", "2s")];
    let api = with("heartbeat", &changes).await;
    let mut reader = follow(&api, &events(&queued(&api).await)).await;
    assert_eq!(reader.next().await.unwrap().state(), "queued");
    reader.end().await;
    assert!(reader.comments > 0, "there were signs of life");
}

#[tokio::test]
async fn streams_are_bounded_for_a_key_and_come_free_again() {
    let api = with("streams", &[("MAILTIDE_INGRESS_STREAMS", "3"), ("MAILTIDE_INGRESS_STREAMS_PER_KEY", "2")]).await;
    let path = events(&queued(&api).await);
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(follow(&api, &path).await);
    }
    let ask = || async { api.request(Method::GET, &path).send().await.unwrap() };
    assert_problem(ask().await, 429, "Job.TooManyStreams").await;
    let (_, other) =
        keys::create(&api.store, api.tenant.organisation, "other", &[keys::Scope::Read], now()).await.unwrap();
    let other = secrecy::ExposeSecret::expose_secret(&other);
    let ask_too = || async { api.request_as(other, Method::GET, &path).send().await.unwrap() };
    let third = Reader::of(ask_too().await);
    assert_problem(ask_too().await, 503, "Server.Overloaded").await;
    drop((open, third));
    wait_until(LONG, "a stream is free", || async { ask().await.status() == StatusCode::OK }).await;
}

/// A client that opens a stream and never reads of it holds its share no longer than a stream may go on.
#[tokio::test]
async fn a_client_that_never_reads_is_dropped() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let changes = [
        ("MAILTIDE_INGRESS_STREAMS_PER_KEY", "1"),
        ("MAILTIDE_INGRESS_STREAM_AGE", "1s"),
        ("MAILTIDE_INGRESS_STREAM_HEARTBEAT", "10ms"),
    ];
    let api = with("never-reads", &changes).await;
    let path = events(&queued(&api).await);
    let mut deaf = tokio::net::TcpStream::connect(api.base.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{KEY}: {}\r\n\r\n", api.tenant.key);
    deaf.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    deaf.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    wait_until(LONG, "its stream is dropped", || async {
        api.request(Method::GET, &path).send().await.unwrap().status() == StatusCode::OK
    })
    .await;
    drop(deaf);
}

#[tokio::test]
async fn a_revoked_keys_streams_end() {
    let api = Api::start("revoked-stream").await;
    let mut reader = follow(&api, &events(&queued(&api).await)).await;
    assert_eq!(reader.next().await.unwrap().state(), "queued");
    assert!(keys::revoke(&api.store, api.tenant.organisation, api.tenant.key_id, now()).await.unwrap());
    reader.end().await;
}

#[tokio::test]
async fn streams_end_when_the_service_stops() {
    let api = Api::start("stop-stream").await;
    let mut reader = follow(&api, &events(&queued(&api).await)).await;
    assert_eq!(reader.next().await.unwrap().state(), "queued");
    api.stop();
    tokio::time::timeout(LONG, reader.end()).await.expect("the stream ends");
}

#[tokio::test]
async fn a_job_of_another_is_not_followed() {
    let api = Api::start("other-stream").await;
    let stranger = tenant(&api.store).await;
    let path = events(&queued(&api).await);
    let answer = api.request_as(&stranger.key, Method::GET, &path).send().await.unwrap();
    assert_problem(answer, 404, "Job.NotFound").await;
    let nobody = api.request(Method::GET, "/jobs/x/events").send().await.unwrap();
    assert_problem(nobody, 404, "Job.NotFound").await;
}
