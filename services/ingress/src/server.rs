//! The HTTP server: bounded connections, bounded waits, bounded shutdown.
//!
//! Not `axum::serve`: that one waits without limit for slow headers, for idle connections at shutdown, and accepts
//! without bound. HTTP/1.1 only: detecting HTTP/2 means waiting, without a limit that hyper would let us set, for the
//! first bytes of every connection; what speaks HTTP/2 and TLS stands in front.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http_body::Body as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::guard::Guarded;
use crate::stall::{Stall, Watched};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections open at once; more wait in the kernel's queue until one is closed, as those soon are that send nothing.
    pub(crate) connections: usize,
    /// How long a client may take to send the head of a request, counted from the last answer: it also closes idle
    /// connections. A client that takes nothing of an answer for as long is cut off, too.
    pub(crate) header_timeout: Duration,
    /// How long requests may go on after shutdown was asked for.
    pub(crate) drain: Duration,
}

/// How long a connection may wait for a request while no other can be accepted: who sends nothing makes room for who
/// does.
const CROWDED: Duration = Duration::from_secs(1);

/// Between two looks at a connection, at most.
const TICK: Duration = Duration::from_secs(2);

/// Serves until shutdown is asked for, then lets the requests under way end, for at most [`Limits::drain`].
pub(crate) async fn serve(listener: TcpListener, guarded: Guarded, limits: Limits, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let crowd = Arc::clone(&slots);
                let connection = connection(stream, guarded.clone(), limits.header_timeout, crowd, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            // Out of file handles, most likely: without a pause this loop would spin until some are free.
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "Connections were cut at the end of the time for shutdown");
    }
}

/// Since when a connection waits for a request. One clock for each connection that ticks a few times in the time
/// allowed, where hyper's own would be set and cleared for every request.
struct Waiting {
    begun: Instant,
    /// Milliseconds after `begun`; [`Waiting::BUSY`] while a request is worked on.
    since: AtomicU64,
}

impl Waiting {
    const BUSY: u64 = u64::MAX;

