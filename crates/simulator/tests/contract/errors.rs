//! Every error body, field by field, and the order in which they are checked.

use serde_json::{Value, json};
use simulator::{Behaviour, Cause, Delivery, Mails, NewMailbox, Refusal, Settings};

use crate::client::{EMAIL, Reply, World};

/// An envelope whose only entry repeats the message.
fn envelope(code: u16, message: &str, domain: &str, reason: &str, status: &str) -> Value {
    json!({"error": {
        "code": code, "message": message, "status": status,
        "errors": [{"message": message, "domain": domain, "reason": reason}],
    }})
}

fn invalid(message: &str) -> Value {
    envelope(400, message, "global", "invalidArgument", "INVALID_ARGUMENT")
}

fn typed(field: &str, message: &str) -> Value {
    json!({"error": {
        "code": 400, "message": message, "status": "INVALID_ARGUMENT",
        "errors": [{"message": message, "reason": "invalid"}],
        "details": [{
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": field, "description": message}],
        }],
    }})
}

fn assert_error(reply: &Reply, body: &Value) {
    assert_eq!(reply.json(), *body, "{}", reply.text());
    assert_eq!(u64::from(reply.status), body["error"]["code"].as_u64().unwrap());
    assert_eq!(reply.headers["content-type"], "application/json; charset=UTF-8");
    assert!(reply.text().starts_with("{\n  \"error\": {\n    \"code\": "), "errors are indented: {}", reply.text());
    assert!(!reply.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn values_that_are_wrong() {
    let world = World::new().await;
    let max = "Invalid value at 'max_results' (TYPE_UINT32), \"x\"";
    let start = "Invalid value at 'start_history_id' (TYPE_UINT64), \"-1\"";
    let flag = "Invalid value at 'include_spam_trash' (TYPE_BOOL), \"maybe\"";
    for (path, body) in [
        ("messages/xyz", invalid("Invalid id value")),
        ("messages/8000000000000000", invalid("Invalid id value")),
        ("messages?pageToken=abc", invalid("Invalid pageToken")),
        ("messages?maxResults=0", invalid("Invalid maxResults")),
        ("messages?labelIds=NOPE", invalid("Invalid label: NOPE")),
        ("history?startHistoryId=1&labelId=NOPE", invalid("Invalid label: NOPE")),
        ("history", invalid("Missing/invalid parameter: startHistoryId")),
        ("history?startHistoryId=1&pageToken=abc", invalid("Invalid pageToken")),
        ("messages?maxResults=x", typed("max_results", max)),
        ("history?startHistoryId=-1", typed("start_history_id", start)),
        ("messages?includeSpamTrash=maybe", typed("include_spam_trash", flag)),
    ] {
        assert_error(&world.me(path).await, &body);
    }
    let gone = envelope(404, "Requested entity was not found.", "global", "notFound", "NOT_FOUND");
    assert_error(&world.me("messages/18d1c0ffee001234").await, &gone);
    assert_error(&world.me("history?startHistoryId=1").await, &gone);
    assert_error(&world.me("history?startHistoryId=0").await, &gone);
    let fields = world.me("profile?fields=nope").await;
    let violation = json!([{
        "field": "nope",
        "description": "Error expanding 'fields' parameter. Cannot find matching fields for path 'nope'.",
    }]);
    assert_eq!((fields.status, &fields.json()["error"]["details"][0]["fieldViolations"]), (400, &violation));
}

#[tokio::test]
async fn credentials_that_are_missing_or_bad() {
    let world = World::new().await;
    let missing = world.raw("GET", "/gmail/v1/users/me/profile", &[], b"").await;
    assert_eq!(missing.headers["www-authenticate"], "Bearer realm=\"https://accounts.google.com/\"");
    let body = missing.json();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Request is missing required authentication credential. Expected OAuth 2 access token")
    );
    let entry = json!({
        "message": "Login Required.", "domain": "global", "reason": "required",
        "location": "Authorization", "locationType": "header",
    });
    assert_eq!(body["error"]["errors"], json!([entry]));

    let bad = world.raw("GET", "/gmail/v1/users/me/profile", &[("authorization", "Bearer ya29.x")], b"").await;
    let challenge = "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"";
    assert_eq!(bad.headers["www-authenticate"], challenge);
    let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or \
        other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.";
    let entry = json!({
        "message": "Invalid Credentials", "domain": "global", "reason": "authError",
        "location": "Authorization", "locationType": "header",
    });
    let body = json!({"error": {
        "code": 401, "message": message, "errors": [entry], "status": "UNAUTHENTICATED",
    }});
    assert_error(&bad, &body);
    world.control().expire_access_tokens(EMAIL).unwrap();
    assert_error(&world.me("profile").await, &body);
}

#[tokio::test]
async fn scopes_and_other_peoples_mailboxes() {
    let metadata = "https://www.googleapis.com/auth/gmail.metadata https://www.googleapis.com/auth/gmail.readonly";
    let mailbox = NewMailbox { scopes: Some(metadata.to_owned()), ..NewMailbox::default() };
    let world = World::with(Settings::default(), mailbox).await;
    let forbidden = |message: &str| envelope(403, message, "global", "forbidden", "PERMISSION_DENIED");
    assert_error(&world.me("messages?q=").await, &forbidden("Metadata scope does not support 'q' parameter"));
    assert_error(&world.me("messages/1").await, &forbidden("Metadata scope doesn't allow format FULL"));
    assert_error(&world.me("messages/1?format=raw").await, &forbidden("Metadata scope doesn't allow format RAW"));
    let denied = forbidden(&format!("Delegation denied for {EMAIL}"));
    assert_error(&world.get("/gmail/v1/users/bob@example.org/profile").await, &denied);
    let odd = forbidden("Invalid user id specified in request/Delegation denied");
    assert_error(&world.get("/gmail/v1/users/bob/profile").await, &odd);
    assert_eq!(world.get("/gmail/v1/users/ME/profile").await.status, 200);
    assert_eq!(world.get("/gmail/v1/users/ann@example.org/profile").await.status, 200);

    let labels = "https://www.googleapis.com/auth/gmail.labels";
    let mailbox = NewMailbox { scopes: Some(labels.to_owned()), ..NewMailbox::default() };
    let world = World::with(Settings::default(), mailbox).await;
    assert_eq!(world.me("labels").await.status, 200);
    let body = json!({"error": {
        "code": 403, "message": "Request had insufficient authentication scopes.", "status": "PERMISSION_DENIED",
        "errors": [{"message": "Insufficient Permission", "domain": "global", "reason": "insufficientPermissions"}],
        "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "domain": "googleapis.com",
            "metadata": {"service": "gmail.googleapis.com", "method": "caribou.api.proto.MailboxService.GetProfile"},
        }],
    }});
    assert_error(&world.me("profile").await, &body);
}

