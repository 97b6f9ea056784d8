//! A sync as a client does it: profile, history in pages, listing, get.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use simulator::{Behaviour, Delivery, Mails, NewMailbox, Settings};

use crate::client::{EMAIL, Reply, World, encoded};

const TYPES: &str = "historyTypes=messageAdded&historyTypes=labelAdded&historyTypes=labelRemoved&maxResults=500";

/// Every page of a path, as bodies.
async fn pages(world: &World, path: &str) -> Vec<Value> {
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let page = world.me(&format!("{path}&pageToken={token}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let next = page["nextPageToken"].as_str().map(str::to_owned);
        pages.push(page);
        match next {
            Some(next) => token = next,
            None => return pages,
        }
    }
}

fn added(pages: &[Value]) -> Vec<String> {
    let records = pages.iter().flat_map(|page| page["history"].as_array().cloned().unwrap_or_default());
    let added = records.flat_map(|record| record["messagesAdded"].as_array().cloned().unwrap_or_default());
    added.map(|added| added["message"]["id"].as_str().unwrap().to_owned()).collect()
}

fn ids(pages: &[Value]) -> Vec<String> {
    let messages = pages.iter().flat_map(|page| page["messages"].as_array().cloned().unwrap_or_default());
    messages.map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn history_ids_are_strings_above_2_to_the_53_and_pages_hold_each_message_once() {
    let first = (1 << 53) + 11;
    let mailbox = NewMailbox { first_history_id: Some(first), ..NewMailbox::default() };
    let world = World::with(Settings::default(), mailbox).await;
    let profile = world.me("profile").await.json();
    assert_eq!(
        profile,
        json!({"emailAddress": EMAIL, "messagesTotal": 0, "threadsTotal": 0, "historyId": first.to_string()})
    );

    let delivered = world.control().deliver(EMAIL, Mails::Synthetic(1_234), &Delivery::default()).unwrap();
    let walked = pages(&world, &format!("history?startHistoryId={first}&{TYPES}")).await;
    assert_eq!(walked.len(), 3);
    let head = world.control().head(EMAIL).unwrap().to_string();
    assert!(walked.iter().all(|page| page["historyId"] == head));
    let delivered: Vec<String> = delivered.into_iter().map(|truth| truth.id).collect();
    assert_eq!(added(&walked), delivered);

    let idle = world.me(&format!("history?startHistoryId={head}")).await;
    assert_eq!(idle.text(), format!("{{\n  \"historyId\": \"{head}\"\n}}\n"));
}

#[tokio::test]
async fn a_record_has_the_shape_of_gmails() {
    let world = World::new().await;
    let start = world.control().head(EMAIL).unwrap();
    let truth = world.control().deliver(EMAIL, Mails::Synthetic(1), &Delivery::default()).unwrap().remove(0);
    world.control().trash(EMAIL, &[&truth.id]).unwrap();
    world.control().delete(EMAIL, &[&truth.id]).unwrap();
    let body = world.me(&format!("history?startHistoryId={start}")).await.json();
    let records = body["history"].as_array().unwrap();
    let short = json!({"id": truth.id, "threadId": truth.thread_id});
    let with = |labels: &[&str]| json!({"id": truth.id, "threadId": truth.thread_id, "labelIds": labels});
    assert_eq!(records[0]["id"], truth.history_id.to_string());
    assert_eq!(records[0]["messages"], json!([short]));
    assert_eq!(records[0]["messagesAdded"], json!([{"message": with(&["INBOX", "UNREAD"])}]));
    assert_eq!(records[1]["messages"], json!([short]));
    let now = with(&["TRASH", "UNREAD"]);
    assert_eq!(records[1]["labelsAdded"], json!([{"message": now, "labelIds": ["TRASH"]}]));
    assert_eq!(records[1]["labelsRemoved"], json!([{"message": now, "labelIds": ["INBOX"]}]));
    assert_eq!(records[2]["messagesDeleted"], json!([{"message": now}]));
    assert_eq!(records.len(), 3);

    let only = world.me(&format!("history?startHistoryId={start}&historyTypes=labelAdded&labelId=TRASH")).await.json();
    assert_eq!(only["history"].as_array().unwrap().len(), 1);
    assert!(only["history"][0].get("labelsRemoved").is_none());

    let behaviour = Behaviour { bare_records: true, ..Behaviour::default() };
    world.control().set_behaviour(None, behaviour).unwrap();
    let bare = world.me(&format!("history?startHistoryId={start}&historyTypes=messageDeleted")).await.json();
    assert_eq!(bare["history"][0], json!({"id": truth.history_id.to_string(), "messages": [short]}));
    assert_eq!(bare["history"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn expiry_answers_404_and_the_profile_gives_a_head_to_go_on_from() {
    let world = World::new().await;
    world.control().deliver(EMAIL, Mails::Synthetic(3), &Delivery::default()).unwrap();
    let old = world.control().head(EMAIL).unwrap();
    world.control().expire_history(EMAIL).unwrap();
    assert_eq!(world.me(&format!("history?startHistoryId={old}")).await.status, 404);
    let head = world.me("profile").await.json()["historyId"].as_str().unwrap().to_owned();
    assert_eq!(world.me(&format!("history?startHistoryId={head}")).await.status, 200);
}

#[tokio::test]
async fn a_window_is_listed_newest_first_to_the_second() {
    let world = World::new().await;
    let second = 1_700_000_000_i64;
    let how = Delivery { internal_ms: Some(second * 1_000), step_ms: 250, ..Delivery::default() };
    let delivered = world.control().deliver(EMAIL, Mails::Synthetic(1_200), &how).unwrap();
    let labelled = |label: &str| Delivery { labels: Some(vec![label.to_owned()]), ..how.clone() };
    for label in ["DRAFT", "CHAT"] {
        world.control().deliver(EMAIL, Mails::Synthetic(3), &labelled(label)).unwrap();
    }
    let spam = world.control().deliver(EMAIL, Mails::Synthetic(2), &labelled("SPAM")).unwrap();
    let q = |q: &str| format!("messages?maxResults=500&includeSpamTrash=true&q={}", encoded(q));

    let all = pages(&world, &q(&format!("after:{second} before:{} -in:drafts -in:chats", second + 1_000))).await;
    let got = ids(&all);
    assert_eq!(got.len(), 1_202);
    let newest_first: Vec<String> = delivered.iter().rev().map(|truth| truth.id.clone()).collect();
    let without_spam: Vec<String> = got.into_iter().filter(|id| !spam.iter().any(|truth| truth.id == *id)).collect();
    assert_eq!(without_spam, newest_first);

    // Four messages a second: the bounds are exact.
    let one = pages(&world, &q(&format!("after:{} before:{}", second + 100, second + 101))).await;
    let wanted: BTreeSet<String> = delivered[400..404].iter().map(|truth| truth.id.clone()).collect();
    assert_eq!(ids(&one).into_iter().collect::<BTreeSet<_>>(), wanted);

    let spam_only = pages(&world, &q("{in:spam in:trash}")).await;
    assert_eq!(ids(&spam_only).len(), 2);
    let hidden = world.me("messages?maxResults=500").await.json();
    assert!(hidden["resultSizeEstimate"].as_u64().unwrap() > 200);

    let none = world.me(&q("after:1 before:2")).await;
    assert_eq!(none.text(), "{\n  \"resultSizeEstimate\": 0\n}\n");
}

#[tokio::test]
async fn a_page_token_is_a_position_so_a_trash_in_between_skips_a_message() {
    let world = World::new().await;
    let delivered = world.control().deliver(EMAIL, Mails::Synthetic(6), &Delivery::default()).unwrap();
    let first = world.me("messages?maxResults=3").await.json();
    world.control().trash(EMAIL, &[&delivered[5].id]).unwrap();
    let token = first["nextPageToken"].as_str().unwrap();
    assert_eq!(token, "3");
    let second = world.me(&format!("messages?maxResults=3&pageToken={token}")).await.json();
    assert_eq!(ids(&[second]), [delivered[1].id.clone(), delivered[0].id.clone()], "message 2 slipped to page one");
    assert_eq!(world.me("messages?pageToken=99999999999999999999").await.json(), json!({"resultSizeEstimate": 0}));
}

#[tokio::test]
async fn what_lags_appears_when_the_clock_has_moved() {
    let world = World::new().await;
    let clock = world.control().clock();
    clock.stand_at(1_700_000_000_000);
    let behaviour = Behaviour { index_lag_ms: 5_000, get_lag_ms: 2_000, history_lag_ms: 9_000, ..Behaviour::default() };
    world.control().set_behaviour(Some(EMAIL), behaviour).unwrap();
    let token = world.refresh().await.json()["access_token"].as_str().unwrap().to_owned();
    let world = World { token, ..world };
    let start = world.control().head(EMAIL).unwrap();
    let truth = world.control().deliver(EMAIL, Mails::Synthetic(40), &Delivery::default()).unwrap();
    let get = format!("messages/{}?format=minimal", truth[0].id);
    let history = format!("history?startHistoryId={start}");
    let count = |reply: Reply| reply.json()["history"].as_array().map_or(0, Vec::len);
    assert_eq!(world.me(&get).await.status, 404);
    assert_eq!(world.me("messages").await.json()["resultSizeEstimate"], 0);
    let before = count(world.me(&history).await);
    assert!(before < 40, "{before}");
    world.control().clock().advance(2_000);
    assert_eq!(world.me(&get).await.status, 200);
    assert_eq!(world.me("messages").await.json()["resultSizeEstimate"], 0);
    world.control().clock().advance(7_000);
    assert_eq!(world.me("messages").await.json()["messages"].as_array().unwrap().len(), 40);
    let after = world.me(&history).await;
    assert_eq!(after.headers["date"], "Tue, 14 Nov 2023 22:13:29 GMT");
    assert_eq!(count(after), 40);
}

#[tokio::test]
async fn drafts_are_new_messages_each_time_and_sending_replaces_them() {
    let world = World::new().await;
    let start = world.control().head(EMAIL).unwrap();
    let (draft, first) = world.control().save_draft(EMAIL, None).unwrap();
    let (same, second) = world.control().save_draft(EMAIL, Some(&draft)).unwrap();
    assert_eq!(draft, same);
    let sent = world.control().send_draft(EMAIL, &draft, true).unwrap();
    assert_eq!(sent.label_ids, ["INBOX", "SENT", "UNREAD"]);
    let body = world.me(&format!("history?startHistoryId={start}")).await.json();
    assert_eq!(added(std::slice::from_ref(&body)), [first.id.clone(), second.id.clone(), sent.id.clone()]);
    let deleted: Vec<&Value> =
        body["history"].as_array().unwrap().iter().filter_map(|record| record.get("messagesDeleted")).collect();
    assert_eq!(deleted.len(), 2);
    assert_eq!(world.me(&format!("messages/{}", first.id)).await.status, 404);
    let profile = world.me("profile").await.json();
    assert_eq!((&profile["messagesTotal"], &profile["threadsTotal"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn usage_counts_every_call_and_unit() {
    let world = World::new().await;
    let truth = world.control().deliver(EMAIL, Mails::Synthetic(1), &Delivery::default()).unwrap();
    world.me("profile").await;
    world.me("messages").await;
    world.me("messages").await;
    world.me(&format!("messages/{}", truth[0].id)).await;
    world.me("messages/0000000000000001").await;
    let usage = world.get("/control/usage").await.json();
    let calls = json!({"getProfile": 1, "listMessages": 2, "getMessage": 2});
    let spent = json!({"calls": calls, "units": 51, "throttled": 0, "mostAtOnce": 1});
    assert_eq!(
        usage,
        json!({"total": spent, "tokenRequests": 1, "pushesPosted": 0, "pushesAcknowledged": 0, "mailboxes": {EMAIL: spent}})
    );
}

/// Where a test's log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_search_that_is_not_understood_matches_nothing_and_is_loud_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // The server's tasks run on this test's only thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    world.control().deliver(EMAIL, Mails::Synthetic(2), &Delivery::default()).unwrap();
    let found = world.me(&format!("messages?q={}", encoded("in:inbox -frob:nicate secret"))).await;
    assert_eq!(found.json(), json!({"resultSizeEstimate": 0}));
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = text.lines().find(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("no error in {text}"));
    assert!(line.contains("frob:nicate") && !line.contains("secret"), "{line}");
}
