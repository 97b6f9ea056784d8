//! Sync requests per second of 64 clients, without and with an `Idempotency-Key` each: a real ingress, against a bare
//! route that writes the same bytes and row.

mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use domain::PollGmailConnection;
use kafka::topics::{Topic, Topics};

use crate::api::Api;
use crate::load::{Call, load};
use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::syncs;
use server::{Bare, Template};

/// Clients, each with a connection and a mailbox of its own.
const CLIENTS: usize = 64;

/// How long each side is warmed up at a time, and how often: the broker's virtual machine needs a while.
const WARM_UP: Duration = Duration::from_secs(2);
const WARM_UPS: usize = 3;

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("requests");
    progress.say("warming up");
    let kafka = place.kafka("requests");
    let store = place.store().await?;
    let api = Api::start(&kafka, &store).await?;
    let mailboxes = api.connect(&store, CLIENTS).await?;
    let calls = mailboxes.iter().map(|mailbox| api.call(*mailbox)).collect::<anyhow::Result<Vec<Call>>>()?;
    let named: Arc<[Call]> = calls.iter().cloned().map(|call| Call { is_named: true, ..call }).collect();
    let calls: Arc<[Call]> = calls.into();
    load(api.address, &calls, CLIENTS, WARM_UP).await?;
    let commands = Topics::new(&kafka.topic_prefix).name(Topic::Poll).clone();
    let command = syncs::first(&kafka, &commands, 1).await?.into_iter().next().context("A command was written")?;
    let known: PollGmailConnection = events::decode(command.value.as_deref().unwrap_or_default())?;
    let template = Template::new(command.into(), *known.job_id.as_uuid(), *known.connection_id.as_uuid())?;
    let bare = Bare::start(&kafka, place.database_url(), store.schema(), template).await?;
    for _ in 0..WARM_UPS {
        for (address, calls) in [(bare.address, &calls), (api.address, &calls), (api.address, &named)] {
            load(address, calls, CLIENTS, WARM_UP).await?;
        }
    }

    let (mut rounds, mut named_rounds) = (Vec::new(), Vec::new());
    for number in 1..=options.rounds {
        let ours = load(api.address, &calls, CLIENTS, options.time()).await?;
        let limit = load(bare.address, &calls, CLIENTS, options.time()).await?;
        let with_names = load(api.address, &named, CLIENTS, options.time()).await?;
        progress.say(&format!(
            "round {number} of {}: {ours:.0}/s, with Idempotency-Key {with_names:.0}/s, bare {limit:.0}/s",
            options.rounds
        ));
        rounds.push((ours, limit));
        named_rounds.push((with_names, limit));
    }
    bare.stop();
    api.stop().await?;
    Ok(vec![
        Outcome::of_rates("POST …/sync, 64 clients", "requests/s", &rounds, 0.7),
        Outcome::of_rates("the same with Idempotency-Key", "requests/s", &named_rounds, 0.7),
    ])
}
