//! A way to Postgres that counts the statements that go along it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// How often each statement was executed, by its text.
pub(crate) type Counts = BTreeMap<String, usize>;

/// It speaks the frontend's side of the protocol (version 3.0) well enough to know a statement by its text.
pub(crate) struct Tally {
    address: SocketAddr,
    database: Url,
    counts: Arc<Mutex<Counts>>,
}

impl Tally {
    /// In front of a database.
    pub(crate) async fn before(database: &str) -> Self {
        let database: Url = database.parse().unwrap();
        let upstream = format!("{}:{}", database.host_str().unwrap(), database.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Mutex::new(Counts::new()));
        let all = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&upstream).await else { continue };
                let ((near_read, mut near_write), (mut far_read, far_write)) = (near.into_split(), far.into_split());
                let counts = Arc::clone(&all);
                // Both end with their connection.
                tokio::spawn(async move { count(near_read, far_write, &counts).await });
                tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut near_write).await });
            }
        });
        Self { address, database, counts }
    }

    /// The database's address by this way, which is not encrypted.
    pub(crate) fn url(&self) -> String {
        let mut url = self.database.clone();
        url.set_ip_host(self.address.ip()).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        let rest: Vec<(String, String)> =
            url.query_pairs().into_owned().filter(|(name, _)| name != "sslmode").collect();
        url.query_pairs_mut().clear().extend_pairs(rest).append_pair("sslmode", "disable");
        url.into()
    }

    /// What was executed since the last time.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }
}

/// Carries what a client sends, and counts.
async fn count(mut from: impl AsyncRead + Unpin, mut to: OwnedWriteHalf, counts: &Mutex<Counts>) -> Option<()> {
    // The first message has no type.
    let startup = body(&mut from).await?;
    send(&mut to, None, &startup).await?;
    let mut prepared: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    loop {
        let kind = from.read_u8().await.ok()?;
        let message = body(&mut from).await?;
        let mut texts = message.split(|byte| *byte == 0);
        let mut text = || texts.next().unwrap_or_default().to_vec();
        match kind {
            // Parse: the statement's name and its text.
            b'P' => {
                let name = text();
                prepared.insert(name, String::from_utf8_lossy(&text()).into_owned());
            }
            // Bind: the portal and the statement's name.
            b'B' => {
                let _portal = text();
                let statement = prepared.get(&text()).cloned().unwrap_or_default();
                *counts.lock().unwrap().entry(statement).or_default() += 1;
            }
            // A simple query.
            b'Q' => *counts.lock().unwrap().entry(String::from_utf8_lossy(&text()).into_owned()).or_default() += 1,
            _ => {}
        }
        send(&mut to, Some(kind), &message).await?;
    }
}

/// A message behind its type: its length counts itself.
async fn body(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = usize::try_from(from.read_u32().await.ok()?).ok()?;
    let mut message = vec![0; length.checked_sub(4)?];
    from.read_exact(&mut message).await.ok()?;
    Some(message)
}

async fn send(to: &mut OwnedWriteHalf, kind: Option<u8>, message: &[u8]) -> Option<()> {
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend(u32::try_from(message.len() + 4).ok()?.to_be_bytes());
    bytes.extend_from_slice(message);
    to.write_all(&bytes).await.ok()
}
