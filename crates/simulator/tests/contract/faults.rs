//! Faults as a client meets them, and batches with all that can happen in one.

use serde_json::{Value, json};
use simulator::{Delivery, Limits, Mails, Tariff};

use crate::client::{EMAIL, Reply, World};

impl World {
    async fn fault(&self, rule: Value) {
        let reply = self.send("POST", "/control/faults", "application/json", rule.to_string().as_bytes()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    async fn clear(&self) {
        assert_eq!(self.send("DELETE", "/control/faults", "application/json", b"").await.status, 200);
    }

    async fn batch(&self, path: &str, requests: &[String]) -> Reply {
        let mut body = String::new();
        for (n, request) in requests.iter().enumerate() {
            body.push_str(&format!(
                "--B\r\nContent-Type: application/http\r\nContent-ID: <u + {n}>\r\n\r\n{request}\r\n\r\n"
            ));
        }
        body.push_str("--B--\r\n");
        let authorization = format!("Bearer {}", self.token);
        let headers = [("content-type", "multipart/mixed; boundary=B"), ("authorization", authorization.as_str())];
        self.raw("POST", path, &headers, body.as_bytes()).await
    }
}

/// The parts of a batch's response: content id, status, body.
fn parts(reply: &Reply) -> Vec<(String, u16, Value)> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (_, boundary) = reply.headers["content-type"].split_once("boundary=").unwrap();
    let text = reply.text();
    let pieces: Vec<&str> = text.split(&format!("--{boundary}")).collect();
    assert_eq!((pieces[0], pieces[pieces.len() - 1]), ("", "--\r\n"));
    let part = |piece: &&str| {
        let mut blocks = piece.splitn(3, "\r\n\r\n");
        let (outer, head, body) = (blocks.next().unwrap(), blocks.next().unwrap(), blocks.next().unwrap());
        let id = outer.lines().find_map(|line| line.strip_prefix("Content-ID: ")).unwrap().to_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (id, status, serde_json::from_str(body).unwrap_or(Value::Null))
    };
    pieces[1..pieces.len() - 1].iter().map(part).collect()
}

#[tokio::test]
async fn parts_have_each_their_own_verdict_in_the_order_asked() {
    let world = World::new().await;
    let truth = world.control().deliver(EMAIL, Mails::Synthetic(20), &Delivery::default()).unwrap();
    let mut requests: Vec<String> =
        truth.iter().map(|truth| format!("GET /gmail/v1/users/me/messages/{}?fields=id HTTP/1.1", truth.id)).collect();
    requests.push("GET /gmail/v1/users/me/messages/0000000000000001".to_owned());
    requests.push("GET /gmail/v1/users/me/profile HTTP/1.1\r\nAuthorization: Bearer bad".to_owned());
    requests.push("GET /nowhere".to_owned());
    for path in ["/batch", "/batch/gmail/v1"] {
        let parts = parts(&world.batch(path, &requests).await);
        for (n, (id, status, body)) in parts.iter().enumerate() {
            assert_eq!(*id, format!("<response-u + {n}>"));
            match n {
                20 => assert_eq!((*status, &body["error"]["status"]), (404, &json!("NOT_FOUND"))),
                21 => assert_eq!((*status, &body["error"]["status"]), (401, &json!("UNAUTHENTICATED"))),
                22 => assert_eq!((*status, body), (404, &Value::Null)),
                n => assert_eq!((*status, body), (200, &json!({"id": truth[n].id}))),
            }
        }
        assert_eq!(parts.len(), 23);
    }
    assert_eq!(world.control().usage().total.units, 2 * 21 * 20);
}

#[tokio::test]
async fn a_batch_counts_as_so_many_requests_at_once() {
    let world = World::new().await;
    let request = "GET /gmail/v1/users/me/profile".to_owned();
    let of = |n: usize| vec![request.clone(); n];
    let too_many = parts(&world.batch("/batch", &of(100)).await);
    let refused: Vec<&Value> = too_many.iter().filter(|(_, status, _)| *status == 429).map(|(.., body)| body).collect();
    assert_eq!(refused.len(), 50);
    assert_eq!(refused[0]["error"]["message"], "Too many concurrent requests for user.");
    assert_eq!(refused[0]["error"]["errors"][0]["reason"], "rateLimitExceeded");
    assert!(parts(&world.batch("/batch", &of(25)).await).iter().all(|(_, status, _)| *status == 200));
    let over = world.batch("/batch", &of(101)).await;
    let message = "Inner request count exceeds the limit. Received: 101, Limit: 100";
    let body = json!({"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}});
    assert_eq!((over.status, over.json()), (400, body));
    let empty = world.batch("/batch", &[]).await;
    assert_eq!(empty.status, 400);
    let plain = world.send("POST", "/batch", "text/plain", b"x").await;
    assert_eq!(plain.status, 400);
}

#[tokio::test]
async fn a_part_can_be_missing_or_fail_alone() {
    let world = World::new().await;
    world.fault(json!({"calls": ["getProfile"], "after": 1, "times": 1, "fault": "lost"})).await;
    let requests = vec!["GET /gmail/v1/users/me/profile".to_owned(); 3];
    assert_eq!(parts(&world.batch("/batch", &requests).await).len(), 2);
    world.clear().await;
    world.fault(json!({"times": 1, "fault": {"error": {"backend": 503}}, "calls": ["getProfile"]})).await;
    let statuses: Vec<u16> = parts(&world.batch("/batch", &requests).await).iter().map(|part| part.1).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 2);
}

#[tokio::test]
async fn throttles_come_in_every_form() {
    let world = World::new().await;
    world.control().clock().stand_at(world.control().clock().now_ms() / 86_400_000 * 86_400_000);
    let world = World { token: world.refresh().await.json()["access_token"].as_str().unwrap().to_owned(), ..world };
    for (form, status, reason, message) in [
        (json!("concurrency"), 429, "rateLimitExceeded", "Too many concurrent requests for user."),
        (json!("resourceExhausted"), 429, "rateLimitExceeded", "Resource has been exhausted (e.g. check quota)."),
        (json!({"userRate": 900_000}), 429, "rateLimitExceeded", "User-rate limit exceeded.  Retry after "),
        (json!({"userRateForbidden": 1}), 403, "userRateLimitExceeded", "User-rate limit exceeded.  Retry after "),
        (json!("quota"), 403, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries' and limit"),
        (json!("userRateShort"), 403, "userRateLimitExceeded", "User Rate Limit Exceeded"),
        (json!("rateShort"), 403, "rateLimitExceeded", "Rate Limit Exceeded"),
        (json!("dailyLimit"), 403, "dailyLimitExceeded", "Daily Limit Exceeded"),
        (json!("domainPolicy"), 403, "domainPolicy", "The domain administrators"),
        (json!("notConfigured"), 403, "accessNotConfigured", "Access Not Configured"),
        (json!("notEnabled"), 400, "failedPrecondition", "Mail service not enabled"),
        (json!("precondition"), 400, "failedPrecondition", "Precondition check failed."),
        (json!("unauthorized"), 401, "authError", "Request had invalid authentication credentials."),
        (json!("notFound"), 404, "notFound", "Requested entity was not found."),
        (json!({"backend": 500}), 500, "backendError", "Internal error encountered."),
        (json!({"backend": 502}), 502, "backendError", "Bad Gateway"),
        (json!({"backend": 503}), 503, "backendError", "The service is currently unavailable."),
        (json!({"backend": 504}), 504, "backendError", "Deadline expired before operation could complete."),
    ] {
        world.fault(json!({"fault": {"error": form}, "times": 1})).await;
        let reply = world.me("profile").await;
        let error = &reply.json()["error"];
        assert_eq!(reply.status, status, "{form}");
        assert_eq!(error["code"], status);
        assert_eq!(error["errors"][0]["reason"], reason, "{form}");
        let text = error["message"].as_str().unwrap();
        assert!(text.starts_with(message), "{text}");
        if form == json!({"userRate": 900_000}) {
            assert!(text.ends_with("T00:15:00.000Z"), "{text}");
        }
        assert_eq!(world.me("profile").await.status, 200, "once only: {form}");
    }
}

#[tokio::test]
async fn bodies_and_connections_break() {
    let world = World::new().await;
    let once = |fault: Value| json!({"calls": ["getProfile", "token"], "times": 1, "fault": fault});
    world.fault(once(json!({"html": 502}))).await;
    let html = world.me("profile").await;
    assert_eq!((html.status, html.headers["content-type"].as_str()), (502, "text/html; charset=UTF-8"));

    world.fault(once(json!("malformed"))).await;
    let malformed = world.me("profile").await;
    assert_eq!(malformed.headers["content-length"], malformed.body.len().to_string());
    assert!(serde_json::from_slice::<Value>(&malformed.body).is_err());

    world.fault(once(json!({"truncate": 0.5}))).await;
    let cut = world.try_raw("GET", "/gmail/v1/users/me/profile").await.expect("the head and half of the body came");
    let promised: usize = cut.headers["content-length"].parse().unwrap();
    assert_eq!(cut.body.len(), promised / 2);

    world.fault(once(json!("reset"))).await;
    assert!(world.try_raw("GET", "/gmail/v1/users/me/profile").await.is_none());
    assert_eq!(world.me("profile").await.status, 200);

    world.fault(once(json!({"error": {"backend": 503}}))).await;
    let token = world.refresh().await;
    assert_eq!((token.status, &token.json()["error"]), (503, &json!("internal_failure")));
    assert_eq!(world.refresh().await.status, 200);
}

#[tokio::test]
async fn a_poisoned_record_spoils_every_page_that_names_it_and_no_other() {
    let world = World::new().await;
    let start = world.control().head(EMAIL).unwrap();
    let truth = world.control().deliver(EMAIL, Mails::Synthetic(10), &Delivery::default()).unwrap();
    world.fault(json!({"fault": {"poison": truth[6].id}})).await;
    let page =
        async |from: u64, n: u32| world.me(&format!("history?startHistoryId={from}&maxResults={n}")).await.status;
    assert_eq!(page(start, 10).await, 500);
    assert_eq!(page(start, 6).await, 200);
    assert_eq!(page(truth[5].history_id, 1).await, 500);
    assert_eq!(page(truth[6].history_id, 10).await, 200);
    assert_eq!(world.me(&format!("messages/{}", truth[6].id)).await.status, 500);
    assert_eq!(world.me(&format!("messages/{}", truth[5].id)).await.status, 200);
    world.fault(json!({"fault": {"unreadable": truth[5].id}})).await;
    assert_eq!(world.me(&format!("messages/{}", truth[5].id)).await.status, 404);
    assert_eq!(page(start, 6).await, 200);
}

#[tokio::test]
async fn a_walk_can_expire_in_its_middle_and_a_head_can_fall_behind() {
    let world = World::new().await;
    let start = world.control().head(EMAIL).unwrap();
    world.control().deliver(EMAIL, Mails::Synthetic(10), &Delivery::default()).unwrap();
    world.fault(json!({"calls": ["listHistory"], "after": 1, "times": 1, "fault": {"error": "notFound"}})).await;
    let path = format!("history?startHistoryId={start}&maxResults=3");
    let first = world.me(&path).await;
    let token = first.json()["nextPageToken"].as_str().unwrap().to_owned();
    assert_eq!(world.me(&format!("{path}&pageToken={token}")).await.status, 404);
    assert_eq!(world.me(&format!("{path}&pageToken={token}")).await.status, 200);

    world.fault(json!({"fault": {"headBehind": 1_000_000_000}})).await;
    assert_eq!(world.me("profile").await.json()["historyId"], "0");
}

#[tokio::test]
async fn one_mailbox_can_be_slow() {
    let world = World::new().await;
    world.fault(json!({"mailboxes": [EMAIL], "times": 1, "fault": {"latency": {"fixed": 60}}})).await;
    let before = std::time::Instant::now();
    assert_eq!(world.me("profile").await.status, 200);
    assert!(before.elapsed().as_millis() >= 60);
    let rules = world.get("/control/faults").await.json();
    assert_eq!(rules["faults"][0]["hits"], 1);
}

#[tokio::test]
async fn prices_and_limits_can_be_changed() {
    let world = World::new().await;
    let limits = Limits { project_minute: 5, ..Tariff::Old.limits() };
    world.control().set_tariff(Tariff::Old, limits);
    assert_eq!(world.me("messages").await.status, 200);
    let refused = world.me("profile").await.json();
    let metadata = &refused["error"]["details"][0]["metadata"];
    assert_eq!(
        (&metadata["quota_limit"], &metadata["quota_limit_value"]),
        (&json!("defaultPerMinutePerProject"), &json!("5"))
    );
    let reply = world.send("POST", "/control/tariff", "application/json", br#"{"tariff": "old"}"#).await;
    assert_eq!(reply.status, 200);
    assert_eq!(world.get("/control/tariff").await.json()["limits"]["userMinute"], 15_000);
    assert_eq!(world.me("profile").await.status, 200);
}

#[tokio::test]
async fn a_scenario_is_in_force_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad-day.json");
    std::fs::write(&file, r#"[{"calls": ["getProfile"], "times": 1, "fault": {"error": "quota"}}]"#).unwrap();
    let settings = simulator::Settings { scenario: Some(file.clone()), ..simulator::Settings::default() };
    let world = World::with(settings.clone(), simulator::NewMailbox::default()).await;
    assert_eq!((world.me("profile").await.status, world.me("profile").await.status), (403, 200));
    std::fs::write(&file, r#"[{"calls": ["getProfile"], "fault": "explode"}]"#).unwrap();
    let error = simulator::start(settings).await.unwrap_err();
    assert!(format!("{error:#}").contains("unknown variant `explode`"), "{error:#}");
}

#[tokio::test]
async fn a_watch_is_set_renewed_and_stopped() {
    let world = World::new().await;
    world.control().clock().stand_at(1_000 + world.control().clock().now_ms());
    let now_ms = world.control().clock().now_ms();
    let authorization = format!("Bearer {}", world.token);
    let post = async |path: &str, body: &str| {
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        world.raw("POST", &format!("/gmail/v1/users/me/{path}"), &headers, body.as_bytes()).await
    };
    let watched = post("watch", r#"{"topicName": "projects/p/topics/t"}"#).await;
    let head = world.control().head(EMAIL).unwrap().to_string();
    assert_eq!(watched.json(), json!({"historyId": head, "expiration": (now_ms + 604_800_000).to_string()}));
    let other = post("watch", r#"{"topicName": "projects/p/topics/u"}"#).await;
    assert_eq!((other.status, &other.json()["error"]["status"]), (400, &json!("FAILED_PRECONDITION")));
    assert_eq!(post("watch", "{}").await.status, 400);
    assert_eq!(post("watch", "{").await.status, 400);
    let stopped = post("stop", "").await;
    assert_eq!((stopped.status, stopped.body.len()), (204, 0));
    assert_eq!(post("watch", r#"{"topicName": "projects/p/topics/u"}"#).await.status, 200);
    assert_eq!(world.control().usage().total.units, 5 * 100 + 50);
}
