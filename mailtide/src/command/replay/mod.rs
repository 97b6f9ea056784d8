//! `mailtide replay`: events that are still kept, once more.
//!
//! What is sent and how far the source was read for it are one transaction, written by a producer that fences an earlier
//! run of the same replay. So a run that died left nothing half done, and the next one reads in the journal where to go
//! on. The journal's records outlive the offsets of a group that nobody is a member of, which brokers drop after a week.

mod group;
pub(crate) mod kind;
mod plan;
mod walk;

use std::sync::Arc;

use anyhow::bail;
use indicatif::ProgressBar;
use kafka::SoleWriter;
use kafka::reader::{self, Inspector};
use kafka::topics::{self, Topic, Topics};
use runtime::Shutdown;
use serde_json::{Value, json};

use super::ask::{self, Answer};
use super::journal::{self, Journal};
use super::{now, rfc3339};
use crate::cli::Replay;
use crate::cli::repair::From;
use crate::output;
use crate::settings::Settings;
use crate::{Outcome, WrongUse};
use plan::{Counts, Plan};
use walk::{Census, Sending, Sieve, Unreadable};

/// Connections shown in the table of a dry run; `--json` shows all.
const SHOWN: usize = 20;

/// Sends events again, or moves a group.
pub(crate) async fn run(ask: &Replay, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    match (&ask.group, &ask.to) {
        (Some(group), _) => group::run(ask, group, settings).await,
        (None, Some(to)) => to_topic(ask, to, settings, shutdown).await,
        (None, None) => unreachable!("the command line asks for one of both"),
    }
}

async fn to_topic(ask: &Replay, to: &str, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let kafka = &settings.kafka;
    let names = Topics::new(&kafka.topic_prefix);
    let from = ask.from.unwrap_or(From::Discovered);
    let source = names.name(from.topic()).clone();
    let target = target(&names, from, to)?;
    let begun = now();
    if ask.until.is_some_and(|until| until.resolve(begun) <= ask.since.resolve(begun)) {
        return Err(WrongUse("--until must be later than --since".to_owned()).into());
    }
    let id = Plan::id(ask, &source, &target);
    if ask.dry_run {
        let journal = Journal::read(kafka, &names).await?;
        let (plan, _) = stands(ask, from, kafka, &journal, &id, &source, &target).await?;
        return show(ask, from, settings, &journal, &id, &plan, shutdown).await;
    }
    let inspector = Inspector::new(kafka)?;
    // Brokers that are away are told of here, and soon.
    let partitions = inspector.partition_count(&source).await?;
    // Before anything is read of it: from here on an earlier run can commit nothing.
    let (on, name) = (kafka.clone(), format!("replay-{id}"));
    let writer = tokio::task::spawn_blocking(move || SoleWriter::take_over(&on, &name)).await??;
    let journal = Journal::read(kafka, &names).await?;
    let (plan, is_new) = stands(ask, from, kafka, &journal, &id, &source, &target).await?;
    if let (Some(at), false) = (plan.finished_at, ask.again) {
        eprintln!("Replay {id} was finished at {}; nothing is done again but with --again", rfc3339(at));
        return finished(ask, &id, &plan, sum(&plan, &id, &journal), &[], "finished before");
    }
    eprintln!("{} {id}: {source} to {target}", if is_new { "Replay" } else { "Going on with replay" });
    if is_new && !ask.yes {
        ask::needs_terminal("a replay")?;
        show(ask, from, settings, &journal, &id, &plan, shutdown).await?;
        if shutdown.is_requested() || ask::confirm("Send these?").await? == Answer::No {
            bail!("nothing was sent");
        }
    }
    if is_missing(&inspector, &target).await? {
        topics::create_own(kafka, &target, partitions).await?;
        eprintln!("Made the topic {target} with {partitions} partitions");
    }
    send(ask, from, settings, names, id, plan, is_new, journal, writer, shutdown).await
}

/// The plan as the journal has it, or the one to begin with; and whether it is to begin.
async fn stands(
    ask: &Replay,
    from: From,
    kafka: &kafka::Settings,
    journal: &Journal,
    id: &str,
    source: &str,
    target: &str,
) -> anyhow::Result<(Plan, bool)> {
    let known: Option<Plan> = journal.get(&Plan::key(id));
    let run = match &known {
        Some(known) if known.finished_at.is_some() && ask.again => known.run + 1,
        Some(known) => return Ok((known.clone(), false)),
        None => 1,
    };
    let plan = Plan::make(ask, from, kafka, source, target, now()).await?;
    Ok((Plan { run, ..plan }, true))
}

