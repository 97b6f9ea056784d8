//! Programs that others wrote, to try ours with: installed by their ordinary package managers beside the build's output,
//! once for each version of what is wanted.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Mutex;

/// One installs at a time; whoever needs the same finds it done.
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// What is kept of a client among the tests' sources.
pub(crate) fn sources(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(client)
}

/// Runs a program to its end, with `input`, and returns what it wrote; panics with its errors if it failed.
pub(crate) async fn run(program: &Path, arguments: &[&OsStr], folder: &Path, input: &[u8], needs: &str) -> Vec<u8> {
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

/// Installs into a folder of the client's, unless it was done before for the same `wanted`.
pub(crate) async fn installed(client: &str, wanted: &str, install: impl AsyncFnOnce(&Path)) -> PathBuf {
    let _alone = INSTALLING.lock().await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(client);
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

/// The programs of a Python environment that has what the client's `requirements.txt` names.
pub(crate) async fn python(client: &str) -> PathBuf {
    python_with(client, &sources(client).join("requirements.txt")).await
}

/// The same with what the consumer in `examples/` needs: Confluent's client, and one for Postgres.
pub(crate) async fn consumers_python() -> PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/accounts-payable");
    python_with("consumers/python", &example.join("requirements.txt")).await.join("python")
}

async fn python_with(client: &str, requirements: &Path) -> PathBuf {
    let wanted = std::fs::read_to_string(requirements).unwrap();
    let folder = installed(client, &wanted, async |folder| {
        let needs = "the test needs python3 with venv (Debian: apt-get install python3-venv) and a package index";
        run(Path::new("python3"), &["-m", "venv", "venv"].map(OsStr::new), folder, b"", needs).await;
        let install = ["install", "--quiet", "--requirement"].map(OsStr::new);
        let arguments: Vec<&OsStr> = install.into_iter().chain([requirements.as_os_str()]).collect();
        run(&folder.join("venv/bin/pip"), &arguments, folder, b"", needs).await;
    })
    .await;
    folder.join("venv/bin")
}

/// What a test needs that runs a program of Node's.
pub(crate) const NODE: &str =
    "the test needs Node.js 18 or later with npm (Debian: apt-get install nodejs npm) and a package index";

/// The folder with the packages that the client's `package.json` names: where its programs have to run.
pub(crate) async fn node(client: &str) -> PathBuf {
    let package = sources(client).join("package.json");
    let wanted = std::fs::read_to_string(&package).unwrap();
    installed(client, &wanted, async |folder| {
        std::fs::copy(&package, folder.join("package.json")).unwrap();
        let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"].map(OsStr::new);
        run(Path::new("npm"), &install, folder, b"", NODE).await;
    })
    .await
}

/// The client that is a Go program, built.
pub(crate) async fn go(client: &str) -> PathBuf {
    let needs = "the test needs Go 1.21 or later (https://go.dev/dl) and a module proxy";
    let files = ["go.mod", "go.sum", "main.go"];
    let wanted = files.map(|file| std::fs::read_to_string(sources(client).join(file)).unwrap()).concat();
    let folder = installed(client, &wanted, async |folder| {
        let program = folder.join("program");
        let arguments = [OsStr::new("build"), OsStr::new("-o"), program.as_os_str(), OsStr::new(".")];
        run(&go_tool(), &arguments, &sources(client), b"", needs).await;
    })
    .await;
    folder.join("program")
}

/// Go's own installer does not touch `PATH`.
fn go_tool() -> PathBuf {
    let installed = PathBuf::from("/usr/local/go/bin/go");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_on_path = std::env::split_paths(&path).any(|folder| folder.join("go").is_file());
    if !is_on_path && installed.is_file() { installed } else { PathBuf::from("go") }
}
