//! The table of errors, form by form, as Gmail writes them.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_789_156_800_000); // 2026-09-11T20:00:00Z

fn judged(method: Method, status: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
    let headers = headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
    judge(Refusal {
        method,
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers.collect(),
        body: body.as_bytes(),
        now: NOW,
    })
}

fn envelope(code: u16, message: &str, domain: &str, reason: &str) -> String {
    serde_json::json!({"error": {"code": code, "message": message,
        "errors": [{"message": message, "domain": domain, "reason": reason}]}})
    .to_string()
}

fn after(ms: i64) -> Option<Timestamp> {
    Some(Timestamp::from_millis(NOW.as_millis() + ms))
}

#[test]
fn a_spent_quota_is_a_throttle_whatever_the_status() {
    let per_user = r#"{"error":{"code":403,"message":"Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user' of service 'gmail.googleapis.com' for consumer 'project_number:123'.","errors":[{"message":"…","domain":"usageLimits","reason":"rateLimitExceeded"}],"status":"PERMISSION_DENIED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com","metadata":{"quota_limit":"defaultPerMinutePerUser"}}]}}"#;
    let project = per_user.replace("defaultPerMinutePerUser", "defaultPerMinutePerProject").replace(" per user", "");
    let exhausted = r#"{"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}"#;
    for (status, body, reach) in [
        (403, per_user.to_owned(), Reach::User),
        (403, project, Reach::Project),
        (
            429,
            envelope(429, "Too many concurrent requests for user.", "global", "rateLimitExceeded"),
            Reach::Concurrency,
        ),
        (403, envelope(403, "User Rate Limit Exceeded", "usageLimits", "userRateLimitExceeded"), Reach::Unknown),
        (403, envelope(403, "?", "usageLimits", "somethingNew"), Reach::Unknown),
        (429, exhausted.to_owned(), Reach::Unknown),
        (403, exhausted.to_owned(), Reach::Unknown),
        (429, "<html>slow down</html>".to_owned(), Reach::Unknown),
        (429, String::new(), Reach::Unknown),
    ] {
        let verdict = judged(Method::HistoryList, status, &[], &body);
        assert_eq!(verdict, Verdict::Throttled { reach, until: None }, "{body}");
    }
}

#[test]
fn when_to_come_back_is_read_from_the_header_or_the_text_on_the_servers_clock() {
    let text = |at: &str| {
        envelope(403, &format!("User-rate limit exceeded.  Retry after {at}"), "usageLimits", "rateLimitExceeded")
    };
    // The server's clock is ten seconds behind ours.
    let date = ("date", "Fri, 11 Sep 2026 19:59:50 GMT");
    for (headers, body, until) in [
        (vec![], text("2026-09-11T20:15:00.000Z"), after(900_000)),
        (vec![date], text("2026-09-11T20:15:00.000Z"), after(910_000)),
        (vec![], text("2026-09-11T19:00:00.000Z"), None),
        (vec![], text("2027-01-01T00:00:00.000Z"), after(LONGEST_WAIT_MS)),
        (vec![], text("soon"), None),
        (vec![("retry-after", "7")], text("2026-09-11T20:15:00.000Z"), after(7_000)),
        (vec![("retry-after", "0")], text("x"), None),
        (vec![("retry-after", "99999999999999999999")], text("x"), None),
        (vec![date, ("retry-after", "Fri, 11 Sep 2026 20:00:50 GMT")], text("x"), after(60_000)),
    ] {
        let verdict = judged(Method::MessagesList, 403, &headers, &body);
        assert_eq!(verdict, Verdict::Throttled { reach: Reach::User, until }, "{headers:?} {body}");
    }
}

#[test]
fn the_projects_day_ends_once_a_day() {
    let body = envelope(403, "Daily Limit Exceeded", "usageLimits", "dailyLimitExceeded");
    let until = after(12 * 60 * 60 * 1_000);
    assert_eq!(judged(Method::Profile, 403, &[], &body), Verdict::Throttled { reach: Reach::Day, until });
}

