//! A look right after a 202 is never a 404: ten thousand in a row, on the whole pipeline under load, with the projector
//! hung for half of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_postgres::NoTls;

use super::api::KEY;
use crate::house::{House, Mailbox};
use crate::support::{LONG, wait_for, wait_until};

/// Pairs of a sync and a look, by so many clients at a time, over so many mailboxes.
const PAIRS: usize = 10_000;
const CLIENTS: usize = 48;
const MAILBOXES: usize = 80;

/// The projector hangs from this pair to that.
const HANGS: std::ops::Range<usize> = 2_500..7_500;

/// What the clients ask through: two instances, as behind a balancer.
struct Clients {
    house: Arc<House>,
    bases: [String; 2],
    mailboxes: Vec<Mailbox>,
    done: AtomicUsize,
}

impl Clients {
    fn request(&self, instance: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.bases[instance % 2]);
        self.house.http().request(method, url).header(KEY, self.house.api_key())
    }

    /// A sync that is taken, and the look right after it, at the other instance; gives the job.
    ///
    /// A loaded machine may time out either, which is a 503 and asked again; what must never come is a 404.
    async fn pair(&self, number: usize) -> String {
        let sync = format!("/gmail-connections/{}/sync", self.mailboxes[number % MAILBOXES].id);
        let job = wait_for(LONG, "the sync is taken", || async {
            let answer = self.request(number, Method::POST, &sync).send().await.ok()?;
            let status = answer.status();
            assert!(matches!(status.as_u16(), 202 | 503), "{status}");
            (status == StatusCode::ACCEPTED).then(|| answer.headers()["location"].to_str().unwrap().to_owned())
        })
        .await;
        wait_until(LONG, "the job can be read", || async {
            let Ok(answer) = self.request(number + 1, Method::GET, &job).send().await else { return false };
            let status = answer.status();
            assert!(matches!(status.as_u16(), 200 | 503), "{status} right after a 202");
            status == StatusCode::OK
        })
        .await;
        self.done.fetch_add(1, Ordering::Relaxed);
        job
    }

    /// What else is asked meanwhile, over and over, until all pairs are done.
    async fn other_traffic(&self) {
        for round in 0.. {
            if self.done.load(Ordering::Relaxed) >= PAIRS {
                return;
            }
            let id = self.mailboxes[round % MAILBOXES].id;
            let asked = [
                self.request(round, Method::GET, "/jobs?Limit=100"),
                self.request(round, Method::GET, &format!("/gmail-connections/{id}/jobs?Limit=20")),
                self.request(round, Method::GET, "/gmail-connections"),
                self.request(round, Method::POST, &format!("/gmail-connections/{id}/sync"))
                    .header("idempotency-key", format!("round-{round}")),
                self.request(round, Method::PATCH, &format!("/gmail-connections/{id}"))
                    .json(&json!({"syncIntervalHours": 1 + round % 24})),
            ];
            for request in asked {
                if let Ok(answer) = request.send().await {
                    let status = answer.status();
                    assert!(status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_looks_right_after_a_202_find_the_job_though_the_projector_hangs() {
    let house = House::new("right-after").await;
    let mut bases = Vec::new();
    let mut instances = Vec::new();
    for _ in 0..2 {
        instances.push(house.ingress().await);
        bases.push(house.url(""));
    }
    let mut projector = house.process("projector", "projector");
    projector.start().ready().await;
    let poller = house.poller("one");
    poller.ready().await;
    let mut mailboxes = Vec::new();
    for number in 0..MAILBOXES {
        mailboxes.push(house.mailbox(&format!("m{number}")).await);
    }
    let clients = Arc::new(Clients {
        house: Arc::clone(&house),
        bases: bases.try_into().unwrap(),
        mailboxes,
        done: AtomicUsize::new(0),
    });

    let beside: Vec<_> = (0..2)
        .map(|_| {
            let clients = Arc::clone(&clients);
            tokio::spawn(async move { clients.other_traffic().await })
        })
        .collect();
    let pairs = tokio::spawn({
        let clients = Arc::clone(&clients);
        async move {
            let pairs = futures_util::stream::iter(0..PAIRS).map(|number| {
                let clients = Arc::clone(&clients);
                async move { clients.pair(number).await }
            });
            pairs.buffer_unordered(CLIENTS).collect::<Vec<_>>().await
        }
    });
    let at = |pair: usize| {
        let (clients, pairs) = (&clients, &pairs);
        wait_until(5 * LONG, "the pairs go on", move || {
            std::future::ready(pairs.is_finished() || clients.done.load(Ordering::Relaxed) >= pair)
        })
    };
    at(HANGS.start).await;
    projector.pause();
    at(HANGS.end).await;
    projector.resume();
    let jobs = pairs.await.unwrap();
    for other in beside {
        other.await.unwrap();
    }
    let distinct: HashSet<&String> = jobs.iter().collect();
    assert_eq!(distinct.len(), PAIRS, "each sync is a job of its own");

    // Each of them ends, and the projector that hung tells so.
    let (database, connection) = tokio_postgres::connect(house.place.database_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let open = format!("SELECT count(*) FROM {}.jobs WHERE ended_at IS NULL", house.store.schema());
    wait_until(5 * LONG, "every job ends", || async {
        database.query_one(&open, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let states = format!("SELECT state, count(*) FROM {}.jobs GROUP BY state", house.store.schema());
    let states = database.query(&states, &[]).await.unwrap();
    let states: BTreeMap<String, i64> = states.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(states.keys().collect::<Vec<_>>(), ["succeeded"], "{states:?}");
    assert!(states["succeeded"] >= i64::try_from(PAIRS).unwrap(), "{states:?}");
    assert_eq!(projector.stop(), 0);
    poller.stop().await;
    for ingress in instances {
        ingress.stop().await;
    }
}