#[tokio::test]
async fn checks_come_in_gmails_order() {
    let world = World::new().await;
    let code = async |path: &str| {
        let reply = world.get(path).await;
        (reply.status, reply.json()["error"]["message"].as_str().unwrap()[..12].to_owned())
    };
    let bob = "/gmail/v1/users/bob@example.org/messages";
    // Not signed in comes before a bad number, that before another's mailbox, that before a bad range or token.
    let anonymous = world.raw("GET", &format!("{bob}?maxResults=x"), &[], b"").await;
    assert_eq!(anonymous.status, 401);
    assert_eq!(code(&format!("{bob}?maxResults=x")).await, (400, "Invalid valu".to_owned()));
    assert_eq!(code(&format!("{bob}?maxResults=0")).await, (403, "Delegation d".to_owned()));
    assert_eq!(code(&format!("{bob}/xyz")).await, (403, "Delegation d".to_owned()));
    assert_eq!(code("/gmail/v1/users/me/messages?maxResults=0&pageToken=x").await.0, 400);
    let format = world.raw("GET", &format!("{bob}?$.xgafv=3"), &[], b"").await;
    assert_eq!(format.status, 400);
    let short = world.me("messages/xyz?$.xgafv=2").await.json();
    assert!(short["error"].get("errors").is_none() && short["error"]["status"] == "INVALID_ARGUMENT");
}

#[tokio::test]
async fn what_is_nowhere_is_html() {
    let world = World::new().await;
    for (method, path) in [("GET", "/gmail/v1/users/me/nope"), ("DELETE", "/gmail/v1/users/me/profile"), ("GET", "/")] {
        let reply = world.raw(method, path, &[], b"").await;
        assert_eq!((reply.status, reply.headers["content-type"].as_str()), (404, "text/html; charset=UTF-8"), "{path}");
        assert!(reply.text().starts_with("<!DOCTYPE html>"));
    }
}

