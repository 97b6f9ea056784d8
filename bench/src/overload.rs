//! What more clients than are admitted do to those that are: the time of the admitted syncs with four times as many
//! clients as ingress works for at once, against the time with just as many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use http::StatusCode;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};

use crate::api::Api;
use crate::load::{Call, Client};
use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::{Outcome, quantile};

/// Requests that ingress works on at once.
const ADMITTED: usize = 64;

/// How many times as many clients there are.
const OVERLOAD: usize = 4;

/// How long a client waits that was not admitted: a tenth of what it is told.
const AGAIN: Duration = Duration::from_millis(100);

const WARM_UP: Duration = Duration::from_secs(2);
const WARM_UPS: usize = 3;

/// What came of a round: milliseconds of each request that was admitted, and how many were not.
struct Round {
    admitted: Vec<f64>,
    shed: usize,
}

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("overload");
    progress.say("warming up");
    let store = place.store().await?;
    let bound = ADMITTED.to_string();
    let changes = [("MAILTIDE_INGRESS_MAX_IN_FLIGHT", bound.as_str())];
    let api = Api::start_with(&place.kafka("overload"), &store, &changes).await?;
    let mailboxes = api.connect(&store, ADMITTED).await?;
    let calls: Arc<[Call]> = mailboxes.iter().map(|id| api.call(*id)).collect::<anyhow::Result<Vec<_>>>()?.into();
    for _ in 0..WARM_UPS {
        round(&api, &calls, ADMITTED, WARM_UP).await?;
    }
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let alone = round(&api, &calls, ADMITTED, options.time()).await?;
        let over = round(&api, &calls, OVERLOAD * ADMITTED, options.time()).await?;
        ensure!(over.shed > over.admitted.len() / 100, "{} of an overload were not admitted", over.shed);
        progress.say(&format!(
            "round {number} of {}: p99 {:.1} ms of {}, {} shed; alone {:.1} ms of {}",
            options.rounds,
            quantile(&over.admitted, 0.99),
            over.admitted.len(),
            over.shed,
            quantile(&alone.admitted, 0.99),
            alone.admitted.len(),
        ));
        rounds.push((over.admitted, alone.admitted));
    }
    api.stop().await?;
    Ok(vec![
        Outcome::of_times("admitted at four times the load, p50", &rounds, 0.5, 1.5),
        Outcome::of_times("admitted at four times the load, p99", &rounds, 0.99, 1.5),
    ])
}

/// So many clients ask as fast as they are answered, from a thread of their own.
async fn round(api: &Api, calls: &Arc<[Call]>, clients: usize, time: Duration) -> anyhow::Result<Round> {
    let (address, calls) = (api.address, Arc::clone(calls));
    let run = async move {
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            connected.push(Client::connect(address).await?);
        }
        let until = Instant::now() + time;
        let mut running: JoinSet<anyhow::Result<Round>> = JoinSet::new();
        for (number, mut client) in connected.into_iter().enumerate() {
            let call = calls[number % calls.len()].clone();
            running.spawn(async move {
                let mut round = Round { admitted: Vec::new(), shed: 0 };
                while Instant::now() < until {
                    let begun = Instant::now();
                    match client.ask(&call).await? {
                        (StatusCode::ACCEPTED, _) => round.admitted.push(begun.elapsed().as_secs_f64() * 1_000.0),
                        (StatusCode::SERVICE_UNAVAILABLE, _) => {
                            round.shed += 1;
                            tokio::time::sleep(AGAIN).await;
                        }
                        (status, body) => bail!("{status}: {}", String::from_utf8_lossy(&body)),
                    }
                }
                Ok(round)
            });
        }
        let mut all = Round { admitted: Vec::new(), shed: 0 };
        while let Some(client) = running.join_next().await {
            let Round { admitted, shed } = client??;
            all.admitted.extend(admitted);
            all.shed += shed;
        }
        anyhow::Ok(all)
    };
    spawn_blocking(|| Builder::new_current_thread().enable_all().build()?.block_on(run)).await?
}
