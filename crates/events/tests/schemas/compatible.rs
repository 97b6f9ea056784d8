//! `FULL_TRANSITIVE`: the check lets good edits pass and stops bad ones.

use std::collections::BTreeMap;

use apache_avro::Schema;
use events::compatibility::{Breach, check};
use serde_json::{Value as Json, json};

use crate::{manifest, read};

fn parse(json: &Json) -> Schema {
    Schema::parse(json).unwrap()
}

fn breaches(old: &Json, new: &Json) -> Vec<Breach> {
    check(&parse(old), &parse(new)).err().unwrap_or_default()
}

#[test]
fn every_version_reads_every_other_and_the_current_schema_too() {
    for record in manifest().records {
        let mut schemas: Vec<(String, Schema)> = record
            .versions
            .iter()
            .map(|it| format!("published/{}.v{}.avsc", record.name, it.version))
            .chain([format!("{}.avsc", record.name)])
            .map(|path| (path.clone(), Schema::parse_str(&read(&path)).unwrap()))
            .collect();
        while let Some((new_path, new)) = schemas.pop() {
            for (old_path, old) in &schemas {
                let breaches = check(old, &new).err().unwrap_or_default();
                let breaches: Vec<String> = breaches.iter().map(ToString::to_string).collect();
                assert!(breaches.is_empty(), "{new_path} may not follow {old_path}:\n{}", breaches.join("\n"));
            }
        }
    }
}

/// `schemas/GmailJobStatusChanged.avsc`, with its field `name` edited; none: taken out.
fn edited(name: &str, edit: impl Fn(&mut Json) -> bool) -> (Json, Json) {
    let old: Json = serde_json::from_str(&read("GmailJobStatusChanged.avsc")).unwrap();
    let mut new = old.clone();
    let fields = new["fields"].as_array_mut().unwrap();
    let at = fields.iter().position(|field| field["name"] == name).unwrap();
    if !edit(&mut fields[at]) {
        fields.remove(at);
    }
    (old, new)
}

#[track_caller]
fn refused(what: &str, (old, new): (Json, Json)) {
    let found: Vec<String> = breaches(&old, &new).iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|it| it.contains(what)), "expected `{what}`, found {found:?}");
}

#[test]
fn bad_edits_are_refused() {
    refused("went away", edited("requestedAt", |_| false));
    refused(
        "became",
        edited("at", |field| {
            // The library calls this compatible, and then fails to read.
            field["type"]["logicalType"] = json!("timestamp-micros");
            true
        }),
    );
    refused(
        "became",
        edited("at", |field| {
            field["type"] = json!("long");
            true
        }),
    );
    refused(
        "became",
        edited("step", |field| {
            field["type"] = json!("int");
            true
        }),
    );
    refused(
        "became",
        edited("step", |field| {
            field["type"] = json!("double");
            true
        }),
    );
    refused(
        "became",
        edited("jobId", |field| {
            field["type"] = json!("string");
            true
        }),
    );
    refused(
        "became",
        edited("code", |field| {
            // The library takes bytes and strings for the same.
            field["type"] = json!(["null", "bytes"]);
            true
        }),
    );
    refused(
        "lost or gained",
        edited("code", |field| {
            field["type"] = json!(["null", "string", "long"]);
            true
        }),
    );
    refused(
        "became",
        edited("code", |field| {
            field["type"] = json!("string");
            field["default"] = json!("");
            true
        }),
    );
    refused(
        "symbols went away",
        edited("state", |field| {
            // The library sees the default and is content; a finished job would read as unknown.
            field["type"]["symbols"] = json!(["unknown", "queued", "running", "succeeded", "failed"]);
            true
        }),
    );
    refused(
        "symbols went away or changed places",
        edited("state", |field| {
            field["type"]["symbols"] = json!(["unknown", "queued", "running", "failed", "succeeded", "cancelled"]);
            true
        }),
    );
    refused(
        "needs a default",
        edited("state", |field| {
            field["type"].as_object_mut().unwrap().remove("default");
            true
        }),
    );
    refused(
        "needs a default",
        edited("state", |field| {
            field["type"]["default"] = json!("queued");
            true
        }),
    );
    refused(
        "JobState became",
        edited("state", |field| {
            field["type"]["name"] = json!("State");
            true
        }),
    );
    refused(
        "default changed",
        edited("code", |field| {
            field.as_object_mut().unwrap().remove("default");
            true
        }),
    );
    refused(
        "progress.pages: the field went away",
        edited("progress", |field| {
            field["type"]["fields"].as_array_mut().unwrap().remove(0);
            true
        }),
    );
    refused(
        "since",
        edited("progress", |field| {
            field["type"]["fields"][7]["type"][1]["fields"][0]["type"] = json!("long");
            true
        }),
    );
}

