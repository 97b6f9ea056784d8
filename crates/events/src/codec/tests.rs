//! A second version beside the first: both are read, and the older one can go on being written for a release.

use domain::{ConnectionId, GmailJobStatusChanged, JobId, JobState, OrganisationId, Progress, Timestamp, Trigger};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;
use crate::registry::{FILES, Manifest, ManifestVersion};
use crate::{Record, examples, unframe};

const RECORD: Record = Record::GmailJobStatusChanged;
const NEW_ID: u32 = 2_000_000;

/// The schemas with a second version of the job's status: a new field in front, a new symbol, one field gone.
fn evolved(writes: u32) -> Codecs {
    let mut manifest: Manifest = serde_json::from_str(include_str!("../../../../schemas/manifest.json")).unwrap();
    let entry = manifest.records.iter_mut().find(|it| it.name == RECORD.name()).unwrap();
    entry.writes = writes;
    entry.versions.truncate(1);
    entry.versions.push(ManifestVersion { version: 2, id: NEW_ID, schema: String::new(), golden: String::new() });
    let file = |name: &str| {
        if name == "GmailJobStatusChanged.v2" {
            return Some(second_version().to_string());
        }
        FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
    };
    Codecs::new(&Registry::new(&serde_json::to_string(&manifest).unwrap(), file).unwrap())
}

fn second_version() -> Json {
    let first = FILES.iter().find(|(file, _)| *file == "GmailJobStatusChanged.v1").unwrap().1;
    let mut schema: Json = serde_json::from_str(first).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    let state = fields.iter_mut().find(|field| field["name"] == "state").unwrap();
    state["type"]["symbols"].as_array_mut().unwrap().push(json!("paused"));
    fields.insert(0, json!({"name": "attempt", "type": ["null", "long"], "default": null}));
    schema
}

/// What a build that knows the second version has: all its fields, for the library cannot skip an enum.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename = "GmailJobStatusChanged", rename_all = "camelCase")]
struct Newer {
    attempt: Option<i64>,
    job_id: JobId,
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    trigger: Trigger,
    state: JobState,
    step: i64,
    progress: Progress,
    requested_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    deadline: Timestamp,
    at: Timestamp,
    code: Option<String>,
    detail: Option<String>,
}

fn frame_of(codecs: &Codecs, record: &GmailJobStatusChanged) -> Vec<u8> {
    let mut out = BytesMut::new();
    codecs.of(RECORD).encode(record, &mut out);
    out.to_vec()
}

fn decode<T: DeserializeOwned>(codecs: &Codecs, frame: &[u8]) -> Result<T, Error> {
    let (id, datum) = unframe(frame)?;
    let (codec, version) = codecs.by_id(id)?;
    codec.decode(version, datum)
}

#[test]
fn a_new_build_reads_what_the_old_one_wrote() {
    let codecs = evolved(2);
    let old = frame_of(&evolved(1), &examples::failed());
    let newer: Newer = decode(&codecs, &old).unwrap();
    let GmailJobStatusChanged {
        job_id,
        organisation_id,
        connection_id,
        trigger,
        state,
        step,
        progress,
        requested_at,
        started_at,
        ended_at,
        deadline,
        at,
        code,
        detail,
    } = examples::failed();
    assert_eq!(
        newer,
        Newer {
            attempt: None,
            job_id,
            organisation_id,
            connection_id,
            trigger,
            state,
            step,
            progress,
            requested_at,
            started_at,
            ended_at,
            deadline,
            at,
            code,
            detail,
        }
    );
}

#[test]
fn a_new_build_can_go_on_writing_what_the_old_one_reads() {
    let first = Registry::built_in().versions_of(RECORD).next().unwrap().id;
    assert_eq!(unframe(&frame_of(&evolved(1), &examples::failed())).unwrap().0, first);
    let new = frame_of(&evolved(2), &examples::failed());
    assert_eq!(unframe(&new).unwrap().0, NEW_ID);
    assert_eq!(decode::<Newer>(&evolved(2), &new).unwrap().detail, examples::failed().detail);
    assert!(matches!(crate::decode::<GmailJobStatusChanged>(&new), Err(Error::UnknownSchema { id: NEW_ID })));
}

#[test]
fn bytes_after_an_old_datum_are_found_too() {
    let old = [&frame_of(&evolved(1), &examples::failed()) as &[u8], b"\x07\x07"].concat();
    let error = decode::<Newer>(&evolved(2), &old).unwrap_err();
    assert!(matches!(error, Error::TrailingBytes { extra: 2, .. }), "{error}");
}

#[test]
fn a_symbol_without_a_variant_is_an_error_that_names_it() {
    let frame = frame_of(&evolved(2), &examples::queued());
    // The state's symbol is the first byte that differs between two states.
    let running = GmailJobStatusChanged { state: JobState::Running, ..examples::queued() };
    let other = frame_of(&evolved(2), &running);
    let at = frame.iter().zip(&other).position(|(a, b)| a != b).unwrap();
    let mut paused = frame;
    paused[at] = 6 << 1;
    let error = decode::<GmailJobStatusChanged>(&evolved(2), &paused).unwrap_err().to_string();
    assert!(error.contains("paused"), "{error}");
    // A build that knows only the first version resolves it to the default, and has no variant for that either.
    let error = decode::<GmailJobStatusChanged>(&reads_as_first(), &paused).unwrap_err().to_string();
    assert!(error.contains("unknown"), "{error}");
}

/// The two versions the other way about, as a build sees them whose newest is the first.
fn reads_as_first() -> Codecs {
    let mut codecs = evolved(2);
    let codec = &mut codecs.codecs[RECORD as usize];
    codec.versions.reverse();
    codecs.by_id.insert(NEW_ID, (RECORD, 0));
    codecs
}
