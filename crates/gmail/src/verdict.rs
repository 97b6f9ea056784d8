//! What an error of Gmail's means, by its reason.
//!
//! The status alone says little: a quota that is spent comes as 403 as well as 429, an expired cursor and a deleted
//! message share one 404 body, and what answers may not have been Gmail at all.

use domain::Timestamp;
use domain::mailbox::reply::CallError;
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822;
use serde_json::Value;

use crate::gate::Reach;
use crate::tariff::Method;

/// No push-back is believed for longer: the times in Gmail's messages are wrong now and then.
const LONGEST_WAIT_MS: i64 = 60 * 60 * 1_000;
/// The day's quota comes back at midnight in California, here taken as standard time: an hour late in summer, when
/// an early try would push the wait out.
const DAY_ENDS_UTC_HOUR: i64 = 8;

/// A failed call, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The access token was not taken: a new one may be.
    Unauthorized,
    /// Gmail pushes back.
    Throttled { reach: Reach, until: Option<Timestamp> },
    /// Anything else.
    Failed(CallError),
}

/// An answer that was no 200.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub(crate) method: Method,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    /// Our clock when it came.
    pub(crate) now: Timestamp,
}

/// What Gmail's error envelope says; all of it may be missing.
#[derive(Debug, Default)]
struct Envelope {
    is_json: bool,
    message: String,
    canonical: String,
    /// `errors[].reason` and `details[].reason`.
    reasons: Vec<String>,
    domains: Vec<String>,
    /// `details[].metadata.quota_limit`.
    quota_limit: String,
}

/// Judges an answer that was no 200.
pub(crate) fn judge(refusal: Refusal<'_>) -> Verdict {
    let envelope = Envelope::read(refusal.body);
    envelope
        .reasons
        .iter()
        .find_map(|reason| by_reason(reason, &refusal, &envelope))
        .unwrap_or_else(|| by_status(&refusal, &envelope))
}

fn by_reason(reason: &str, refusal: &Refusal<'_>, envelope: &Envelope) -> Option<Verdict> {
    let permanent = |code| Some(Verdict::Failed(refusal.permanent(code, envelope)));
    match reason {
        "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded" | "RATE_LIMIT_EXCEEDED" => {
            Some(refusal.throttled(envelope))
        }
        "dailyLimitExceeded" => Some(Verdict::Throttled { reach: Reach::Day, until: Some(end_of_day(refusal.now)) }),
        "authError" | "required" | "ACCESS_TOKEN_EXPIRED" | "CREDENTIALS_MISSING" => Some(Verdict::Unauthorized),
        "notFound" => Some(Verdict::Failed(CallError::NotFound)),
        "insufficientPermissions" | "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => permanent("Gmail.InsufficientScope"),
        "domainPolicy" => permanent("Gmail.DomainPolicy"),
        "accessNotConfigured" | "SERVICE_DISABLED" | "dailyLimitExceededUnreg" => permanent("Gmail.ApiNotEnabled"),
        "forbidden" => permanent("Gmail.Forbidden"),
        "failedPrecondition" if is_watch_taken(refusal, envelope) => permanent("Gmail.WatchTaken"),
        // A suspended or unlicensed user, or one whose mail service is off.
        "failedPrecondition" => permanent("Gmail.MailboxUnavailable"),
        "invalidArgument" | "invalid" => Some(Verdict::Failed(refusal.invalid(envelope))),
        "backendError" | "internalError" => Some(Verdict::Failed(refusal.transient(envelope))),
        _ => None,
    }
}

/// The account is watched for another topic of the project; `users.stop` has to come first.
fn is_watch_taken(refusal: &Refusal<'_>, envelope: &Envelope) -> bool {
    refusal.method == Method::Watch && envelope.message.starts_with("Only one user push notification client")
}

fn by_status(refusal: &Refusal<'_>, envelope: &Envelope) -> Verdict {
    let failed = Verdict::Failed;
    match refusal.status.as_u16() {
        401 => Verdict::Unauthorized,
        429 => refusal.throttled(envelope),
        403 if envelope.domains.iter().any(|domain| domain == "usageLimits") => refusal.throttled(envelope),
        403 if envelope.canonical == "RESOURCE_EXHAUSTED" => refusal.throttled(envelope),
        // Proxies and wrong addresses answer 400, 403 and 404 too, in HTML: nothing about a mailbox follows from it.
        _ if refusal.status.is_client_error() && !envelope.is_json => failed(refusal.transient(envelope)),
        404 => failed(CallError::NotFound),
        400 => failed(refusal.invalid(envelope)),
        403 => failed(refusal.permanent("Gmail.Forbidden", envelope)),
        408 | 425 => failed(refusal.transient(envelope)),
        _ if refusal.status.is_client_error() => failed(refusal.permanent("Gmail.Refused", envelope)),
        _ => failed(refusal.transient(envelope)),
    }
}