#[tokio::test]
async fn a_minute_of_one_user_runs_out_and_comes_back() {
    let settings = Settings { user_minute: Some(41), ..Settings::default() };
    let world = World::with(settings, NewMailbox::default()).await;
    world.control().clock().stand_at(world.control().clock().now_ms());
    let truth = world.control().deliver(EMAIL, Mails::Synthetic(1), &Delivery::default()).unwrap();
    let get = format!("messages/{}?format=minimal", truth[0].id);
    assert_eq!((world.me(&get).await.status, world.me(&get).await.status), (200, 200));
    let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user' of service \
        'gmail.googleapis.com' for consumer 'project_number:123'.";
    let mut body = envelope(403, message, "usageLimits", "rateLimitExceeded", "PERMISSION_DENIED");
    body["error"]["details"] = json!([
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED",
            "domain": "googleapis.com",
            "metadata": {
                "service": "gmail.googleapis.com", "consumer": "projects/123",
                "quota_metric": "gmail.googleapis.com/default", "quota_limit": "defaultPerMinutePerUser",
                "quota_limit_value": "41", "quota_location": "global",
            },
        },
        {
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{
                "description": "Request a higher quota limit.",
                "url": "https://cloud.google.com/docs/quotas/help/request_increase",
            }],
        },
    ]);
    assert_error(&world.me(&get).await, &body);
    assert_eq!(world.me("profile").await.status, 200, "one unit is left");
    world.control().clock().advance(60_100);
    assert_eq!(world.me(&get).await.status, 200);
    let usage = world.control().usage();
    assert_eq!((usage.total.units, usage.total.throttled), (61, 1));

    let behaviour = Behaviour { user_throttle: Some(Refusal::UserRate(900_000)), ..Behaviour::default() };
    world.control().set_behaviour(Some(EMAIL), behaviour).unwrap();
    assert_eq!(world.me(&get).await.status, 200);
    let throttled = world.me(&get).await;
    let message = throttled.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(throttled.status == 429 && message.starts_with("User-rate limit exceeded.  Retry after "), "{message}");
    // The minute is over, but not the time to wait; and who comes early waits longer.
    world.control().clock().advance(899_999);
    assert_eq!(world.me("profile").await.status, 429);
    world.control().clock().advance(899_999);
    assert_eq!(world.me("profile").await.status, 429);
    world.control().clock().advance(900_000);
    assert_eq!(world.me("profile").await.status, 200);
}

#[tokio::test]
async fn every_cause_ends_a_grant_in_its_own_words() {
    let expired = json!({"error": "invalid_grant", "error_description": "Token has been expired or revoked."});
    let rapt = json!({
        "error": "invalid_grant", "error_description": "reauth related error (invalid_rapt)",
        "error_subtype": "invalid_rapt",
    });
    for (cause, body, access_lives) in [
        (Cause::Revoked, &expired, false),
        (Cause::PasswordChanged, &expired, false),
        (Cause::Expired, &expired, true),
        (Cause::Reauthentication, &rapt, true),
    ] {
        let world = World::new().await;
        world.control().end_grants(EMAIL, cause).unwrap();
        let refused = world.refresh().await;
        assert_eq!((refused.status, &refused.json()), (400, body), "{cause:?}");
        assert_eq!(world.me("profile").await.status == 200, access_lives, "{cause:?}");
    }
}

#[tokio::test]
async fn the_token_endpoint_refuses_what_it_must() {
    let world = World::new().await;
    let post = async |form: &str| {
        let reply = world.send("POST", "/token", "application/x-www-form-urlencoded", form.as_bytes()).await;
        (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(post("").await, (400, "invalid_request".to_owned()));
    assert_eq!(post("grant_type=password").await, (400, "unsupported_grant_type".to_owned()));
    assert_eq!(post("grant_type=refresh_token&client_id=c").await, (400, "invalid_request".to_owned()));
    assert_eq!(post("grant_type=refresh_token&client_id=c&refresh_token=x").await, (400, "invalid_grant".to_owned()));

    let granted = world.refresh().await.json();
    assert_eq!((&granted["token_type"], &granted["expires_in"]), (&json!("Bearer"), &json!(3599)));
    assert_eq!(granted["scope"], "https://www.googleapis.com/auth/gmail.readonly");
    assert!(granted.get("refresh_token").is_none());

    let bound = world.control().grant(EMAIL, Some("mine"), None, None).unwrap().replace('/', "%2F");
    let form = |client: &str| format!("grant_type=refresh_token&client_id={client}&refresh_token={bound}");
    assert_eq!(post(&form("other")).await, (401, "unauthorized_client".to_owned()));
    assert_eq!(post(&form("mine")).await, (200, String::new()));

    let revoke = format!("token={}", world.token);
    let form = "application/x-www-form-urlencoded";
    assert_eq!(world.send("POST", "/revoke", form, revoke.as_bytes()).await.status, 200);
    assert_eq!(world.send("POST", "/revoke", form, revoke.as_bytes()).await.status, 400);
    assert_eq!(world.me("profile").await.status, 401);
    assert_eq!(world.refresh().await.status, 400);
}
