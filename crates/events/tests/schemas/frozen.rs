//! What was published stays as it was, to the bit.

use std::collections::BTreeSet;

use domain::mailbox::record::{MailboxChunk, MailboxState};
use events::{Record, Registry, decode, encode, examples, record_of, to_json};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{folder, manifest, read};

#[derive(Deserialize)]
struct Golden {
    case: String,
    frame: String,
    json: serde_json::Value,
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn published_files_and_golden_bytes_are_what_the_manifest_says() {
    for record in manifest().records {
        for version in record.versions {
            let name = format!("{}.v{}", record.name, version.version);
            let schema = sha256(&read(format!("published/{name}.avsc")));
            assert_eq!(schema, version.schema, "published/{name}.avsc changed: publish a new version instead");
            let golden = sha256(&read(format!("golden/{name}.json")));
            assert_eq!(golden, version.golden, "golden/{name}.json changed: it records what was written, for ever");
        }
    }
}

#[test]
fn every_file_is_in_the_manifest_and_every_entry_has_its_files() {
    let stems = |path: &str, extension: &str| -> BTreeSet<String> {
        std::fs::read_dir(folder().join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|file| file.strip_suffix(extension).map(str::to_owned))
            .collect()
    };
    let records = manifest().records;
    let versions: BTreeSet<String> =
        records.iter().flat_map(|it| it.versions.iter().map(|v| format!("{}.v{}", it.name, v.version))).collect();
    assert_eq!(stems("published", ".avsc"), versions);
    assert_eq!(stems("golden", ".json"), versions);
    assert_eq!(stems(".", ".avsc"), records.iter().map(|it| it.name.clone()).collect());
    assert_eq!(records.len(), Record::ALL.len());
}

#[test]
fn what_is_compiled_in_is_what_lies_in_the_folder() {
    let registry = Registry::built_in();
    for published in registry.all() {
        let file = format!("published/{}.v{}.avsc", published.record.name(), published.version);
        assert_eq!(published.text, read(&file), "{file}");
    }
    assert_eq!(registry.all().count(), manifest().records.iter().map(|it| it.versions.len()).sum::<usize>());
}

#[test]
fn the_current_schema_is_published() {
    for record in manifest().records {
        let newest = record.versions.last().unwrap().version;
        assert_eq!(
            read(format!("{}.avsc", record.name)),
            read(format!("published/{}.v{newest}.avsc", record.name)),
            "schemas/{}.avsc was edited: publish it with `cargo run -p events --example publish`",
            record.name
        );
    }
}

#[test]
fn golden_bytes_still_mean_what_they_meant() {
    for record in manifest().records {
        for version in record.versions {
            let cases: Vec<Golden> =
                serde_json::from_str(&read(format!("golden/{}.v{}.json", record.name, version.version))).unwrap();
            assert!(!cases.is_empty());
            for golden in cases {
                let frame = bytes(&golden.frame);
                let what = format!("{} v{} {}", record.name, version.version, golden.case);
                assert_eq!(record_of(&frame).unwrap().name(), record.name, "{what}");
                assert_eq!(events::frame_id(&frame), Some(version.id), "{what}");
                assert_eq!(to_json(&frame).unwrap(), golden.json, "{what}");
                assert_eq!(rewritten(&frame), written_now(&golden, version.version, record.writes), "{what}");
            }
        }
    }
}

/// The frame that this build writes for what it reads from `frame`.
fn rewritten(frame: &[u8]) -> Vec<u8> {
    match record_of(frame).unwrap() {
        Record::PollGmailConnection | Record::CancelJob | Record::ForgetConnection => {
            events::encode_command(&events::decode_command(frame).unwrap()).into()
        }
        Record::GmailMessageDiscovered => encode(&decode::<domain::GmailMessageDiscovered>(frame).unwrap()).into(),
        Record::GmailJobStatusChanged => encode(&decode::<domain::GmailJobStatusChanged>(frame).unwrap()).into(),
        Record::GmailConnectionStatusChanged => {
            encode(&decode::<domain::GmailConnectionStatusChanged>(frame).unwrap()).into()
        }
        Record::MailboxState => encode(&decode::<MailboxState>(frame).unwrap()).into(),
        Record::MailboxChunk => encode(&decode::<MailboxChunk>(frame).unwrap()).into(),
        Record::GmailMessageFetched => encode(&decode::<domain::GmailMessageFetched>(frame).unwrap()).into(),
        Record::FetchState => encode(&decode::<domain::FetchState>(frame).unwrap()).into(),
        Record::FetchPosition => encode(&decode::<domain::FetchPosition>(frame).unwrap()).into(),
    }
}

/// The golden frame itself when its version is the one that is written. An older one was rewritten into another
/// version, whose bytes have golden bytes of their own; there only the decoding counts.
fn written_now(golden: &Golden, version: u32, writes: u32) -> Vec<u8> {
    if version == writes { bytes(&golden.frame) } else { rewritten(&bytes(&golden.frame)) }
}

#[test]
fn examples_are_written_as_the_golden_bytes_say() {
    for record in manifest().records {
        let cases: Vec<Golden> =
            serde_json::from_str(&read(format!("golden/{}.v{}.json", record.name, record.writes))).unwrap();
        let frames = examples::frames(Record::from_name(&record.name).unwrap());
        assert_eq!(
            frames.iter().map(|(case, frame)| ((*case).to_owned(), frame.to_vec())).collect::<Vec<_>>(),
            cases.iter().map(|golden| (golden.case.clone(), bytes(&golden.frame))).collect::<Vec<_>>(),
        );
    }
}

#[test]
fn ids_are_never_used_twice_and_stay_out_of_a_registrys_way() {
    let mut seen = BTreeSet::new();
    for version in manifest().records.iter().flat_map(|it| &it.versions) {
        assert!(version.id > 1_000_000, "{}", version.id);
        assert!(seen.insert(version.id), "id {} is given twice", version.id);
    }
}
