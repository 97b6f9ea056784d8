//! A real schema registry: Apicurio Registry, in memory, one for the whole process.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use devstack::leash::{Leash, Process};
use tokio::sync::OnceCell;

use super::clients::{installed, run, sources};
use super::wait_for;

/// From start to serving: 8 s on a quiet machine.
const UP: Duration = Duration::from_secs(180);

/// The registry, running.
pub(crate) struct Apicurio {
    /// Its address, `host:port`.
    pub(crate) address: String,
    /// Ends it with this process.
    _process: Process,
}

impl Apicurio {
    /// The base URL of Confluent's interface.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.address, Self::PATH)
    }

    /// Where Confluent's interface begins.
    pub(crate) const PATH: &str = "/apis/ccompat/v7";
}

/// The registry, started by whoever asks first; the others wait.
pub(crate) async fn apicurio() -> &'static Apicurio {
    static APICURIO: OnceCell<Apicurio> = OnceCell::const_new();
    APICURIO.get_or_init(start).await
}

async fn start() -> Apicurio {
    let pom = sources("registry").join("pom.xml");
    let home = installed("registry", &std::fs::read_to_string(&pom).unwrap(), async |folder| {
        // A copy, because Maven leaves marks of what it has done beside the file.
        std::fs::copy(&pom, folder.join("pom.xml")).unwrap();
        let target = OsString::from(format!("-Dhome={}", folder.display()));
        let arguments = ["--batch-mode", "--quiet", "package"].map(OsStr::new);
        let arguments: Vec<&OsStr> = arguments.into_iter().chain([target.as_os_str()]).collect();
        let needs = "the test needs Maven (Debian: apt-get install maven) and a Maven repository";
        run(Path::new("mvn"), &arguments, folder, b"", needs).await;
    })
    .await;
    let folder = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
    let runner = folder.into_iter().find(|path| path.to_string_lossy().ends_with("-runner.jar"));
    let runner = runner.expect("the archive holds a runner");
    // Its log stays where the next run finds and replaces it.
    let log = home.join("registry.log");
    let _ = std::fs::remove_file(&log);
    let java =
        std::env::var_os("JAVA_HOME").map_or_else(|| PathBuf::from("java"), |it| Path::new(&it).join("bin/java"));
    let mut command = Command::new(java);
    command.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
    command.args(["-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port=0", "-jar"]).arg(&runner).current_dir(&home);
    let mut process = Leash::new(command, log.clone()).start().unwrap();
    let address = wait_for(UP, "Apicurio Registry says where it listens", || {
        assert!(process.ended().unwrap().is_none(), "Apicurio Registry ended: {}", process.log_tail());
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let address =
            said.split_once("Listening on: http://").map(|(_, after)| after.lines().next().unwrap().to_owned());
        std::future::ready(address)
    })
    .await;
    Apicurio { address, _process: process }
}