#[test]
fn a_field_without_a_default_cannot_be_added_and_a_record_cannot_be_renamed() {
    let old: Json = serde_json::from_str(&read("CancelJob.avsc")).unwrap();
    let mut new = old.clone();
    new["fields"].as_array_mut().unwrap().push(json!({"name": "reason", "type": "string"}));
    refused("a new field needs a default", (old.clone(), new));
    let mut new = old.clone();
    new["name"] = json!("CancelTheJob");
    refused("became mailtide.gmail.CancelTheJob", (old.clone(), new));
    let mut new = old.clone();
    new["namespace"] = json!("elsewhere");
    refused("became elsewhere.CancelJob", (old, new));
}

#[test]
fn good_edits_pass() {
    let (old, new) = edited("code", |field| {
        field["doc"] = json!("Said better");
        true
    });
    assert_eq!(breaches(&old, &new), []);

    let (old, new) = edited("state", |field| {
        field["type"]["symbols"].as_array_mut().unwrap().push(json!("paused"));
        true
    });
    assert_eq!(breaches(&old, &new), []);

    let (old, new) = edited("detail", |_| false);
    assert_eq!(breaches(&old, &new), [], "what has a default may go");

    let mut new = old.clone();
    let added = json!({"name": "attempt", "type": ["null", "long"], "default": null});
    new["fields"].as_array_mut().unwrap().insert(0, added);
    assert_eq!(breaches(&old, &new), []);
}

/// Every node of every current schema.
fn walk(path: String, node: &Json, visit: &mut impl FnMut(&str, &Json)) {
    visit(&path, node);
    match node {
        Json::Object(members) => {
            for (key, child) in members {
                walk(format!("{path}/{key}"), child, visit);
            }
        }
        Json::Array(items) => {
            for (at, child) in items.iter().enumerate() {
                walk(format!("{path}/{at}"), child, visit);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[test]
fn schemas_keep_the_house_rules() {
    let mut named: BTreeMap<String, Json> = BTreeMap::new();
    for record in manifest().records {
        let schema: Json = serde_json::from_str(&read(format!("{}.avsc", record.name))).unwrap();
        assert_eq!(record.subject, format!("{}.{}", schema["namespace"].as_str().unwrap(), record.name));
        walk(record.name.clone(), &schema, &mut |path, node| {
            let documented = node["fields"].is_array() || node["symbols"].is_array();
            let field = node.get("name").is_some() && node.get("type").is_some();
            if documented || field {
                assert!(node["doc"].as_str().is_some_and(|doc| doc.len() >= 8), "{path} has no doc");
            }
            if node["type"] == "enum" {
                // Without a default no symbol could ever be added.
                assert_eq!(node["symbols"][0], "unknown", "{path}");
                assert_eq!(node["default"], "unknown", "{path}");
            }
            if let (Some(name), true) = (node["name"].as_str(), documented)
                && path != record.name
            {
                let first = named.entry(name.to_owned()).or_insert_with(|| node.clone());
                assert_eq!(first, node, "{path}: one name, two types");
            }
            if let Some(name) = node["name"].as_str().filter(|_| field && !documented) {
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{path}: {name} is not camelCase");
                let uuid = matches!(name, "jobId" | "connectionId" | "organisationId" | "eventId");
                if uuid {
                    assert!(node["type"].to_string().contains(r#""logicalType":"uuid""#), "{path}: {name}");
                }
                if node["type"].as_array().is_some_and(|branches| branches[0] == "null") {
                    assert_eq!(node.get("default"), Some(&Json::Null), "{path}: {name}");
                }
            }
        });
    }
}

#[test]
fn the_event_id_is_the_first_field_of_every_version() {
    // `discovered::event_id` cuts it out of the frame.
    for record in manifest().records.iter().filter(|it| it.name == "GmailMessageDiscovered") {
        for version in &record.versions {
            let schema: Json =
                serde_json::from_str(&read(format!("published/{}.v{}.avsc", record.name, version.version))).unwrap();
            assert_eq!(schema["fields"][0]["name"], "eventId");
        }
    }
}
