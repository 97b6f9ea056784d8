//! Publishes edited schemas: `cargo run -p events --example publish`.
//!
//! For every `schemas/<Name>.avsc` that differs from its newest published version the edit is checked against all
//! published versions, the next version is frozen under `schemas/published/` with the next free id, and the manifest
//! says so. Golden bytes are made for the versions that have none. What is published already is never touched: make
//! the new version known to `registry::FILES`, run this once more for its golden bytes, and set `writes` when the
//! release that reads it is everywhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use apache_avro::Schema;
use events::registry::{Manifest, ManifestVersion};
use events::{Record, compatibility, examples, frame_id, to_json};
use sha2::{Digest, Sha256};

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let path = folder.join("manifest.json");
    let mut manifest: Manifest = serde_json::from_str(&read(&path)?).context("reading schemas/manifest.json")?;
    let mut next_id =
        manifest.records.iter().flat_map(|it| &it.versions).map(|it| it.id).max().unwrap_or(1_000_000) + 1;
    for entry in &mut manifest.records {
        let name = &entry.name;
        let known = entry.versions.len();
        let current = read(&folder.join(format!("{name}.avsc")))?;
        let published = |version: u32| folder.join(format!("published/{name}.v{version}.avsc"));
        let newest = entry.versions.last().map(|it| read(&published(it.version))).transpose()?;
        if newest.as_deref() != Some(current.as_str()) {
            let schema = Schema::parse_str(&current).with_context(|| format!("parsing schemas/{name}.avsc"))?;
            for version in &entry.versions {
                let old = Schema::parse_str(&read(&published(version.version))?)?;
                if let Err(breaches) = compatibility::check(&old, &schema) {
                    let breaches: Vec<String> = breaches.iter().map(ToString::to_string).collect();
                    bail!(
                        "schemas/{name}.avsc does not follow version {}:\n  {}",
                        version.version,
                        breaches.join("\n  ")
                    );
                }
            }
            let version = entry.versions.len() as u32 + 1;
            fs::write(published(version), &current)?;
            entry.versions.push(ManifestVersion {
                version,
                id: next_id,
                schema: sha256(&current),
                golden: String::new(),
            });
            println!("Published {name} version {version} under id {next_id}");
            next_id += 1;
        }
        for version in entry.versions.iter_mut().take(known).filter(|it| it.golden.is_empty()) {
            let record = Record::from_name(name).context("a record in the manifest is unknown to this build")?;
            let frames = examples::frames(record);
            if frames.iter().any(|(_, frame)| frame_id(frame) != Some(version.id)) {
                println!("{name} version {} gets its golden bytes once this build writes it", version.version);
                continue;
            }
            let golden = golden(&frames)?;
            fs::write(folder.join(format!("golden/{name}.v{}.json", version.version)), &golden)?;
            version.golden = sha256(&golden);
        }
    }
    fs::write(&path, serde_json::to_string_pretty(&manifest)? + "\n").context("writing schemas/manifest.json")
}

/// The examples' frames in hex, and what they say.
fn golden(frames: &[(&str, bytes::Bytes)]) -> anyhow::Result<String> {
    let cases = frames
        .iter()
        .map(|(name, frame)| {
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(serde_json::json!({ "case": name, "frame": hex, "json": to_json(frame)? }))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(serde_json::to_string_pretty(&cases)? + "\n")
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
