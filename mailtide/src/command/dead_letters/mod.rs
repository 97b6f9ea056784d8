//! `mailtide dead-letters`: what could not be worked on, and what to do about it.
//!
//! A letter is sent back in one transaction with the mark in the operator's journal that says so, by a producer that
//! fences whoever else does the same; so each goes back once, however often and by however many it is asked for. The
//! mark goes by the record's place at its source: one that fails again there is a new letter.

mod letter;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use domain::{Duration, Timestamp};
use events::headers::dead;
use kafka::reader::Inspector;
use kafka::topics::{self, Topic, Topics};
use kafka::{Headers, OutRecord, SoleWriter};
use serde::Serialize;
use serde_json::{Value, json};
use store::overview::{Count, Precision};

use super::ask::{self, Answer};
use super::journal::{self, Journal};
use super::replay::kind::discovered_again;
use super::{now, rfc3339, tail};
use crate::cli::repair::{Chosen, DeadLetters, Which};
use crate::output;
use crate::settings::Settings;
use crate::{Outcome, WrongUse};
pub(crate) use letter::LetterId;
use letter::{Letter, Mark, State};

/// Letters looked at in one go at most: more are narrowed down first.
const MOST: usize = 100_000;

/// The bytes of their values at most, where these are needed.
const MOST_BYTES: usize = 256 << 20;

/// Letters of one transaction at most.
const BATCH: usize = 500;

/// A mark is dropped when its letter has long been gone: retention is 30 days.
const MARKED: Duration = Duration::from_days(45);

/// The name that only one of those that change something has at a time.
const WRITER: &str = "dead-letters";

/// Lists, shows, sends back or discards.
pub(crate) async fn run(what: DeadLetters, settings: &Settings) -> anyhow::Result<Outcome> {
    let kafka = &settings.kafka;
    let names = Topics::new(&kafka.topic_prefix);
    topics::create(kafka, &names, &[Topic::DeadLetter, Topic::Journal]).await?;
    match what {
        DeadLetters::List { which, all, output } => {
            let journal = Journal::read(kafka, &names).await?;
            let letters = find(kafka, &names, Wanted::Which(which), Values::Dropped).await?;
            let shown = letters.iter().map(|letter| Shown::of(letter, &names, &journal));
            let shown: Vec<Shown> = shown.filter(|shown| all || shown.state == "open").collect();
            output::print(output, &shown, Shown::HEADER, shown.iter().map(Shown::row))?;
            Ok(Outcome::Done)
        }
        DeadLetters::Show { letter, output } => {
            let journal = Journal::read(kafka, &names).await?;
            let letters = find(kafka, &names, Wanted::These([letter].into()), Values::Kept).await?;
            let Some(letter) = letters.first() else { bail!("there is no dead letter {letter}; retention is 30 days") };
            show(letter, &names, &journal, output.json)?;
            Ok(Outcome::Done)
        }
        DeadLetters::Redrive { chosen, by_key } => settle(kafka, &names, &chosen, Act::Redrive { by_key }).await,
        DeadLetters::Discard { chosen } => settle(kafka, &names, &chosen, Act::Discard).await,
    }
}

/// Letters that nobody has seen to yet.
pub(crate) struct Open {
    /// How many; where there are too many to look at, how many places the topic has for them.
    pub(crate) count: Count,
    /// When the oldest of them was put aside, where they were looked at.
    pub(crate) oldest: Option<Timestamp>,
}

/// Counts the letters that nobody has seen to yet. Makes no topic.
pub(crate) async fn open(kafka: &kafka::Settings, names: &Topics) -> anyhow::Result<Open> {
    let inspector = Inspector::new(kafka)?;
    let ends = inspector.ends(names.name(Topic::DeadLetter)).await?;
    let places = ends.iter().map(|ends| (ends.end - ends.low).max(0).unsigned_abs()).sum::<u64>();
    if places > MOST as u64 {
        return Ok(Open { count: Count { count: places, precision: Precision::Estimate }, oldest: None });
    }
    let journal = match inspector.partition_count(names.name(Topic::Journal)).await {
        Ok(_) => Journal::read(kafka, names).await?,
        // Nothing was ever seen to.
        Err(_) => Journal::default(),
    };
    let letters = find(kafka, names, Wanted::Which(Which::default()), Values::Dropped).await?;
    let mut open = letters.iter().filter(|letter| journal.get::<Mark>(&letter.mark_key()).is_none()).peekable();
    let oldest = open.peek().and_then(|letter| letter.at);
    Ok(Open { count: Count { count: open.count() as u64, precision: Precision::Exact }, oldest })
}

