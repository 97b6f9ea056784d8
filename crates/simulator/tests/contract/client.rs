//! A small HTTP/1.1 client, so that these tests see bytes as they are.

use std::collections::HashMap;

use serde_json::Value;
use simulator::{Control, NewMailbox, Running, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A simulator with one mailbox and a token for it.
pub(crate) struct World {
    pub(crate) simulator: Running,
    pub(crate) refresh_token: String,
    pub(crate) token: String,
}

pub(crate) const EMAIL: &str = "Ann@Example.org";

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default(), NewMailbox::default()).await
    }

    pub(crate) async fn with(settings: Settings, mailbox: NewMailbox) -> Self {
        let simulator = simulator::start(settings).await.unwrap();
        let created = simulator.control().create(&NewMailbox { email: EMAIL.to_owned(), ..mailbox }).unwrap();
        let mut world = Self { simulator, refresh_token: created.refresh_token, token: String::new() };
        world.token = world.refresh().await.json()["access_token"].as_str().unwrap().to_owned();
        world
    }

    pub(crate) fn control(&self) -> &Control {
        self.simulator.control()
    }

    pub(crate) async fn refresh(&self) -> Reply {
        let form = format!(
            "grant_type=refresh_token&client_id=c&client_secret=s&refresh_token={}",
            self.refresh_token.replace('/', "%2F")
        );
        self.send("POST", "/token", "application/x-www-form-urlencoded", form.as_bytes()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.raw("GET", path, &[("authorization", &format!("Bearer {}", self.token))], b"").await
    }

    /// GET below the user's path.
    pub(crate) async fn me(&self, path: &str) -> Reply {
        self.get(&format!("/gmail/v1/users/me/{path}")).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Reply {
        self.raw(method, path, &[("content-type", kind)], body).await
    }

    /// The same with the token and without a body; what came before the connection broke, if a head did.
    pub(crate) async fn try_raw(&self, method: &str, path: &str) -> Option<Reply> {
        let authorization = format!("Bearer {}", self.token);
        self.exchange(method, path, &[("authorization", &authorization)], b"").await
    }

    pub(crate) async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.exchange(method, path, headers, body).await.expect("a response has a head")
    }

    async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
        let mut stream = TcpStream::connect(self.simulator.addr).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes).await;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        assert!(ended.is_ok() || end.is_none(), "a reset comes before any byte");
        let end = end?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        Some(Reply { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() })
    }
}

/// Percent-encodes a query value.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
