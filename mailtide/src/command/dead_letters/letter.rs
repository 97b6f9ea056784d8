//! A dead letter: what its headers say, and whether it can be sent back.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use domain::{Command, ConnectionId, Timestamp};
use events::headers::dead;
use kafka::topics::{Topic, Topics};
use kafka::{Headers, OwnedRecord};
use serde::{Deserialize, Serialize};

use crate::cli::repair::Which;
use crate::command::rfc3339;

/// The end of the reason of a letter that does not hold the whole of its record's value.
const CUT: &str = "(its value is cut here)";

/// A dead letter's place on `gmail.dead.letter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LetterId {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected PARTITION:OFFSET, as `mailtide dead-letters list` shows it, such as 3:1042";
        let (partition, offset) = text.split_once(':').ok_or(EXPECTED)?;
        match (partition.parse(), offset.parse()) {
            (Ok(partition), Ok(offset)) if partition >= 0 && offset >= 0 => Ok(Self { partition, offset }),
            _ => Err(EXPECTED),
        }
    }
}

/// Where a record was before it was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What became of a letter, in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    pub(super) state: State,
    pub(super) at: Timestamp,
    /// Which letter it was done to, where several are of the same record.
    pub(super) letter: String,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// It was sent back.
    Redriven,
    /// Nothing is to be done about it.
    Discarded,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }
}

/// An earlier time that the record was put aside.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Earlier<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    reason: &'a str,
    put_aside_at: Option<String>,
    redriven_at: String,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) id: LetterId,
    /// When it was put aside.
    pub(super) at: Option<Timestamp>,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Headers,
}

impl From<OwnedRecord> for Letter {
    fn from(record: OwnedRecord) -> Self {
        let OwnedRecord { partition, offset, timestamp, key, value, headers, .. } = record;
        Self { id: LetterId { partition, offset }, at: timestamp.map(Timestamp::from_millis), key, value, headers }
    }
}

