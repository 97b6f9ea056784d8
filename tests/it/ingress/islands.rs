//! Organisations are islands: whatever is asked of another's is answered, byte for byte, as what does not exist.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use store::connections::{self, Consent};
use uuid::Uuid;

use super::api::{Api, now, sync_path, tenant};
use crate::support::{Counts, Place, Tally, committed};

/// Every call that names something, with `ID` in its place, and whether it names a job.
const CALLS: [(&str, &str, bool); 11] = [
    ("POST", "/gmail-connections/ID/sync", false),
    ("POST", "/gmail-connections/ID/backfill", false),
    ("GET", "/gmail-connections/ID", false),
    ("PATCH", "/gmail-connections/ID", false),
    ("DELETE", "/gmail-connections/ID", false),
    ("GET", "/gmail-connections/ID/jobs", false),
    ("GET", "/gmail-connections/ID/messages/18d1c0ffee001234/attachments/1", false),
    ("GET", "/jobs/ID", true),
    ("POST", "/jobs/ID/cancel", true),
    ("GET", "/jobs/ID/events", true),
    ("POST", "/jobs/ID/nothing", true),
];

/// Header lines that differ from answer to answer by their nature.
const OF_THE_MOMENT: [&str; 1] = ["date"];

async fn heard(api: &Api, key: &str, method: &str, path: &str, id: &str) -> (StatusCode, Vec<String>, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = api.request_as(key, method.clone(), &path.replace("ID", id));
    if method != Method::GET && method != Method::DELETE {
        request = request.json(&json!({}));
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let headers = answer.headers().iter().filter(|(name, _)| !OF_THE_MOMENT.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    (status, headers, answer.text().await.unwrap().replace(id, "ID"))
}

#[tokio::test]
async fn i6_every_call_answers_for_anothers_as_for_what_does_not_exist() {
    let api = Api::start("islands").await;
    let job = api.sync().await.rsplit('/').next().unwrap().to_owned();
    let connection = api.tenant.connection.to_string();
    let stranger = tenant(&api.store).await;
    for (method, path, is_job) in CALLS {
        let own = if is_job { &job } else { &connection };
        let foreign = heard(&api, &stranger.key, method, path, own).await;
        let nobodys = heard(&api, &stranger.key, method, path, &Uuid::new_v4().to_string()).await;
        assert_eq!(foreign.0, StatusCode::NOT_FOUND, "{method} {path}: {}", foreign.2);
        assert_eq!(foreign, nobodys, "{method} {path}");
    }
    // Its own lists are its own.
    for path in ["/gmail-connections", "/jobs"] {
        let listed = api.request_as(&stranger.key, Method::GET, path).send().await.unwrap().text().await.unwrap();
        assert!(!listed.contains(&connection) && !listed.contains(&job), "{listed}");
    }
    // Nothing came of all that, and whose it is finds it as it was.
    assert_eq!(committed(&api.place.topic("gmail.connection.poll")).await.len(), 1, "the sync alone was written");
    let path = format!("/gmail-connections/{connection}");
    let one: Value = api.request(Method::GET, &path).send().await.unwrap().json().await.unwrap();
    assert_eq!((&one["status"], &one["paused"]), (&json!("active"), &json!(false)));
    let again = api.request(Method::POST, &sync_path(&connection)).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::ACCEPTED);
}

/// How often each call is made of each kind of id: what runs beside it may add statements, never to all.
const TIMES: usize = 4;

/// What is in all of them.
fn common(counts: Vec<Counts>) -> Counts {
    let all = counts.iter().flat_map(BTreeMap::keys).cloned().collect::<std::collections::BTreeSet<String>>();
    let least = |statement: &String| counts.iter().map(|one| one.get(statement).copied().unwrap_or(0)).min().unwrap();
    all.iter().map(|statement| (statement.clone(), least(statement))).filter(|(_, times)| *times > 0).collect()
}

/// The same statements, as often, and nobody else is asked: so the time that an answer takes tells nothing either.
#[tokio::test]
async fn i6_every_call_does_for_anothers_what_it_does_for_what_does_not_exist() {
    let google = simulator::start(simulator::Settings::default()).await.unwrap();
    let place = Place::new("islands-cost");
    let tally = Tally::before(place.database_url()).await;
    let mut settings = place.settings();
    settings.insert("DATABASE_URL".to_owned(), tally.url());
    for (name, path) in [("TOKEN_URL", "/token"), ("REVOKE_URL", "/revoke"), ("API_URL", "")] {
        settings.insert(format!("MAILTIDE_GMAIL_{name}"), format!("{}{path}", google.base_url));
    }
    let api = Api::start_with(place, settings).await;
    let stranger = tenant(&api.store).await;
    let token = SecretString::from("of no use here");
    let mut written = 0;
    for (method, path, is_job) in CALLS {
        let (mut foreign, mut nobodys) = (Vec::new(), Vec::new());
        for number in 0..TIMES {
            // Each its own: what was asked for before is remembered for a moment.
            let own = if is_job {
                written += 1;
                api.sync().await.rsplit('/').next().unwrap().to_owned()
            } else {
                let account = format!("{}-{}-{number}@tests.example", method, path.len());
                let consent = Consent { account: &account, email: &account, refresh_token: &token };
                let added = connections::add(&api.store, api.tenant.organisation, &consent, now()).await.unwrap();
                added.connection_id.to_string()
            };
            for (id, counts) in [(own, &mut foreign), (Uuid::new_v4().to_string(), &mut nobodys)] {
                tally.take();
                let answer = heard(&api, &stranger.key, method, path, &id).await;
                assert_eq!(answer.0, StatusCode::NOT_FOUND, "{method} {path}");
                counts.push(tally.take());
            }
        }
        let (foreign, nobodys) = (common(foreign), common(nobodys));
        assert_eq!(foreign, nobodys, "{method} {path}");
        assert!(path.ends_with("/nothing") || !nobodys.is_empty(), "{method} {path} asks the database something");
    }
    let usage = google.control().usage();
    assert!(usage.token_requests == 0 && usage.total.calls.is_empty(), "{usage:?}");
    assert_eq!(committed(&api.place.topic("gmail.connection.poll")).await.len(), written, "nothing was written");
    google.shutdown().await;
}
