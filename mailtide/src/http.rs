//! A small HTTP client for our own API: one request, one connection, bounded in time and size.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::net::TcpStream;
use url::Url;

/// No answer of our API is larger, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long one request may take in all. The API itself answers within 5 s.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Speaks to one API with one key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: Url,
    header: HeaderName,
    key: SecretString,
}

/// An answer of any status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The body as `T`, of an answer that has status `expected`; any other is an error that says what the API said.
    pub(crate) fn expect<T: for<'de> Deserialize<'de>>(&self, expected: StatusCode) -> anyhow::Result<T> {
        if self.status != expected {
            bail!("the API answered {}: {}", self.status, self.said());
        }
        serde_json::from_slice(&self.body).context("reading the API's answer")
    }

    /// After how long the API says that the same request may do better; none unless it said 503.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let header = self.headers.get(RETRY_AFTER).filter(|_| self.status == StatusCode::SERVICE_UNAVAILABLE)?;
        header.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }

    /// The problem's code and sentence, or as much of the body as fits a line.
    fn said(&self) -> String {
        #[derive(Deserialize)]
        struct Problem {
            title: String,
            detail: String,
        }
        match serde_json::from_slice::<Problem>(&self.body) {
            Ok(Problem { title, detail }) => format!("{title}: {detail}"),
            Err(_) => String::from_utf8_lossy(&self.body).chars().take(200).collect(),
        }
    }
}

impl Client {
    /// A client of the API at `base`, an `http` URL.
    pub(crate) fn new(base: Url, header: HeaderName, key: SecretString) -> anyhow::Result<Self> {
        ensure!(
            base.scheme() == "http" && base.host_str().is_some(),
            "the API's URL must be plain http, such as http://127.0.0.1:8080, not {base}"
        );
        Ok(Self { base, header, key })
    }

    /// Makes one request without a body.
    pub(crate) async fn request(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let what = format!("{method} {}{path}", self.base.as_str().trim_end_matches('/'));
        tokio::time::timeout(TIMEOUT, self.exchange(method, path))
            .await
            .with_context(|| format!("{what}: no answer within {TIMEOUT:?}"))?
            .with_context(|| what)
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let host = self.base.host_str().expect("checked when the client was made");
        let port = self.base.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut key = HeaderValue::from_str(self.key.expose_secret()).context("the API key is no header value")?;
        key.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.path().trim_end_matches('/')))
            .header(HOST, format!("{host}:{port}"))
            .header(CONTENT_TYPE, "application/json")
            .header(&self.header, key)
            .body(Full::new(Bytes::new()))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        connection.abort();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}