#[expect(clippy::too_many_arguments, reason = "each is one thing, and goes to the thread that sends")]
async fn send(
    ask: &Replay,
    from: From,
    settings: &Settings,
    names: Topics,
    id: String,
    mut plan: Plan,
    is_new: bool,
    journal: Journal,
    mut writer: SoleWriter,
    shutdown: &Shutdown,
) -> anyhow::Result<Outcome> {
    let (kafka, shutdown, again) = (settings.kafka.clone(), shutdown.clone(), id.clone());
    let sending = move || -> anyhow::Result<(Plan, Counts, Vec<Unreadable>, bool)> {
        if is_new {
            writer.commit(&[journal::entry(&names, Plan::key(&id), &plan)])?;
        }
        let progress = plan.progress(&id, &journal);
        let total = plan.spans.values().map(|span| (span.end - span.start).unsigned_abs()).sum();
        let done = progress.iter().map(|(partition, it)| (it.next - plan.spans[partition].start).unsigned_abs()).sum();
        let bar = ask::bar(total, "records read");
        bar.set_position(done);
        let mut sieve = Sieve::new(from, &plan, &id, now());
        let mut sending = Sending {
            settings: &kafka,
            names: &names,
            id: &id,
            plan: &mut plan,
            progress,
            writer,
            sieve: &mut sieve,
            bar: &bar,
            now,
        };
        let is_whole = sending.run(&shutdown)?;
        let counts = sending.counts();
        bar.finish_and_clear();
        Ok((plan, counts, sieve.unreadable, is_whole))
    };
    let (plan, counts, unreadable, is_whole) = tokio::task::spawn_blocking(sending).await??;
    if is_whole {
        return finished(ask, &again, &plan, counts, &unreadable, "finished");
    }
    finished(ask, &again, &plan, counts, &unreadable, "stopped")?;
    eprintln!("Stopped; the same command goes on with what is left");
    Ok(Outcome::Failed)
}

/// Where a replay may go: a topic that is none of ours, or the one that its events are on.
fn target(names: &Topics, from: From, to: &str) -> anyhow::Result<Arc<str>> {
    let ours = Topic::ALL.into_iter().find(|topic| topic.base_name() == to || **names.name(*topic) == *to);
    match ours {
        Some(topic) if topic == from.topic() => Ok(names.name(topic).clone()),
        Some(topic) => {
            let (events, home) = (from.topic().base_name(), topic.base_name());
            Err(WrongUse(format!("{events} cannot be replayed to {home}, which carries something else")).into())
        }
        None if topics::is_legal(to) => Ok(to.into()),
        None => Err(WrongUse(format!("{to} is no name of a topic: 1 to 249 of letters, digits, `.`, `_`, `-`")).into()),
    }
}

