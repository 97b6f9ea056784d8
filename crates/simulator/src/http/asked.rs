//! One call of the API from its arrival to its response: what was asked, by whom, whether it is allowed, what it
//! costs, and which faults befall it.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use super::params::Params;
use super::wire::Cut;
use crate::error::{self, ApiError};
use crate::faults::{Fate, Fault};
use crate::grant::Token;
use crate::quota::{Exceeded, Method};
use crate::scope::Scopes;
use crate::settings::Behaviour;
use crate::world::{Account, InFlight, World};

/// Smaller bodies are sent as they are.
const WORTH_PACKING: usize = 1_024;

/// What arrived, as far as every method needs it.
#[derive(Debug)]
pub(crate) struct Asked {
    query: String,
    bearer: Option<String>,
    cut: Cut,
    in_batch: bool,
    /// The client takes gzip, and its user agent says so too: Google asks for both.
    takes_gzip: bool,
}

/// Marks a request that is a part of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InBatch;

/// Marks a response that a batch leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missing;

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let says_gzip = |name| parts.headers.get(name).is_some_and(|value| contains(value, b"gzip"));
        let in_batch = parts.extensions.get::<InBatch>().is_some();
        let cut = parts.extensions.get::<ConnectInfo<Cut>>().map(|info| info.0.clone());
        Ok(Self {
            query: parts.uri.query().unwrap_or_default().to_owned(),
            bearer: authorization.and_then(|text| text.strip_prefix("Bearer ")).map(str::to_owned),
            cut: cut.unwrap_or_default(),
            in_batch,
            takes_gzip: !in_batch && says_gzip(header::ACCEPT_ENCODING) && says_gzip(header::USER_AGENT),
        })
    }
}

/// A call found to be allowed and paid for.
#[derive(Debug)]
pub(crate) struct Call<'q> {
    pub(crate) params: Params<'q>,
    pub(crate) account: Arc<Account>,
    pub(crate) scopes: Scopes,
    pub(crate) behaviour: Behaviour,
    pub(crate) now_ms: i64,
    pub(crate) seed: u64,
    /// Messages that must not be named, nor read.
    pub(crate) poisoned: Vec<u64>,
    /// Messages that cannot be read, though they are named.
    pub(crate) unreadable: Vec<u64>,
    /// How much lower the head is reported.
    pub(crate) head_behind: u64,
}

/// Checks a call, charges it, lets faults befall it, answers it.
pub(crate) async fn answer(
    world: &Arc<World>,
    method: Method,
    user: &str,
    asked: &Asked,
    work: impl FnOnce(Call<'_>) -> Result<Vec<u8>, ApiError>,
) -> Response {
    let params = Params::parse(&asked.query);
    let legacy = params.legacy_errors();
    let response = match admit(world, method, user, params, asked) {
        Err(error) => error.response(legacy),
        Ok((mut call, in_flight)) => {
            let fate = world.faults.fate(method.name(), Some(&call.account.email), call.now_ms);
            if fate.delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(fate.delay_ms)).await;
                call.now_ms = world.clock.now_ms();
            }
            if asked.in_batch {
                // Parts run at the same time: each counts as a request under way before the first is done.
                tokio::task::yield_now().await;
            }
            let response = befallen(fate, call, legacy, asked, work);
            drop(in_flight);
            response
        }
    };
    super::dated(world, response)
}

