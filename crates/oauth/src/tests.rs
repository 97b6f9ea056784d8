//! Against a server that counts.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Answers as told, and counts; the runtime ends with the test.
fn server(answer: impl Fn(usize, HeaderMap, String) -> (StatusCode, String) + Clone + Send + Sync + 'static) -> Served {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let route = post(move |headers: HeaderMap, body: String| async move {
        answer(count.fetch_add(1, Ordering::SeqCst), headers, body).into_response()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap()).parse().unwrap();
    runtime.spawn(async move { axum::serve(listener, Router::new().route("/token", route)).await.unwrap() });
    let grant = Grant { url, client_id: "a b".into(), client_secret: "p:w".into(), scope: Some("kafka".into()) };
    Served { tokens: Tokens::new(grant), asked, _runtime: runtime }
}

struct Served {
    tokens: Tokens,
    asked: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

#[test]
fn a_token_is_asked_for_once_and_as_the_rfc_says() {
    let served = server(|n, headers, body| {
        let basic = STANDARD.encode("a+b:p%3Aw");
        let is_right = body == "grant_type=client_credentials&scope=kafka"
            && headers["authorization"] == format!("Basic {basic}").as_str();
        let status = if is_right { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        (status, format!(r#"{{"access_token":"t{n}","token_type":"Bearer","expires_in":600}}"#))
    });
    // Also from within a runtime, as callbacks are.
    let tokens = served.tokens.clone();
    let first = served._runtime.block_on(async move { tokens.current() }).unwrap();
    assert_eq!(first.value.expose_secret(), "t0");
    assert!(first.expires > SystemTime::now() + Duration::from_secs(500));
    assert_eq!(served.tokens.current().unwrap().value.expose_secret(), "t0");
    assert_eq!(served.asked.load(Ordering::SeqCst), 1);
    assert!(!format!("{:?}{first:?}", served.tokens).contains("p:w"));
}

#[test]
fn a_refusal_is_told_and_not_asked_for_again_at_once() {
    let refusal = r#"{"error":"invalid_client","error_description":"no such client"}"#;
    let served = server(move |_, _, _| (StatusCode::UNAUTHORIZED, refusal.to_owned()));
    let told = served.tokens.current().unwrap_err().to_string();
    assert!(told.contains("401 invalid_client: no such client"), "{told}");
    // A loaded machine may let the pause pass: then it was asked again, and not more often.
    let begun = Instant::now();
    served.tokens.current().unwrap_err();
    assert!(begun.elapsed() >= PAUSE || served.asked.load(Ordering::SeqCst) <= 2);
}

#[test]
fn what_cannot_be_renewed_counts_to_its_end() {
    let served = server(|n, _, _| match n {
        0 => (StatusCode::OK, r#"{"access_token":"t","expires_in":3600}"#.to_owned()),
        _ => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
    });
    served.tokens.current().unwrap();
    served.tokens.shared.state.lock().unwrap().token.as_mut().unwrap().renew = Instant::now();
    assert_eq!(served.tokens.current().unwrap().value.expose_secret(), "t");
    assert_eq!(served.asked.load(Ordering::SeqCst), 2);
    served.tokens.shared.state.lock().unwrap().token.as_mut().unwrap().expires = SystemTime::now();
    assert!(matches!(served.tokens.current(), Err(Error::Refused { status: 503, .. })));
}

#[test]
fn a_token_may_say_for_itself_how_long_it_is_good() {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 1000;
    let token = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
    let life = life_of(&token(&format!(r#"{{"exp":{at}}}"#))).unwrap();
    assert!(life > Duration::from_secs(900) && life <= Duration::from_secs(1000), "{life:?}");
    assert_eq!(life_of(&token(r#"{"sub":"x"}"#)), None);
    assert_eq!(life_of(&token(r#"{"exp":1}"#)), None, "it is over");
    assert_eq!(life_of("opaque"), None);
}

#[test]
fn an_answer_without_a_token_is_told_without_what_it_says() {
    let served = server(|_, _, _| (StatusCode::OK, r#"{"access_tokn":"hunter2"}"#.to_owned()));
    let told = served.tokens.current().unwrap_err().to_string();
    assert!(told.contains("access_token") && !told.contains("hunter2"), "{told}");
}
