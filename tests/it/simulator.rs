//! The simulator is held to Google's own clients: they must not be able to tell it from Gmail, and every body must be
//! as the discovery document has it that Google ships.

use std::ffi::OsStr;
use std::path::Path;

use simulator::Settings;

use crate::support::clients::{NODE, node, python, run, sources};

#[tokio::test]
async fn googles_python_client_cannot_tell_and_every_body_fits_the_discovery_document() {
    let python = python("python").await.join("python");
    let simulator = simulator::start(Settings::default()).await.unwrap();
    let script = sources("python").join("conformance.py");
    let arguments = [script.as_os_str(), OsStr::new(&simulator.base_url)];
    let said = run(&python, &arguments, &sources("python"), b"", "the conformance test failed").await;
    assert!(said.ends_with(b"bodies are as the discovery document has them\n"), "{}", String::from_utf8_lossy(&said));
    simulator.shutdown().await;
}

#[tokio::test]
async fn googles_node_client_cannot_tell_and_every_body_fits_the_discovery_document() {
    let folder = node("node").await;
    let simulator = simulator::start(Settings::default()).await.unwrap();
    let script = sources("node").join("conformance.mjs");
    let arguments = [script.as_os_str(), OsStr::new(&simulator.base_url)];
    let bodies = run(Path::new("node"), &arguments, &folder, b"", NODE).await;
    let check = sources("python").join("check.py");
    let arguments = [check.as_os_str()];
    let python = python("python").await.join("python");
    let said = run(&python, &arguments, &sources("python"), &bodies, "a body does not fit the document").await;
    assert!(said.ends_with(b"errors are as the discovery document has them\n"), "{}", String::from_utf8_lossy(&said));
    simulator.shutdown().await;
}
