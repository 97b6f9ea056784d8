//! Faults on command: rules that say which calls go wrong, how, and how often. Seeded: the same rules, the same
//! seed and the same order of calls give the same faults.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::seed::Seed;

/// Which calls go wrong, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Only these mailboxes; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<String>,
    /// Only these calls, by the names that usage reports have, or `token`, `batch`; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// How likely each matching call is hit, from 0 to 1.
    #[serde(default = "certain")]
    pub probability: f64,
    /// This many matching calls pass first.
    #[serde(default)]
    pub after: u64,
    /// The rule ends when it has hit so many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Only from this time on, ms since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// Only before this time, ms since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// What goes wrong.
    pub fault: Fault,
}

/// What can go wrong with a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// It takes longer, in real time. Goes with any other fault.
    Latency(Latency),
    /// An error of the API.
    Error(Refusal),
    /// A page of HTML with this status instead of JSON.
    Html(u16),
    /// The connection is reset before a byte of the response.
    Reset,
    /// The body ends after this part of it, from 0 to 1, and the connection with it.
    Truncate(f64),
    /// The body is JSON no longer: its last byte is missing, though its length is true.
    Malformed,
    /// In a batch, the part is left out of the response. A push is not sent.
    Lost,
    /// A push is sent this many times more.
    Duplicate(u32),
    /// A page of history that names this message (16 hex digits), and `messages.get` of it, answer 500.
    Poison(String),
    /// `messages.get` of this message (16 hex digits) answers 404, though history and lists name it.
    Unreadable(String),
    /// The head is reported this much lower than it is.
    HeadBehind(u64),
}

/// How long a call takes, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Latency {
    /// Always the same.
    Fixed(u64),
    /// Anything between.
    Uniform(u64, u64),
    /// Many short ones and a long tail, with this mean.
    Exponential(f64),
    /// Half below the first, spread by the second (the standard deviation of the logarithm).
    LogNormal(f64, f64),
}

/// An error of the API, by the forms in which Gmail sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Refusal {
    /// 429 "Too many concurrent requests for user."
    Concurrency,
    /// 429 "Resource has been exhausted (e.g. check quota)."
    ResourceExhausted,
    /// 429 "User-rate limit exceeded.  Retry after …", this many ms ahead.
    UserRate(i64),
    /// The same as 403.
    UserRateForbidden(i64),
    /// 403 of the quota by user and minute.
    Quota,
    /// 403 `userRateLimitExceeded` in the documented short form.
    UserRateShort,
    /// 403 `rateLimitExceeded` in the documented short form.
    RateShort,
    /// 403 `dailyLimitExceeded`.
    DailyLimit,
    /// 403 `domainPolicy`.
    DomainPolicy,
    /// 403 `accessNotConfigured`.
    NotConfigured,
    /// 400 "Mail service not enabled".
    NotEnabled,
    /// 400 "Precondition check failed."
    Precondition,
    /// 401, though the token is good.
    Unauthorized,
    /// 404, though it is there.
    NotFound,
    /// 5xx `backendError` with this status.
    Backend(u16),
}

impl Refusal {
    /// How long it says to wait, in ms, in the forms that name a time.
    pub(crate) const fn wait_ms(self) -> Option<i64> {
        match self {
            Self::UserRate(ms) | Self::UserRateForbidden(ms) => Some(ms),
            Self::Concurrency
            | Self::ResourceExhausted
            | Self::Quota
            | Self::UserRateShort
            | Self::RateShort
            | Self::DailyLimit
            | Self::DomainPolicy
            | Self::NotConfigured
            | Self::NotEnabled
            | Self::Precondition
            | Self::Unauthorized
            | Self::NotFound
            | Self::Backend(_) => None,
        }
    }

