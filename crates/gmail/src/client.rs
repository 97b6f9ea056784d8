//! Calls, from what the mailbox asks to what it hears.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use domain::mailbox::reply::{Answer, Call, CallError, Reply, Request};
use domain::{ConnectionId, OrganisationId, Timestamp, TokenVersion};
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use moka::sync::Cache;
use runtime::trace::{Parent, Span};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::Url;

use crate::gate::{Admission, Gate, Refused};
use crate::token::{Access, IDLE, TokenSource, Tokens};
use crate::transport::{self, Answered};
use crate::verdict::{self, Refusal, Verdict};
use crate::{Settings, Tariff, metric, query, trace, wire};

mod base64_json;
mod batch;
mod download;

pub use batch::{Read, Reading};
pub use download::{Asking, Download};

/// Whose mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mailbox {
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
}

/// Why no client could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The HTTP library did not start.
    #[error("The HTTP client cannot be set up: {detail}")]
    Http {
        /// Its words.
        detail: String,
    },
    /// The service account's key cannot be had.
    #[error("The service account's key in {}: {detail}; set gmail.service_account_file to the JSON file that Google gave out for it", path.display())]
    ServiceAccount {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

/// Calls Gmail. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: Vec<reqwest::Client>,
    api_url: Url,
    tokens: Tokens,
    gate: Gate,
    /// The turns of the mailboxes whose messages are read.
    turns: Cache<ConnectionId, Arc<batch::Turn>>,
    tariff: Tariff,
    call_timeout: Duration,
    max_body: u64,
    watch_topic: String,
}

/// What a call came to besides its result, kept also when it is given up midway.
struct Ledger {
    units: u32,
    date: Option<Timestamp>,
    token_version: TokenVersion,
}

