//! Pages of history and messages per second of the simulator, against a bare route that returns the same bytes: tests
//! that call a simulated Gmail must not measure the simulator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value;
use simulator::{Delivery, Limits, Mails, NewMailbox, Running, Settings, Tariff};

use crate::load::{Call, Client, load};
use crate::options::Options;
use crate::progress::Progress;
use crate::report::Outcome;

const EMAIL: &str = "bench@example.com";

/// Messages of the mailbox: enough for pages of history that differ.
const MESSAGES: usize = 5_000;

/// Connections that ask at the same time.
const CLIENTS: usize = 32;

const WARM_UP: Duration = Duration::from_secs(1);

/// What the client of the pipeline asks for.
const HISTORY: &str = "historyTypes=messageAdded&historyTypes=labelAdded&historyTypes=labelRemoved&maxResults=500\
    &fields=history(id,messagesAdded,labelsAdded,labelsRemoved),nextPageToken,historyId&prettyPrint=false";
const MESSAGE: &str = "format=full&prettyPrint=false";

pub(crate) async fn run(options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("simulator");
    let simulator = simulator::start(Settings::default()).await?;
    let limits = Limits {
        user_minute: u64::MAX,
        project_minute: u64::MAX,
        project_day: u64::MAX,
        concurrent_per_user: u32::MAX,
    };
    simulator.control().set_tariff(Tariff::default(), limits);
    let mailbox = NewMailbox { email: EMAIL.to_owned(), ..NewMailbox::default() };
    let created = simulator.control().create(&mailbox)?;
    let delivered = simulator.control().deliver(EMAIL, Mails::Synthetic(MESSAGES), &Delivery::default())?;
    let bearer = token(&simulator, &created.refresh_token).await?;
    let users = "/gmail/v1/users/me";
    // Every page begins elsewhere, so that none is the last one's.
    let starts = delivered.iter().take(MESSAGES - 500).step_by(37).map(|truth| truth.history_id);
    let pages = starts.map(|start| format!("{users}/history?startHistoryId={start}&{HISTORY}")).collect();
    let messages = delivered.iter().map(|truth| format!("{users}/messages/{}?{MESSAGE}", truth.id)).collect();
    let pages = compare("history pages of the simulator", pages, &simulator, &bearer, options, &progress).await?;
    let messages = compare("messages.get of the simulator", messages, &simulator, &bearer, options, &progress).await?;
    simulator.shutdown().await;
    Ok(vec![pages, messages])
}

/// Measures the simulator on `paths` against a route that answers with what it says to the first of them.
async fn compare(
    name: &'static str,
    paths: Vec<String>,
    simulator: &Running,
    bearer: &HeaderValue,
    options: &Options,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let ours = address(simulator)?;
    let calls = paths.into_iter().map(|path| {
        let header = Some((AUTHORIZATION, bearer.clone()));
        Ok(Call {
            method: Method::GET,
            path: Uri::try_from(path)?,
            header,
            is_named: false,
            body: Bytes::new(),
            status: StatusCode::OK,
        })
    });
    let calls: Arc<[Call]> = calls.collect::<anyhow::Result<Vec<_>>>()?.into();
    let first = calls.first().context("There is something to ask for")?;
    let body = Client::connect(ours).await?.call(first).await?;
    let (bare, server) = bare(body).await?;
    for address in [bare, ours] {
        load(address, &calls, CLIENTS, WARM_UP).await?;
    }
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let ours = load(ours, &calls, CLIENTS, options.time()).await?;
        let limit = load(bare, &calls, CLIENTS, options.time()).await?;
        progress.say(&format!("{name}: round {number} of {}: {ours:.0}/s, bare {limit:.0}/s", options.rounds));
        rounds.push((ours, limit));
    }
    server.abort();
    Ok(Outcome::of_rates(name, "answers/s", &rounds, 0.6))
}

/// A route that answers everything with these bytes.
async fn bare(body: Bytes) -> anyhow::Result<(SocketAddr, tokio::task::JoinHandle<std::io::Result<()>>)> {
    let kind: (HeaderName, HeaderValue) = (CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    // Copied, as whoever makes an answer has to write it.
    let router = Router::new().fallback(move || {
        let answer = ([kind.clone()], Bytes::copy_from_slice(&body));
        async move { answer }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((address, tokio::spawn(axum::serve(listener, router).into_future())))
}

fn address(simulator: &Running) -> anyhow::Result<SocketAddr> {
    let text = simulator.base_url.trim_start_matches("http://").trim_end_matches('/');
    text.parse().with_context(|| format!("The simulator is at {text}"))
}

async fn token(simulator: &Running, refresh_token: &str) -> anyhow::Result<HeaderValue> {
    let form = format!("grant_type=refresh_token&client_id=bench&refresh_token={}", refresh_token.replace('/', "%2F"));
    let call = Call {
        method: Method::POST,
        path: Uri::from_static("/token"),
        header: None,
        is_named: false,
        body: form.into(),
        status: StatusCode::OK,
    };
    let answer = Client::connect(address(simulator)?).await?.call(&call).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let token = answer["access_token"].as_str().context("The token endpoint gives a token")?;
    Ok(HeaderValue::try_from(format!("Bearer {token}"))?)
}
