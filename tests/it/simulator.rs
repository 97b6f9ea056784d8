//! The simulator is held to Google's own clients: they must not be able to tell it from Gmail, and every body must be
//! as the discovery document has it that Google ships.
//!
//! The clients are installed by their ordinary package managers beside the build's output, once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use simulator::Settings;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The Python client with the discovery document; both tests need it, one of them installs it.
static PYTHON: OnceCell<Arc<PathBuf>> = OnceCell::const_new();

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language)
}

/// Runs a program to its end, with `input`, and returns what it wrote; panics with its errors if it failed.
async fn run(program: &Path, arguments: &[&OsStr], folder: &Path, input: &[u8], needs: &str) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true).env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("running {}: {error}; {needs}", program.display()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that ends without reading all closes the pipe; its exit code says what matters.
    let feed = tokio::spawn(async move { drop(stdin.write_all(&input).await) });
    let output = child.wait_with_output().await.unwrap();
    feed.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {}; {needs}\n{errors}", program.display(), output.status);
    output.stdout
}

/// Installs into a folder named after what is wanted, unless it was done before.
async fn installed(language: &str, wanted: &str, install: impl AsyncFnOnce(&Path)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(language);
    let marker = folder.join("installed");
    if std::fs::read_to_string(&marker).is_ok_and(|done| done == wanted) {
        return folder;
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    install(&folder).await;
    std::fs::write(&marker, wanted).unwrap();
    folder
}

/// A Python interpreter that has Google's client.
async fn python() -> Arc<PathBuf> {
    let install = async || {
        let wanted = std::fs::read_to_string(sources("python").join("requirements.txt")).unwrap();
        let folder = installed("python", &wanted, async |folder| {
            let needs = "the test needs python3 with venv (Debian: apt-get install python3-venv) and a package index";
            let venv = ["-m", "venv", "venv"].map(OsStr::new);
            run(Path::new("python3"), &venv, folder, b"", needs).await;
            let requirements = sources("python").join("requirements.txt");
            let install = ["install", "--quiet", "--requirement"].map(OsStr::new);
            let arguments: Vec<&OsStr> = install.into_iter().chain([requirements.as_os_str()]).collect();
            run(&folder.join("venv/bin/pip"), &arguments, folder, b"", needs).await;
        })
        .await;
        Arc::new(folder.join("venv/bin/python"))
    };
    Arc::clone(PYTHON.get_or_init(install).await)
}

#[tokio::test]
async fn googles_python_client_cannot_tell_and_every_body_fits_the_discovery_document() {
    let python = python().await;
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
    let said = run(&python().await, &arguments, &sources("python"), &bodies, "a body does not fit the document").await;
    assert!(said.ends_with(b"errors are as the discovery document has them\n"), "{}", String::from_utf8_lossy(&said));
    simulator.shutdown().await;
}
