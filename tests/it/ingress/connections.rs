//! Connections: their schedule and their end.

use domain::{Command, Duration, OrganisationId};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use store::connections;

use super::api::{Api, assert_problem, database, now, sync_path, tenant};
use super::browser::{Browser, allow_return, mailbox};
use crate::support::{LONG, committed, stack, wait_until};

async fn api(name: &str) -> Api {
    let api = Api::start(name).await;
    allow_return(&api.store, api.tenant.organisation).await;
    api
}

/// How many times the mailbox was ordered to be forgotten.
async fn forgotten(api: &Api, connection: &str) -> usize {
    let records = committed(&api.place.topic("gmail.connection.poll")).await;
    let of = records.iter().filter(|record| record.key_text() == connection);
    let commands = of.map(|record| events::decode_command(record.value.as_deref().unwrap()).unwrap());
    commands.filter(|command| matches!(command, Command::Forget(_))).count()
}

/// Whether Google still takes a connection's refresh token.
pub(super) async fn is_granted(refresh_token: &str) -> bool {
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "tests"),
        ("client_secret", "tests"),
        ("refresh_token", refresh_token),
    ];
    let url = format!("{}/token", stack().simulator.base_url);
    reqwest::Client::new().post(url).form(&form).send().await.unwrap().status() == StatusCode::OK
}

async fn refresh_token(api: &Api, organisation: OrganisationId, connection: &str) -> String {
    let grant = connections::refresh_token(&api.store, organisation, connection.parse().unwrap()).await;
    grant.unwrap().unwrap().refresh_token.expose_secret().to_owned()
}

async fn delete(api: &Api, key: &str, connection: &str) -> StatusCode {
    let path = format!("/gmail-connections/{connection}");
    api.request_as(key, Method::DELETE, &path).send().await.unwrap().status()
}

#[tokio::test]
async fn a_deleted_connection_is_forgotten_everywhere_and_may_be_deleted_again() {
    let api = api("delete").await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let ours = api.connect(&browser, &email, json!({})).await;
    // Another organisation connects the same account.
    let other = tenant(&api.store).await;
    let made = stack().simulator.control().grant(&email, None, None, None).unwrap();
    let consent = connections::Consent { account: &email, email: &email, refresh_token: &made.into() };
    let theirs = connections::add(&api.store, other.organisation, &consent, now()).await.unwrap();
    let theirs = theirs.connection_id.to_string();
    let our_token = refresh_token(&api, api.tenant.organisation, &ours).await;
    let their_token = refresh_token(&api, other.organisation, &theirs).await;

    assert_eq!(delete(&api, &api.tenant.key, &ours).await, StatusCode::NO_CONTENT);
    assert_eq!(forgotten(&api, &ours).await, 1);
    assert!(is_granted(&our_token).await && is_granted(&their_token).await, "the account is still in use");
    let id = ours.parse().unwrap();
    let left = connections::delete(&api.store, api.tenant.organisation, id, now()).await.unwrap().unwrap();
    assert!(left.is_forgotten, "nothing is left to do");
    // Gone for all calls at once; deleting it again changes nothing.
    for (method, path) in [
        (Method::GET, format!("/gmail-connections/{ours}")),
        (Method::POST, sync_path(&ours)),
        (Method::POST, format!("/gmail-connections/{ours}/backfill")),
        (Method::PATCH, format!("/gmail-connections/{ours}")),
    ] {
        let answer = api.request(method, &path).json(&json!({})).send().await.unwrap();
        assert_problem(answer, 404, "Gmail.ConnectionNotFound").await;
    }
    let listed: Value = api.request(Method::GET, "/gmail-connections").send().await.unwrap().json().await.unwrap();
    assert!(listed.as_array().unwrap().iter().all(|one| one["connectionId"] != ours.as_str()));
    assert_eq!(delete(&api, &api.tenant.key, &ours).await, StatusCode::NO_CONTENT);
    assert_eq!(forgotten(&api, &ours).await, 1);
    assert_eq!(delete(&api, &other.key, &ours).await, StatusCode::NOT_FOUND);

    // The account's last connection takes the grant with it.
    assert_eq!(delete(&api, &other.key, &theirs).await, StatusCode::NO_CONTENT);
    assert!(!is_granted(&their_token).await, "the consent is revoked at Google");
}

#[tokio::test]
async fn a_deletion_that_broke_off_is_finished_by_whoever_is_left() {
    let api = api("half-deleted").await;
    let browser = Browser::new();
    let email = mailbox(api.place.prefix(), "ann");
    let connection = api.connect(&browser, &email, json!({})).await;
    let organisation = api.tenant.organisation;
    let token = refresh_token(&api, organisation, &connection).await;
    // A process that dies after its first step; long ago, as the database knows it.
    let id = connection.parse().unwrap();
    let long_ago = now() - Duration::from_minutes(2);
    connections::delete(&api.store, organisation, id, long_ago).await.unwrap();
    wait_until(LONG, "the deletion is finished", || async {
        connections::delete(&api.store, organisation, id, now()).await.unwrap().unwrap().is_forgotten
    })
    .await;
    assert!(forgotten(&api, &connection).await >= 1);
    assert!(!is_granted(&token).await);
}

