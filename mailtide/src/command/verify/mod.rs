//! `mailtide verify`: Gmail's listing of a mailbox against what was announced of it.

mod filtered;
mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::mailbox::Rules;
use domain::mailbox::reply::{CallError, Label};
use domain::{GmailMessageDiscovered, GmailMessageFetched, Lane, MessageId, Origin, Timestamp, Window};
use gmail::{Client, Gate, Mailbox, Reading, Service, View};
use grants::Grants;
use indicatif::ProgressBar;
use kafka::reader::Inspector;
use kafka::snapshot::{Spans, Step};
use kafka::topics::{Topic, Topics};
use runtime::Shutdown;
use serde::Serialize;
use serde_json::json;
use store::connections::{self, Connection};

use super::{ask, keys, now, rfc3339};
use crate::cli::Verify;
use crate::output;
use crate::service;
use crate::settings::Settings;
use crate::{Outcome, WrongUse};
use filtered::Sifted;

/// An event is written a little after its message arrived, or in clocks that differ before.
const EARLY: domain::Duration = domain::Duration::from_hours(1);

/// The ends of a listing are whole seconds, and one more on each side is asked for.
const EDGE: domain::Duration = domain::Duration::from_secs(3);

/// How long the look at messages may take: as many as are asked for by default have their turn within 34 minutes, by the
/// part of the quota that is the operator's.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// A message that was announced and that Gmail does not list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Extra {
    message_id: MessageId,
    /// Why it counts, or why it cannot be told.
    reason: &'static str,
}

/// Why announced messages that Gmail does not list are no fault.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    /// They have been moved to spam or trash since.
    moved: usize,
    /// They arrived outside of the window.
    elsewhere: usize,
    /// Gmail has them no more; counted here with `--allow-gone` only.
    gone: usize,
}

/// What the topics say of a mailbox.
#[derive(Default)]
struct Announced {
    /// All that was discovered, with the labels that the announcement names.
    discovered: BTreeMap<MessageId, Option<Vec<Label>>>,
    /// Those of them that history named, or a catch-up, within the window by the time of their discovery.
    live: BTreeSet<MessageId>,
    fetched: BTreeSet<MessageId>,
    /// Records of the mailbox that do not decode.
    unreadable: u64,
}

/// Compares.
pub(crate) async fn run(ask: &Verify, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let store = service::open(settings).await?;
    let connection = find(&store, ask).await?;
    let window = window(ask, &connection, now())?;
    let gate = Gate::new(&settings.gmail, Service::Tools);
    let filter = store::fetching::filter(&store, connection.organisation_id).await?.unwrap_or_default();
    let client = Client::new(&settings.gmail, Arc::new(Grants::new(store)), gate)?;
    let bar = ask::spinner();
    let listed = if window.is_empty() {
        listing::Listed { messages: BTreeSet::new(), units: 0 }
    } else {
        match listing::list(&client, &connection, window, &bar, shutdown).await? {
            Some(listed) => listed,
            None => return Ok(Outcome::Failed),
        }
    };
    // After the listing, so that what was announced meanwhile is known.
    let announced = announced(ask, settings, &connection, &bar).await?;
    let missing: Vec<&MessageId> =
        listed.messages.iter().filter(|id| !announced.discovered.contains_key(*id)).collect();
    let unfetched = if ask.fetched { announced.unfetched(&listed.messages) } else { Vec::new() };
    let Sifted { unfetched, filtered, units: units_of_sifting } =
        filtered::sift(&client, &connection, &filter, unfetched, ask.lookups).await;
    let unlisted: Vec<MessageId> = announced.live.difference(&listed.messages).cloned().collect();
    let looked = look(ask, &client, &connection, &unlisted, window, &bar).await;
    bar.finish_and_clear();
    let Looked { extra, explained, units } = looked;
    let units = listed.units + u64::from(units) + u64::from(units_of_sifting);
    let is_good = missing.is_empty() && unfetched.is_empty() && extra.is_empty();
    if ask.output.json {
        output::line(&json!({
            "connectionId": connection.connection_id,
            "since": rfc3339(window.since),
            "until": rfc3339(window.until),
            "listed": listed.messages.len(),
            "announced": announced.discovered.len(),
            "missing": missing,
            "unfetched": unfetched,
            "filtered": filtered,
            "extra": extra,
            "explained": explained,
            "unreadable": announced.unreadable,
            "quotaUnits": units,
        }))?;
    } else {
        for id in &missing {
            ask::say(&format!("missing {id}"))?;
        }
        for id in &unfetched {
            ask::say(&format!("missing {id} among the fetched"))?;
        }
        for Extra { message_id, reason } in &extra {
            ask::say(&format!("extra {message_id} {reason}"))?;
        }
        let Explained { moved, elsewhere, gone } = explained;
        eprintln!(
            "From {} until {}: {} messages at Gmail, {} missing, {} extra; no fault of ours: {moved} moved to spam or \
             trash since, {elsewhere} that arrived at another time, {gone} gone; {units} quota units",
            rfc3339(window.since),
            rfc3339(window.until),
            listed.messages.len(),
            missing.len() + unfetched.len(),
            extra.len(),
        );
        for (rule, count) in &filtered {
            eprintln!("Not fetched because of the organisation's filter, by its rule {rule}: {count}");
        }
        if announced.unreadable > 0 {
            eprintln!("Records of this mailbox that do not decode: {}", announced.unreadable);
        }
    }
    Ok(if is_good { Outcome::Done } else { Outcome::Failed })
}

