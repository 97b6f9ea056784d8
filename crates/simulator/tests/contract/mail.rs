//! Mail in: an mbox over HTTP, formats, attachments, masks.

use std::collections::BTreeSet;

use serde_json::json;
use simulator::{Delivery, Mails};

use crate::client::{EMAIL, World};

const REPORT: &[u8] =
    b"From: =?utf-8?Q?J=C3=B6rg?= <j@example.org>\nTo: ann@example.org\nSubject: =?utf-8?B?UmVjaG51bmc=?=\n\
    Received: by a\nX-Odd-Case: one\nReceived: by b\nMessage-ID: <r1@example.org>\nMIME-Version: 1.0\n\
    Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\nHello <there>\n--b\n\
    Content-Type: application/pdf; name=\"r.pdf\"\nContent-Disposition: attachment; filename=\"r.pdf\"\n\
    Content-Transfer-Encoding: base64\n\nJVBERi0=\n--b--\n";

async fn delivered() -> (World, String) {
    let world = World::new().await;
    let how = Delivery { internal_ms: Some(1_600_000_000_123), ..Delivery::default() };
    let truth = world.control().deliver(EMAIL, Mails::Raw(REPORT.to_vec()), &how).unwrap();
    (world, truth[0].id.clone())
}

#[tokio::test]
async fn each_format_holds_what_gmails_does() {
    let (world, id) = delivered().await;
    let get = async |query: &str| world.me(&format!("messages/{id}?{query}")).await.json();
    let minimal = get("format=minimal").await;
    let head = world.control().head(EMAIL).unwrap().to_string();
    let raw_len = String::from_utf8(REPORT.to_vec()).unwrap().replace('\n', "\r\n").len();
    let expected = json!({
        "id": id, "threadId": id, "labelIds": ["INBOX", "UNREAD"], "snippet": "Hello &lt;there&gt;",
        "sizeEstimate": raw_len, "historyId": head, "internalDate": "1600000000123",
    });
    assert_eq!(minimal, expected);

    let metadata = get("format=metadata&metadataHeaders=received&metadataHeaders=SUBJECT").await;
    let headers = json!([
        {"name": "Subject", "value": "Rechnung"}, {"name": "Received", "value": "by a"},
        {"name": "Received", "value": "by b"},
    ]);
    assert_eq!(metadata["payload"], json!({"mimeType": "multipart/mixed", "headers": headers}));
    let none = get("format=metadata&metadataHeaders=nope").await;
    assert_eq!(none["payload"], json!({"mimeType": "multipart/mixed"}));

    let full = get("").await;
    let payload = &full["payload"];
    assert_eq!(payload["partId"], "");
    assert_eq!(payload["body"], json!({"size": 0}));
    assert_eq!(payload["headers"][0], json!({"name": "From", "value": "Jörg <j@example.org>"}));
    assert_eq!(payload["parts"][0]["partId"], "0");
    assert_eq!(payload["parts"][0]["filename"], "");
    assert_eq!(payload["parts"][0]["body"], json!({"size": 13, "data": "SGVsbG8gPHRoZXJlPg=="}));
    assert_eq!(payload["parts"][1]["filename"], "r.pdf");
    assert_eq!(payload["parts"][1]["body"]["size"], 5);
    assert!(payload["parts"][1]["body"].get("data").is_none());

    let raw = get("format=raw").await;
    assert!(raw.get("payload").is_none());
    assert!(raw["raw"].as_str().unwrap().starts_with("RnJvbTog"));
    assert_eq!(raw["raw"].as_str().unwrap().len(), raw_len.div_ceil(3) * 4);
}

#[tokio::test]
async fn an_attachment_is_fetched_by_an_id_that_differs_each_time() {
    let (world, id) = delivered().await;
    world.control().clock().stand_at(world.control().clock().now_ms());
    let attachment = async || {
        let full = world.me(&format!("messages/{id}?format=full")).await.json();
        full["payload"]["parts"][1]["body"]["attachmentId"].as_str().unwrap().to_owned()
    };
    let first = attachment().await;
    world.control().clock().advance(1);
    assert_ne!(first, attachment().await);
    // The message in the path is not checked.
    let got = world.me(&format!("messages/0000000000000001/attachments/{first}")).await;
    assert_eq!(got.json(), json!({"size": 5, "data": "JVBERi0="}));
    let wrong = world.me(&format!("messages/{id}/attachments/ANGjdJxyz")).await;
    assert_eq!((wrong.status, wrong.json()["error"]["message"].as_str()), (400, Some("Invalid attachment token")));
}

