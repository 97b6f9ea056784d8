//! Bytes over HTTP: pooled connections, time-outs, bounded bodies. Knows nothing of Gmail.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response};
use url::{Host, Url};

use crate::trace::Asked;
use crate::{Error, Settings};

/// A whole answer.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no whole answer. Nothing of the request is in its words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("could not connect: {0}")]
    Connect(String),
    #[error("the answer broke off: {0}")]
    BrokeOff(String),
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: u64 },
}

/// A client for requests to `url`'s host.
pub(crate) fn client(settings: &Settings, url: &Url) -> Result<Client, Error> {
    let mut builder = Client::builder()
        // Google packs answers only for a user agent that says "gzip" (API guide, "Performance").
        .user_agent(concat!("mailtide/", env!("CARGO_PKG_VERSION"), " (gzip)"))
        .gzip(true)
        .redirect(Policy::none())
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(std::time::Duration::from_secs(30))
        .pool_idle_timeout(std::time::Duration::from_secs(90))
        .pool_max_idle_per_host(settings.max_in_flight.into())
        // A connection that died silently is found within half a minute, not when the next call has timed out.
        .http2_keep_alive_interval(std::time::Duration::from_secs(20))
        .http2_keep_alive_timeout(std::time::Duration::from_secs(10))
        .http2_adaptive_window(true);
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Error::Http { detail: words(&error) })
}

/// Sends a request and reads its whole answer, unless it is larger than `limit` bytes unpacked. The caller bounds
/// the time.
pub(crate) async fn fetch(request: RequestBuilder, limit: u64) -> Result<Answered, Failure> {
    let (mut asked, response) = ask(request);
    let answered = async {
        let mut response = response.await?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = rest(response, limit).await?;
        Ok(Answered { status, headers, body })
    };
    answered.await.inspect(|answered| asked.answered(answered.status)).inspect_err(|failure| asked.failed(failure))
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn start(request: RequestBuilder) -> Result<Response, Failure> {
    let (mut asked, response) = ask(request);
    response.await.inspect(|response| asked.answered(response.status())).inspect_err(|failure| asked.failed(failure))
}

/// The request as it is told, and what sends it.
fn ask(request: RequestBuilder) -> (Asked, impl Future<Output = Result<Response, Failure>>) {
    let (client, request) = request.build_split();
    let asked = request.as_ref().map_or_else(|_| Asked::none(), Asked::new);
    let response = async move {
        let response = match request {
            Ok(request) => client.execute(request).await,
            Err(error) => Err(error),
        };
        response.map_err(|error| {
            let words = words(&error);
            if error.is_connect() { Failure::Connect(words) } else { Failure::BrokeOff(words) }
        })
    };
    (asked, response)
}

/// Reads the body of an answer, unless it is larger than `limit` bytes unpacked.
pub(crate) async fn rest(mut response: Response, limit: u64) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broke_off(&error))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(Failure::TooLarge { limit });
        }
        if body.is_empty() {
            // A small answer comes in one piece, which is taken as it is.
            match chunk.try_into_mut() {
                Ok(chunk) => body = chunk,
                Err(chunk) => body.extend_from_slice(&chunk),
            }
        } else {
            body.extend_from_slice(&chunk);
        }
    }
    Ok(body.freeze())
}

/// What an answer that came in part is told of.
pub(crate) fn broke_off(error: &reqwest::Error) -> Failure {
    Failure::BrokeOff(words(error))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The innermost cause: the outer ones repeat the URL.
fn words(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::addr_eq(cause, error) {
        if error.is_timeout() { "timed out".to_owned() } else { "the connection failed".to_owned() }
    } else {
        cause.to_string()
    }
}