#[tokio::test]
async fn the_schedule_of_a_connection_is_set_within_bounds() {
    let api = api("schedule").await;
    let path = format!("/gmail-connections/{}", api.tenant.connection);
    let change = async |body: Value| api.request(Method::PATCH, &path).json(&body).send().await.unwrap();
    let ahead = |one: &Value| {
        let next: jiff::Timestamp = one["nextScheduledAt"].as_str().unwrap().parse().unwrap();
        next.as_millisecond() - now().as_millis()
    };
    let hourly: Value = change(json!({"syncIntervalHours": 1})).await.json().await.unwrap();
    assert_eq!((&hourly["syncIntervalHours"], &hourly["paused"]), (&json!(1), &json!(false)));
    assert!(ahead(&hourly) <= 3_600_000, "{hourly}");
    let paused: Value = change(json!({"paused": true})).await.json().await.unwrap();
    assert_eq!([&paused["syncIntervalHours"], &paused["paused"]], [&json!(1), &json!(true)]);
    assert!(paused["nextScheduledAt"].is_null(), "{paused}");
    let read: Value = api.request(Method::GET, &path).send().await.unwrap().json().await.unwrap();
    assert_eq!(read, paused);
    // It is synced when somebody asks for it.
    api.sync().await;
    let back: Value = change(json!({"paused": false, "syncIntervalHours": null})).await.json().await.unwrap();
    assert!(back["syncIntervalHours"].is_null() && back["nextScheduledAt"].is_string(), "{back}");
    assert_eq!(change(json!({})).await.status(), StatusCode::OK);
    for (wrong, named) in [
        (json!({"syncIntervalHours": 0}), "`syncIntervalHours`"),
        (json!({"syncIntervalHours": 25}), "`syncIntervalHours`"),
        (json!({"syncIntervalHours": 256}), "`syncIntervalHours`"),
        (json!({"syncIntervalHours": 1.5}), "`syncIntervalHours`"),
        (json!({"paused": null}), "`paused`"),
        (json!({"paused": "yes"}), "`paused`"),
        (json!({"status": "active"}), "`status`"),
    ] {
        let problem = assert_problem(change(wrong).await, 400, "Request.BodyInvalid").await;
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
}

/// More than are read at a time, and than any page of other lists holds.
#[tokio::test]
async fn a_list_of_connections_has_all_of_them_however_many() {
    const MANY: usize = 5_000;
    let api = Api::start("many").await;
    // As many have the same time as fall on two pages, so that a page ends among them.
    let sql =
        "INSERT INTO connections (connection_id, organisation_id, account, email, token_version, token_ciphertext,
                                        token_nonce, token_key_id, created_at)
               SELECT gen_random_uuid(), $1, 'a' || n || '@many.example', 'a' || n || '@many.example', 1, '',
                      decode(repeat('00', 24), 'hex'), 'test', date_trunc('milliseconds', now()) - (n / 700) * interval '1 hour'
               FROM generate_series(1, $2::int) AS n";
    let organisation = api.tenant.organisation;
    let rows = database(&api).await;
    let many = i32::try_from(MANY).unwrap() - 1;
    assert_eq!(rows.execute(sql, &[organisation.as_uuid(), &many]).await.unwrap(), u64::try_from(many).unwrap());
    let other = tenant(&api.store).await;

    let answer = api.request(Method::GET, "/gmail-connections").send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    let listed: Vec<Value> = answer.json().await.unwrap();
    assert_eq!(listed.len(), MANY);
    let place = |one: &Value| {
        let at: jiff::Timestamp = one["createdAt"].as_str().unwrap().parse().unwrap();
        (at, one["connectionId"].as_str().unwrap().to_owned())
    };
    assert!(listed.windows(2).all(|pair| place(&pair[0]) > place(&pair[1])), "newest first, each once");
    assert!(
        listed.iter().all(|one| one["emailAddress"].is_string() && one["connectionId"] != other.connection.to_string())
    );
    // Exactly as many as are read at a time, and none.
    for left in [1_000, 500, 0] {
        let sql = "UPDATE connections SET revoked_at = now() WHERE organisation_id = $1 AND connection_id NOT IN
                   (SELECT connection_id FROM connections WHERE organisation_id = $1 AND revoked_at IS NULL LIMIT $2)";
        rows.execute(sql, &[organisation.as_uuid(), &i64::from(left)]).await.unwrap();
        let listed: Vec<Value> =
            api.request(Method::GET, "/gmail-connections").send().await.unwrap().json().await.unwrap();
        assert_eq!(listed.len(), usize::try_from(left).unwrap());
    }
}