async fn is_missing(inspector: &Inspector, topic: &str) -> anyhow::Result<bool> {
    match inspector.partition_count(topic).await {
        Ok(_) => Ok(false),
        Err(reader::Error::Request { cause, .. }) if cause.is_unknown_topic() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Shows what is still to be sent.
async fn show(
    ask: &Replay,
    from: From,
    settings: &Settings,
    journal: &Journal,
    id: &str,
    plan: &Plan,
    shutdown: &Shutdown,
) -> anyhow::Result<Outcome> {
    let progress = plan.progress(id, journal);
    let is_done = plan.finished_at.is_some();
    let spans = plan.spans.iter().filter(|_| !is_done).map(|(partition, span)| {
        let next = progress.get(partition).map_or(span.start, |progress| progress.next);
        (*partition, next..span.end)
    });
    let spans: std::collections::BTreeMap<_, _> = spans.collect();
    let total = spans.values().map(|span| (span.end - span.start).unsigned_abs()).sum();
    let (kafka, shutdown, source) = (settings.kafka.clone(), shutdown.clone(), Arc::<str>::from(plan.source.as_str()));
    let mut sieve = Sieve::new(from, plan, id, now());
    let counting = move || {
        let bar: ProgressBar = ask::bar(total, "records counted");
        let census = walk::count(&kafka, spans, &source, &mut sieve, &bar, &shutdown)?;
        bar.finish_and_clear();
        anyhow::Ok(census.map(|census| (census, sieve.unreadable)))
    };
    let Some((census, unreadable)) = tokio::task::spawn_blocking(counting).await?? else { return Ok(Outcome::Failed) };
    let Census { partitions, connections } = census;
    let mut counts = Counts::default();
    partitions.values().for_each(|it| counts += *it);
    if ask.output.json {
        let partitions: serde_json::Map<String, Value> =
            partitions.iter().map(|(partition, counts)| (partition.to_string(), json!(counts))).collect();
        let connections: serde_json::Map<String, Value> = connections
            .iter()
            .map(|(key, (events, bytes))| (key.clone(), json!({"events": events, "bytes": bytes})))
            .collect();
        let mut shown = summary(id, plan, counts, &unreadable, if is_done { "finished before" } else { "dry run" });
        shown["partitions"] = partitions.into();
        shown["connections"] = connections.into();
        output::line(&shown)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(["what", "events", "bytes"]);
    for (partition, counts) in &partitions {
        table.add_row([format!("partition {partition}"), counts.sent.to_string(), counts.bytes.to_string()]);
    }
    let mut by_size: Vec<_> = connections.iter().collect();
    by_size.sort_by_key(|(_, (events, _))| std::cmp::Reverse(*events));
    for (key, (events, bytes)) in by_size.iter().take(SHOWN) {
        table.add_row([format!("connection {key}"), events.to_string(), bytes.to_string()]);
    }
    if by_size.len() > SHOWN {
        table.add_row([format!("{} more connections", by_size.len() - SHOWN), "…".to_owned(), "…".to_owned()]);
    }
    table.add_row(["to send".to_owned(), counts.sent.to_string(), counts.bytes.to_string()]);
    ask::say(&format!("{table}"))?;
    name(&unreadable, counts.unreadable);
    if is_done {
        eprintln!("Replay {id} was finished before; nothing is done again but with --again");
    }
    Ok(Outcome::Done)
}

fn sum(plan: &Plan, id: &str, journal: &Journal) -> Counts {
    let mut sum = Counts::default();
    plan.progress(id, journal).values().for_each(|progress| sum += progress.counts);
    sum
}

/// Names what did not decode.
fn name(unreadable: &[Unreadable], total: u64) {
    if total > 0 {
        eprintln!("Records that do not decode, and are left out: {total}");
        unreadable.iter().for_each(|record| eprintln!("  {record}"));
    }
}

fn summary(id: &str, plan: &Plan, counts: Counts, unreadable: &[Unreadable], state: &str) -> Value {
    json!({
        "replayId": id,
        "state": state,
        "run": plan.run,
        "source": plan.source,
        "target": plan.target,
        "connectionId": plan.connection,
        "since": rfc3339(plan.since),
        "until": rfc3339(plan.until),
        "sent": counts.sent,
        "bytes": counts.bytes,
        "leftOut": {"others": counts.others, "replays": counts.replays, "unreadable": counts.unreadable},
        "unreadable": unreadable,
        "quotaUnits": 0,
    })
}

/// Says what a replay came to.
fn finished(
    ask: &Replay,
    id: &str,
    plan: &Plan,
    counts: Counts,
    unreadable: &[Unreadable],
    state: &str,
) -> anyhow::Result<Outcome> {
    if ask.output.json {
        output::line(&summary(id, plan, counts, unreadable, state))?;
        return Ok(Outcome::Done);
    }
    let row = [
        id.to_owned(),
        state.to_owned(),
        counts.sent.to_string(),
        counts.bytes.to_string(),
        counts.replays.to_string(),
        counts.unreadable.to_string(),
    ];
    let header = ["replay", "state", "sent", "bytes", "replays left out", "unreadable"];
    output::print(ask.output, &(), header, [row])?;
    name(unreadable, counts.unreadable);
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_goes_to_a_topic_of_its_own_or_to_where_its_events_are() {
        let names = Topics::new("x.");
        let target = |to: &str| target(&names, From::Discovered, to).map(|name| name.to_string());
        assert_eq!(target("ap.again").unwrap(), "ap.again");
        assert_eq!(target("gmail.message.discovered").unwrap(), "x.gmail.message.discovered");
        assert_eq!(target("x.gmail.message.discovered").unwrap(), "x.gmail.message.discovered");
        for wrong in ["gmail.message.fetched", "x.gmail.connection.poll", "gmail.dead.letter", "", "a b", ".."] {
            assert!(target(wrong).unwrap_err().is::<WrongUse>(), "{wrong}");
        }
    }
}