impl Client {
    /// A client that takes refresh tokens from `source` and passes every call through `gate`.
    ///
    /// # Errors
    /// [`Error::Http`] when the HTTP library does not start.
    pub fn new(settings: &Settings, source: Arc<dyn TokenSource>, gate: Gate) -> Result<Self, Error> {
        let http = (0..settings.connections.max(1)).map(|_| transport::client(settings, &settings.api_url));
        let inner = Inner {
            http: http.collect::<Result<_, _>>()?,
            api_url: settings.api_url.clone(),
            tokens: Tokens::new(settings, source)?,
            gate,
            turns: Cache::builder().max_capacity(settings.max_tokens).time_to_idle(IDLE).build(),
            tariff: settings.tariff,
            call_timeout: settings.call_timeout,
            max_body: settings.max_body,
            watch_topic: settings.watch_topic.clone().unwrap_or_default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Keeps no token of a mailbox: its next call looks whether its connection still lives.
    pub fn forget_token(&self, mailbox: Mailbox) {
        self.inner.tokens.forget(mailbox);
    }

    /// Makes one call, within its deadline and the settings' time-out, whichever is first. Always answers.
    pub async fn call(&self, mailbox: Mailbox, call: &Call) -> Answer {
        let began = Instant::now();
        let mut ledger = Ledger { units: 0, date: None, token_version: call.token_version };
        let left =
            call.deadline.map(|deadline| Duration::from_millis(deadline.since(now()).as_millis().unsigned_abs()));
        let patience = left.map_or(self.inner.call_timeout, |left| left.min(self.inner.call_timeout));
        let span = span(mailbox, call);
        let attempt = span.scope(self.inner.call(mailbox, call, began + patience, &mut ledger));
        let result = match tokio::time::timeout(patience, attempt).await {
            Ok(result) => result,
            // Not so much as sent: that says nothing about the page.
            Err(_) if ledger.units == 0 => Err(CallError::Throttled { until: None }),
            Err(_) => Err(CallError::Transient { detail: format!("No answer within {patience:?}") }),
        };
        let outcome = outcome(&result);
        span.set("mailtide.gmail.units", i64::from(ledger.units));
        span.set("mailtide.gmail.outcome", outcome);
        if result.is_err() {
            span.fail(outcome);
        }
        metric::called(query::method(&call.request), outcome, began.elapsed());
        Answer { result, date: ledger.date, units: ledger.units, token_version: ledger.token_version }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("api_url", &self.inner.api_url.as_str()).finish_non_exhaustive()
    }
}

impl Inner {
    async fn call(
        &self,
        mailbox: Mailbox,
        call: &Call,
        deadline: Instant,
        ledger: &mut Ledger,
    ) -> Result<Reply, CallError> {
        let access = self.tokens.access(mailbox, call.token_version).await?;
        // Watches belong to the account: another connection of it may want its pushes.
        if call.request == Request::Stop && access.shares > 1 {
            return Ok(Reply::Stopped);
        }
        let answered = self.send(mailbox, call, &access, deadline, ledger).await?;
        match self.verdict(call, &access, &answered) {
            Err(Verdict::Unauthorized) => {}
            other => return other.map_err(|verdict| fail(verdict, "")),
        }
        // The token may have been revoked, or the grant: a refresh tells.
        self.tokens.reject(mailbox, &access);
        let access = self.tokens.access(mailbox, call.token_version).await?;
        let answered = self.send(mailbox, call, &access, deadline, ledger).await?;
        self.verdict(call, &access, &answered).map_err(|verdict| fail(verdict, "a token that was just issued"))
    }

    async fn send(
        &self,
        mailbox: Mailbox,
        call: &Call,
        access: &Access,
        deadline: Instant,
        ledger: &mut Ledger,
    ) -> Result<Answered, CallError> {
        ledger.token_version = access.token_version;
        let transient = |detail: String| CallError::Transient { detail };
        let units = self.tariff.price(query::method(&call.request));
        let admission = Admission {
            account: &access.account,
            connection: Some(mailbox.connection_id),
            shares: access.shares,
            lane: call.lane,
            units,
            parts: 1,
            deadline,
        };
        let _permit = trace::admitted(self.gate.admit(admission)).await.map_err(not_admitted)?;
        // Spent from here on, whatever comes of it.
        ledger.units += units;
        let (http, url) = (self.http(mailbox.connection_id), query::url(&self.api_url, &call.request));
        let request = match query::body(&call.request, &self.watch_topic) {
            None => http.get(url),
            Some(body) => http.post(url).header(CONTENT_TYPE, "application/json").body(body),
        };
        let request = request
            .header(AUTHORIZATION, bearer(access).ok_or_else(|| transient("a token that no header holds".to_owned()))?);
        let answered = transport::fetch(request, self.max_body).await.map_err(|failure| match failure {
            // It would be as large the next time: a smaller page may not.
            transport::Failure::TooLarge { .. } => CallError::Broken { detail: failure.to_string() },
            _ => transient(failure.to_string()),
        })?;
        ledger.date = verdict::date(&answered.headers).or(ledger.date);
        Ok(answered)
    }

    fn verdict(&self, call: &Call, access: &Access, answered: &Answered) -> Result<Reply, Verdict> {
        let Answered { status, headers, body } = answered;
        if status.is_success() {
            return wire::reply(&call.request, body).map_err(Verdict::Failed);
        }
        let method = query::method(&call.request);
        let verdict = verdict::judge(Refusal { method, status: *status, headers, body, now: now() });
        if let Verdict::Throttled { reach, until } = &verdict {
            self.gate.pushed_back(&access.account, *reach, *until);
        }
        Err(verdict)
    }

    /// One mailbox stays on one connection; mailboxes are spread over all.
    fn http(&self, connection_id: ConnectionId) -> &reqwest::Client {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(connection_id);
        let index = hash % self.http.len() as u64;
        &self.http[usize::try_from(index).unwrap_or_default()]
    }
}

/// What a call that the gate did not let through comes to: whatever the reason, it says nothing about the page that was
/// asked for, and must not count against it.
fn not_admitted(refused: Refused) -> CallError {
    match refused {
        Refused::NotBefore { .. } => CallError::Throttled { until: refused.until() },
        Refused::Late { .. } | Refused::Full => CallError::Throttled { until: None },
        // The mailbox's probes are as dear, so that this is not taken for the page's own failure either.
        Refused::TooDear { .. } => CallError::Transient { detail: refused.to_string() },
    }
}

fn fail(verdict: Verdict, unauthorized: &str) -> CallError {
    match verdict {
        Verdict::Failed(error) => error,
        Verdict::Throttled { until, .. } => CallError::Throttled { until },
        Verdict::Unauthorized => CallError::Transient {
            detail: format!("Gmail answered 401 to {unauthorized}; this passes, or the grant goes"),
        },
    }
}

fn bearer(access: &Access) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", access.token.expose_secret())).ok()?;
    // Kept out of debug output and of HTTP/2's table of repeated headers.
    value.set_sensitive(true);
    Some(value)
}

/// The span of a call, in the trace of the job that it serves, or of what is worked on here.
fn span(mailbox: Mailbox, call: &Call) -> Span {
    let parent = call.trace.as_deref().map_or(Parent::Current, |trace| Parent::Remote(Some(trace)));
    let span = trace::of(query::method(&call.request), mailbox, parent);
    span.set("mailtide.gmail.lane", call.lane.as_str());
    span
}

fn outcome<T>(result: &Result<T, CallError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(CallError::Throttled { .. }) => "throttled",
        Err(CallError::Transient { .. }) => "transient",
        Err(CallError::Broken { .. }) => "broken",
        Err(CallError::NotFound) => "not_found",
        Err(CallError::InvalidPageToken) => "invalid_page_token",
        Err(CallError::Revoked { .. }) => "revoked",
        Err(CallError::ConnectionGone) => "connection_gone",
        Err(CallError::Permanent { .. }) => "permanent",
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