#[test]
fn what_trying_again_does_not_mend_has_a_code() {
    let scope = r#"{"error":{"code":403,"message":"Request had insufficient authentication scopes.","status":"PERMISSION_DENIED","details":[{"reason":"ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}}"#;
    for (status, body, code) in [
        (403, scope.to_owned(), "Gmail.InsufficientScope"),
        (403, envelope(403, "Insufficient Permission", "global", "insufficientPermissions"), "Gmail.InsufficientScope"),
        (403, envelope(403, "Metadata scope does not support 'q' parameter", "global", "forbidden"), "Gmail.Forbidden"),
        (
            403,
            envelope(403, "The domain administrators have disabled it", "global", "domainPolicy"),
            "Gmail.DomainPolicy",
        ),
        (
            403,
            envelope(403, "Gmail API has not been used", "usageLimits", "accessNotConfigured"),
            "Gmail.ApiNotEnabled",
        ),
        (400, envelope(400, "Precondition check failed.", "global", "failedPrecondition"), "Gmail.MailboxUnavailable"),
        (400, envelope(400, "Invalid maxResults", "global", "invalidArgument"), "Gmail.InvalidRequest"),
        (403, r#"{"error":{"code":403,"message":"No"}}"#.to_owned(), "Gmail.Forbidden"),
        (410, r#"{"error":{"code":410,"message":"Gone"}}"#.to_owned(), "Gmail.Refused"),
    ] {
        match judged(Method::HistoryList, status, &[], &body) {
            Verdict::Failed(CallError::Permanent { code: found, .. }) => assert_eq!(found, code, "{body}"),
            other => panic!("{body} gave {other:?}"),
        }
    }
}

#[test]
fn addresses_are_taken_out_of_gmails_words() {
    let body = envelope(403, "Delegation denied for caller@example.com", "global", "forbidden");
    let Verdict::Failed(CallError::Permanent { detail, .. }) = judged(Method::Profile, 403, &[], &body) else {
        panic!()
    };
    assert_eq!(detail, "Gmail answered profile with 403: Delegation denied for <address>");
}

#[test]
fn bad_positions_are_told_apart() {
    let bad_page = envelope(400, "Invalid pageToken", "global", "invalidArgument");
    let verdict = judged(Method::HistoryList, 400, &[], &bad_page);
    assert_eq!(verdict, Verdict::Failed(CallError::InvalidPageToken));
    let gone = envelope(404, "Requested entity was not found.", "global", "notFound");
    assert_eq!(judged(Method::HistoryList, 404, &[], &gone), Verdict::Failed(CallError::NotFound));
    let bad_start = envelope(400, "Missing/invalid parameter: startHistoryId", "global", "invalidArgument");
    assert_eq!(judged(Method::HistoryList, 400, &[], &bad_start), Verdict::Failed(CallError::NotFound));
}

#[test]
fn a_token_that_is_not_taken_may_be_renewed() {
    for body in [envelope(401, "Invalid Credentials", "global", "authError"), String::new(), "<html>".to_owned()] {
        assert_eq!(judged(Method::Profile, 401, &[], &body), Verdict::Unauthorized);
    }
}

#[test]
fn outages_and_answers_of_others_pass() {
    for (status, body) in [
        (500, envelope(500, "Internal error encountered.", "global", "backendError")),
        (503, envelope(503, "Authentication backend unavailable.", "global", "backendError")),
        (502, "<html><title>502</title></html>".to_owned()),
        (504, String::new()),
        (404, "<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>".to_owned()),
        (403, "<html>Blocked by the proxy</html>".to_owned()),
        (400, "[]".to_owned()),
        (408, r#"{"error":{"code":408,"message":"Timeout"}}"#.to_owned()),
        (302, String::new()),
    ] {
        let verdict = judged(Method::HistoryList, status, &[], &body);
        assert!(matches!(verdict, Verdict::Failed(CallError::Transient { .. })), "{status} {body} gave {verdict:?}");
    }
}
