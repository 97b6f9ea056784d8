//! What one slow mailbox does to the others: the time of their syncs while it does not answer, against the time of the
//! same syncs without it.

use std::time::Duration;

use domain::{ConnectionId, OrganisationId};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::syncs::Syncs;

/// Mailboxes, the slow one among them.
const MAILBOXES: usize = 1_000;

/// Syncs are asked for in handfuls, so often, as callers ask: not all at once, and not one after the other.
const HANDFUL: usize = 10;
const EVERY: Duration = Duration::from_millis(20);

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("slow mailbox");
    progress.say("warming up");
    let mut syncs = Syncs::start(&place.kafka("slow")).await?;
    let mailboxes = syncs.mailboxes(MAILBOXES).await?;
    let (slow, others) = mailboxes.split_first().expect("there are a thousand");
    round(&mut syncs, others).await?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let without = round(&mut syncs, others).await?;
        let stalled = syncs.memory.stall(*slow);
        syncs.ask(OrganisationId::from_uuid(Uuid::new_v4()), &[*slow]).await?;
        stalled.begun().await;
        let with = round(&mut syncs, others).await?;
        drop(stalled);
        syncs.ended(1).await?;
        progress.say(&format!("round {number} of {}: {} syncs a side", options.rounds, with.len()));
        rounds.push((with, without));
    }
    syncs.stop().await?;
    Ok(vec![
        Outcome::of_times("syncs beside a slow mailbox, p50", &rounds, 0.5, 1.5),
        Outcome::of_times("syncs beside a slow mailbox, p99", &rounds, 0.99, 1.5),
    ])
}

/// A message arrives in each mailbox and a sync is asked for: milliseconds from then to its end.
async fn round(syncs: &mut Syncs, mailboxes: &[ConnectionId]) -> anyhow::Result<Vec<f64>> {
    let begun = Instant::now();
    for (number, handful) in (0..).zip(mailboxes.chunks(HANDFUL)) {
        sleep_until(begun + EVERY * number).await;
        handful.iter().for_each(|mailbox| syncs.memory.deliver(*mailbox, 1));
        syncs.ask(OrganisationId::from_uuid(Uuid::new_v4()), handful).await?;
    }
    syncs.ended_after(mailboxes.len()).await
}
