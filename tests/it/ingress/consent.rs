//! Connecting a mailbox: from the request by way of Google's page to a connection and its first sync.

use std::collections::BTreeMap;

use domain::{Command, Duration, PollGmailConnection, Timestamp, Trigger};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::connections::{self, Consent};
use url::Url;

use super::api::{Api, assert_problem, now, tenant};
use super::browser::{Browser, READONLY, RETURN_URL, allow_return, mailbox, outcome};
use crate::support::{LONG, committed, wait_until};

async fn api(name: &str) -> Api {
    let api = Api::start(name).await;
    allow_return(&api.store, api.tenant.organisation).await;
    api
}

/// The commands written for a connection, in their order.
async fn commands(api: &Api, connection: &str) -> Vec<PollGmailConnection> {
    let records = committed(&api.place.topic("gmail.connection.poll")).await;
    let of = records.iter().filter(|record| record.key_text() == connection);
    of.map(|record| match events::decode_command(record.value.as_deref().unwrap()).unwrap() {
        Command::Poll(command) => command,
        other => panic!("{other:?}"),
    })
    .collect()
}

async fn database(api: &Api) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(api.place.database_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {}", api.store.schema())).await.unwrap();
    client
}

#[tokio::test]
async fn the_page_is_asked_for_as_google_wants_it_and_leads_to_a_connection_once() {
    let api = api("consent").await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let answer = api.connect_with(&api.tenant.key, &json!({"returnUrl": RETURN_URL, "loginHint": email})).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["consentUrl", "expiresAt"]);
    let page = body["consentUrl"].as_str().unwrap();
    let asked: BTreeMap<String, String> = Url::parse(page).unwrap().query_pairs().into_owned().collect();
    let is = |name: &str| asked[name].as_str();
    assert_eq!([is("response_type"), is("access_type"), is("prompt")], ["code", "offline", "consent"]);
    assert_eq!([is("code_challenge_method"), is("login_hint")], ["S256", &email]);
    assert_eq!(is("scope"), format!("openid {READONLY}"));
    assert_eq!(is("redirect_uri"), format!("{}/gmail-connections/oauth-callback", api.base));
    assert_eq!((is("state").len(), is("code_challenge").len()), (43, 43));

    let callback = browser.allow(page, &email).await;
    let (status, connection) = browser.come_back(&callback).await;
    assert_eq!(status, "connected");
    let connection = connection.unwrap();
    // The state is used up, and nothing leads anywhere any more.
    let again = browser.get(&callback).await;
    assert!(!again.headers().contains_key("location"));
    assert_problem(again, 400, "Gmail.ConsentStateInvalid").await;

    // Its first sync, and a backfill of the thirty days before the last 24 hours.
    let commands = commands(&api, &connection).await;
    assert_eq!(
        commands.iter().map(|command| command.trigger).collect::<Vec<_>>(),
        [Trigger::Connect, Trigger::Backfill]
    );
    let window = commands[1].window.unwrap();
    assert_eq!((commands[0].window, commands[0].requested_at.since(window.until)), (None, Duration::from_hours(24)));
    let reach = commands[0].requested_at.since(window.since);
    assert!(reach > Duration::from_days(29) && reach < Duration::from_days(31), "{reach:?}");
    for command in &commands {
        let job = api.request(Method::GET, &format!("/jobs/{}", command.job_id)).send().await.unwrap();
        assert_eq!(job.status(), StatusCode::OK, "the jobs can be read at once");
    }
    assert_eq!(connections::first_syncs_owed(&api.store, now() + Duration::from_hours(1), 10).await.unwrap(), []);

    // It is there, newest first, beside the tenant's first one, and says what is known of it.
    let listed: Value = api.request(Method::GET, "/gmail-connections").send().await.unwrap().json().await.unwrap();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["connectionId"].as_str().unwrap()).collect();
    assert_eq!(ids, [connection.as_str(), &api.tenant.connection.to_string()]);
    let path = format!("/gmail-connections/{connection}");
    let one: Value = api.request(Method::GET, &path).send().await.unwrap().json().await.unwrap();
    assert_eq!(one, listed[0]);
    assert_eq!(
        [&one["emailAddress"], &one["status"], &one["paused"]],
        [&json!(email), &json!("active"), &json!(false)]
    );
    assert!(one["lastSyncedAt"].is_null() && one["lastHistoryId"].is_null() && one["code"].is_null(), "{one}");
    let next: jiff::Timestamp = one["nextScheduledAt"].as_str().unwrap().parse().unwrap();
    let ahead = next.as_millisecond() - now().as_millis();
    assert!((-60_000..=12 * 3_600_000).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn connecting_an_address_again_renews_its_connection_and_backfills_only_what_is_asked_for() {
    let api = api("renew").await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let first = api.connect(&browser, &email, json!({"since": "2024-11-01T00:00:00Z"})).await;
    assert_eq!(api.connect(&browser, &email, json!({})).await, first);
    assert_eq!(api.connect(&browser, &email, json!({"since": "2020-01-01T01:00:00+01:00"})).await, first);
    let commands = commands(&api, &first).await;
    let seen: Vec<_> = commands.iter().map(|command| (command.trigger, command.token_version.0)).collect();
    use Trigger::{Backfill, Connect};
    assert_eq!(seen, [(Connect, 1), (Backfill, 1), (Connect, 2), (Connect, 3), (Backfill, 3)]);
    assert_eq!(commands[4].window.unwrap().since, Timestamp::from_millis(1_577_836_800_000));
    let mut jobs: Vec<_> = commands.iter().map(|command| command.job_id).collect();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), 5, "each its own job");

    // Many at once, of one address that is new: one connection.
    let email = mailbox(api.place.prefix(), "bob");
    let callbacks =
        join_all((0..6).map(|_| async { browser.allow(&api.consent_page(json!({})).await, &email).await })).await;
    let came_back = join_all(callbacks.iter().map(|callback| browser.come_back(callback))).await;
    assert!(came_back.iter().all(|outcome| outcome == &came_back[0] && outcome.0 == "connected"), "{came_back:?}");

    // A deleted one never comes back.
    let path = format!("/gmail-connections/{first}");
    assert_eq!(api.request(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let email = mailbox(api.place.prefix(), "cyd");
    let third = api.connect(&browser, &email, json!({})).await;
    let path = format!("/gmail-connections/{third}");
    assert_eq!(api.request(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_ne!(api.connect(&browser, &email, json!({})).await, third);
}

#[tokio::test]
async fn whatever_else_comes_of_the_page_is_told_where_the_browser_came_from() {
    let api = api("outcomes").await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let metadata = "https://www.googleapis.com/auth/gmail.metadata";
    for (decision, scopes, status) in [
        ("deny", &[] as &[&str], "denied"),
        ("allow", &["openid"], "missing_scope"),
        ("allow", &["openid", metadata], "missing_scope"),
        ("allow", &["openid", READONLY, metadata], "missing_scope"),
    ] {
        let callback = browser.answer(&api.consent_page(json!({})).await, decision, &email, scopes).await;
        assert_eq!(browser.come_back(&callback).await, (status.to_owned(), None), "{scopes:?}");
    }
    // Google refuses the code, or says something else, or nothing.
    for wrong in ["code=4/0Awrong", "error=server_error", "error=access_denied&code=x", "", "code="] {
        let page = Url::parse(&api.consent_page(json!({})).await).unwrap();
        let (_, state) = page.query_pairs().find(|(name, _)| name == "state").unwrap();
        let callback = format!("{}/gmail-connections/oauth-callback?state={state}&{wrong}", api.base);
        assert_eq!(browser.come_back(&callback).await, ("error".to_owned(), None), "{wrong}");
    }
    let listed = connections::list(&api.store, api.tenant.organisation, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1, "nothing was connected");

    // An unticked id alone does no harm: the address tells the account.
    let callback = browser.answer(&api.consent_page(json!({})).await, "allow", &email, &[READONLY]).await;
    assert_eq!(browser.come_back(&callback).await.0, "connected");
}

#[tokio::test]
async fn a_state_that_nobody_asked_for_leads_nowhere_and_is_not_repeated() {
    let api = api("states").await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let callback = |query: &str| format!("{}/gmail-connections/oauth-callback{query}", api.base);
    let unmistakable = "unmistakable<script>alert(1)</script>";
    for query in [
        "",
        "?",
        "?state=",
        "?code=x",
        "?error=access_denied",
        &format!("?state={unmistakable}&code=x&returnUrl=https://evil.example&redirect_uri=https://evil.example"),
        "?state=%00&code=x",
        "?state=%FF&code=x",
        "?state[]=x",
        &format!("?state={}", "s".repeat(8_000)),
    ] {
        let answer = browser.get(&callback(query)).await;
        assert!(!answer.headers().contains_key("location"), "{query}");
        let body = assert_problem(answer, 400, "Gmail.ConsentStateInvalid").await;
        assert!(!body.to_string().contains("unmistakable") && !body.to_string().contains("evil"), "{body}");
    }
    // Too late.
    let back = browser.allow(&api.consent_page(json!({})).await, &email).await;
    let sql = "UPDATE consents SET expires_at = now() - interval '1 second'";
    assert_eq!(database(&api).await.execute(sql, &[]).await.unwrap(), 1);
    assert_problem(browser.get(&back).await, 400, "Gmail.ConsentStateInvalid").await;
    // One of two at once, and a parameter that comes twice.
    let back = browser.allow(&api.consent_page(json!({})).await, &email).await;
    assert_problem(browser.get(&format!("{back}&code=other")).await, 400, "Gmail.ConsentStateInvalid").await;
    let answers = join_all((0..8).map(|_| browser.get(&back))).await;
    let (sent, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == StatusCode::FOUND);
    assert_eq!((sent.len(), refused.len()), (1, 7));
    assert_eq!(outcome(sent[0].headers()["location"].to_str().unwrap()).0, "connected");
    for answer in refused {
        assert_problem(answer, 400, "Gmail.ConsentStateInvalid").await;
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_by_the_members_name() {
    let api = api("nonsense").await;
    let key = &api.tenant.key;
    let with = |member: &str, value: Value| {
        let mut body = json!({"returnUrl": RETURN_URL});
        body[member] = value;
        body
    };
    let cases = [
        (json!({}), "`returnUrl`"),
        (json!([RETURN_URL]), "object"),
        (with("returnUrl", Value::Null), "`returnUrl`"),
        (with("returnUrl", json!("http://app.example")), "`returnUrl`"),
        (with("returnUrl", json!("javascript:alert(1)")), "`returnUrl`"),
        (with("returnUrl", json!("https://me@app.example/")), "`returnUrl`"),
        (with("loginHint", json!("")), "`loginHint`"),
        (with("loginHint", json!("a\nb")), "`loginHint`"),
        (with("loginHint", json!("x".repeat(321))), "`loginHint`"),
        (with("since", json!("last week")), "`since`"),
        (with("since", json!("2003-01-01T00:00:00Z")), "`since`"),
        (with("since", json!("2999-01-01T00:00:00Z")), "`since`"),
        (with("since", json!(1_700_000_000)), "`since`"),
        (with("return_url", json!("x")), "`return_url`"),
    ];
    for (body, named) in cases {
        let problem = assert_problem(api.connect_with(key, &body).await, 400, "Request.BodyInvalid").await;
        assert!(problem["detail"].as_str().unwrap().contains(named), "{body}: {problem}");
    }
    for elsewhere in [
        "https://evil.example/",
        "https://app.example.evil.example/",
        "https://evil.example\\@app.example/",
        "https://evil.example/?https://app.example",
        "https://app.example./",
        "https://sub.app.example/",
        "http://localhost:3000/",
    ] {
        let answer = api.connect_with(key, &json!({"returnUrl": elsewhere})).await;
        assert_problem(answer, 400, "Gmail.RedirectHostNotAllowed").await;
    }
    // Another organisation's list is its own.
    let stranger = tenant(&api.store).await;
    let answer = api.connect_with(&stranger.key, &json!({"returnUrl": RETURN_URL})).await;
    assert_problem(answer, 400, "Gmail.RedirectHostNotAllowed").await;
}

#[tokio::test]
async fn the_same_request_under_the_same_name_gives_the_same_page() {
    let api = api("named").await;
    let ask = async |name: &str, hint: &str| {
        let body = json!({"returnUrl": RETURN_URL, "loginHint": hint});
        let request = api.request(Method::POST, "/gmail-connections").header("idempotency-key", name);
        request.json(&body).send().await.unwrap()
    };
    let first = ask("one", "a@example.com").await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let first: Value = first.json().await.unwrap();
    assert_eq!(ask("one", "a@example.com").await.json::<Value>().await.unwrap(), first);
    assert_ne!(ask("two", "a@example.com").await.json::<Value>().await.unwrap(), first);
    assert_problem(ask("one", "b@example.com").await, 422, "Request.IdempotencyKeyReused").await;
    // What is kept for that tells nobody the state.
    let sql = "SELECT string_agg(k::text, ' ') FROM idempotency_keys k";
    let kept: String = database(&api).await.query_one(sql, &[]).await.unwrap().get(0);
    let page = Url::parse(first["consentUrl"].as_str().unwrap()).unwrap();
    let (_, state) = page.query_pairs().find(|(name, _)| name == "state").unwrap();
    assert!(!kept.contains(state.as_ref()), "{kept}");
}

#[tokio::test]
async fn a_first_sync_that_a_crash_broke_off_is_begun_by_whoever_is_left() {
    let api = api("broken-off").await;
    // What a process leaves that dies between Postgres and Kafka.
    let consent = Consent { account: "a@x.example", email: "a@x.example", refresh_token: &"1//token".into() };
    let since = now() - Duration::from_days(3);
    let organisation = api.tenant.organisation;
    let left =
        connections::connect(&api.store, organisation, &consent, Some("7"), |_| Some(since), now()).await.unwrap();
    let id = left.connection.connection_id.to_string();
    let sql = "UPDATE first_syncs SET owed_at = owed_at - interval '2 minutes'";
    database(&api).await.execute(sql, &[]).await.unwrap();
    wait_until(LONG, "its commands are written", || async { commands(&api, &id).await.len() == 2 }).await;
    let owed =
        || async { connections::first_syncs_owed(&api.store, now() + Duration::from_hours(1), 10).await.unwrap() };
    wait_until(LONG, "nothing is owed any more", || async { owed().await.is_empty() }).await;
    let commands = commands(&api, &id).await;
    assert_eq!(
        commands.iter().map(|command| command.trigger).collect::<Vec<_>>(),
        [Trigger::Connect, Trigger::Backfill]
    );
    assert_eq!(commands[1].window.unwrap().since, since);
}

#[tokio::test]
async fn without_a_client_or_a_key_nothing_is_connected_and_the_rest_works() {
    let place = crate::support::Place::new("unconfigured");
    for missing in ["MAILTIDE_GMAIL_CLIENT_ID", "MAILTIDE_STORE_TOKEN_KEY"] {
        let mut settings = place.settings();
        settings.remove(missing);
        let mut source = runtime::settings::Source::from_parts(None, place.settings());
        let store = store::Store::connect(&store::Settings::read(&mut source)).unwrap();
        store.migrate().await.unwrap();
        let tenant = tenant(&store).await;
        let instance = super::api::instance(&settings).await;
        allow_return(&store, tenant.organisation).await;
        let ask = |method: Method, path: &str| {
            let url = format!("{}{path}", instance.1);
            reqwest::Client::new().request(method, url).header(super::api::KEY, &tenant.key)
        };
        let connect = ask(Method::POST, "/gmail-connections").json(&json!({"returnUrl": RETURN_URL}));
        assert_problem(connect.send().await.unwrap(), 503, "Gmail.ConsentNotConfigured").await;
        assert_eq!(ask(Method::GET, "/gmail-connections").send().await.unwrap().status(), StatusCode::OK, "{missing}");
        instance.2.request();
    }
}