impl Refusal<'_> {
    fn throttled(&self, envelope: &Envelope) -> Verdict {
        let message = envelope.message.as_str();
        let reach = if message.contains("concurrent") {
            Reach::Concurrency
        } else if envelope.quota_limit.contains("PerDay") || message.contains("per day") {
            Reach::Day
        } else if envelope.quota_limit.contains("PerUser")
            || message.contains("per user")
            || message.starts_with("User-rate")
        {
            Reach::User
        } else if !envelope.quota_limit.is_empty() {
            Reach::Project
        } else {
            Reach::Unknown
        };
        Verdict::Throttled { reach, until: self.until(message) }
    }

    /// When to come back, on our clock: by the header `Retry-After`, else by the text.
    fn until(&self, message: &str) -> Option<Timestamp> {
        let header = self.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait_ms = match header.map(str::trim) {
            Some(seconds) if seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
                seconds.parse::<i64>().ok().map(|seconds| seconds.saturating_mul(1_000))
            }
            Some(date) => http_date(date).map(|until| until.as_millis() - self.gmail_now().as_millis()),
            None => retry_after_text(message).map(|until| until.as_millis() - self.gmail_now().as_millis()),
        }?;
        let wait_ms = wait_ms.clamp(0, LONGEST_WAIT_MS);
        (wait_ms > 0).then(|| Timestamp::from_millis(self.now.as_millis().saturating_add(wait_ms)))
    }

    /// Times in answers are by the server's clock.
    fn gmail_now(&self) -> Timestamp {
        date(self.headers).unwrap_or(self.now)
    }

    fn invalid(&self, envelope: &Envelope) -> CallError {
        let message = envelope.message.as_str();
        if is_watch_taken(self, envelope) {
            self.permanent("Gmail.WatchTaken", envelope)
        } else if message.contains("pageToken") || message.contains("page_token") {
            CallError::InvalidPageToken
        } else if self.method == Method::HistoryList && message.contains("startHistoryId") {
            // An id that Gmail no longer takes for one is as good as expired.
            CallError::NotFound
        } else {
            self.permanent("Gmail.InvalidRequest", envelope)
        }
    }

    fn permanent(&self, code: &str, envelope: &Envelope) -> CallError {
        CallError::Permanent { code: code.to_owned(), detail: self.detail(envelope) }
    }

    fn transient(&self, envelope: &Envelope) -> CallError {
        CallError::Transient { detail: self.detail(envelope) }
    }

    fn detail(&self, envelope: &Envelope) -> String {
        let (status, method) = (self.status.as_u16(), self.method.as_str());
        match envelope.message.as_str() {
            "" => format!("Gmail answered {method} with {status} and {} bytes that name no error", self.body.len()),
            message => format!("Gmail answered {method} with {status}: {}", without_addresses(message)),
        }
    }
}

impl Envelope {
    fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let error = &body["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let (errors, details) = (list(&error["errors"]), list(&error["details"]));
        let reasons = errors.iter().chain(&details).filter_map(|one| one["reason"].as_str()).map(str::to_owned);
        Self {
            is_json: body.is_object(),
            message: text(&error["message"]),
            canonical: text(&error["status"]),
            reasons: reasons.collect(),
            domains: errors.iter().map(|one| text(&one["domain"])).collect(),
            quota_limit: details.iter().map(|one| text(&one["metadata"]["quota_limit"])).collect(),
        }
    }
}

/// The `Date` header.
pub(crate) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(http::header::DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<Timestamp> {
    let parsed = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

/// The time in "User-rate limit exceeded.  Retry after 2026-09-11T20:00:00.000Z".
fn retry_after_text(message: &str) -> Option<Timestamp> {
    let (_, rest) = message.split_once("Retry after ")?;
    let text = rest.split_whitespace().next()?.trim_end_matches('.');
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

fn end_of_day(now: Timestamp) -> Timestamp {
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    let shift = DAY_ENDS_UTC_HOUR * 60 * 60 * 1_000;
    let day = (now.as_millis() - shift).div_euclid(DAY_MS);
    Timestamp::from_millis((day + 1) * DAY_MS + shift)
}

/// Gmail's words, bounded, with every address taken out.
pub(crate) fn without_addresses(message: &str) -> String {
    let mut words = String::new();
    for word in message.split_whitespace() {
        let word = if word.contains('@') { "<address>" } else { word };
        if words.len() + word.len() > 300 {
            words.push('…');
            break;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

#[cfg(test)]
mod tests;