impl Letter {
    /// The last header of this name, as text: what was put aside last wrote last.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers.iter().filter(|(known, _)| *known == name);
        values.filter_map(|(_, value)| std::str::from_utf8(value?).ok()).last()
    }

    pub(super) fn source(&self) -> Option<Source> {
        Some(Source {
            topic: self.header(dead::TOPIC)?.to_owned(),
            partition: self.header(dead::PARTITION)?.parse().ok()?,
            offset: self.header(dead::OFFSET)?.parse().ok()?,
        })
    }

    /// Where it was, for people.
    pub(super) fn place(&self) -> String {
        match (self.source(), self.header(dead::METHOD)) {
            (Some(Source { topic, partition, offset }), _) => format!("{topic} {partition}:{offset}"),
            (None, Some(method)) => format!("Gmail {method}"),
            (None, None) => "not said".to_owned(),
        }
    }

    pub(super) fn reason(&self) -> &str {
        self.header(dead::REASON).unwrap_or("not said")
    }

    /// How often its record was sent back before.
    pub(super) fn attempt(&self) -> u32 {
        self.header(dead::ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub(super) fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }

    /// Its mailbox, where that is known without decoding anything.
    pub(super) fn connection(&self, names: &Topics) -> Option<ConnectionId> {
        if let Some(named) = self.header(dead::CONNECTION_ID) {
            return named.parse().ok();
        }
        let is_by_job = self.source().is_some_and(|source| *source.topic == **names.name(Topic::JobStatus));
        self.key_text().filter(|_| !is_by_job)?.parse().ok()
    }

    /// What names it in the journal: the record that it is of, so that two letters of one record count as one.
    pub(super) fn mark_key(&self) -> String {
        match self.source() {
            Some(Source { topic, partition, offset }) => format!("dead-letter/{topic}/{partition}/{offset}"),
            None => format!("dead-letter//{}/{}", self.id.partition, self.id.offset),
        }
    }

    /// Whether it is one of those that `which` names, at `now`.
    pub(super) fn fits(&self, which: &Which, names: &Topics, now: Timestamp) -> bool {
        let source = self.source();
        let topic = |name: &String| match &source {
            Some(source) => source.topic == *name || names_alike(names, name, &source.topic),
            None => self.header(dead::METHOD) == Some(name),
        };
        let reason = self.reason().to_lowercase();
        which.topic.as_ref().is_none_or(topic)
            && which.reason.as_ref().is_none_or(|text| reason.contains(&text.to_lowercase()))
            && which.key.as_ref().is_none_or(|key| self.key.as_deref() == Some(key.as_bytes()))
            && which.connection.is_none_or(|id| self.connection(names) == Some(id))
            && which.since.is_none_or(|since| self.at.is_some_and(|at| at >= since.resolve(now)))
            && which.until.is_none_or(|until| self.at.is_some_and(|at| at < until.resolve(now)))
            && which.partition.is_none_or(|it| source.as_ref().is_some_and(|source| source.partition == it))
            && which.offset.is_none_or(|it| source.as_ref().is_some_and(|source| source.offset == it))
    }

    /// Where it can be sent back to, if that makes sense.
    ///
    /// # Errors
    /// Why it does not, and what helps instead.
    pub(super) fn way_back(&self, names: &Topics, now: Timestamp) -> Result<(Topic, Source), String> {
        if let Some(method) = self.header(dead::METHOD) {
            let said = |name| self.header(name).unwrap_or("?");
            return Err(format!(
                "it is a place at Gmail that {method} could not read, not a record. What lies there is owed to the \
                 audit, which lists it again by itself; to look sooner, backfill {} to {}",
                said(dead::SINCE),
                said(dead::UNTIL)
            ));
        }
        let source = self.source().ok_or("its headers do not say where it was read")?;
        let topic = Topic::ALL.into_iter().find(|topic| **names.name(*topic) == *source.topic);
        let topic = topic.ok_or_else(|| format!("{} is no topic of this installation", source.topic))?;
        match topic {
            Topic::Poll | Topic::Discovered | Topic::Fetched | Topic::JobStatus => {}
            Topic::ConnectionStatus => {
                return Err(
                    "its topic keeps the latest record of a key, and an old one sent back would take the place \
                            of a newer; the connection's next change says anew how it is"
                        .to_owned(),
                );
            }
            topic => return Err(format!("nothing is ever read again from {}", topic.base_name())),
        }
        let Some(value) = self.value.as_deref().filter(|value| !value.is_empty()) else {
            return Err("it has no value, so it would be put aside again".to_owned());
        };
        if self.reason().ends_with(CUT) {
            return Err(format!("its value was too large to be kept whole; {} may still have it", self.place()));
        }
        if topic == Topic::Poll
            && let Ok(Command::Poll(command)) = events::decode_command(value)
            && command.deadline <= now
        {
            return Err(format!("its job's deadline, {}, is past: ask for a new one", rfc3339(command.deadline)));
        }
        Ok((topic, source))
    }

    /// The headers that it is sent back with: its own, and the times that it was put aside, this one the last.
    pub(super) fn headers_back(&self, source: &Source, now: Timestamp) -> Headers {
        /// So many earlier times are carried on at most; the count goes on.
        const HISTORY: usize = 16;
        let is_history = |name: &str| name == dead::HISTORY;
        let known = self.headers.iter().filter(|(name, _)| is_history(name)).count();
        let mut forgotten = (known + 1).saturating_sub(HISTORY);
        let mut headers = Headers::new();
        for (name, value) in self.headers.iter() {
            if dead::PLACE.contains(&name) || name == dead::ATTEMPT {
                continue;
            }
            if is_history(name) && forgotten > 0 {
                forgotten -= 1;
                continue;
            }
            headers.push_nullable(name.to_owned(), value.cloned());
        }
        let reason: String = self.reason().chars().take(500).collect();
        let earlier = Earlier {
            topic: &source.topic,
            partition: source.partition,
            offset: source.offset,
            reason: &reason,
            put_aside_at: self.at.map(rfc3339),
            redriven_at: rfc3339(now),
        };
        let earlier = serde_json::to_vec(&earlier).expect("text and numbers are JSON");
        headers.push(dead::HISTORY, earlier);
        headers.push(dead::ATTEMPT, (self.attempt() + 1).to_string());
        headers
    }
}