/// Which letters are wanted.
enum Wanted {
    These(BTreeSet<LetterId>),
    Which(Which),
}

/// Whether letters are wanted with their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Kept,
    Dropped,
}

/// The letters, oldest first.
async fn find(kafka: &kafka::Settings, names: &Topics, wanted: Wanted, values: Values) -> anyhow::Result<Vec<Letter>> {
    let found: Arc<Mutex<(Vec<Letter>, usize)>> = Arc::default();
    let (into, at, known) = (Arc::clone(&found), now(), names.clone());
    kafka::read_all(kafka, "dead-letters", names.name(Topic::DeadLetter), move |record| {
        let mut letter = Letter::from(record);
        let fits = match &wanted {
            Wanted::These(ids) => ids.contains(&letter.id),
            Wanted::Which(which) => letter.fits(which, &known, at),
        };
        if !fits {
            return;
        }
        let mut found = into.lock().unwrap_or_else(PoisonError::into_inner);
        let (letters, bytes) = &mut *found;
        if values == Values::Dropped {
            letter.value = None;
        }
        *bytes += letter.value.as_ref().map_or(0, bytes::Bytes::len);
        if letters.len() <= MOST && *bytes <= MOST_BYTES {
            letters.push(letter);
        }
    })
    .await?;
    let (mut letters, bytes) = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    if letters.len() > MOST || bytes > MOST_BYTES {
        return Err(WrongUse(format!(
            "these are more than {MOST} letters, or more than {} MiB; narrow them down by --since, --topic or --reason",
            MOST_BYTES >> 20
        ))
        .into());
    }
    letters.sort_by_key(|letter| (letter.at, letter.id));
    Ok(letters)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    letter: String,
    put_aside_at: Option<String>,
    source: String,
    key: Option<String>,
    connection_id: Option<String>,
    /// How often it was sent back before.
    attempt: u32,
    state: &'static str,
    since: Option<String>,
    reason: String,
}

impl Shown {
    const HEADER: [&str; 7] = ["letter", "put aside", "read from", "key", "sent back", "state", "reason"];

    fn of(letter: &Letter, names: &Topics, journal: &Journal) -> Self {
        let mark: Option<Mark> = journal.get(&letter.mark_key());
        Self {
            letter: letter.id.to_string(),
            put_aside_at: letter.at.map(rfc3339),
            source: letter.place(),
            key: letter.key_text().map(str::to_owned),
            connection_id: letter.connection(names).map(|id| id.to_string()),
            attempt: letter.attempt(),
            state: mark.as_ref().map_or("open", |mark| mark.state.as_str()),
            since: mark.map(|mark| rfc3339(mark.at)),
            reason: letter.reason().to_owned(),
        }
    }

    fn row(&self) -> [String; 7] {
        let mut reason: String = self.reason.chars().take(80).collect();
        if reason.len() < self.reason.len() {
            reason.push('…');
        }
        [
            self.letter.clone(),
            self.put_aside_at.clone().unwrap_or_default(),
            self.source.clone(),
            self.key.clone().unwrap_or_default(),
            self.attempt.to_string(),
            self.state.to_owned(),
            reason,
        ]
    }
}

/// Prints all that one letter holds.
fn show(letter: &Letter, names: &Topics, journal: &Journal, is_json: bool) -> anyhow::Result<()> {
    let shown = Shown::of(letter, names, journal);
    let back = letter.way_back(names, now());
    let decoded =
        letter.value.as_deref().map(|value| events::to_json(value).or_else(|_| serde_json::from_slice(value)));
    let decoded = decoded.and_then(Result::ok);
    if is_json {
        let mut shown = serde_json::to_value(&shown)?;
        shown["redrivable"] = back.is_ok().into();
        shown["whyNot"] = back.err().into();
        shown["headers"] = tail::headers(&letter.headers);
        shown["hex"] = letter.value.as_deref().filter(|_| decoded.is_none()).map(tail::hex).into();
        shown["value"] = decoded.into();
        return output::line(&shown);
    }
    let row = |name: &str, value: &str| format!("{name:<12} {value}\n");
    let mut text = row("letter", &shown.letter);
    text += &row("put aside", shown.put_aside_at.as_deref().unwrap_or("not said"));
    text += &row("read from", &shown.source);
    text += &row("reason", &shown.reason);
    text += &row("state", shown.state);
    text += &row("sent back", &format!("{} times before", shown.attempt));
    text += &row("redrive", &back.map_or_else(|why| format!("no: {why}"), |_| "possible".to_owned()));
    text += &row("key", shown.key.as_deref().unwrap_or("none, or no text"));
    for (name, value) in letter.headers.iter() {
        let value = value.map(|value| String::from_utf8(value.to_vec()).unwrap_or_else(|_| tail::hex(value)));
        text += &row("header", &format!("{name}: {}", value.as_deref().unwrap_or("null")));
    }
    text += &match (&letter.value, decoded) {
        (None, _) => row("value", "none"),
        (_, Some(decoded)) => row("value", &format!("{decoded:#}")),
        (Some(value), None) => format!("value, {} bytes that do not decode\n{}", value.len(), dump(value)),
    };
    Ok(ask::say(text.trim_end())?)
}

