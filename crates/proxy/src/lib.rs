//! A way by TCP to a server that tests put between: it can be cut, swallow everything, delay and throttle, and it can
//! be looked at. It knows nothing of what is spoken along it.

mod pump;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is wrong with a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Connections are reset, and new ones at once.
    Cut,
    /// Connections are taken and stay open, but nothing arrives: as behind a firewall that forgot them. What was lost
    /// in a connection stays lost, so it is of no use afterwards; neither end hears that the other has closed it.
    BlackHole,
    /// Whatever is sent arrives so much later, in its order.
    Delay(Duration),
    /// At most so many bytes a second in each direction of each connection.
    Throttle(u32),
}

/// Looks at what a client sends along one connection, piece by piece.
pub type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// Makes the tap of a new connection.
type Taps = Arc<dyn Fn() -> Tap + Send + Sync>;

/// A way to one server. It is open until it is dropped.
pub struct Way {
    address: SocketAddr,
    trouble: watch::Sender<Trouble>,
    accepts: JoinHandle<()>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("address", &self.address).field("trouble", &*self.trouble.borrow()).finish()
    }
}

impl Way {
    /// To the server at `upstream`, `host:port`. It need not be there yet: it is connected to when a client comes.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn to(upstream: impl Into<String>) -> io::Result<Self> {
        Self::open(upstream.into(), None).await
    }

    /// The same; what clients send is shown to a tap, one for each connection.
    ///
    /// # Errors
    /// As [`Way::to`].
    pub async fn watched(
        upstream: impl Into<String>,
        taps: impl Fn() -> Tap + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::open(upstream.into(), Some(Arc::new(taps))).await
    }

    async fn open(upstream: String, taps: Option<Taps>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (trouble, seen) = watch::channel(Trouble::None);
        let accepts = tokio::spawn(async move {
            loop {
                // A connection that was given up before it was taken is no end; too many open files pass.
                let Ok((near, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let tap = taps.as_ref().map(|taps| taps());
                tokio::spawn(carry(near, upstream.clone(), tap, seen.clone()));
            }
        });
        Ok(Self { address, trouble, accepts })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is wrong with it from now on.
    pub fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    /// What is wrong with it.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        *self.trouble.borrow()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        // Connections end with the trouble's sender.
        self.accepts.abort();
    }
}

/// Carries one connection until an end closes it, the way is cut, or it is dropped.
async fn carry(near: TcpStream, upstream: String, tap: Option<Tap>, seen: watch::Receiver<Trouble>) {
    if *seen.borrow() == Trouble::Cut {
        return pump::reset(&near);
    }
    let Ok(far) = TcpStream::connect(&upstream).await else { return pump::reset(&near) };
    pump::both(near, far, tap, seen).await;
}

#[cfg(test)]
mod tests;
