//! `mailtide topics grow`: more partitions for the topics keyed by connection.
//!
//! A connection's key leads to another partition then, so everything that goes by the key has to move: the state of each
//! mailbox, and the commands that no poller has read yet. Each record moves in one transaction, so a mailbox is in one
//! place at any moment, and a run that died is taken up by the next one.
//!
//! The topic of announcements grows last, when all has moved: as long as it has fewer partitions than the others, pollers
//! and fetchers refuse to start.

mod commands;
mod fetching;
mod mailboxes;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use kafka::groups;
use kafka::reader::{Inspector, TopicPartition};
use kafka::topics::{self, Topic, Topics};
use kafka::{IdleGroup, SoleWriter};
use runtime::Shutdown;
use serde_json::json;

use crate::cli::Grow;
use crate::command::ask::{self, Answer};
use crate::command::journal::Journal;
use crate::command::stopped;
use crate::output;
use crate::settings::Settings;
use crate::{Outcome, WrongUse};
use commands::Plan;
use fetching::Fetching;
use mailboxes::Survey;

/// Grows when all has moved: what tells a growth that is not complete.
const LAST: Topic = Topic::Discovered;

/// What is to be done.
struct Growth<'a> {
    kafka: &'a kafka::Settings,
    names: Topics,
    /// The partition count of the announcements: what the others had.
    from: i32,
    to: i32,
    shutdown: &'a Shutdown,
}

impl Growth<'_> {
    fn group(&self, service: &str) -> String {
        stopped::group(self.kafka, service)
    }

    fn name(&self, topic: Topic) -> &Arc<str> {
        self.names.name(topic)
    }
}

/// What was found before anything is done.
struct Found {
    survey: Survey,
    unread: commands::Unread,
    fetching: Fetching,
}

/// Grows the topics.
pub(super) async fn run(ask: &Grow, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let names = Topics::new(&settings.kafka.topic_prefix);
    let growth = match growth(ask, &settings.kafka, names, shutdown).await? {
        Some(growth) => growth,
        None => {
            print(ask, ask.partitions, None, "nothing to do")?;
            return Ok(Outcome::Done);
        }
    };
    stopped::refuse_while_running(growth.kafka).await?;
    let fetching = Fetching::look(&growth).await?;
    fetching.refuse(ask)?;
    refuse_while_behind(&growth, ask).await?;
    kafka::snapshot::until_decided(growth.kafka, "grow", growth.name(Topic::State)).await?;
    let survey = mailboxes::survey(&growth).await?;
    let starts = commands::starts(&growth, &survey.absorbed).await?;
    let unread = commands::unread(&growth, &starts).await?;
    let found = Found { survey, unread, fetching };
    if ask.dry_run {
        print(ask, growth.from, Some(&found), "dry run")?;
        return Ok(Outcome::Done);
    }
    if !ask.yes {
        ask::needs_terminal("growing topics")?;
        print(ask, growth.from, Some(&found), "would grow")?;
        let question = "Are ingress, scheduler, pollers and fetchers stopped, and are these topics to grow?";
        if ask::confirm(question).await? == Answer::No {
            bail!("nothing was done");
        }
    }
    if carry_out(&growth, &found, starts).await? {
        print(ask, growth.from, Some(&found), "grown")?;
        return Ok(Outcome::Done);
    }
    eprintln!(
        "Stopped; the same command goes on with what is left, and until then pollers and fetchers refuse to start"
    );
    Ok(Outcome::Failed)
}

/// What there is to be done; none if nothing is.
async fn growth<'a>(
    ask: &Grow,
    kafka: &'a kafka::Settings,
    names: Topics,
    shutdown: &'a Shutdown,
) -> anyhow::Result<Option<Growth<'a>>> {
    let counts = topics::counts(kafka, &names, &Topic::CO_PARTITIONED).await?;
    let missing = Topic::CO_PARTITIONED.iter().filter(|topic| !counts.contains_key(topic));
    let missing: Vec<String> = missing.map(|topic| names.name(*topic).to_string()).collect();
    if !missing.is_empty() {
        return Err(topics::Error::Missing(missing).into());
    }
    let from = counts[&LAST];
    let most = counts.values().copied().max().unwrap_or(from);
    let to = ask.partitions;
    let last = names.name(LAST);
    if counts.values().any(|count| *count < from) {
        bail!(
            "{last} has {from} partitions and another topic keyed by connection has fewer, which no growth leads to; \
             `mailtide topics check` names them: bring them to the same count by hand where that one is empty"
        );
    }
    if to < most {
        let why =
            if from < most { "a growth to that was begun and has to end first" } else { "none can be taken away" };
        return Err(WrongUse(format!("the topics have {most} partitions already, and {why}")).into());
    }
    if from < most && to > most {
        let why = format!("a growth to {most} partitions was begun: end it with --partitions {most}, then grow again");
        return Err(WrongUse(why).into());
    }
    Ok((from < to).then_some(Growth { kafka, names, from, to, shutdown }))
}