/// Bytes as people read them: sixteen in a line, as hex and as text.
fn dump(bytes: &[u8]) -> String {
    /// More is no help on a screen; `--json` gives all.
    const SHOWN: usize = 4 << 10;
    let lines = bytes.chunks(16).take(SHOWN / 16).enumerate().map(|(number, line)| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text =
            line.iter().map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' });
        format!("{:08x}  {:<47}  {}\n", number * 16, hex.join(" "), text.collect::<String>())
    });
    let mut text: String = lines.collect();
    if bytes.len() > SHOWN {
        text += "…\n";
    }
    text
}

/// What is to be done with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Redrive { by_key: bool },
    Discard,
}

impl Act {
    const fn state(self) -> State {
        match self {
            Self::Redrive { .. } => State::Redriven,
            Self::Discard => State::Discarded,
        }
    }
}

/// What comes of one letter.
struct Decided {
    letter: Letter,
    /// The record to send besides the mark.
    record: Option<OutRecord>,
    /// What is said of it; the code for programs and the words for people.
    state: &'static str,
    why: Option<String>,
}

/// Sends letters back, or discards them.
async fn settle(kafka: &kafka::Settings, names: &Topics, chosen: &Chosen, act: Act) -> anyhow::Result<Outcome> {
    let Chosen { letters, which, dry_run, yes, output } = chosen;
    let is_free = letters.is_empty() && *which == Which::default();
    if is_free {
        return Err(
            WrongUse("say which letters: by PARTITION:OFFSET, or by --topic, --reason, --since …".to_owned()).into()
        );
    }
    if !letters.is_empty() && *which != Which::default() {
        return Err(WrongUse("name letters, or say which by options, not both".to_owned()).into());
    }
    if !dry_run && !yes {
        ask::needs_terminal("this")?;
    }
    let ids: BTreeSet<LetterId> = letters.iter().copied().collect();
    let wanted = if ids.is_empty() { Wanted::Which(which.clone()) } else { Wanted::These(ids.clone()) };
    let found = find(kafka, names, wanted, Values::Kept).await?;
    if let Some(missing) = ids.iter().find(|id| !found.iter().any(|letter| letter.id == **id)) {
        bail!("there is no dead letter {missing}; `mailtide dead-letters list --all` shows all that are kept");
    }
    // Whoever had the name can commit nothing from here on; what they did is in the journal.
    let writer = if *dry_run {
        None
    } else {
        let on = kafka.clone();
        Some(tokio::task::spawn_blocking(move || SoleWriter::take_over(&on, WRITER)).await??)
    };
    let journal = Journal::read(kafka, names).await?;
    let decided = decide(found, kafka, names, &journal, act).await?;
    let open = decided.iter().filter(|it| it.why.is_none() && it.state != "done before").count();
    let is_refused = decided.iter().any(|it| it.state == "refused");
    if let Some(writer) = writer.filter(|_| open > 0) {
        if !yes {
            print(*output, &decided)?;
            let question = match act {
                Act::Redrive { .. } => format!("Send these {open} back?"),
                Act::Discard => format!("Discard these {open}?"),
            };
            if ask::confirm(&question).await? == Answer::No {
                bail!("nothing was done");
            }
        }
        let batch = BATCH.min(kafka.lane.transaction_records);
        write(writer, names, &journal, &decided, act, batch).await?;
    }
    print(*output, &decided)?;
    Ok(if is_refused { Outcome::Failed } else { Outcome::Done })
}

