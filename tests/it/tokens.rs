//! `mailtide tokens rotate`, and what a service says of a token key that is wrong or missing.

use std::process::Stdio;

use domain::{Duration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use store::connections::{self, Consent};
use store::consents::{self, Pending};
use store::{Store, TokenKeys, idempotency, organisations};
use uuid::Uuid;

use crate::cli::command;
use crate::house::now;
use crate::support::{LONG, Place};

const SETTING: &str = "MAILTIDE_STORE_TOKEN_KEY";

/// The exit code and all that was said.
async fn run(place: &Place, arguments: &[&str], keys: &str) -> (i32, String) {
    let mut command = command(place, arguments);
    command.env(SETTING, keys).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn tokens_are_rotated_by_a_command_and_a_wrong_key_stops_a_service_before_it_serves() {
    let place = Place::new("tokens");
    let old = place.settings().remove(SETTING).unwrap();
    let store = Store::connect(&store::Settings::read(&mut place.source())).unwrap();
    store.migrate().await.unwrap();
    store.check_token_keys().await.unwrap();
    let ours = organisations::create(&store, "Test", now()).await.unwrap().organisation_id;
    for account in ["a@example.com", "b@example.com", "c@example.com"] {
        let consent = Consent { account, email: account, refresh_token: &SecretString::from("1//token") };
        connections::add(&store, ours, &consent, now()).await.unwrap();
    }
    // A consent that is open, and an answer that is kept.
    let state = SecretString::from("a state");
    let pending = Pending {
        organisation_id: ours,
        verifier: "a verifier".into(),
        return_url: "https://app.example/".to_owned(),
        since: None,
    };
    assert!(consents::put(&store, &state, &pending, now() + Duration::from_hours(1), now(), 1).await.unwrap());
    let request = idempotency::Request { key_hash: [1; 32], request_hash: [2; 32] };
    let wanted = idempotency::Wanted { organisation_id: ours, request, fresh_id: Uuid::new_v4() };
    idempotency::claim_all(&store, &[wanted], now(), now()).await.unwrap();
    let sealed = consents::seal_answer(&store, ours, &"a page".into()).unwrap();
    idempotency::keep_answer(&store, ours, &request, &sealed).await.unwrap();
    let new = TokenKeys::generate("new");
    let new = new.expose_secret();

    for (service, keys, id) in [
        ("poller", new.to_owned(), "test"),
        ("ingress", TokenKeys::generate("test").expose_secret().to_owned(), "test"),
    ] {
        let (code, said) = run(&place, &[service], &keys).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("token key {id}")) && said.contains("store.token_key"), "{said}");
        assert!(!said.contains("API open"), "{said}");
    }

    let both = format!("{new},{old}");
    let rotate = ["tokens", "rotate", "--batch", "2", "--json"];
    let (code, said) = run(&place, &rotate, &both).await;
    assert_eq!(code, 0, "{said}");
    let moved = |n: u8| format!(r#"{{"moved":{n},"left":0}}"#);
    let all = format!(r#"{{"tokens":{},"consents":{},"answers":{}}}"#, moved(3), moved(1), moved(1));
    assert!(said.contains(&all), "{said}");
    assert!(said.contains("2 of 3 tokens moved") && said.contains("3 of 3 tokens moved"), "progress is told: {said}");
    let (code, said) = run(&place, &rotate, new).await;
    assert_eq!(code, 0, "the old key is gone: {said}");
    assert!(said.contains(&format!(r#"{{"tokens":{0},"consents":{0},"answers":{0}}}"#, moved(0))), "{said}");
    // What was begun under the old key goes on under the new one alone.
    let token_keys = Some(TokenKeys::parse(&new.into()).unwrap().into());
    let store = Store::connect(&store::Settings { token_keys, ..store::Settings::read(&mut place.source()) }).unwrap();
    let found = idempotency::find(&store, ours, &request, Timestamp::from_millis(0)).await.unwrap();
    let Some(idempotency::Claim::Same(same)) = found else { panic!("{found:?}") };
    let answer = consents::open_answer(&store, ours, &same.answer.unwrap()).unwrap();
    assert_eq!(answer.expose_secret(), "a page");
    let taken = consents::take(&store, "a state", now()).await.unwrap().unwrap();
    assert_eq!(taken.verifier.expose_secret(), "a verifier");
    for secret in [new, old.as_str(), "1//token"] {
        let secret = secret.split_once(':').map_or(secret, |(_, key)| key);
        assert!(!said.contains(secret), "a secret is printed");
    }
}