/// Whether `name`, without the prefix, is the topic with this full name.
fn names_alike(names: &Topics, name: &str, full: &str) -> bool {
    Topic::from_base_name(name).is_some_and(|topic| **names.name(topic) == *full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&'static str, &str)]) -> Letter {
        let headers = headers.iter().map(|(name, value)| (*name, Bytes::copy_from_slice(value.as_bytes())));
        Letter {
            id: LetterId { partition: 3, offset: 1042 },
            at: Some(Timestamp::from_millis(0)),
            key: Some(Bytes::from_static(b"0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b")),
            value: Some(Bytes::from_static(b"?")),
            headers: headers.collect(),
        }
    }

    const FROM_POLL: [(&str, &str); 4] = [
        (dead::TOPIC, "x.gmail.connection.poll"),
        (dead::PARTITION, "2"),
        (dead::OFFSET, "7"),
        (dead::REASON, "The value does not decode: not framed"),
    ];

    #[test]
    fn letters_are_named_by_their_place() {
        assert_eq!("3:1042".parse::<LetterId>().unwrap().to_string(), "3:1042");
        for wrong in ["", "3", "3:", ":1", "-1:1", "1:-1", "a:b", "1:2:3"] {
            assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn letters_are_chosen_by_all_that_is_said() {
        let (names, now) = (Topics::new("x."), Timestamp::from_millis(10_000));
        let letter = letter(&FROM_POLL);
        let fits = |change: &dyn Fn(&mut Which)| {
            let mut which = Which { topic: Some("gmail.connection.poll".to_owned()), ..Which::default() };
            change(&mut which);
            letter.fits(&which, &names, now)
        };
        assert!(fits(&|_| ()));
        assert!(fits(&|which| which.topic = Some("x.gmail.connection.poll".to_owned())));
        assert!(fits(&|which| which.reason = Some("NOT FRAMED".to_owned())));
        assert!(fits(&|which| which.connection = letter.key_text().map(|key| key.parse().unwrap())));
        assert!(fits(&|which| (which.partition, which.offset) = (Some(2), Some(7))));
        assert!(fits(&|which| which.until = Some("1s".parse().unwrap())));
        assert!(!fits(&|which| which.topic = Some("gmail.job.status".to_owned())));
        assert!(!fits(&|which| which.offset = Some(8)));
        assert!(!fits(&|which| which.since = Some("1s".parse().unwrap())));
        assert!(!fits(&|which| which.key = Some("another".to_owned())));
    }

    #[test]
    fn what_cannot_be_sent_back_says_why() {
        let (names, now) = (Topics::new("x."), Timestamp::from_millis(0));
        let refused = |headers: &[(&'static str, &str)]| letter(headers).way_back(&names, now).unwrap_err();
        let mut elsewhere = FROM_POLL;
        elsewhere[0].1 = "x.gmail.connection.status";
        assert!(refused(&elsewhere).contains("latest record"), "{}", refused(&elsewhere));
        elsewhere[0].1 = "y.gmail.connection.poll";
        assert!(refused(&elsewhere).contains("no topic of this installation"));
        assert!(refused(&[(dead::METHOD, "users.history.list")]).contains("owed to the audit"));
        assert!(refused(&[]).contains("do not say"));
        let mut cut = FROM_POLL;
        cut[3].1 = "Too large (its value is cut here)";
        assert!(refused(&cut).contains("whole"));
        assert!(letter(&FROM_POLL).way_back(&names, now).is_ok());
    }

    #[test]
    fn a_letter_goes_back_with_its_history_and_without_its_last_place() {
        let mut letter = letter(&[("jobId", "1"), ("ce_id", "2")]);
        for round in 1..=20_u32 {
            for (name, value) in FROM_POLL {
                letter.headers.push(name, value.to_owned());
            }
            let source = letter.source().unwrap();
            letter.headers = letter.headers_back(&source, Timestamp::from_millis(5));
            assert_eq!(letter.attempt(), round);
            assert!(letter.source().is_none() && letter.header("jobId") == Some("1"));
            let history = letter.headers.iter().filter(|(name, _)| *name == dead::HISTORY).count();
            assert_eq!(history, (round as usize).min(16));
        }
        let last: serde_json::Value = serde_json::from_str(letter.header(dead::HISTORY).unwrap()).unwrap();
        assert_eq!((&last["offset"], &last["redrivenAt"]), (&7.into(), &"1970-01-01T00:00:00.005Z".into()));
    }
}
