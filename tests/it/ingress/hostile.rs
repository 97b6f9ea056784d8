//! Those who mean harm: each is answered precisely or cut off, nobody else is held up, and the service's memory is
//! bounded. The service is a process of its own, so that its memory and its log are its own, too.

use std::time::Duration;

use serde_json::Value;
use store::organisations;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::api::KEY;
use crate::house::{House, Mailbox};
use crate::support::{LONG, Service, wait_until};

const MIB: u64 = 1024 * 1024;

/// The service, one organisation's key, and one connection of it.
struct Victim {
    house: std::sync::Arc<House>,
    ingress: Service,
    address: String,
    mailbox: Mailbox,
}

impl Victim {
    async fn new(name: &str, changes: &[(&str, &str)]) -> Self {
        // All that our own code may say.
        let ours = ["ingress", "domain", "events", "gmail", "kafka", "runtime", "store"];
        let filter = ours.iter().fold("info".to_owned(), |filter, module| format!("{filter},{module}=trace"));
        let changes: Vec<_> = changes.iter().copied().chain([("MAILTIDE_LOG_FILTER", filter.as_str())]).collect();
        let house = House::with(name, &changes).await;
        let hosts = ["app.example".to_owned()];
        organisations::change_return_hosts(&house.store, house.organisation, &hosts, &[]).await.unwrap().unwrap();
        let mailbox = house.mailbox("victim").await;
        let mut ingress = house.process("ingress", "ingress");
        let address = ingress.start().logged("API open", "address").await;
        house.api_is_at(&address);
        Self { house, ingress, address, mailbox }
    }