    fn new() -> Self {
        Self { begun: Instant::now(), since: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(Self::BUSY - 1)
    }

    /// A request's head is complete.
    fn end(&self) {
        self.since.store(Self::BUSY, Ordering::Relaxed);
    }

    /// A request was answered.
    fn begin(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    fn is_longer_than(&self, limit: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != Self::BUSY && u128::from(self.now().saturating_sub(since)) > limit.as_millis()
    }
}

/// A body that comes bit by bit. The client is waited for when it is gone.
struct Streamed {
    body: Body,
    waiting: Arc<Waiting>,
}

impl http_body::Body for Streamed {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.waiting.begin();
    }
}

/// One connection, from its first byte to its close.
async fn connection(
    stream: TcpStream,
    guarded: Guarded,
    header_timeout: Duration,
    slots: Arc<Semaphore>,
    shutdown: Shutdown,
) {
    // Answers are small and written at once: waiting to fill a segment only adds latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "Cannot set TCP_NODELAY");
    }
    let (waiting, stall) = (Arc::new(Waiting::new()), Stall::new());
    let (guarded, begin) = (&guarded, &waiting);
    let answer = service_fn(move |request| async move {
        begin.end();
        let response = guarded.answer(request).await;
        Ok::<_, Infallible>(if response.body().size_hint().exact().is_some() {
            begin.begin();
            response
        } else {
            // Its length is not known: a stream, after whose end the client is waited for.
            response.map(|body| Body::new(Streamed { body, waiting: Arc::clone(begin) }))
        })
    });
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&stall)));
    let served = http1::Builder::new().max_buf_size(64 * 1024).serve_connection(stream, answer);
    let mut served = pin!(served);
    let mut ticks = tokio::time::interval((header_timeout / 4).min(TICK));
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = served.as_mut() => break ended,
            () = shutdown.requested(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                let is_crowded = slots.available_permits() == 0;
                let patience = if is_crowded { header_timeout.min(CROWDED) } else { header_timeout };
                if waiting.is_longer_than(patience) {
                    tracing::debug!("A client was too slow to send a request; its connection is closed");
                    return;
                }
                if stall.is_longer_than(header_timeout) {
                    tracing::debug!("A client does not read its answer; its connection is closed");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        // The client went away: nothing is wrong with us.
        tracing::debug!(%error, "Connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    const LIMITS: Limits =
        Limits { connections: 100, header_timeout: Duration::from_secs(60), drain: Duration::from_secs(60) };

    /// What must not take long, in a test that would otherwise hang.
    async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
    }

    async fn start(router: Router, limits: Limits, shutdown: &Shutdown) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let guarded = Guarded::new(router, 100, Duration::from_secs(60));
        (address, tokio::spawn(serve(listener, guarded, limits, shutdown.clone())))
    }

    /// All that the server sends until it closes the connection.
    async fn read_all(mut stream: TcpStream) -> String {
        let mut all = Vec::new();
        // A reset is a close, too.
        let _ = stream.read_to_end(&mut all).await;
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_head_is_cut_off() {
        let limits = Limits { header_timeout: Duration::from_millis(100), ..LIMITS };
        let (address, _server) = start(Router::new(), limits, &Shutdown::new()).await;
        for head in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            soon("cutting it off", read_all(stream)).await;
        }
    }

    /// An endless answer, given as fast as it is taken; tells when it is dropped.
    fn endless(dropped: &Arc<Notify>) -> axum::routing::MethodRouter {
        struct Tells(Arc<Notify>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let dropped = Arc::clone(dropped);
        get(move || async move {
            let tells = Tells(dropped);
            let chunk = bytes::Bytes::from_static(&[b'x'; 16 * 1024]);
            Body::from_stream(futures_util::stream::repeat_with(move || {
                let _held = &tells;
                Ok::<_, Infallible>(chunk.clone())
            }))
        })
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_stream_is_cut_off() {
        let limits = Limits { header_timeout: Duration::from_millis(100), ..LIMITS };
        let dropped = Arc::new(Notify::new());
        let (address, _server) = start(Router::new().route("/", endless(&dropped)), limits, &Shutdown::new()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        soon("cutting it off", dropped.notified()).await;
    }

    #[tokio::test]
    async fn a_stream_that_is_read_goes_on_beyond_the_time_for_a_head() {
        let limits = Limits { header_timeout: Duration::from_millis(50), ..LIMITS };
        let ticks = get(|| async {
            let ticks = futures_util::stream::unfold(0, |tick| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                (tick < 20).then(|| (Ok::<_, Infallible>("."), tick + 1))
            });
            Body::from_stream(ticks)
        });
        let (address, _server) = start(Router::new().route("/", ticks), limits, &Shutdown::new()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let all = soon("the stream", read_all(stream)).await;
        assert_eq!(all.matches("\r\n.\r\n").count(), 20, "{all}");
    }

    #[tokio::test]
    async fn idle_connections_do_not_hold_up_the_end() {
        let shutdown = Shutdown::new();
        let (address, server) = start(Router::new().route("/", get(|| async { "ok" })), LIMITS, &shutdown).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        shutdown.request();
        soon("the end", server).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_before_the_end() {
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = get({
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            move || async move {
                entered.notify_one();
                release.notified().await;
                "done"
            }
        });
        let shutdown = Shutdown::new();
        let (address, server) = start(Router::new().route("/", slow), LIMITS, &shutdown).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        soon("entering", entered.notified()).await;
        shutdown.request();
        release.notify_one();
        let answer = soon("the answer", read_all(stream)).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        soon("the end", server).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_at_the_end_of_the_drain() {
        let entered = Arc::new(Notify::new());
        let stuck = get({
            let entered = Arc::clone(&entered);
            move || async move {
                entered.notify_one();
                std::future::pending::<&'static str>().await
            }
        });
        let shutdown = Shutdown::new();
        let limits = Limits { drain: Duration::from_millis(50), ..LIMITS };
        let (address, server) = start(Router::new().route("/", stuck), limits, &shutdown).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        soon("entering", entered.notified()).await;
        shutdown.request();
        soon("the end", server).await.unwrap();
        assert_eq!(soon("the cut", read_all(stream)).await, "");
    }

    #[tokio::test]
    async fn who_sends_nothing_makes_room() {
        let limits = Limits { connections: 3, ..LIMITS };
        let (address, _server) =
            start(Router::new().route("/", get(|| async { "ok" })), limits, &Shutdown::new()).await;
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(soon("the answer", read_all(asking)).await.starts_with("HTTP/1.1 200"));
        drop(silent);
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_slot() {
        let limits = Limits { connections: 1, ..LIMITS };
        let (address, _server) =
            start(Router::new().route("/", get(|| async { "ok" })), limits, &Shutdown::new()).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        soon("the first answer", first.read_exact(&mut status)).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        drop(first);
        assert!(soon("the second answer", read_all(second)).await.starts_with("HTTP/1.1 200"));
    }
}
