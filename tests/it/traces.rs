//! A sync as whoever collects traces sees it: one trace through all services, whole, and nothing in it that is nobody's
//! business. Collected by the OpenTelemetry collector's own receiver (`tests/clients/otlp`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use reqwest::Method;
use serde_json::Value;
use simulator::{Delivery, Fault, Mails, NewMailbox, Rule};

use crate::house::{House, Mailbox, gmail};
use crate::support::{LONG, clients, wait_for};

/// A mail by whose parts any leak of it is recognised.
const MAIL: &str = "From: \"Unmistakable Sender\" <unmistakable.sender@example.org>\r\nTo: somebody@example.org\r\n\
     Subject: Unmistakable subject\r\nMessage-ID: <unmistakable-message@example.org>\r\n\r\nUnmistakable body\r\n";

/// The caller's span, whose part the request is.
const CALLER: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
/// The trace of a caller who does not want it recorded.
const UNRECORDED: &str = "1bf7651916cd43dd8448eb211c80319d";

const SERVER: i64 = 2;
const CLIENT: i64 = 3;
const PRODUCER: i64 = 4;
const CONSUMER: i64 = 5;

/// A receiver at work. It ends with the pipe to it.
struct Receiver {
    child: Child,
    address: String,
    lines: Arc<Mutex<Vec<String>>>,
    reading: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Self {
        let program = clients::go("otlp").await;
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = output.next().expect("the receiver tells its address").unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let taken = lines.clone();
        let reading = std::thread::spawn(move || output.for_each(|line| taken.lock().unwrap().push(line.unwrap())));
        Self { child, address, lines, reading }
    }

    /// What came so far.
    fn received(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// All that came, at its end.
    fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        self.reading.join().unwrap();
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

/// A span as it was received.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: i64,
    has_failed: bool,
    attributes: BTreeMap<String, Value>,
    /// The spans that it points at.
    links: BTreeSet<String>,
}

impl Span {
    fn attribute(&self, name: &str) -> &str {
        self.attributes[name].as_str().unwrap_or_else(|| panic!("{name} is no text: {self:?}"))
    }
}

fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let all = of["attributes"].as_array().into_iter().flatten();
    all.map(|attribute| {
        let value = attribute["value"].as_object().and_then(|value| value.values().next()).cloned();
        (attribute["key"].as_str().unwrap().to_owned(), value.unwrap_or_default())
    })
    .collect()
}

/// The spans of deliveries, by id; the prefix of topics' names is left out.
fn spans(lines: &[String], prefix: &str) -> BTreeMap<String, Span> {
    let mut spans = BTreeMap::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap();
        for resource in line["resourceSpans"].as_array().unwrap() {
            let service = attributes(&resource["resource"])["service.name"].as_str().unwrap().to_owned();
            for span in
                resource["scopeSpans"].as_array().unwrap().iter().flat_map(|scope| scope["spans"].as_array().unwrap())
            {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                let links = span["links"].as_array().into_iter().flatten();
                let one = Span {
                    service: service.clone(),
                    trace: text("traceId"),
                    id: text("spanId"),
                    parent: text("parentSpanId"),
                    name: text("name").replace(prefix, ""),
                    kind: span["kind"].as_i64().unwrap_or_default(),
                    has_failed: span["status"]["code"] == 2,
                    attributes: attributes(span),
                    links: links.map(|link| link["spanId"].as_str().unwrap().to_owned()).collect(),
                };
                assert!(spans.insert(one.id.clone(), one).is_none(), "a span is told once: {span}");
            }
        }
    }
    spans
}

/// The names of the spans that this one is a part of, the next one first.
fn above<'a>(span: &'a Span, all: &'a BTreeMap<String, Span>) -> Vec<&'a str> {
    std::iter::successors(all.get(&span.parent), |span| all.get(&span.parent)).map(|span| span.name.as_str()).collect()
}

