//! What the registry is told, and what is made of its refusals. That real registries take it is tried in the pipeline's
//! own tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use registry::{Error, Settings};
use runtime::Shutdown;
use runtime::settings::Source;
use tokio::net::TcpListener;

/// `mailtide:hunter2`, as Basic authentication has it.
const BASIC: &str = "Basic bWFpbHRpZGU6aHVudGVyMg==";

/// How a registry answers: with 503 this many times, and then as its gate says.
#[derive(Clone)]
struct Gate {
    away: Arc<AtomicU32>,
    status: StatusCode,
}

async fn answer(State(gate): State<Gate>, request: Request) -> Response {
    if gate.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if request.headers().get("authorization").is_none_or(|given| given != BASIC) {
        return (StatusCode::UNAUTHORIZED, r#"{"error_code":401,"message":"Unauthorized"}"#).into_response();
    }
    (gate.status, r#"{"error_code":40301,"message":"Not yours"}"#).into_response()
}

async fn gate(away: u32, status: StatusCode) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gate = Gate { away: Arc::new(AtomicU32::new(away)), status };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer).with_state(gate)).await.unwrap() });
    url
}

fn settings(url: &str, password: &str) -> Settings {
    let variables = [
        ("SCHEMA_REGISTRY_URL", url),
        ("MAILTIDE_REGISTRY_USER", "mailtide"),
        ("MAILTIDE_REGISTRY_PASSWORD", password),
    ];
    let mut source = Source::from_parts(None, variables);
    let settings = Settings::read(&mut source);
    source.finish().unwrap();
    settings
}

#[tokio::test]
async fn an_outage_is_waited_out_and_a_refusal_is_told_with_what_to_do() {
    let url = gate(3, StatusCode::FORBIDDEN).await;
    let mut waited = 0;
    let error = registry::register(&settings(&url, "hunter2"), |_| waited += 1, &Shutdown::new()).await.unwrap_err();
    assert_eq!(waited, 3);
    assert!(matches!(error, Error::Refused { status: 403, .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("mailtide.gmail.") && told.contains("40301 Not yours") && told.contains(&url), "{told}");
    assert!(told.contains("needs the right to read and write"), "{told}");
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let url = gate(0, StatusCode::OK).await;
    let settings = settings(&url, "hunter3");
    let error = registry::register(&settings, |_| {}, &Shutdown::new()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 401, .. }), "{error}");
    let told = format!("{error} {error:?} {settings:?}");
    assert!(told.contains("check registry.user and registry.password") && !told.contains("hunter3"), "{told}");
}

#[tokio::test]
async fn the_order_to_stop_ends_the_wait() {
    let url = gate(u32::MAX, StatusCode::OK).await;
    let shutdown = Shutdown::new();
    let told = registry::register(&settings(&url, "hunter2"), |_| shutdown.request(), &shutdown).await;
    assert!(matches!(told, Ok(false)), "{told:?}");
}

#[tokio::test]
async fn what_answers_and_is_no_registry_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(|| async { "<html>" })).await.unwrap() });
    let error = registry::register(&settings(&url, "hunter2"), |_| {}, &Shutdown::new()).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }) && error.to_string().contains("check registry.url"), "{error}");
}