/// Refuses while somebody else's group has not read what there is: of a mailbox that moves, what comes next would come to
/// it before what it has left.
async fn refuse_while_behind(growth: &Growth<'_>, ask: &Grow) -> anyhow::Result<()> {
    if ask.ignore_consumers {
        return Ok(());
    }
    let ours = ["poller", "fetcher"].map(|service| growth.group(service));
    let known = groups::list(growth.kafka).await?.into_iter().map(|group| group.name);
    let others: Vec<String> = known.filter(|name| !ours.contains(name)).collect();
    let topics = [Topic::Discovered, Topic::Fetched, Topic::ConnectionStatus].map(|topic| growth.name(topic).clone());
    let mut behind: BTreeMap<(String, String), u64> = BTreeMap::new();
    for lag in groups::lags(growth.kafka, &others, &topics).await?.into_iter().filter(|lag| lag.lag > 0) {
        *behind.entry((lag.group, lag.partition.topic.to_string())).or_default() += lag.lag;
    }
    if behind.is_empty() {
        return Ok(());
    }
    let each: Vec<String> = behind.iter().map(|((group, topic), lag)| format!("{group} by {lag} in {topic}")).collect();
    bail!(
        "these groups are behind: {}; let them read to the end first, else they may read what is new of a mailbox before \
         what is old (--ignore-consumers: that is no matter to them)",
        each.join(", ")
    )
}

/// Does all of it. False when it was stopped.
async fn carry_out(growth: &Growth<'_>, found: &Found, starts: BTreeMap<TopicPartition, i64>) -> anyhow::Result<bool> {
    let kafka = growth.kafka;
    let on = kafka.clone();
    let mut writer = tokio::task::spawn_blocking(move || SoleWriter::take_over(&on, "topics-grow")).await??;
    let plan: Option<Plan> = Journal::read(kafka, &growth.names).await?.get(Plan::KEY);
    let plan = plan.filter(|plan| plan.partitions == growth.to);
    let but_last: Vec<Topic> = Topic::CO_PARTITIONED.into_iter().filter(|topic| *topic != LAST).collect();
    topics::grow(kafka, &growth.names, &but_last, growth.to).await?;
    // Whoever saw the topics before they grew, and came since.
    stopped::refuse_while_running(growth.kafka).await?;
    let poller = IdleGroup::new(kafka, &growth.group("poller"))?;
    (writer, _) = blocking(writer, move |writer| writer.commit_moving(&[], &poller, &starts)).await?;
    let Some(mut writer) = commands::carry_out(growth, writer, plan).await? else { return Ok(false) };
    let positions = commands::positions(growth).await?;
    let absorbed: BTreeMap<i32, i64> = positions.into_iter().map(|(at, position)| (at.partition, position)).collect();
    match mailboxes::carry_out(growth, writer, absorbed, found.survey.to_write).await? {
        Some(after) => writer = after,
        None => return Ok(false),
    }
    writer = found.fetching.carry_out(growth, writer).await?;
    stopped::refuse_while_running(growth.kafka).await?;
    let done = crate::command::journal::removal(&growth.names, Plan::KEY.to_owned());
    let _ = blocking(writer, move |writer| writer.commit(&[done])).await?;
    topics::grow(kafka, &growth.names, &[LAST], growth.to).await?;
    topics::check(kafka, &growth.names, &Topic::CO_PARTITIONED).await?;
    Ok(true)
}

/// Lets the writer do something on a thread that may block.
async fn blocking<T: Send + 'static>(
    mut writer: SoleWriter,
    work: impl FnOnce(&mut SoleWriter) -> Result<T, kafka::writer::Error> + Send + 'static,
) -> anyhow::Result<(SoleWriter, T)> {
    Ok(tokio::task::spawn_blocking(move || work(&mut writer).map(|done| (writer, done))).await??)
}

/// Where the logs of a topic end, by partition.
async fn ends(growth: &Growth<'_>, topic: Topic) -> anyhow::Result<BTreeMap<TopicPartition, kafka::reader::Ends>> {
    let name = growth.name(topic);
    let ends = Inspector::new(growth.kafka)?.ends(name).await?;
    let at = |partition| TopicPartition { topic: name.clone(), partition };
    Ok((0..).map(at).zip(ends).collect())
}

fn print(ask: &Grow, from: i32, found: Option<&Found>, state: &str) -> anyhow::Result<()> {
    let survey = found.map(|found| found.survey.clone()).unwrap_or_default();
    let (unread, misplaced) = found.map_or((0, 0), |found| (found.unread.commands, found.unread.misplaced));
    let replay = found.and_then(|found| found.fetching.replay.clone());
    if ask.output.json {
        return output::line(&json!({
            "state": state,
            "from": from,
            "partitions": ask.partitions,
            "mailboxes": survey.mailboxes,
            "moved": survey.moving,
            "records": survey.to_write,
            "commands": unread,
            "commandsMoved": misplaced,
            "replaySince": replay,
        }));
    }
    let rows = [
        ("partitions", format!("{from} to {}", ask.partitions)),
        ("mailboxes", survey.mailboxes.to_string()),
        ("mailboxes that change their partition", survey.moving.to_string()),
        ("records of theirs to be written", survey.to_write.to_string()),
        ("commands not read yet", unread.to_string()),
        ("state", state.to_owned()),
    ];
    let rows = rows.into_iter().map(|(what, value)| [what.to_owned(), value]);
    output::print(ask.output, &(), ["what", "value"], rows)?;
    if let Some(since) = replay {
        eprintln!(
            "What was announced since {since} may not have been fetched. When the services run again: \
             `mailtide replay --all --since {since} --to gmail.message.discovered`"
        );
    }
    Ok(())
}
