//! The operator's journal: what was done by hand, in the same transactions as what it did.
//!
//! A compacted topic of its own, one record for each thing, the latest counts. Its values are JSON, for people and their
//! tools: no service reads it, and what is in it is told by the commands that wrote it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use kafka::topics::{self, Topic, Topics};
use kafka::{Headers, OutRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The journal as it stands.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: BTreeMap<String, Value>,
}

impl Journal {
    /// Reads it, once every transaction that is open on it is decided. To be called after taking over from whoever may
    /// write of the same thing.
    pub(crate) async fn read(settings: &kafka::Settings, names: &Topics) -> anyhow::Result<Self> {
        topics::create(settings, names, &[Topic::Journal]).await?;
        let entries: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let found = Arc::clone(&entries);
        kafka::snapshot::read_decided(settings, "journal", names.name(Topic::Journal), move |record| {
            let Some(key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else { return };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match record.value.as_deref().map(serde_json::from_slice) {
                Some(Ok(value)) => drop(found.insert(key.to_owned(), value)),
                // A tombstone, or what none of our commands wrote.
                None | Some(Err(_)) => drop(found.remove(key)),
            }
        })
        .await?;
        let entries = std::mem::take(&mut *entries.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Self { entries })
    }

    /// What is written under this key, if it is a `T`.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        self.entries.get(key).and_then(|value| T::deserialize(value).ok())
    }

    /// What is written under keys that begin so, with the rest of each.
    pub(crate) fn under<'a, T: DeserializeOwned>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, T)> {
        let from = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let under = from.map_while(move |(key, value)| Some((key.strip_prefix(prefix)?, T::deserialize(value).ok())));
        under.filter_map(|(rest, value)| Some((rest, value?)))
    }
}

/// The record that writes `value` under `key`.
pub(crate) fn entry<T: Serialize>(names: &Topics, key: String, value: &T) -> OutRecord {
    let value = serde_json::to_vec(value).expect("what is journalled has text for keys and no number that JSON lacks");
    let headers = [("content-type", bytes::Bytes::from_static(b"application/json"))];
    OutRecord::new(names.name(Topic::Journal), key, value, Headers::from_iter(headers))
}

/// The record that removes what is under `key`.
pub(crate) fn removal(names: &Topics, key: String) -> OutRecord {
    OutRecord { value: None, ..OutRecord::new(names.name(Topic::Journal), key, Vec::new(), Headers::new()) }
}