#[tokio::test]
async fn masks_and_pretty_printing_apply() {
    let (world, id) = delivered().await;
    let mask = "id,payload(headers,body(size),parts(partId,body(size)))";
    let reply = world.me(&format!("messages/{id}?prettyPrint=false&fields={mask}")).await;
    assert!(!reply.text().contains('\n'));
    assert_eq!(reply.headers["content-type"], "application/json; charset=UTF-8");
    let body = reply.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "payload"]);
    let parts = json!([{"partId": "0", "body": {"size": 13}}, {"partId": "1", "body": {"size": 5}}]);
    assert_eq!(body["payload"]["parts"], parts);
}

#[tokio::test]
async fn bodies_are_packed_for_who_asks_twice() {
    use std::io::Read as _;
    let (world, id) = delivered().await;
    let path = format!("/gmail/v1/users/me/messages/{id}");
    let bearer = format!("Bearer {}", world.token);
    let get = async |agent: &str| {
        let headers = [("authorization", bearer.as_str()), ("accept-encoding", "gzip"), ("user-agent", agent)];
        world.raw("GET", &path, &headers, b"").await
    };
    let plain = get("client").await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let packed = get("client (gzip)").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["snippet"], plain.json()["snippet"]);
}

#[tokio::test]
async fn an_mbox_is_delivered_over_http_and_repeated_message_ids_stay() {
    let world = World::new().await;
    let mbox = b"From a@b Thu Jan  1 00:00:00 2026\nMessage-ID: <same@x>\nSubject: one\n\n1\n\n\
        From a@b Thu Jan  1 00:00:00 2026\nMessage-ID: <same@x>\nSubject: one\n\n1\n\n\
        From a@b Thu Jan  1 00:00:00 2026\nDate: someday\nIn-Reply-To: <same@x>\nContent-Type: ???\n\n\xff\xfe\n\n";
    let path = format!("/control/mailboxes/{EMAIL}/deliver?labels=INBOX,Work");
    let reply = world.send("POST", &path, "application/mbox", mbox).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let messages = reply.json()["messages"].as_array().cloned().unwrap();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0]["labelIds"], json!(["INBOX", "Label_1"]));
    // The answer joins the thread of what it answers.
    assert_eq!(messages[2]["threadId"], messages[0]["id"]);
    let listed = world.me("messages?labelIds=Label_1").await.json();
    assert_eq!(listed["messages"].as_array().unwrap().len(), 3);
    let found = world.me("messages?q=rfc822msgid:same@x").await.json();
    assert_eq!(found["messages"].as_array().map(Vec::len), Some(2));
    let truth = world.get(&format!("/control/mailboxes/{EMAIL}/messages")).await.json();
    assert_eq!(truth["messages"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn maildir_and_eml_files_are_imported() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    for sub in ["cur", "new", "tmp"] {
        std::fs::create_dir(folder.path().join(sub)).unwrap();
    }
    std::fs::write(folder.path().join("cur/1.a:2,FS"), REPORT).unwrap();
    std::fs::write(folder.path().join("new/2.b"), b"no header").unwrap();
    let imported = world.control().import(EMAIL, folder.path(), &Delivery::default()).unwrap();
    let labels: Vec<Vec<String>> = imported.into_iter().map(|truth| truth.label_ids).collect();
    assert_eq!(labels, [vec!["INBOX", "STARRED"], vec!["INBOX", "UNREAD"]]);
    let file = folder.path().join("one.eml");
    std::fs::write(&file, REPORT).unwrap();
    assert_eq!(world.control().import(EMAIL, &file, &Delivery::default()).unwrap().len(), 1);
    let missing = world.control().import(EMAIL, &folder.path().join("none"), &Delivery::default()).unwrap_err();
    assert!(missing.to_string().starts_with("Reading mail from "), "{missing}");
}

#[tokio::test]
async fn many_mailboxes_are_made_at_once() {
    let world = World::new().await;
    let body = json!({"count": 500, "template": "user{}@example.org", "messages": 2}).to_string();
    let reply = world.send("POST", "/control/mailboxes", "application/json", body.as_bytes()).await;
    let made = reply.json()["mailboxes"].as_array().cloned().unwrap();
    assert_eq!(made.len(), 500);
    let tokens: BTreeSet<String> = made.iter().map(|mailbox| mailbox["refreshToken"].to_string()).collect();
    assert_eq!(tokens.len(), 500);
    let again = json!({"email": "USER3@example.org"}).to_string();
    assert_eq!(world.send("POST", "/control/mailboxes", "application/json", again.as_bytes()).await.status, 409);
}