/// The living connection, whosever it is.
async fn find(store: &store::Store, ask: &Verify) -> anyhow::Result<Connection> {
    for organisation in keys::chosen(store, None).await? {
        if let Some(found) = connections::find(store, organisation, ask.connection).await? {
            return Ok(found);
        }
    }
    let said = format!("there is no connection {}; `mailtide connections list` shows all", ask.connection);
    Err(WrongUse(said).into())
}

/// The time that can be judged: what arrived before the mailbox was connected is not owed, what the latest sync has not
/// seen yet is to come, and what Gmail's index may not know yet is not listed.
fn window(ask: &Verify, connection: &Connection, now: Timestamp) -> Result<Window, WrongUse> {
    let lag = Rules::DEFAULT.index_lag;
    let (since, until) = (ask.since.resolve(now), ask.until.map(|until| until.resolve(now)));
    if until.unwrap_or(now) <= since {
        return Err(WrongUse("--since must be in the past, and before --until".to_owned()));
    }
    let since = if ask.before_connection { since } else { since.max(connection.created_at) };
    let seen = connection.last_synced_at.unwrap_or(since);
    let until = until.unwrap_or(seen - lag).min(now - lag);
    Ok(Window { since, until: until.max(since) })
}

/// Reads what the topics say of the mailbox. Its records are in one partition.
async fn announced(
    ask: &Verify,
    settings: &Settings,
    connection: &Connection,
    bar: &ProgressBar,
) -> anyhow::Result<Announced> {
    let names = Topics::new(&settings.kafka.topic_prefix);
    let inspector = Inspector::new(&settings.kafka)?;
    let key = connection.connection_id.to_string();
    let mut announced = Announced::default();
    let (since, until) = (ask.since.resolve(now()), ask.until.map_or_else(now, |until| until.resolve(now())));
    for topic in [Topic::Discovered, Topic::Fetched] {
        if topic == Topic::Fetched && !ask.fetched {
            continue;
        }
        let name = names.name(topic).clone();
        let starts = inspector.offsets_at(&name, (since - EARLY).as_millis()).await?;
        let home = kafka::partition_of(key.as_bytes(), i32::try_from(starts.len())?);
        let start = starts.get(usize::try_from(home)?).copied().unwrap_or(0);
        bar.set_message(format!("reading {name}"));
        let (kafka, key) = (settings.kafka.clone(), key.clone());
        announced = tokio::task::spawn_blocking(move || -> anyhow::Result<Announced> {
            let mut reading = Spans::open(&kafka, "verify", &name, BTreeMap::from([(home, start..i64::MAX)]))?;
            loop {
                match reading.step()? {
                    Step::Record(record) if record.key.as_deref() == Some(key.as_bytes()) => {
                        announced.take(topic, record.value.as_deref().unwrap_or_default(), Window { since, until });
                    }
                    Step::Record(_) | Step::Waiting => {}
                    Step::End => return Ok(announced),
                }
            }
        })
        .await??;
    }
    Ok(announced)
}

