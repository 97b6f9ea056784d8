//! The control API over HTTP: every path that its page documents.

use serde_json::{Value, json};

use crate::client::{EMAIL, World};

impl World {
    /// A control request that is to succeed.
    async fn control_http(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = if body.is_empty() { "" } else { "application/json" };
        let reply = self.send(method, &format!("/control/{path}"), kind, body.as_bytes()).await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
        reply.json()
    }
}

#[tokio::test]
async fn a_mailbox_lives_by_http_alone() {
    let world = World::new().await;
    let at = |action: &str| format!("mailboxes/{EMAIL}/{action}");
    let made = json!({"email": "b@example.org", "firstHistoryId": 77, "clientId": "c", "scopes": "openid"});
    let made = world.control_http("POST", "mailboxes", made).await;
    assert_eq!((&made["email"], &made["historyId"]), (&json!("b@example.org"), &json!("77")));
    let all = world.control_http("GET", "mailboxes", Value::Null).await;
    assert_eq!(all, json!({"mailboxes": [EMAIL, "b@example.org"]}));

    let deliver = at("deliver?n=2&labels=INBOX,Work&internalDate=1600000000000&step=5");
    let delivered = world.control_http("POST", &deliver, Value::Null).await;
    let (first, second) = (&delivered["messages"][0], &delivered["messages"][1]);
    assert_eq!(
        (&first["internalMs"], &second["internalMs"]),
        (&json!(1_600_000_000_000_i64), &json!(1_600_000_000_005_i64))
    );
    let quiet = world.control_http("POST", &at("deliver?n=3&quiet=true"), Value::Null).await;
    assert_eq!(quiet, json!({"count": 3}));

    let ids = json!({"ids": [first["id"]]});
    let labels = async || {
        let truth = world.control_http("GET", &at("messages"), Value::Null).await;
        truth["messages"][0]["labelIds"].clone()
    };
    for (action, body, after) in [
        ("trash", ids.clone(), json!(["TRASH", "Label_1"])),
        ("untrash", ids.clone(), json!(["Label_1"])),
        ("spam", ids.clone(), json!(["SPAM", "Label_1"])),
        ("unspam", ids.clone(), json!(["INBOX", "Label_1"])),
        ("label", json!({"ids": [first["id"]], "add": ["STARRED"], "remove": ["Work"]}), json!(["INBOX", "STARRED"])),
    ] {
        world.control_http("POST", &at(action), body).await;
        assert_eq!(labels().await, after, "{action}");
    }
    world.control_http("POST", &at("delete"), ids).await;
    let truth = world.control_http("GET", &at("messages"), Value::Null).await;
    assert_eq!((&truth["messages"][0]["gone"], &truth["messages"][1]["gone"]), (&json!(true), &json!(false)));
    let chat = world.control_http("POST", &at("chat"), Value::Null).await;
    assert_eq!(chat["messages"][0]["labelIds"], json!(["CHAT"]));
    let draft = world.control_http("POST", &at("drafts"), Value::Null).await["draftId"].as_str().unwrap().to_owned();
    world.control_http("POST", &at("drafts"), json!({"draftId": draft})).await;
    let sent = world.control_http("POST", &at(&format!("drafts/{draft}/send")), json!({"toSelf": false})).await;
    assert_eq!(sent["message"]["labelIds"], json!(["SENT"]));

    let grant = world.control_http("POST", &at("grants"), json!({"clientId": "c", "endsMs": 1})).await;
    assert!(grant["refreshToken"].as_str().unwrap().starts_with("1//"));
    world.control_http("POST", &at("expire"), Value::Null).await;
    world.control_http("POST", &at("expire-access-tokens"), Value::Null).await;
    assert_eq!(world.me("profile").await.status, 401);
    world.control_http("POST", &at("revoke"), json!({"cause": "password_changed"})).await;
    assert_eq!(world.refresh().await.status, 400);
}

#[tokio::test]
async fn the_world_is_set_by_http() {
    let world = World::new().await;
    let clock = world.control_http("POST", "clock", json!({"standAt": 5_000})).await;
    assert_eq!(clock, json!({"nowMs": 5_000, "stands": true}));
    assert_eq!(world.control_http("POST", "clock", json!({"advance": -1_000})).await["nowMs"], 4_000);
    assert_eq!(world.control_http("POST", "clock", json!({"runFrom": 9_000})).await["stands"], false);
    assert!(
        world.control_http("POST", "clock", json!({"machine": {}})).await["nowMs"].as_i64() > Some(1_700_000_000_000)
    );
    assert_eq!(world.control_http("GET", "clock", Value::Null).await["stands"], false);

    let own = format!("mailboxes/{EMAIL}/behaviour");
    let changed = world.control_http("PATCH", &own, json!({"getLagMs": 7, "userThrottle": {"userRate": 5}})).await;
    assert_eq!((&changed["getLagMs"], &changed["gzip"]), (&json!(7), &json!(true)));
    assert_eq!(world.control_http("GET", &own, Value::Null).await, changed);
    assert_eq!(world.control_http("GET", "behaviour", Value::Null).await["getLagMs"], 0);
    let all = world.control_http("PATCH", "behaviour", json!({"historyRetentionMs": null, "ahead": "not_found"})).await;
    assert_eq!((&all["historyRetentionMs"], &all["ahead"]), (&Value::Null, &json!("not_found")));

    world.control_http("POST", "clients", json!({"clientId": "c", "clientSecret": "s"})).await;
    world.control_http("POST", "consent", json!({"autoApprove": false})).await;
    world.control_http("PUT", "push", json!({"url": "http://127.0.0.1:9/push", "historyId": "either"})).await;
    assert_eq!(world.control_http("GET", "push", Value::Null).await["target"]["historyId"], "either");
    world.control_http("DELETE", "push", Value::Null).await;
    assert_eq!(world.control_http("GET", "push", Value::Null).await["target"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let world = World::new().await;
    let account = json!({"email": "r", "publicKey": "none", "scopes": ""}).to_string();
    for (method, path, kind, body, status) in [
        ("POST", "mailboxes/nobody@example.org/expire", "", "", 404),
        ("POST", &format!("mailboxes/{EMAIL}/explode"), "", "", 404),
        ("POST", &format!("mailboxes/{EMAIL}/trash"), "", r#"{"ids": ["1"]}"#, 404),
        ("POST", &format!("mailboxes/{EMAIL}/trash"), "", r#"{"ids": ["xyz"]}"#, 400),
        ("POST", &format!("mailboxes/{EMAIL}/trash"), "", r#"{"id": []}"#, 400),
        ("POST", &format!("mailboxes/{EMAIL}/label"), "", "{", 400),
        ("POST", &format!("mailboxes/{EMAIL}/deliver"), "text/plain", "hello", 415),
        ("POST", &format!("mailboxes/{EMAIL}/deliver?n=1&labels=%20"), "", "", 400),
        ("PATCH", "behaviour", "", r#"{"latency": 1}"#, 400),
        ("POST", "service-accounts", "", account.as_str(), 400),
        ("POST", "faults", "", r#"{"fault": "boom"}"#, 400),
    ] {
        let reply = world.send(method, &format!("/control/{path}"), kind, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {}", reply.text());
        assert!(reply.json()["error"].as_str().is_some_and(|text| text.len() > 10), "{}", reply.text());
    }
}