/// What is yet missing of the caller's trace.
fn missing(all: &BTreeMap<String, Span>) -> Vec<String> {
    const POST: &str = "POST /gmail-connections/{id}/sync";
    const COMMAND: [&str; 4] = ["walk", "process gmail.connection.poll", "send gmail.connection.poll", POST];
    let trace: Vec<&Span> = all.values().filter(|span| span.trace == CALLER.0).collect();
    let mut missing = Vec::new();
    for span in &trace {
        let is_the_request = span.name == POST && span.parent == CALLER.1;
        if !is_the_request && !all.contains_key(&span.parent) {
            missing.push(format!("what {} of {} is a part of", span.name, span.service));
        }
    }
    let found = ["transaction"].into_iter().chain(COMMAND).collect::<Vec<_>>();
    let reading = ["process gmail.message.discovered"].into_iter().chain(found.clone()).collect::<Vec<_>>();
    let under = |first: &'static str, rest: &[&'static str]| [first].into_iter().chain(rest.iter().copied()).collect();
    for (service, name, kind, parents) in [
        ("ingress", POST, SERVER, vec![]),
        ("ingress", "INSERT jobs", CLIENT, vec![POST]),
        ("poller", "process gmail.connection.poll", CONSUMER, COMMAND[2..].to_vec()),
        ("poller", "GET /gmail/v1/users/me/history", CLIENT, under("gmail users.history.list", &COMMAND)),
        ("poller", "transaction", PRODUCER, COMMAND.to_vec()),
        ("projector", "process gmail.job.status", CONSUMER, found.clone()),
        ("fetcher", "process gmail.message.discovered", CONSUMER, found),
        ("fetcher", "POST /batch/gmail/v1", CLIENT, under("gmail users.messages.get", &reading)),
        ("fetcher", "transaction", PRODUCER, reading),
    ] {
        let service = format!("mailtide-{service}");
        let is_it = |span: &&&Span| span.service == service && span.name == name && span.kind == kind;
        if !trace.iter().filter(is_it).any(|span| above(span, all) == parents) {
            missing.push(format!("{name} of {service} under {parents:?}"));
        }
    }
    // What serves many traces points at each, and each at it.
    let points = |from: &Span, to: &Span| from.links.contains(&to.id);
    for (one, other) in [("transaction", "commit gmail.connection.poll"), ("process gmail.job.status", "project")] {
        let mut many = all.values().filter(|span| span.name == other);
        let is_joined = |many: &Span| {
            let mut ones = trace.iter().filter(|span| span.name == one);
            ones.any(|span| points(span, many)) && trace.iter().any(|span| points(many, span))
        };
        if !many.any(is_joined) {
            missing.push(format!("{other} that {one} points at, and that points into the trace"));
        }
    }
    let is_stored = |span: &Span| span.name == "INSERT jobs connection_states" && above(span, all) == ["project"];
    if !all.values().any(is_stored) {
        missing.push("the projection's transaction".to_owned());
    }
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_one_trace_from_the_request_to_the_row_and_the_message() {
    let receiver = Receiver::start().await;
    let endpoint = format!("http://{}", receiver.address);
    // Whatever the machine sends through a proxy, this is not.
    let changes = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("NO_PROXY", "127.0.0.1")];
    let house = House::with("traces", &changes).await;
    house.create_topics().await;
    let mut processes = ["ingress", "poller", "fetcher", "projector"].map(|service| house.process(service, service));
    for process in &mut processes {
        process.start();
    }
    let address = processes[0].logged("API open", "address").await;
    house.api_is_at(&address);
    for process in &mut processes {
        process.ready().await;
    }

    let email = format!("unmistakable-owner@{}example", house.place.prefix());
    let made = gmail().create(&NewMailbox { email: email.clone(), ..NewMailbox::default() }).unwrap();
    let token = made.refresh_token;
    let mailbox = Mailbox { id: house.consent(&email, token.clone()).await, email };
    // The first sync takes the head; what the next one walks came after it.
    house.sync(&mailbox).await;
    for _ in 0..3 {
        gmail().deliver(&mailbox.email, Mails::Raw(MAIL.as_bytes().to_vec()), &Delivery::default()).unwrap();
    }
    gmail().add_fault(Rule {
        mailboxes: vec![mailbox.email.clone()],
        calls: vec!["listHistory".to_owned()],
        probability: 1.0,
        after: 0,
        times: Some(1),
        from_ms: None,
        until_ms: None,
        fault: Fault::Html(503),
    });
    let path = format!("/gmail-connections/{}/sync", mailbox.id);
    let sync = async |trace: &str, flags: &str| {
        let parent = format!("00-{trace}-{}-{flags}", CALLER.1);
        let answer = house.request(Method::POST, &path).header("traceparent", parent).send().await.unwrap();
        let job = answer.json::<Value>().await.unwrap()["jobId"].as_str().unwrap().to_owned();
        assert_eq!(house.ended(&job).await["state"], "succeeded");
        job
    };
    let job = sync(CALLER.0, "01").await;
    sync(UNRECORDED, "00").await;

    let prefix = house.place.prefix();
    let mut last = Vec::new();
    wait_for(LONG * 2, "the trace is whole", || {
        let now = missing(&spans(&receiver.received(), prefix));
        if now != last {
            println!("missing: {now:#?}");
            last = now.clone();
        }
        async move { now.is_empty().then_some(()) }
    })
    .await;
    for process in &mut processes {
        assert_eq!(process.stop(), 0);
    }
    let lines = receiver.end();
    let all = spans(&lines, prefix);
    assert_eq!(missing(&all), Vec::<String>::new());
    assert!(all.values().all(|span| span.trace != UNRECORDED), "a caller's wish not to be recorded is heeded");

    let trace: Vec<&Span> = all.values().filter(|span| span.trace == CALLER.0).collect();
    let named = |name: &str| trace.iter().copied().filter(|span| span.name == name).collect::<Vec<_>>();
    let [request] = named("POST /gmail-connections/{id}/sync")[..] else { panic!("one request: {trace:#?}") };
    assert_eq!((request.attribute("http.response.status_code"), request.has_failed), ("202", false));
    let [walk] = named("walk")[..] else { panic!("one walk: {trace:#?}") };
    assert_eq!((walk.attribute("mailtide.job.id"), walk.attribute("mailtide.job.state")), (job.as_str(), "succeeded"));
    assert_eq!(walk.attribute("mailtide.walk.discovered"), "3");
    assert!(!walk.has_failed);

    // One call failed, and what made it; the others did not.
    let calls = named("GET /gmail/v1/users/me/history");
    let (failed, well): (Vec<&Span>, Vec<&Span>) = calls.into_iter().partition(|span| span.has_failed);
    let [failed] = failed[..] else { panic!("one call failed: {failed:#?}") };
    assert_eq!((failed.attribute("http.response.status_code"), failed.attribute("error.type")), ("503", "503"));
    let call = &all[&failed.parent];
    assert!(call.has_failed);
    assert_eq!(call.attribute("mailtide.gmail.outcome"), "transient");
    assert!(!well.is_empty());
    for span in well {
        let call = &all[&span.parent];
        assert!(!call.has_failed, "{call:?}");
        assert_eq!(span.attribute("http.response.status_code"), "200");
        assert_eq!((call.attribute("mailtide.gmail.outcome"), call.attribute("mailtide.gmail.units")), ("ok", "2"));
    }

    // Ids, numbers and words, and nothing that is nobody's business.
    let text = lines.join("\n");
    for secret in [house.api_key(), &token, &mailbox.email, "nmistakable", "Bearer", "MDEyMzQ1Njc4"] {
        assert!(!text.contains(secret), "{secret} is told in a trace");
    }
    assert!(text.contains(&mailbox.id.to_string()), "the search can find");
}