impl Announced {
    /// Those of these messages that were announced and are not fetched.
    fn unfetched<'a>(&'a self, listed: &'a BTreeSet<MessageId>) -> Vec<(&'a MessageId, Option<&'a [Label]>)> {
        let announced = listed.iter().filter_map(|id| Some((id, self.discovered.get(id)?.as_deref())));
        announced.filter(|(id, _)| !self.fetched.contains(*id)).collect()
    }

    fn take(&mut self, topic: Topic, value: &[u8], within: Window) {
        if topic == Topic::Fetched {
            match events::decode::<GmailMessageFetched>(value) {
                Ok(event) => drop(self.fetched.insert(event.message_id)),
                Err(_) => self.unreadable += 1,
            }
            return;
        }
        let Ok(event) = events::decode::<GmailMessageDiscovered>(value) else {
            self.unreadable += 1;
            return;
        };
        let is_live = matches!(event.origin, Origin::Live | Origin::CatchUp);
        if is_live && event.discovered_at >= within.since && event.discovered_at < within.until {
            self.live.insert(event.message_id.clone());
        }
        self.discovered.insert(event.message_id, event.label_ids);
    }
}

/// What became of the messages that were announced and are not listed.
struct Looked {
    extra: Vec<Extra>,
    explained: Explained,
    units: u32,
}

/// Asks Gmail for each of them, as many as may be asked for.
async fn look(
    ask: &Verify,
    client: &Client,
    connection: &Connection,
    unlisted: &[MessageId],
    window: Window,
    bar: &ProgressBar,
) -> Looked {
    let mut looked = Looked { extra: Vec::new(), explained: Explained::default(), units: 0 };
    let (asked, unasked) = unlisted.split_at(unlisted.len().min(ask.lookups));
    let mailbox = Mailbox { organisation_id: connection.organisation_id, connection_id: connection.connection_id };
    bar.set_message(format!("asking Gmail for {} messages that it does not list", asked.len()));
    let deadline = tokio::time::Instant::now() + LOOK;
    let token_version = connection.token_version;
    let reading = Reading { lane: Lane::Audit, view: View::Headers, deadline, token_version };
    let read = client.get_messages(mailbox, asked, &reading).await;
    looked.units = read.units;
    let has = |labels: &[Label], these: [Label; 2]| labels.iter().any(|label| these.contains(label));
    for (id, message) in asked.iter().zip(read.messages) {
        let reason = match message {
            Err(CallError::NotFound) if ask.allow_gone => {
                looked.explained.gone += 1;
                continue;
            }
            Err(CallError::NotFound) => "is not at Gmail: deleted since, or never there",
            Err(_) => "could not be asked for; try again",
            Ok(message) if has(&message.labels, [Label::DRAFT, Label::CHAT]) => "is a draft or a chat",
            Ok(message) if has(&message.labels, [Label::SPAM, Label::TRASH]) => {
                looked.explained.moved += 1;
                continue;
            }
            Ok(message) if message.internal_date.is_some_and(|at| is_outside(at, window)) => {
                looked.explained.elsewhere += 1;
                continue;
            }
            Ok(_) => "is at Gmail, which does not list it",
        };
        looked.extra.push(Extra { message_id: id.clone(), reason });
    }
    let more = unasked.iter().map(|id| Extra { message_id: id.clone(), reason: "was not asked for; raise --lookups" });
    looked.extra.extend(more);
    looked
}

fn is_outside(at: Timestamp, window: Window) -> bool {
    at < window.since + EDGE || at + EDGE >= window.until
}