/// Checks in Gmail's order: error format, credential, numbers, whose mailbox. Then concurrency and quota.
fn admit<'q>(
    world: &Arc<World>,
    method: Method,
    user: &str,
    params: Params<'q>,
    asked: &Asked,
) -> Result<(Call<'q>, InFlight), ApiError> {
    let now_ms = world.clock.now_ms();
    params.check_error_format()?;
    let bearer = asked.bearer.as_deref().or_else(|| params.last("access_token"));
    let token = Token::parse_access(bearer.ok_or_else(ApiError::no_token)?, world.seed);
    let token = token.ok_or_else(ApiError::bad_token)?;
    let account = world.account_numbered(token.account).ok_or_else(ApiError::bad_token)?;
    let scopes = account.grants().allowed(token, now_ms).ok_or_else(ApiError::bad_token)?;
    account.usage.calls[method.index()].fetch_add(1, Ordering::Relaxed);
    if !scopes.allow(method) {
        return Err(ApiError::insufficient_scope(method.internal_name()));
    }
    params.max_results_number()?;
    if !user.eq_ignore_ascii_case("me") && !user.eq_ignore_ascii_case(&account.email) {
        return Err(ApiError::forbidden(if user.contains('@') {
            format!("Delegation denied for {}", account.email)
        } else {
            "Invalid user id specified in request/Delegation denied".to_owned()
        }));
    }
    let (_, limits) = world.tariff();
    let in_flight = account.enter(limits.concurrent_per_user).ok_or_else(ApiError::concurrency)?;
    let behaviour = world.behaviour_of(&account);
    if let Some((form, wait_ms)) = behaviour.user_throttle.and_then(|form| Some((form, form.wait_ms()?)))
        && account.barred(now_ms, wait_ms)
    {
        return Err(form.error(now_ms));
    }
    world.charge(&account, method, now_ms).map_err(|exceeded| match exceeded {
        Exceeded::UserMinute => behaviour.user_throttle.map_or_else(
            || ApiError::quota("Queries per minute per user", "defaultPerMinutePerUser", limits.user_minute),
            |form| {
                account.bar(now_ms, form.wait_ms().unwrap_or(0));
                form.error(now_ms)
            },
        ),
        Exceeded::ProjectMinute => {
            ApiError::quota("Queries per minute", "defaultPerMinutePerProject", limits.project_minute)
        }
        Exceeded::ProjectDay => ApiError::documented("usageLimits", "dailyLimitExceeded", "Daily Limit Exceeded"),
    })?;
    let call = Call {
        params,
        account,
        scopes,
        behaviour,
        now_ms,
        seed: world.seed,
        poisoned: Vec::new(),
        unreadable: Vec::new(),
        head_behind: 0,
    };
    Ok((call, in_flight))
}

fn befallen<'q>(
    fate: Fate,
    mut call: Call<'q>,
    legacy: bool,
    asked: &Asked,
    work: impl FnOnce(Call<'q>) -> Result<Vec<u8>, ApiError>,
) -> Response {
    if let Some(Fault::Error(refusal)) = fate.fault {
        return refusal.error(call.now_ms).response(legacy);
    }
    (call.poisoned, call.unreadable, call.head_behind) = (fate.poisoned, fate.unreadable, fate.head_behind);
    let packs = asked.takes_gzip && call.behaviour.gzip;
    match (work(call), fate.fault) {
        (Ok(body), None) if packs && body.len() >= WORTH_PACKING => packed(&body),
        (Ok(body), None) => error::json(StatusCode::OK, body),
        (Ok(body), Some(fault)) => spoiled(&fault, body, &asked.cut),
        // An error is spoiled only by what replaces the response as a whole.
        (Err(_), Some(fault @ (Fault::Reset | Fault::Html(_) | Fault::Lost))) => {
            spoiled(&fault, Vec::new(), &asked.cut)
        }
        (Err(error), _) => error.response(legacy),
    }
}

/// The response to a body that a fault has got hold of.
pub(crate) fn spoiled(fault: &Fault, mut body: Vec<u8>, cut: &Cut) -> Response {
    match fault {
        Fault::Html(status) => error::html(StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY)),
        Fault::Reset => {
            cut.cut();
            error::json(StatusCode::OK, Vec::new())
        }
        Fault::Truncate(part) => truncated(body, *part),
        Fault::Malformed => {
            body.truncate(body.trim_ascii_end().len().saturating_sub(1));
            error::json(StatusCode::OK, body)
        }
        Fault::Lost => {
            let mut response = error::json(StatusCode::OK, body);
            response.extensions_mut().insert(Missing);
            response
        }
        Fault::Error(_)
        | Fault::Latency(_)
        | Fault::Poison(_)
        | Fault::Unreadable(_)
        | Fault::HeadBehind(_)
        | Fault::Duplicate(_) => error::json(StatusCode::OK, body),
    }
}

/// The body in gzip.
fn packed(body: &[u8]) -> Response {
    let mut packer = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    let packed = packer.write_all(body).and_then(|()| packer.finish());
    let mut response = error::json(StatusCode::OK, packed.expect("writing to a vector cannot fail"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin, X-Origin, Referer"));
    response
}

fn contains(value: &HeaderValue, word: &[u8]) -> bool {
    value.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// A response whose head tells the body's whole length, and whose body breaks off.
fn truncated(body: Vec<u8>, part: f64) -> Response {
    let len = body.len();
    let kept = ((len as f64 * part.clamp(0.0, 1.0)) as usize).min(len.saturating_sub(1));
    let beginning = Bytes::from(body).slice(..kept);
    let pieces = stream::unfold(Some(beginning), |state| async move {
        let error = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        match state {
            Some(bytes) if !bytes.is_empty() => Some((Ok(bytes), Some(Bytes::new()))),
            Some(_) => {
                // What was written before goes out first.
                tokio::task::yield_now().await;
                Some((Err(error()), None))
            }
            None => None,
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    response
}
