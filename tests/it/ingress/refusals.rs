//! What the API refuses, and how.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use store::keys::{self, Scope};
use uuid::Uuid;

use super::api::{Api, assert_problem, now, sync_path, tenant};
use crate::support::{LONG, committed, wait_until};

/// Header lines that differ from answer to answer by their nature.
const OF_THE_MOMENT: [&str; 2] = ["date", "content-length"];

/// Everything of the answer that may tell one case from another, with the path taken out.
async fn bytes_but_for_instance(api: &Api, method: Method, path: &str) -> (StatusCode, Vec<String>, String) {
    let answer = api.request(method, path).send().await.unwrap();
    let status = answer.status();
    let headers = answer.headers().iter().filter(|(name, _)| !OF_THE_MOMENT.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    let instance = serde_json::to_string(answer.url().path()).unwrap();
    let body = answer.text().await.unwrap();
    assert!(body.contains(&instance), "{body} does not name {instance}");
    (status, headers, body.replace(&instance, "INSTANCE"))
}

#[tokio::test]
async fn a_connection_that_is_not_the_callers_is_answered_like_one_that_does_not_exist() {
    let api = Api::start("not-found").await;
    let other = tenant(&api.store).await;
    let revoked = tenant(&api.store).await;
    let (client, connection) = tokio_postgres::connect(api.place.database_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mine = "UPDATE mailtide.connections SET revoked_at = now(), organisation_id = $1 WHERE connection_id = $2";
    let moved = client.execute(mine, &[api.tenant.organisation.as_uuid(), revoked.connection.as_uuid()]).await.unwrap();
    assert_eq!(moved, 1);

    let nobody = Uuid::new_v4().to_string();
    let expected = bytes_but_for_instance(&api, Method::POST, &sync_path(&nobody)).await;
    assert_eq!(expected.0, StatusCode::NOT_FOUND);
    let body: Value = serde_json::from_str(&expected.2.replace("INSTANCE", "\"\"")).unwrap();
    assert_eq!(body["title"], "Gmail.ConnectionNotFound");
    let own = api.tenant.connection.to_string();
    let cases = [
        String::new(),
        other.connection.to_string(),
        revoked.connection.to_string(),
        "x".to_owned(),
        "123".to_owned(),
        own.replace('-', ""),
        format!("%7B{own}%7D"),
        "%00".to_owned(),
        "%FF".to_owned(),
        "..%2Fjobs".to_owned(),
        "%F0%9F%90%AC".to_owned(),
        "a".repeat(3000),
    ];
    for case in cases {
        assert_eq!(bytes_but_for_instance(&api, Method::POST, &sync_path(&case)).await, expected, "{case}");
    }
    assert!(committed(&api.place.topic("gmail.connection.poll")).await.is_empty(), "nothing was written for any");
}

#[tokio::test]
async fn a_job_that_is_not_the_callers_is_answered_like_one_that_does_not_exist() {
    let api = Api::start("other-job").await;
    let job = api.sync().await;
    let stranger = tenant(&api.store).await;
    let answer = api.request_as(&stranger.key, Method::GET, &job).send().await.unwrap();
    assert_problem(answer, 404, "Job.NotFound").await;
    let expected = bytes_but_for_instance(&api, Method::GET, &format!("/jobs/{}", Uuid::new_v4())).await;
    for case in ["x", "%FF", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(bytes_but_for_instance(&api, Method::GET, &format!("/jobs/{case}")).await, expected, "{case}");
    }
}

#[tokio::test]
async fn who_has_no_living_key_is_refused() {
    let api = Api::start("keys").await;
    let path = api.sync_path();
    let without = api.client.post(format!("{}{path}", api.base)).send().await.unwrap();
    assert!(without.headers().contains_key("www-authenticate"));
    assert_problem(without, 401, "Auth.ApiKeyMissing").await;
    let own = api.tenant.key.as_str();
    let cut = &own[..own.len() - 1];
    let changed = format!("{cut}{}", if own.ends_with('A') { 'B' } else { 'A' });
    for wrong in ["", "x", "mt_", cut, &changed, &format!("{own}x"), &"k".repeat(4000)] {
        let answer = api.request_as(wrong, Method::POST, &path).send().await.unwrap();
        assert_problem(answer, 401, "Auth.ApiKeyInvalid").await;
    }
    for method in [Method::POST, Method::GET] {
        let unauthorised = api.request_as("x", method.clone(), &format!("/jobs/{}", Uuid::new_v4()));
        let expected = if method == Method::GET { 401 } else { 405 };
        assert_eq!(unauthorised.send().await.unwrap().status().as_u16(), expected);
    }
}

#[tokio::test]
async fn a_revoked_key_stops_within_five_seconds_everywhere_however_busy() {
    let api = Api::start("revoked").await;
    let beside = api.beside().await;
    let job = api.sync().await;
    let ask = async |base: &str| {
        let request = api.client.get(format!("{base}{job}")).header(super::api::KEY, &api.tenant.key);
        request.send().await.unwrap().status()
    };
    for base in [&api.base, &beside.base] {
        assert_eq!(ask(base).await, StatusCode::OK);
    }
    assert!(keys::revoke(&api.store, api.tenant.organisation, api.tenant.key_id, now()).await.unwrap());
    let revoked = Instant::now();
    // By when a request was begun: one that was slow to be answered says nothing of when the key was looked at.
    wait_until(LONG, "the key stops", || async {
        let mut refused = 0;
        for base in [&api.base, &beside.base] {
            let after = revoked.elapsed();
            match ask(base).await {
                StatusCode::UNAUTHORIZED => refused += 1,
                status => {
                    assert!(status == StatusCode::OK && after < Duration::from_secs(5), "{status} after {after:?}")
                }
            }
        }
        refused == 2
    })
    .await;
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let api = Api::start("scopes").await;
    let job = api.sync().await;
    let organisation = api.tenant.organisation;
    let (_, reader) = keys::create(&api.store, organisation, "reader", &[Scope::Read], now()).await.unwrap();
    let (_, writer) = keys::create(&api.store, organisation, "writer", &[Scope::Write], now()).await.unwrap();
    let (reader, writer) =
        (secrecy::ExposeSecret::expose_secret(&reader), secrecy::ExposeSecret::expose_secret(&writer));
    let ask = async |key: &str, method, path: &str| api.request_as(key, method, path).send().await.unwrap();
    assert_eq!(ask(reader, Method::GET, &job).await.status(), StatusCode::OK);
    assert_problem(ask(reader, Method::POST, &api.sync_path()).await, 403, "Auth.ScopeMissing").await;
    assert_eq!(ask(writer, Method::POST, &api.sync_path()).await.status(), StatusCode::ACCEPTED);
    assert_problem(ask(writer, Method::GET, &job).await, 403, "Auth.ScopeMissing").await;
}

#[tokio::test]
async fn a_request_that_fits_no_call_is_told_why() {
    let api = Api::start("refusals").await;
    let path = api.sync_path();
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = api.request(method, &path).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], "POST");
        assert_problem(answer, 405, "Request.MethodNotAllowed").await;
    }
    for path in ["/", "/gmail-connections/", "/jobs/", "/nowhere/at/all"] {
        assert_problem(api.request(Method::GET, path).send().await.unwrap(), 404, "Request.PathNotFound").await;
    }
    let post = |content_type: &str, body: &str| {
        api.request(Method::POST, &path).header("content-type", content_type).body(body.to_owned()).send()
    };
    assert_problem(post("text/plain", "hello").await.unwrap(), 415, "Request.MediaTypeUnsupported").await;
    assert_problem(post("application/xml", "<a/>").await.unwrap(), 415, "Request.MediaTypeUnsupported").await;
    for body in ["{", "[]", "1", "{\"since\": 1}", &"[".repeat(10_000)] {
        assert_problem(post("application/json", body).await.unwrap(), 400, "Request.BodyInvalid").await;
    }
    let large = " ".repeat(17 * 1024);
    assert_problem(post("application/json", &large).await.unwrap(), 413, "Request.BodyTooLarge").await;
    assert!(committed(&api.place.topic("gmail.connection.poll")).await.is_empty(), "nothing was written for any");
}
