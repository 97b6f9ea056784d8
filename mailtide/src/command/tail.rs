//! `mailtide tail`: a topic's committed records as JSON lines.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use domain::Timestamp;
use events::headers::CONTENT_TYPE;
use kafka::reader::{Inspector, TopicPartition};
use kafka::topics::{Topic, Topics};
use kafka::{Headers, OwnedRecord, Reader};
use runtime::Shutdown;
use serde_json::{Value, json};

use super::rfc3339;
use crate::WrongUse;
use crate::cli::Tail;
use crate::settings::Settings;

/// Prints until it is told to stop or has printed as many as asked for.
pub(crate) async fn run(tail: &Tail, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<()> {
    let topic = topic_of(&tail.topic, &settings.kafka.topic_prefix)?;
    let ends = Inspector::new(&settings.kafka)?.ends(&topic).await?;
    let positions: BTreeMap<TopicPartition, i64> = (0..)
        .zip(ends)
        .map(|(partition, ends)| {
            let from = if tail.from_beginning { ends.low } else { ends.end };
            (TopicPartition { topic: Arc::clone(&topic), partition }, from)
        })
        .collect();
    let mut reader = Reader::start(&settings.kafka, "tail", positions)?;
    let mut left = tail.max.unwrap_or(u64::MAX);
    loop {
        let batch = tokio::select! {
            batch = reader.next() => batch?,
            () = shutdown.requested() => return Ok(()),
        };
        let mut stdout = std::io::stdout().lock();
        for record in batch.iter().filter(|record| is_wanted(record, tail.key.as_deref())) {
            let mut line = serde_json::to_vec(&shown(record))?;
            line.push(b'\n');
            stdout.write_all(&line)?;
            left -= 1;
            if left == 0 {
                return Ok(stdout.flush()?);
            }
        }
        stdout.flush()?;
    }
}

/// The full name of the topic that was named with or without the prefix.
fn topic_of(name: &str, prefix: &str) -> anyhow::Result<Arc<str>> {
    let topics = Topics::new(prefix);
    let known = Topic::ALL.into_iter().find(|topic| topic.base_name() == name || **topics.name(*topic) == *name);
    let Some(topic) = known else {
        let names: Vec<&str> = Topic::ALL.iter().map(|topic| topic.base_name()).collect();
        return Err(WrongUse(format!("there is no topic {name}; there are {}", names.join(", "))).into());
    };
    Ok(Arc::clone(topics.name(topic)))
}

fn is_wanted(record: &OwnedRecord, key: Option<&str>) -> bool {
    key.is_none_or(|key| record.key.as_deref() == Some(key.as_bytes()))
}

/// The record as JSON. What is no text, or does not decode, is shown in hex.
fn shown(record: &OwnedRecord) -> Value {
    let mut shown = json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp.map(|at| rfc3339(Timestamp::from_millis(at))),
        "key": record.key.as_ref().map(text),
        "headers": headers(&record.headers),
        "value": null,
    });
    // Dead letters of places and the operator's journal are JSON, and say so.
    let is_json = record.headers.get(CONTENT_TYPE).is_some_and(|kind| *kind == "application/json");
    let json = |value: &Bytes| serde_json::from_slice(value).ok().filter(|_| is_json);
    match record.value.as_ref().map(|value| (json(value).map_or_else(|| events::to_json(value), Ok), value)) {
        Some((Ok(decoded), _)) => shown["value"] = decoded,
        Some((Err(error), value)) => {
            shown["undecoded"] = json!({"reason": error.to_string(), "hex": hex(value)});
        }
        // A tombstone.
        None => {}
    }
    shown
}

/// Headers as JSON; one that is there more than once is a list.
pub(crate) fn headers(headers: &Headers) -> Value {
    let mut shown = serde_json::Map::new();
    for (name, value) in headers.iter() {
        let value = value.map_or(Value::Null, text);
        match shown.get_mut(name) {
            None => drop(shown.insert(name.to_owned(), value)),
            Some(Value::Array(all)) => all.push(value),
            Some(one) => *one = json!([one.take(), value]),
        }
    }
    Value::Object(shown)
}

fn text(bytes: &Bytes) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"hex": hex(bytes)}),
    }
}

/// Bytes as lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &'static [u8], value: Option<&'static [u8]>) -> OwnedRecord {
        OwnedRecord {
            topic: "gmail.message.discovered".into(),
            partition: 3,
            offset: 7,
            timestamp: Some(0),
            key: Some(Bytes::from_static(key)),
            value: value.map(Bytes::from_static),
            headers: Headers::from(vec![("traceparent", Bytes::from_static(b"\xff"))]),
        }
    }

    #[test]
    fn a_topic_is_known_with_and_without_the_prefix() {
        for name in ["gmail.job.status", "x.gmail.job.status"] {
            assert_eq!(&*topic_of(name, "x.").unwrap(), "x.gmail.job.status");
        }
        assert!(topic_of("gmail.job", "x.").unwrap_err().to_string().contains("gmail.job.status"));
    }

    #[test]
    fn what_does_not_decode_is_shown_nevertheless() {
        let shown = shown(&record(b"k", Some(b"\x01\x02")));
        assert_eq!(shown["undecoded"]["hex"], "0102");
        assert_eq!(shown["value"], Value::Null);
        assert_eq!(shown["headers"]["traceparent"]["hex"], "ff");
        assert_eq!((&shown["partition"], &shown["offset"]), (&json!(3), &json!(7)));
        assert_eq!(shown["timestamp"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_tombstone_is_null() {
        let shown = shown(&record(b"k", None));
        assert_eq!((&shown["value"], shown.get("undecoded")), (&Value::Null, None));
    }

    #[test]
    fn a_header_that_repeats_is_a_list() {
        let shown = headers(&Headers::from(["1", "2", "3"].map(|it| ("a", Bytes::from(it))).to_vec()));
        assert_eq!(shown, json!({"a": ["1", "2", "3"]}));
    }

    #[test]
    fn keys_select() {
        assert!(is_wanted(&record(b"k", None), None));
        assert!(is_wanted(&record(b"k", None), Some("k")));
        assert!(!is_wanted(&record(b"k", None), Some("l")));
    }
}
