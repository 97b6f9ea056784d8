//! The simulator is held to Google's own clients: they must not be able to tell it from Gmail, and every body must be
//! as the discovery document has it that Google ships.

use std::ffi::OsStr;
use std::path::Path;

use simulator::Settings;

use crate::support::clients::{installed, python, run, sources};

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
    let wanted = std::fs::read_to_string(sources("node").join("package.json")).unwrap();
    let needs = "the test needs Node.js 18 or later with npm (Debian: apt-get install nodejs npm) and a package index";
    let folder = installed("node", &wanted, async |folder| {
        std::fs::copy(sources("node").join("package.json"), folder.join("package.json")).unwrap();
        let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"].map(OsStr::new);
        run(Path::new("npm"), &install, folder, b"", needs).await;
    })
    .await;
    let simulator = simulator::start(Settings::default()).await.unwrap();
    let script = sources("node").join("conformance.mjs");
    let arguments = [script.as_os_str(), OsStr::new(&simulator.base_url)];
    let bodies = run(Path::new("node"), &arguments, &folder, b"", needs).await;
    let check = sources("python").join("check.py");
    let arguments = [check.as_os_str()];
    let python = python("python").await.join("python");
    let said = run(&python, &arguments, &sources("python"), &bodies, "a body does not fit the document").await;
    assert!(said.ends_with(b"errors are as the discovery document has them\n"), "{}", String::from_utf8_lossy(&said));
    simulator.shutdown().await;
}
