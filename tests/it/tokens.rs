//! `mailtide tokens rotate`, and what a service says of a token key that is wrong or missing.

use std::process::Stdio;

use secrecy::{ExposeSecret, SecretString};
use store::connections::{self, Consent};
use store::{Store, TokenKeys, organisations};

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
    assert!(said.contains(r#"{"moved":3,"left":0,"openConsents":0}"#), "{said}");
    assert!(said.contains("2 of 3 moved") && said.contains("3 of 3 moved"), "progress is told: {said}");
    let (code, said) = run(&place, &rotate, new).await;
    assert_eq!(code, 0, "the old key is gone: {said}");
    assert!(said.contains(r#""moved":0"#), "{said}");
    for secret in [new, old.as_str(), "1//token"] {
        let secret = secret.split_once(':').map_or(secret, |(_, key)| key);
        assert!(!said.contains(secret), "a secret is printed");
    }
}
