//! `docs/events.md` says of each event what its schema says: the fields one by one, and an example.

use std::fmt::Write as _;

use events::registry::Published;
use events::{Record, Registry, examples, to_json};
use serde_json::Value;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");

/// What others read, in the order of the document.
const EVENTS: [Record; 4] = [
    Record::GmailMessageDiscovered,
    Record::GmailMessageFetched,
    Record::GmailJobStatusChanged,
    Record::GmailConnectionStatusChanged,
];

/// The part of the document that is written here: between two marks.
fn marks(record: Record) -> (String, String) {
    (format!("<!-- {}: written by a test -->\n", record.name()), format!("<!-- end of {} -->", record.name()))
}

fn part(record: Record) -> String {
    let published = Registry::built_in().written(record);
    let schema: Value = serde_json::from_str(&published.text).unwrap();
    let Published { topic, subject, version, id, .. } = published;
    let mut part = format!(
        "{}\n\nTopic `{topic}`, subject `{subject}`, version {version} (id {id} in the manifest).\n\n\
         | field | type | meaning |\n|---|---|---|\n",
        text(&schema, "doc")
    );
    fields(&schema, "", &mut part);
    let (_, frame) = &examples::frames(record)[0];
    let example = serde_json::to_string_pretty(&to_json(frame).unwrap()).unwrap();
    write!(part, "\nAn example, as `mailtide tail` prints its value:\n\n```json\n{example}\n```\n").unwrap();
    part
}

/// A line for each field, and after it those of the record that it holds.
fn fields(record: &Value, before: &str, table: &mut String) {
    for field in record["fields"].as_array().unwrap() {
        let path = format!("{before}{}", text(field, "name"));
        let (kind, inner) = kind(&field["type"]);
        writeln!(table, "| `{path}` | {kind} | {} |", text(field, "doc").replace('|', "\\|")).unwrap();
        if let Some((inner, step)) = inner {
            fields(inner, &format!("{path}{step}."), table);
        }
    }
}

/// A type in words; and the record within it, with what stands between the names of its fields and this one's.
fn kind(schema: &Value) -> (String, Option<(&Value, &'static str)>) {
    match schema {
        Value::String(name) => (name.clone(), None),
        Value::Array(branches) => {
            assert!(branches.len() == 2 && branches[0] == "null", "{schema}");
            let (kind, inner) = kind(&branches[1]);
            (format!("{kind} or null"), inner)
        }
        _ => match (schema["logicalType"].as_str(), text(schema, "type")) {
            (Some("uuid"), _) => ("UUID as text".to_owned(), None),
            (Some("timestamp-millis"), _) => ("instant (ms since 1970)".to_owned(), None),
            (Some(other), _) => panic!("{other} has no words yet"),
            (None, "array") => match kind(&schema["items"]) {
                (kind, Some((record, _))) => (format!("list of {kind}"), Some((record, "[]"))),
                (kind, None) => (format!("list of {kind}"), None),
            },
            (None, "enum") => {
                let symbols = schema["symbols"].as_array().unwrap().iter().filter(|symbol| **symbol != "unknown");
                let symbols: Vec<String> = symbols.map(|symbol| format!("`{}`", symbol.as_str().unwrap())).collect();
                (format!("one of {}", symbols.join(", ")), None)
            }
            (None, "record") => (text(schema, "name").to_owned(), Some((schema, ""))),
            (None, other) => (other.to_owned(), None),
        },
    }
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema[name].as_str().unwrap_or_else(|| panic!("{name} is missing in {schema}"))
}

/// `UPDATE_GOLDEN=1 cargo test -p events` writes it anew.
#[test]
fn the_document_says_of_each_event_what_its_schema_says() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let mut ours = document.clone();
    for record in EVENTS {
        let (begin, end) = marks(record);
        let (before, rest) = ours.split_once(&begin).unwrap_or_else(|| panic!("{begin} is not in the document"));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{end} is not in the document"));
        ours = format!("{before}{begin}{}{end}{after}", part(record));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(DOCUMENT, &ours).unwrap();
    } else {
        assert!(document == ours, "docs/events.md is not what the schemas say; write it anew with UPDATE_GOLDEN=1");
    }
}

/// Nothing that others read is left out, and nothing private is in.
#[test]
fn the_document_has_every_event() {
    let public = Record::ALL.into_iter().filter(|record| {
        let is_command = Registry::built_in().written(*record).topic == "gmail.connection.poll";
        !record.is_private() && !is_command
    });
    assert_eq!(public.collect::<std::collections::BTreeSet<_>>(), EVENTS.into());
}