/// What is to be done with each letter.
async fn decide(
    found: Vec<Letter>,
    kafka: &kafka::Settings,
    names: &Topics,
    journal: &Journal,
    act: Act,
) -> anyhow::Result<Vec<Decided>> {
    let inspector = Inspector::new(kafka)?;
    let mut counts = std::collections::BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut decided = Vec::with_capacity(found.len());
    for letter in found {
        let mark: Option<Mark> = journal.get(&letter.mark_key());
        // One that was discarded may be sent back after all.
        let is_done = mark.is_some_and(|mark| mark.state == State::Redriven || act == Act::Discard);
        if is_done || !seen.insert(letter.mark_key()) {
            decided.push(Decided { letter, record: None, state: "done before", why: None });
            continue;
        }
        let Act::Redrive { by_key } = act else {
            decided.push(Decided { letter, record: None, state: act.state().as_str(), why: None });
            continue;
        };
        let record = match letter.way_back(names, now()) {
            Err(why) => Err(why),
            Ok((topic, source)) => {
                let count = match counts.get(&topic) {
                    Some(count) => *count,
                    None => inspector.partition_count(names.name(topic)).await?,
                };
                counts.insert(topic, count);
                back(&letter, topic, &source, count, by_key, names, now())
            }
        };
        decided.push(match record {
            Ok(record) => Decided { letter, record: Some(record), state: act.state().as_str(), why: None },
            Err(why) => Decided { letter, record: None, state: "refused", why: Some(why) },
        });
    }
    Ok(decided)
}

/// The record that goes back.
fn back(
    letter: &Letter,
    topic: Topic,
    source: &letter::Source,
    count: i32,
    by_key: bool,
    names: &Topics,
    now: Timestamp,
) -> Result<OutRecord, String> {
    let home = letter.key.as_deref().map(|key| kafka::partition_of(key, count));
    let partition = match home {
        Some(home) if home != source.partition && by_key => home,
        Some(home) if home != source.partition => {
            return Err(format!(
                "its key belongs to partition {home} of {}, and it was read from {}; --by-key sends it there",
                source.topic, source.partition
            ));
        }
        _ if source.partition >= count => {
            return Err(format!("{} has no partition {}", source.topic, source.partition));
        }
        _ => source.partition,
    };
    let value = match topic {
        // Of the announcements that count once there is one already.
        Topic::Discovered => letter.value.as_deref().and_then(discovered_again).or_else(|| letter.value.clone()),
        _ => letter.value.clone(),
    };
    let (key, headers): (_, Headers) = (letter.key.clone(), letter.headers_back(source, now));
    Ok(OutRecord { topic: names.name(topic).clone(), partition: Some(partition), key, value, headers })
}

/// Writes records and marks, and drops marks whose letters are long gone.
async fn write(
    mut writer: SoleWriter,
    names: &Topics,
    journal: &Journal,
    decided: &[Decided],
    act: Act,
    batch: usize,
) -> anyhow::Result<()> {
    let mut records = Vec::new();
    for Decided { letter, record, state, .. } in decided {
        if *state == act.state().as_str() {
            let mark = Mark { state: act.state(), at: now(), letter: letter.id.to_string() };
            records.push((record.clone(), journal::entry(names, letter.mark_key(), &mark)));
        }
    }
    let old = journal.under::<Mark>("dead-letter/").filter(|(_, mark)| mark.at + MARKED < now());
    let old: Vec<OutRecord> = old.map(|(rest, _)| journal::removal(names, format!("dead-letter/{rest}"))).collect();
    let writing = move || -> Result<(), kafka::writer::Error> {
        for batch in records.chunks(batch.max(1)) {
            let all: Vec<OutRecord> =
                batch.iter().flat_map(|(record, mark)| record.iter().chain([mark])).cloned().collect();
            writer.commit(&all)?;
        }
        if old.is_empty() { Ok(()) } else { writer.commit(&old) }
    };
    Ok(tokio::task::spawn_blocking(writing).await??)
}

fn print(output: crate::cli::Output, decided: &[Decided]) -> anyhow::Result<()> {
    let shown: Vec<Value> = decided
        .iter()
        .map(|Decided { letter, state, why, .. }| {
            json!({
                "letter": letter.id.to_string(),
                "source": letter.place(),
                "attempt": letter.attempt() + u32::from(*state == "redriven"),
                "state": state,
                "why": why,
                "reason": letter.header(dead::REASON),
            })
        })
        .collect();
    let rows = decided.iter().map(|Decided { letter, state, why, .. }| {
        [letter.id.to_string(), letter.place(), (*state).to_owned(), why.clone().unwrap_or_default()]
    });
    output::print(output, &shown, ["letter", "read from", "state", "why"], rows)
}
