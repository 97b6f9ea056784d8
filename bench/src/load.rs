//! An HTTP client that costs little: one connection, one request at a time.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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

    /// Makes a call and reads all of the answer.
    pub(crate) async fn call(&mut self, call: &Call) -> anyhow::Result<Bytes> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.clone();
        request.headers_mut().insert(http::header::HOST, self.host.clone());
        if let Some((name, value)) = &call.header {
            request.headers_mut().insert(name, value.clone());
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == call.status, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}