    /// The error; times in its text count from `now_ms`.
    pub(crate) fn error(self, now_ms: i64) -> ApiError {
        let short = |reason, message| ApiError::documented("usageLimits", reason, message);
        let until = |ahead: i64| now_ms.saturating_add(ahead);
        match self {
            Self::Concurrency => ApiError::concurrency(),
            Self::ResourceExhausted => ApiError::resource_exhausted("Resource has been exhausted (e.g. check quota)."),
            Self::UserRate(ahead) => ApiError::user_rate(StatusCode::TOO_MANY_REQUESTS, until(ahead)),
            Self::UserRateForbidden(ahead) => ApiError::user_rate(StatusCode::FORBIDDEN, until(ahead)),
            Self::Quota => ApiError::quota("Queries per minute per user", "defaultPerMinutePerUser", 6_000),
            Self::UserRateShort => short("userRateLimitExceeded", "User Rate Limit Exceeded"),
            Self::RateShort => short("rateLimitExceeded", "Rate Limit Exceeded"),
            Self::DailyLimit => short("dailyLimitExceeded", "Daily Limit Exceeded"),
            Self::DomainPolicy => {
                ApiError::documented("global", "domainPolicy", "The domain administrators have disabled Gmail apps.")
            }
            Self::NotConfigured => short("accessNotConfigured", "Access Not Configured"),
            Self::NotEnabled => ApiError::failed_precondition("Mail service not enabled"),
            Self::Precondition => ApiError::failed_precondition("Precondition check failed."),
            Self::Unauthorized => ApiError::bad_token(),
            Self::NotFound => ApiError::not_found(),
            Self::Backend(status) => {
                ApiError::backend(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }
}

impl Latency {
    fn draw(self, seed: &mut Seed) -> u64 {
        // `1 − u` is above zero, so its logarithm is finite.
        let exponential = |seed: &mut Seed| -(1.0 - seed.unit()).ln();
        let whole = |ms: f64| if ms.is_finite() { ms.clamp(0.0, 3_600_000.0).round() as u64 } else { 0 };
        match self {
            Self::Fixed(ms) => ms,
            Self::Uniform(from, to) => from + seed.below(to.saturating_sub(from) + 1),
            Self::Exponential(mean) => whole(mean * exponential(seed)),
            Self::LogNormal(median, sigma) => {
                // Box–Muller.
                let radius = (2.0 * exponential(seed)).sqrt();
                let normal = radius * (std::f64::consts::TAU * seed.unit()).cos();
                whole(median * (sigma * normal).exp())
            }
        }
    }
}

const fn certain() -> f64 {
    1.0
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Whether there is any rule, so that calls without faults take no lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Vec<Active>,
    seed: Seed,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    seen: u64,
    hit: u64,
}

/// What happens to one call.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fate {
    /// It takes this much longer, in ms.
    pub(crate) delay_ms: u64,
    /// It is refused, or spoiled. Latency is not among these.
    pub(crate) fault: Option<Fault>,
    /// Messages that must not be named, nor read.
    pub(crate) poisoned: Vec<u64>,
    /// Messages that cannot be read, though they are named.
    pub(crate) unreadable: Vec<u64>,
    /// How much lower the head is reported.
    pub(crate) head_behind: u64,
}

/// Why a scenario could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("Reading the scenario: {0}")]
    Read(#[from] std::io::Error),
    /// It is not a list of rules.
    #[error("The scenario is no JSON list of fault rules: {0}")]
    Parse(#[from] serde_json::Error),
}

/// The rules of a scenario file: a JSON list.
pub(crate) fn scenario(path: &Path) -> Result<Vec<Rule>, ScenarioError> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

impl Faults {
    /// No faults, and the seed for those that come.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            any: AtomicBool::new(false),
            state: Mutex::new(State { rules: Vec::new(), seed: Seed::of(seed, "faults") }),
        }
    }

    /// Adds a rule.
    pub(crate) fn add(&self, rule: Rule) {
        self.lock().rules.push(Active { rule, seen: 0, hit: 0 });
        self.any.store(true, Ordering::Release);
    }

    /// Ends all rules.
    pub(crate) fn clear(&self) {
        self.lock().rules.clear();
        self.any.store(false, Ordering::Release);
    }

    /// Ends the rules that are for this mailbox alone.
    pub(crate) fn clear_of(&self, email: &str) {
        self.lock().rules.retain(|active| active.rule.mailboxes != [email]);
    }

    /// The rules, each with how many calls it hit.
    pub(crate) fn rules(&self) -> Vec<(Rule, u64)> {
        self.lock().rules.iter().map(|active| (active.rule.clone(), active.hit)).collect()
    }

    /// What happens to a call named `call` at `mailbox`. Of several faults the first rule's counts; delays add up.
    pub(crate) fn fate(&self, call: &str, mailbox: Option<&str>, now_ms: i64) -> Fate {
        let mut fate = Fate::default();
        if !self.any.load(Ordering::Acquire) {
            return fate;
        }
        let mut state = self.lock();
        let State { rules, seed } = &mut *state;
        for active in rules {
            let spoils = !matches!(
                active.rule.fault,
                Fault::Latency(_) | Fault::Poison(_) | Fault::Unreadable(_) | Fault::HeadBehind(_)
            );
            if (spoils && fate.fault.is_some()) || !active.hits(call, mailbox, now_ms, seed) {
                continue;
            }
            match &active.rule.fault {
                Fault::Latency(latency) => fate.delay_ms = fate.delay_ms.saturating_add(latency.draw(seed)),
                Fault::Poison(id) => fate.poisoned.extend(u64::from_str_radix(id, 16).ok()),
                Fault::Unreadable(id) => fate.unreadable.extend(u64::from_str_radix(id, 16).ok()),
                Fault::HeadBehind(by) => fate.head_behind = fate.head_behind.max(*by),
                other => fate.fault = Some(other.clone()),
            }
        }
        fate
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    fn hits(&mut self, call: &str, mailbox: Option<&str>, now_ms: i64, seed: &mut Seed) -> bool {
        let rule = &self.rule;
        let at_mailbox = |own: &String| mailbox.is_some_and(|mailbox| mailbox.eq_ignore_ascii_case(own));
        let applies = (rule.mailboxes.is_empty() || rule.mailboxes.iter().any(at_mailbox))
            && (rule.calls.is_empty() || rule.calls.iter().any(|own| own == call))
            && rule.from_ms.is_none_or(|from| now_ms >= from)
            && rule.until_ms.is_none_or(|until| now_ms < until)
            && rule.times.is_none_or(|times| self.hit < times);
        if !applies {
            return false;
        }
        self.seen += 1;
        let hit = self.seen > rule.after && seed.unit() < rule.probability;
        self.hit += u64::from(hit);
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rules_select_count_and_repeat() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.add(rule(r#"{"calls": ["listHistory"], "probability": 0.5, "fault": {"error": {"backend": 503}}}"#));
            (0..64).map(|_| faults.fate("listHistory", Some("a@b.c"), 0).fault.is_some()).collect::<Vec<bool>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let faults = Faults::new(1);
        faults.add(rule(r#"{"mailboxes": ["A@b.c"], "after": 1, "times": 2, "fault": "reset"}"#));
        let hits = |mailbox| faults.fate("getMessage", Some(mailbox), 0).fault.is_some();
        assert!(!hits("x@b.c"));
        assert_eq!([hits("a@b.c"), hits("a@b.c"), hits("a@b.c"), hits("a@b.c")], [false, true, true, false]);
        faults.clear();
        assert!(faults.rules().is_empty());
    }

    #[test]
    fn bursts_follow_the_clock_and_delays_add_up() {
        let faults = Faults::new(1);
        faults.add(rule(r#"{"fromMs": 100, "untilMs": 200, "fault": {"error": {"userRate": 900000}}}"#));
        faults.add(rule(r#"{"fault": {"latency": {"fixed": 30}}}"#));
        faults.add(rule(r#"{"fault": {"latency": {"uniform": [5, 5]}}}"#));
        assert_eq!(faults.fate("x", None, 99), Fate { delay_ms: 35, ..Fate::default() });
        assert!(faults.fate("x", None, 100).fault.is_some());
        assert!(faults.fate("x", None, 200).fault.is_none());
    }

    #[test]
    fn latencies_have_the_shape_that_they_say() {
        let mut seed = Seed::of(3, "latency");
        let mut draw = |latency: Latency| {
            let mut drawn: Vec<u64> = (0..4_000).map(|_| latency.draw(&mut seed)).collect();
            drawn.sort_unstable();
            drawn
        };
        let exponential = draw(Latency::Exponential(100.0));
        let mean = exponential.iter().sum::<u64>() / 4_000;
        assert!((90..110).contains(&mean), "{mean}");
        let normal = draw(Latency::LogNormal(50.0, 1.0));
        assert!((45..56).contains(&normal[2_000]), "{}", normal[2_000]);
        assert!(normal[3_900] > 250, "a tail: {}", normal[3_900]);
    }
}
