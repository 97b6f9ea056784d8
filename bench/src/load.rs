//! An HTTP client that costs little: one connection, one request at a time; and a load made of many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};
use uuid::Uuid;

/// A connection to a server.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

/// What to ask for, and the status that the answer must have.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: Uri,
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
    /// Each time it is made it carries an `Idempotency-Key` of its own.
    pub(crate) is_named: bool,
    pub(crate) body: Bytes,
    pub(crate) status: StatusCode,
}

impl Client {
    /// Connects. The connection lives on the runtime that this is called on.
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("Connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is told by the next request.
        tokio::spawn(connection);
        Ok(Self { sender, host: HeaderValue::try_from(address.to_string())? })
    }

    /// Makes a call, which has to be answered as it says, and reads all of the answer.
    pub(crate) async fn call(&mut self, call: &Call) -> anyhow::Result<Bytes> {
        let (status, body) = self.ask(call).await?;
        ensure!(status == call.status, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Makes a call, however it is answered, and reads all of the answer.
    pub(crate) async fn ask(&mut self, call: &Call) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.clone();
        request.headers_mut().insert(http::header::HOST, self.host.clone());
        if let Some((name, value)) = &call.header {
            request.headers_mut().insert(name, value.clone());
        }
        if call.is_named {
            let name = HeaderValue::try_from(Uuid::new_v4().to_string())?;
            request.headers_mut().insert(HeaderName::from_static("idempotency-key"), name);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    }
}

/// Asks as fast as the answers come, from a thread of its own: answers per second. Of n clients each makes
/// every n-th call, so that with as many calls as clients each makes its own.
pub(crate) async fn load(
    address: SocketAddr,
    calls: &Arc<[Call]>,
    clients: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let calls = Arc::clone(calls);
    let run = async move {
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            connected.push(Client::connect(address).await?);
        }
        let begun = Instant::now();
        let until = begun + time;
        let mut running: JoinSet<anyhow::Result<u64>> = JoinSet::new();
        for (number, mut client) in connected.into_iter().enumerate() {
            let calls = Arc::clone(&calls);
            running.spawn(async move {
                let mut answered = 0;
                let mut next = number;
                while Instant::now() < until {
                    let body = client.call(&calls[next % calls.len()]).await?;
                    ensure!(!body.is_empty(), "an answer without a body");
                    answered += 1;
                    next += clients;
                }
                Ok(answered)
            });
        }
        let mut answered = 0;
        while let Some(client) = running.join_next().await {
            answered += client??;
        }
        anyhow::Ok(answered as f64 / begun.elapsed().as_secs_f64())
    };
    spawn_blocking(|| Builder::new_current_thread().enable_all().build()?.block_on(run)).await?
}
