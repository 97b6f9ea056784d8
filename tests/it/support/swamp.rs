//! A way to Postgres that can be made to swallow everything, as a lost network does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// It takes connections all the time. What was lost in one never arrives.
pub(crate) struct Swamp {
    address: SocketAddr,
    database: Url,
    swallows: Arc<AtomicBool>,
}

impl Swamp {
    /// In front of a database.
    pub(crate) async fn before(database: &str) -> Self {
        let database: Url = database.parse().unwrap();
        let upstream = format!("{}:{}", database.host_str().unwrap(), database.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let swallows = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&swallows);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&upstream).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near_read, far_write, Arc::clone(&flag)));
                tokio::spawn(carry(far_read, near_write, Arc::clone(&flag)));
            }
        });
        Self { address, database, swallows }
    }

    /// The database's address by this way.
    pub(crate) fn url(&self) -> String {
        let mut url = self.database.clone();
        url.set_ip_host(self.address.ip()).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.into()
    }

    /// Swallows from now on, or carries what is sent from now on in new connections.
    pub(crate) fn swallow(&self, swallows: bool) {
        self.swallows.store(swallows, Ordering::SeqCst);
    }
}

/// Carries bytes until the flag is up; what comes then is lost, and the connection stays open.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, swallows: Arc<AtomicBool>) {
    let mut bytes = vec![0; 64 * 1024];
    let mut lost = false;
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        lost |= swallows.load(Ordering::SeqCst);
        if !lost && to.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
}