    /// Everything that is answered to these bytes until the service closes the connection; it may be nothing.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let mut answer = Vec::new();
        // Who is cut off is so while writing, or while reading; a reset loses what was not read yet.
        let exchange = async {
            tokio::join!(writer.write_all(bytes), reader.read_to_end(&mut answer)).0.ok();
        };
        let told = tokio::time::timeout(LONG, exchange).await;
        told.unwrap_or_else(|_| {
            panic!("neither answered nor cut off: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))
        });
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The status and the problem's title that a request is answered with, after which the connection is closed.
    async fn refusal(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{KEY}: {}\r\n{headers}\r\n",
            self.house.api_key()
        );
        let answer = self.raw(&[head.as_bytes(), body].concat()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {target}: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let told: Value = serde_json::from_str(body).unwrap_or_default();
        if status >= 400 && !told.is_null() {
            assert!(head.contains("content-type: application/problem+json"), "{method} {target}: {head}");
            let path = target.split('?').next().unwrap();
            assert_eq!(told["instance"], path, "the path is told as it was sent");
        }
        (status, told["title"].as_str().unwrap_or_default().to_owned())
    }

    /// A sync is asked for and answered, however it goes for others.
    async fn serves(&self) {
        wait_until(LONG, "an honest request is answered", || async {
            matches!(self.house.try_sync(self.mailbox.id).await, Ok(Some(_)))
        })
        .await;
    }

    /// Nothing was taken for our own failure, and nothing secret was told to the log.
    fn log_is_clean(&self) {
        let log = self.ingress.log();
        assert!(log.contains("store=trace"), "it logs all that it may: {log:.500}");
        let errors: Vec<&str> = log.lines().filter(|line| line.contains(r#""level":"ERROR""#)).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        for secret in [self.house.api_key(), &wrong_key(self.house.api_key())] {
            // The half that is secret: the prefix is shown by `keys list`, too.
            let secret = secret.rsplit('.').next().unwrap();
            assert!(secret.len() > 20 && !log.contains(secret), "a key is in the log");
        }
    }
}

/// A key that is none, and is nearly one.
fn wrong_key(key: &str) -> String {
    let (head, tail) = key.split_once('.').unwrap();
    format!("{head}.{}", tail.chars().rev().collect::<String>())
}

fn json_headers(length: usize) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_answered_precisely_and_leaves_no_trace() {
    let victim = Victim::new("hostile", &[]).await;
    victim.serves().await;
    ids_and_paths(&victim).await;
    bodies(&victim).await;
    heads(&victim).await;
    reflections(&victim).await;
    keys_in_wrong_places(&victim).await;
    victim.serves().await;
    victim.log_is_clean();
}

async fn ids_and_paths(victim: &Victim) {
    let ids = [
        "..",
        "%2e%2e%2f",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..",
        "%00",
        "%0d%0aSet-Cookie:%20x=1",
        "%FF",
        "%F0%9F%90%AC",
        "%E2%80%AE",
        "%25%30%30",
        "a;b=c",
        "'%20OR%201=1--",
        "%7B%7D",
        "null",
        "-1",
        "%u0000",
        "1e5",
        &"a".repeat(10_000),
        &"%2e".repeat(3_000),
    ];
    for id in ids {
        for (method, before, after, title) in [
            ("GET", "/gmail-connections/", "", "Gmail.ConnectionNotFound"),
            ("DELETE", "/gmail-connections/", "", "Gmail.ConnectionNotFound"),
            ("POST", "/gmail-connections/", "/sync", "Gmail.ConnectionNotFound"),
            ("GET", "/gmail-connections/", "/jobs", "Gmail.ConnectionNotFound"),
            ("GET", "/jobs/", "", "Job.NotFound"),
            ("POST", "/jobs/", "/cancel", "Job.NotFound"),
            ("GET", "/jobs/", "/events", "Job.NotFound"),
        ] {
            let refused = victim.refusal(method, &format!("{before}{id}{after}"), "", b"").await;
            assert_eq!(refused, (404, title.to_owned()), "{method} {before}{id:.50}{after}");
        }
    }
    // Paths are taken as they are: nothing is resolved, joined or decoded into another path.
    for path in [
        "/jobs/../openapi.json",
        "/./jobs",
        "//jobs",
        "/jobs/",
        "/%6aobs",
        "/jobs%2f",
        "/docs/../jobs",
        "/docs/%2e%2e/jobs",
    ] {
        let (status, title) = victim.refusal("GET", path, "", b"").await;
        assert!(
            status == 404 && ["Request.PathNotFound", "Job.NotFound"].contains(&title.as_str()),
            "{path}: {status} {title}"
        );
    }
    for query in [
        "Limit=%00",
        "Limit=99999999999999999999",
        "Limit=%F0%9F",
        "Cursor=%00",
        "State=%0d%0a",
        "Limit=1&limit=1",
        &format!("Cursor={}", "A".repeat(20_000)),
    ] {
        let refused = victim.refusal("GET", &format!("/jobs?{query}"), "", b"").await;
        assert_eq!(refused, (400, "Request.QueryInvalid".to_owned()), "{query:.50}");
    }
    for method in ["OPTIONS", "TRACE", "PUT", "FOO", "get", "PROPFIND"] {
        let refused = victim.refusal(method, "/jobs", "", b"").await;
        assert_eq!(refused, (405, "Request.MethodNotAllowed".to_owned()), "{method}");
    }
    let head = victim.raw(b"HEAD /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 401 ") && head.ends_with("\r\n\r\n"), "{head}");
}

async fn bodies(victim: &Victim) {
    let backfill = format!("/gmail-connections/{}/backfill", victim.mailbox.id);
    let deep =
        |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth)).into_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("null bytes", b"\0\0\0\0".to_vec()),
        ("a null byte in a text", b"{\"since\": \"2026-01-01T00:00:00Z\0\"}".to_vec()),
        ("an escaped one", br#"{"since": "\u0000"}"#.to_vec()),
        ("no UTF-8", b"{\"since\": \"\xff\xfe\"}".to_vec()),
        ("a lone surrogate", br#"{"since": "\ud800"}"#.to_vec()),
        ("a key twice", br#"{"since": "2026-01-01T00:00:00Z", "since": "2026-01-02T00:00:00Z"}"#.to_vec()),
        ("a member that is none", br#"{"__proto__": {"since": 1}}"#.to_vec()),
        ("deep lists", deep("[", "]", 8_000)),
        ("deep objects", deep("{\"since\":", "}", 1_500)),
        ("a huge number", format!("{{\"since\": {}}}", "9".repeat(10_000)).into_bytes()),
        ("a huge exponent", br#"{"since": 1e999999999}"#.to_vec()),
        ("no end", b"{\"since\"".to_vec()),
        ("an end too many", b"{}}".to_vec()),
    ];
    for (what, body) in &cases {
        let refused = victim.refusal("POST", &backfill, &json_headers(body.len()), body).await;
        assert_eq!(refused, (400, "Request.BodyInvalid".to_owned()), "{what}");
    }
    for kind in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/json5\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: \x7f\r\n",
    ] {
        let answer = victim.refusal("POST", &backfill, &format!("{kind}Content-Length: 2\r\n"), b"{}").await;
        assert!(answer.0 == 415 || (kind.contains('\x7f') && answer.0 == 400), "{kind}: {answer:?}");
    }
    let brackets = deep("[", "]", 100_000);
    let (status, _) = victim.refusal("POST", &backfill, &json_headers(brackets.len()), &brackets[..1]).await;
    assert_eq!(status, 413, "100,000 brackets, refused by their length");
    let chunked = victim
        .refusal(
            "POST",
            &backfill,
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
            b"zz\r\n{}\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(chunked.0, 400, "a chunk without a length");
}

/// What is not HTTP, or more of it than is taken: refused by the server before there is a request, or cut.
async fn heads(victim: &Victim) {
    let key = victim.house.api_key();
    let with =
        |lines: &str| format!("GET /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{KEY}: {key}\r\n{lines}\r\n");
    let many: String = (0..2_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let refused = [
        ("garbage", "\x00\x01\x02\x03garbage\r\n\r\n".to_owned()),
        ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned()),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("no version", "GET /jobs\r\n\r\n".to_owned()),
        ("a version that is none", "GET /jobs HTTP/9.9\r\n\r\n".to_owned()),
        ("quotes in the path", "GET /jobs/\"<script> HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a space in the path", "GET /jo bs HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a huge header", with(&format!("X-Huge: {}\r\n", "y".repeat(200_000)))),
        ("a huge path", format!("GET /jobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(200_000))),
        ("many headers", with(&many)),
        ("a null byte in a header", with("X-Null: a\0b\r\n")),
        ("a lone carriage return in a header", with("X-Split: a\rSet-Cookie: x=1\r\n")),
        ("a header without a name", with(": nothing\r\n")),
        ("a space before the colon", with("X-Space : y\r\n")),
        ("a folded header", with("X-Folded: a\r\n b\r\n")),
        ("two lengths", with("Content-Length: 2\r\nContent-Length: 3\r\n")),
        ("a length below nothing", with("Content-Length: -1\r\n")),
        ("a length that is none", with("Content-Length: 0x10\r\n")),
        ("an unknown coding", with("Transfer-Encoding: gzip\r\n")),
    ];
    for (what, request) in refused {
        let answer = victim.raw(request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer:.300}");
        assert!(!answer.to_lowercase().contains("set-cookie"), "{what}: {answer:.300}");
    }
    // A length and chunks at once: whichever is believed, what follows is not taken for another's request.
    let smuggled = format!(
        "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /openapi.json HTTP/1.1\r\nHost: x\r\n{KEY}: {key}\r\n\r\n"
    );
    let answer = victim.raw(smuggled.as_bytes()).await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer:.300}");

    let old = victim.raw(format!("GET /jobs HTTP/1.0\r\n{KEY}: {key}\r\n\r\n").as_bytes()).await;
    assert!(old.starts_with("HTTP/1.0 200 ") || old.starts_with("HTTP/1.1 200 "), "{old:.300}");
    let one = format!("GET /jobs?Limit=1 HTTP/1.1\r\nHost: x\r\n{KEY}: {key}\r\n\r\n");
    let last = with("");
    let piped = victim.raw(format!("{one}{one}{last}").as_bytes()).await;
    assert_eq!(piped.matches("HTTP/1.1 200 ").count(), 3, "{piped:.300}");
}

/// What is sent back is never taken for a line of its own, nor leads elsewhere.
async fn reflections(victim: &Victim) {
    let connect = async |body: &str| {
        let request = victim.house.request(reqwest::Method::POST, "/gmail-connections");
        request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap()
    };
    // A URL is read as a browser reads it: line ends in it are not there.
    let answer = connect(r#"{"returnUrl": "https://app.example/a\r\nSet-Cookie: x=1\tb"}"#).await;
    assert_eq!(answer.status(), 201);
    let page: Value = answer.json().await.unwrap();
    let page = Url::parse(page["consentUrl"].as_str().unwrap()).unwrap();
    let (_, state) = page.query_pairs().find(|(name, _)| name == "state").unwrap();
    let back = victim.raw(format!("GET /gmail-connections/oauth-callback?state={state}&error=x%0d%0aSet-Cookie:y HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").as_bytes()).await;
    assert!(back.starts_with("HTTP/1.1 302 "), "{back}");
    assert!(back.contains("\r\nlocation: https://app.example/aSet-Cookie:%20x=1b?gmailStatus=error\r\n"), "{back}");
    assert!(!back.to_lowercase().contains("\r\nset-cookie"), "{back}");
    for hint in [r"a\r\nSet-Cookie: x=1", r"\u0000", r"\u2028\u0085"] {
        let answer = connect(&format!(r#"{{"returnUrl": "https://app.example/", "loginHint": "{hint}"}}"#)).await;
        let status = answer.status().as_u16();
        let page: Value = answer.json().await.unwrap();
        // What is no control character to Unicode is written in percents.
        assert!(status == 400 || (status == 201 && page["consentUrl"].as_str().unwrap().is_ascii()), "{hint}: {page}");
    }
    let splitting = victim
        .raw(b"GET /jobs/%0d%0aSet-Cookie:x=1/%22%3E%3Cscript%3E HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(splitting.starts_with("HTTP/1.1 404 "), "{splitting}");
    assert!(!splitting.contains("\r\nSet-Cookie") && !splitting.contains("<script>"), "{splitting}");
}

/// A key is taken in its header alone, and told to no log wherever it stands.
async fn keys_in_wrong_places(victim: &Victim) {
    let right = victim.house.api_key();
    for key in [right, &wrong_key(right)] {
        let head =
            |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
        let requests = [
            head(&format!("/jobs?{KEY}={key}"), ""),
            head(&format!("/jobs?Cursor={key}&api_key={key}"), ""),
            head("/jobs", &format!("Authorization: Bearer {key}\r\n")),
            head("/jobs", &format!("Authorization: ApiKey {key}\r\n")),
            head("/jobs", &format!("Cookie: {KEY}={key}\r\n")),
            head("/jobs", &format!("{KEY}: Bearer {key}\r\n")),
            head("/jobs", &format!("{KEY}: {key} {key}\r\n")),
            head("/jobs", &format!("{KEY}: {}\r\n", key.repeat(800))),
            head("/jobs", &format!("{KEY}: {key}\u{e9}\r\n")),
        ];
        for request in requests {
            let answer = victim.raw(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert!(!answer.contains(key), "{answer}");
        }
        // Where it is part of what is asked for, it is not known there.
        for target in [format!("/jobs/{key}"), format!("/{key}"), format!("/gmail-connections/{key}")] {
            let (status, _) = victim.refusal("GET", &target, "", b"").await;
            assert_eq!(status, 404, "a key as a path");
        }
        let huge = head("/jobs", &format!("{KEY}: {}\r\n", key.repeat(4_000)));
        let answer = victim.raw(huge.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let body = format!(r#"{{"{key}": "{key}"}}"#);
        let backfill = format!("/gmail-connections/{}/backfill", victim.mailbox.id);
        assert_eq!(victim.refusal("POST", &backfill, &json_headers(body.len()), body.as_bytes()).await.0, 400);
    }
    let both = format!("GET /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{KEY}: x\r\n{KEY}: {right}\r\n\r\n");
    assert!(victim.raw(both.as_bytes()).await.starts_with("HTTP/1.1 401 "), "the first of two counts");
}

/// What is long or slow, and many at once.
#[tokio::test(flavor = "multi_thread")]
async fn floods_and_slow_clients_take_little_and_hold_nobody_up() {
    let mut victim = Victim::new("floods", &[("MAILTIDE_INGRESS_HEADER_TIMEOUT", "5s")]).await;
    victim.serves().await;
    let before = victim.ingress.resident();

    let backfill = format!("/gmail-connections/{}/backfill", victim.mailbox.id);
    let head = |rest: &str| {
        format!(
            "POST {backfill} HTTP/1.1\r\nHost: x\r\n{KEY}: {}\r\nContent-Type: application/json\r\n{rest}\r\n",
            victim.house.api_key()
        )
    };
    let hundred = 100 * MIB as usize;
    for (rest, is_chunked) in
        [(format!("Content-Length: {hundred}\r\n"), false), ("Transfer-Encoding: chunked\r\n".to_owned(), true)]
    {
        let answer = huge(&victim.address, &head(&rest), hundred, is_chunked).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let after = victim.ingress.resident();
    assert!(after < before + 64 * MIB, "200 MB were sent: {before} bytes before, {after} after");

    // Heads and bodies that come drop by drop; none of them is waited for, and others are served meanwhile.
    let mut dripping = tokio::task::JoinSet::new();
    for number in 0..100 {
        let start = if number % 2 == 0 {
            "GET /jobs HTTP/1.1\r\nX-Slow: ".to_owned()
        } else {
            head("Content-Length: 10000\r\n")
        };
        dripping.spawn(drip(victim.address.clone(), start));
    }
    victim.serves().await;
    while let Some(answer) = dripping.join_next().await {
        let answer = answer.unwrap();
        // 503 where the machine is so busy that looking at the key took what time there was.
        let is_refused = ["HTTP/1.1 408 ", "HTTP/1.1 503 "].iter().any(|status| answer.starts_with(status));
        assert!(answer.is_empty() || is_refused, "{answer}");
    }

    // Requests without end, whose answers nobody reads: they are taken no faster than answers go.
    let mut deaf = TcpStream::connect(&victim.address).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000_000);
    let cut = tokio::time::timeout(LONG, deaf.write_all(&request)).await.expect("it is cut off, not waited for");
    assert!(cut.is_err(), "a million requests were taken without their answers being read");
    let after = victim.ingress.resident();
    assert!(after < before + 128 * MIB, "{before} bytes before, {after} after");
    victim.serves().await;
    victim.log_is_clean();
}

/// Sends a body of so many bytes as far as it is taken; gives the answer's beginning, or nothing if the answer was lost
/// in a reset.
async fn huge(address: &str, head: &str, bytes: usize, is_chunked: bool) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let piece = vec![b' '; 64 * 1024];
    let send = async {
        writer.write_all(head.as_bytes()).await?;
        for _ in 0..bytes / piece.len() {
            if is_chunked {
                writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            }
            writer.write_all(&piece).await?;
            if is_chunked {
                writer.write_all(b"\r\n").await?;
            }
        }
        std::io::Result::Ok(())
    };
    let mut answer = Vec::new();
    let exchange = async { tokio::join!(send, reader.read_to_end(&mut answer)).0 };
    let sent = tokio::time::timeout(LONG, exchange).await.expect("it is answered or cut off");
    assert!(sent.is_err() || !answer.is_empty(), "all of it was taken, and nothing answered");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a byte now and then until it is answered or cut off; gives the answer.
async fn drip(address: String, start: String) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let send = async {
        writer.write_all(start.as_bytes()).await?;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            writer.write_all(b" ").await?;
        }
        #[expect(unreachable_code, reason = "tells the block's type")]
        std::io::Result::Ok(())
    };
    let mut answer = Vec::new();
    let exchange = async {
        tokio::select! {
            _ = send => {}
            _ = reader.read_to_end(&mut answer) => {}
        }
    };
    tokio::time::timeout(LONG, exchange).await.expect("a slow client is cut off");
    String::from_utf8_lossy(&answer).into_owned()
}

/// More connections than are taken, all silent.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_hold_nobody_up() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // What this process has open besides; the service inherits the limit.
    const SPARE: u64 = 2_000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let mut count = 10_000;
    if most < count + SPARE {
        count = most.saturating_sub(SPARE).min(most / 2);
        eprintln!("ONLY {count} IDLE CONNECTIONS: this machine lets a process open {most} files, and 12000 are needed");
    }
    let mut victim = Victim::new("idle", &[]).await;
    victim.serves().await;
    let before = victim.ingress.resident();
    let mut idle = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(&victim.address).await.unwrap();
        // Some have asked before, as those do that are kept alive, and some are within a head.
        match number % 10 {
            0 => stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap(),
            1 => stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap(),
            _ => {}
        }
        idle.push(stream);
        if number % 2_000 == 0 {
            victim.serves().await;
        }
    }
    victim.serves().await;
    let after = victim.ingress.resident();
    assert!(after < before + count * 64 * 1024, "{count} connections: {before} bytes before, {after} after");
    victim.log_is_clean();
    drop(idle);
    victim.serves().await;
}
