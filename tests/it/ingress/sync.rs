//! What becomes of a request for a sync.

use std::collections::HashSet;
use std::sync::Arc;

use domain::{Command, Trigger};
use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::api::{Api, sync_path};
use crate::support::committed;

#[tokio::test]
async fn a_202_means_that_the_broker_has_the_command_and_the_job_can_be_read() {
    let api = Api::start("sync").await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let answer = api
        .request(Method::POST, &api.sync_path())
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    let job_id = body["jobId"].as_str().unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert_eq!(location, format!("/jobs/{job_id}"));

    let records = committed(&api.place.topic("gmail.connection.poll")).await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record.key_text(), api.tenant.connection.to_string());
    let expected = kafka::partition_of(record.key.as_deref().unwrap(), 4);
    assert_eq!(record.partition, expected);
    assert_eq!(record.header("jobId").as_deref(), Some(job_id));
    assert_eq!(record.header("ce_type").as_deref(), Some("gmail.connection.poll"));
    assert_eq!(record.header("content-type").as_deref(), Some("application/avro"));
    let traceparent = record.header("traceparent").unwrap();
    assert!(traceparent.contains(trace), "the caller's trace goes on: {traceparent}");
    assert!(!traceparent.contains("b7ad6b7169203331"), "in a span of its own: {traceparent}");
    let Command::Poll(command) = events::decode_command(record.value.as_deref().unwrap()).unwrap() else {
        panic!("another command")
    };
    assert_eq!(command.job_id.to_string(), job_id);
    assert_eq!((command.organisation_id, command.connection_id), (api.tenant.organisation, api.tenant.connection));
    assert_eq!((command.trigger, command.window), (Trigger::Api, None));
    assert_eq!(command.deadline.since(command.requested_at), domain::Duration::from_hours(1));

    let job: Value = api.request(Method::GET, &location).send().await.unwrap().json().await.unwrap();
    assert_eq!(job["jobId"], job_id);
    assert_eq!(job["connectionId"], api.tenant.connection.to_string());
    assert_eq!((&job["state"], &job["trigger"]), (&"queued".into(), &"api".into()));
    assert_eq!(job["progress"]["discovered"], 0);
    assert_eq!((&job["startedAt"], &job["endedAt"], &job["code"]), (&Value::Null, &Value::Null, &Value::Null));
    let requested: jiff::Timestamp = job["requestedAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(requested.as_millisecond(), command.requested_at.as_millis());
}

#[tokio::test]
async fn no_body_an_empty_one_and_an_empty_object_are_all_taken() {
    let api = Api::start("bodies").await;
    let path = api.sync_path();
    let post = || api.request(Method::POST, &path);
    for request in [post(), post().body(""), post().header("content-type", "application/json").body("{}")] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
    let upper = sync_path(&api.tenant.connection.to_string().to_uppercase());
    assert_eq!(api.request(Method::POST, &upper).send().await.unwrap().status(), StatusCode::ACCEPTED);
}

/// No projector runs here, so the rows are ingress's own.
#[tokio::test]
async fn a_look_right_after_a_202_is_never_a_404() {
    const CLIENTS: usize = 64;
    const EACH: usize = 40;
    let api = Arc::new(Api::start("right-after").await);
    let jobs: Vec<String> = futures_util::stream::iter(0..CLIENTS)
        .map(|_| {
            let api = Arc::clone(&api);
            async move {
                let mut jobs = Vec::with_capacity(EACH);
                for _ in 0..EACH {
                    let job = api.sync().await;
                    let looked = api.request(Method::GET, &job).send().await.unwrap();
                    assert_eq!(looked.status(), StatusCode::OK);
                    jobs.push(job);
                }
                jobs
            }
        })
        .buffer_unordered(CLIENTS)
        .concat()
        .await;
    let distinct: HashSet<&String> = jobs.iter().collect();
    assert_eq!(distinct.len(), CLIENTS * EACH);
    let written: HashSet<String> = committed(&api.place.topic("gmail.connection.poll"))
        .await
        .iter()
        .map(|record| format!("/jobs/{}", record.header("jobId").unwrap()))
        .collect();
    assert_eq!(written, jobs.into_iter().collect(), "every job answered is a command on the topic, and none else");
}

#[tokio::test]
async fn a_trace_that_cannot_be_read_is_replaced_by_one_of_our_own() {
    let api = Api::start("trace").await;
    let request = api.request(Method::POST, &api.sync_path()).header("traceparent", "nonsense");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    let records = committed(&api.place.topic("gmail.connection.poll")).await;
    let traceparent = records[0].header("traceparent").unwrap();
    assert!(events::TraceParent::parse(traceparent.as_bytes()).is_ok(), "{traceparent}");
}

#[tokio::test]
async fn the_api_describes_itself_as_committed() {
    let api = Api::start("openapi").await;
    let served: Value =
        api.client.get(format!("{}/openapi.json", api.base)).send().await.unwrap().json().await.unwrap();
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/ingress/openapi.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(committed).unwrap()).unwrap();
    assert!(served == committed, "the document that is served is not the one that is committed");
}

#[tokio::test]
async fn the_header_of_the_key_can_be_named() {
    let place = crate::support::Place::new("header");
    let mut settings = place.settings();
    settings.insert("MAILTIDE_INGRESS_API_KEY_HEADER".to_owned(), "x-other-key".to_owned());
    let api = Api::start_with(place, settings).await;
    let url = format!("{}{}", api.base, api.sync_path());
    let answer = api.client.post(&url).header("x-other-key", &api.tenant.key).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let answer = api.request(Method::POST, &api.sync_path()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let unknown = api.client.get(format!("{}/jobs/{}", api.base, Uuid::new_v4()));
    assert_eq!(unknown.header("x-other-key", &api.tenant.key).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}
