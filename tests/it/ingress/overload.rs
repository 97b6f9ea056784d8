//! More requests than are worked on at once: those that are too many are refused at once, and nothing comes of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::api::{Api, KEY, assert_problem};
use crate::support::{LONG, committed, wait_for, wait_until};

/// Requests that are worked on at once.
const ADMITTED: u64 = 4;

/// Clients that ask at the same time.
const CLIENTS: usize = 64;

/// As many are to be answered each way before it ends.
const ENOUGH: usize = 300;

/// What a metric says at the admin port.
async fn gauge(client: &Client, url: &str, name: &str) -> Option<u64> {
    let text = client.get(url).send().await.ok()?.text().await.ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse::<f64>().ok().map(|value| value as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_refused_at_once_and_what_is_taken_is_done() {
    // The tenant is made through an instance of this process; the one that is asked is a process, for its metrics.
    let api = Api::start("overload").await;
    let mut process = api.place.service("ingress", &["ingress"]);
    process = process.set("MAILTIDE_INGRESS_MAX_IN_FLIGHT", ADMITTED.to_string());
    let base = format!("http://{}", process.start().logged("API open", "address").await);
    let metrics = format!("http://{}/metrics", process.logged("Admin port open", "address").await);
    let ask =
        |method: Method, path: &str| api.client.request(method, format!("{base}{path}")).header(KEY, &api.tenant.key);
    let (taken, shed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_enough = || taken.load(Ordering::Relaxed) >= ENOUGH && shed.load(Ordering::Relaxed) >= ENOUGH;

    let client = async || {
        let mut jobs = Vec::new();
        while !is_enough() {
            let answer = ask(Method::POST, &api.sync_path()).send().await.unwrap();
            if answer.status() == StatusCode::ACCEPTED {
                taken.fetch_add(1, Ordering::Relaxed);
                jobs.push(answer.headers()["location"].to_str().unwrap().to_owned());
            } else {
                shed.fetch_add(1, Ordering::Relaxed);
                assert_problem(answer, 503, "Server.Overloaded").await;
            }
        }
        jobs
    };
    let watch = async {
        let mut most = 0;
        while !is_enough() {
            if let Some(seen) = gauge(&api.client, &metrics, "mailtide_http_requests_in_flight").await {
                most = most.max(seen);
            }
        }
        most
    };
    let (jobs, most) = tokio::join!(join_all((0..CLIENTS).map(|_| client())), watch);
    assert!((1..=ADMITTED).contains(&most), "{most} requests were worked on at once");

    // All that was taken can be read, and is all that was written.
    let jobs: Vec<String> = jobs.concat();
    for job in &jobs {
        let body: Value = wait_for(LONG, "there is room for a look", || async {
            let answer = ask(Method::GET, job).send().await.unwrap();
            assert!(matches!(answer.status().as_u16(), 200 | 503), "{}", answer.status());
            if answer.status() == StatusCode::OK { answer.json().await.ok() } else { None }
        })
        .await;
        assert_eq!(format!("/jobs/{}", body["jobId"].as_str().unwrap()), *job);
    }
    let records = committed(&api.place.topic("gmail.connection.poll")).await;
    let written: HashSet<String> =
        records.iter().map(|record| format!("/jobs/{}", record.header("jobId").unwrap())).collect();
    assert_eq!(records.len(), jobs.len(), "what was refused wrote nothing");
    assert_eq!(written, jobs.into_iter().collect());
    wait_until(LONG, "nothing is worked on any more", || async {
        gauge(&api.client, &metrics, "mailtide_http_requests_in_flight").await == Some(0)
    })
    .await;
    assert_eq!(process.stop(), 0);
}
