//! The published schemas as data: which id is which version of which record.
//!
//! Built from `schemas/manifest.json` and the files that it names, all of them compiled in. It answers what the read
//! calls of a schema registry ask (`/schemas/ids/{id}`, `/subjects`, `/subjects/{subject}/versions/{version}`).
//! Subjects are named after the record (`RecordNameStrategy`), because one topic carries several records and the
//! topics' prefix is a setting.
//!
//! Ids start at 1,000,001, far above where a registry begins to count, so that an id of ours found in a topic is not
//! mistaken for one of a registry that was put in place later.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::Record;

/// `schemas/manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// One entry for each record.
    pub records: Vec<ManifestRecord>,
}

/// One record in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestRecord {
    /// The record's name, without its namespace.
    pub name: String,
    /// The subject under which a registry knows it: its full name.
    pub subject: String,
    /// The topic that carries it, without prefix.
    pub topic: String,
    /// The version that is written. It may stay behind the newest one for a release, so that during a rolling upgrade
    /// the processes of the old release read what the new ones write.
    pub writes: u32,
    /// Every version ever published, oldest first.
    pub versions: Vec<ManifestVersion>,
}

/// One published version in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestVersion {
    /// Counts from 1 within the subject.
    pub version: u32,
    /// The id in the frames. Never used for anything else.
    pub id: u32,
    /// SHA-256 of `published/<name>.v<version>.avsc`, in hex.
    pub schema: String,
    /// SHA-256 of `golden/<name>.v<version>.json`, in hex.
    pub golden: String,
}

/// One published version of one record's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The id in the frames.
    pub id: u32,
    /// The record.
    pub record: Record,
    /// The subject under which a registry knows it.
    pub subject: String,
    /// Counts from 1 within the subject.
    pub version: u32,
    /// The topic that carries it, without prefix.
    pub topic: String,
    /// The schema as it was published, to the byte.
    pub text: String,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what it should look like.
    #[error("the manifest does not parse: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It names a record that this build does not have.
    #[error("the manifest names {0}, which is no record of this build")]
    UnknownRecord(String),
    /// It says nothing of a record that this build has.
    #[error("the manifest has no version of {0}")]
    MissingRecord(&'static str),
    /// Versions are missing, or `writes` names one that is not there.
    #[error("the manifest's versions of {0} do not count up from 1, or `writes` is none of them")]
    BadVersions(String),
    /// An id is used twice.
    #[error("the manifest gives id {0} twice")]
    DuplicateId(u32),
    /// A schema's file is not there.
    #[error("the manifest names {name} version {version}, but published/{name}.v{version}.avsc is not compiled in")]
    MissingFile {
        /// The record.
        name: String,
        /// The version.
        version: u32,
    },
}

/// All published schemas.
#[derive(Debug)]
pub struct Registry {
    by_id: BTreeMap<u32, Published>,
    /// Ids by subject, in the order of versions.
    subjects: BTreeMap<String, Vec<u32>>,
    /// By record: ids in the order of versions, and the position of the one that is written.
    records: BTreeMap<Record, (Vec<u32>, usize)>,
}

macro_rules! published {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../schemas/published/", $name, ".avsc")))),*]
    };
}

/// Every published schema, by `<name>.v<version>`. A test holds this list to the folder.
pub(crate) const FILES: &[(&str, &str)] = published![
    "PollGmailConnection.v1",
    "CancelJob.v1",
    "ForgetConnection.v1",
    "GmailMessageDiscovered.v1",
    "GmailJobStatusChanged.v1",
    "GmailConnectionStatusChanged.v1",
    "MailboxState.v1",
    "MailboxChunk.v1",
    "GmailJobStatusChanged.v2",
    "GmailConnectionStatusChanged.v2",
    "MailboxState.v2",
    "GmailMessageFetched.v1",
    "FetchState.v1",
    "FetchPosition.v1",
    "MailboxState.v3",
];

/// `schemas/manifest.json`.
const MANIFEST: &str = include_str!("../../../schemas/manifest.json");

static BUILT_IN: LazyLock<Registry> = LazyLock::new(|| {
    let file = |name: &str| FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned());
    Registry::new(MANIFEST, file).expect("the manifest that is compiled in is whole; a test checks it")
});

impl Registry {
    /// The schemas that are compiled in.
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// The registry that a manifest describes; `file` gives the text of `published/<name>.avsc` by `<name>`.
    ///
    /// # Errors
    /// When the manifest is malformed, contradicts itself, or names what is not there.
    pub fn new(manifest: &str, file: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let manifest: Manifest = serde_json::from_str(manifest)?;
        let mut registry = Self { by_id: BTreeMap::new(), subjects: BTreeMap::new(), records: BTreeMap::new() };
        for ManifestRecord { name, subject, topic, writes, versions } in manifest.records {
            let record = Record::from_name(&name).ok_or_else(|| Error::UnknownRecord(name.clone()))?;
            let counts_up = versions.iter().map(|entry| entry.version).eq(1..=versions.len() as u32);
            let written = versions.iter().position(|entry| entry.version == writes);
            let (true, Some(written)) = (counts_up, written) else { return Err(Error::BadVersions(name)) };
            let ids: Vec<u32> = versions.iter().map(|entry| entry.id).collect();
            for ManifestVersion { version, id, .. } in versions {
                let text = file(&format!("{name}.v{version}"))
                    .ok_or_else(|| Error::MissingFile { name: name.clone(), version })?;
                let published = Published { id, record, subject: subject.clone(), version, topic: topic.clone(), text };
                if registry.by_id.insert(id, published).is_some() {
                    return Err(Error::DuplicateId(id));
                }
            }
            registry.subjects.insert(subject, ids.clone());
            if registry.records.insert(record, (ids, written)).is_some() {
                return Err(Error::BadVersions(name));
            }
        }
        match Record::ALL.into_iter().find(|record| !registry.records.contains_key(record)) {
            Some(missing) => Err(Error::MissingRecord(missing.name())),
            None => Ok(registry),
        }
    }

    /// The schema with this id.
    pub fn by_id(&self, id: u32) -> Option<&Published> {
        self.by_id.get(&id)
    }

    /// All schemas, by rising id.
    pub fn all(&self) -> impl Iterator<Item = &Published> {
        self.by_id.values()
    }

    /// All subjects, in order.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.keys().map(String::as_str)
    }

    /// The versions of a subject, oldest first; none when there is no such subject.
    pub fn versions(&self, subject: &str) -> Option<impl DoubleEndedIterator<Item = &Published>> {
        let ids = self.subjects.get(subject)?;
        Some(ids.iter().map(|id| &self.by_id[id]))
    }

    /// One version of a subject.
    pub fn version(&self, subject: &str, version: u32) -> Option<&Published> {
        self.versions(subject)?.find(|published| published.version == version)
    }

    /// The newest version of a subject.
    pub fn latest(&self, subject: &str) -> Option<&Published> {
        self.versions(subject)?.next_back()
    }

    /// The versions of a record, oldest first.
    pub fn versions_of(&self, record: Record) -> impl DoubleEndedIterator<Item = &Published> {
        self.records[&record].0.iter().map(|id| &self.by_id[id])
    }

    /// The version of a record that is written.
    pub fn written(&self, record: Record) -> &Published {
        let (ids, written) = &self.records[&record];
        &self.by_id[&ids[*written]]
    }
}
