//! The schemas as a contract: what is published stays, what follows is compatible, the types fit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod codec;
mod compatible;
mod document;
mod frozen;

use std::path::{Path, PathBuf};

/// The folder `schemas/`.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

/// A file in it.
fn read(path: impl AsRef<Path>) -> String {
    let path = folder().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// The manifest.
fn manifest() -> events::registry::Manifest {
    serde_json::from_str(&read("manifest.json")).unwrap()
}
