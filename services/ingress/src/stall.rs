//! Notices a client that does not read: its writes stand still.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Since when the writes of a connection stand still, if they do.
#[derive(Debug)]
pub(crate) struct Stall {
    begun: Instant,
    /// Milliseconds after `begun`; [`Stall::NONE`] while writes go on.
    since: AtomicU64,
}

impl Stall {
    const NONE: u64 = u64::MAX;

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), since: AtomicU64::new(Self::NONE) })
    }

    /// Whether nothing could be written for longer than this.
    pub(crate) fn is_longer_than(&self, limit: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != Self::NONE && u128::from(self.now().saturating_sub(since)) > limit.as_millis()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(Self::NONE - 1)
    }

    fn note<T>(&self, write: Poll<T>) -> Poll<T> {
        let is_still = self.since.load(Ordering::Relaxed) != Self::NONE;
        match (&write, is_still) {
            (Poll::Pending, false) => self.since.store(self.now(), Ordering::Relaxed),
            (Poll::Ready(_), true) => self.since.store(Self::NONE, Ordering::Relaxed),
            (Poll::Pending, true) | (Poll::Ready(_), false) => {}
        }
        write
    }
}

/// A connection whose writes are watched.
pub(crate) struct Watched<S> {
    stream: S,
    stall: Arc<Stall>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, stall: Arc<Stall>) -> Self {
        Self { stream, stall }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stall.note(write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stall.note(write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
