//! One process of Apache Kafka with its folder: formatted once, then started, killed and started again.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::disk::Disk;
use crate::leash::{Leash, Process};
use crate::secure::Users;
use crate::{Error, jars, probe, tool};

const SETTINGS: &str = include_str!("../../../docker/kafka/server.properties");
const LOGGING: &str = include_str!("../../../docker/kafka/log4j2.properties");

/// Any 16 bytes in base64: "mailtidedevstack".
const CLUSTER_ID: &str = "bWFpbHRpZGVkZXZzdGFjaw";

/// From start to serving; 4 s on a quiet machine, minutes on one that does much else.
const UP: Duration = Duration::from_secs(240);

/// From SIGTERM to the end, after which it is killed.
const DOWN: Duration = Duration::from_secs(30);

/// Java's quick compiler only.
const QUICK: &str = "-XX:TieredStopAtLevel=1";

const PAUSE: Duration = Duration::from_millis(20);

/// The programs that a node is made of.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    java: PathBuf,
    libs: PathBuf,
}

impl Origin {
    /// Finds Java, and fetches the jars where they are not there.
    pub(crate) fn find() -> Result<Self, Error> {
        Ok(Self { java: tool::java()?, libs: jars::fetch()? })
    }
}

/// How a node is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// A listener by which it is asked whether it serves.
    pub(crate) address: SocketAddr,
    pub(crate) short_lived: bool,
    /// Java's heap, where it is not the usual one.
    pub(crate) heap_mb: Option<u32>,
    /// Its data is on a disk of its own of this size, where the system lets us make one.
    pub(crate) disk_mb: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Node {
    origin: Origin,
    setup: Setup,
    // Before disk and folder, so that it has ended when they go.
    pub(crate) process: Option<Process>,
    disk: Option<Disk>,
    folder: TempDir,
}

impl Node {
    pub(crate) fn new(origin: &Origin, setup: Setup) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("mailtide-kafka-").tempdir();
        let folder = folder.map_err(Error::io("creating a folder for Kafka's data"))?;
        let data = folder.path().join("data");
        fs::create_dir(&data).map_err(Error::io(format!("creating {}", data.display())))?;
        let disk = setup.disk_mb.and_then(|size| Disk::make(&data, size));
        Ok(Self { origin: origin.clone(), setup, process: None, disk, folder })
    }

    /// Writes the settings, those of every node with `settings` after (and over) them, and formats the data folder.
    /// `standalone`: it is its own quorum of controllers. `users`: who may say who they are, by SCRAM.
    pub(crate) fn format(
        &self,
        settings: &[(String, String)],
        standalone: bool,
        users: Option<&Users>,
    ) -> Result<(), Error> {
        let mut text = format!("{SETTINGS}\nlog.dirs={}\n", self.data().display());
        for (name, value) in settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        for (path, text) in [(self.settings(), text.as_str()), (self.logging(), LOGGING)] {
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        // Only started and ended: nothing beyond the quick compiler pays off.
        let mut format = self.java();
        format.args([QUICK, "kafka.tools.StorageTool", "format"]).args(standalone.then_some("--standalone"));
        format.args(["--cluster-id", CLUSTER_ID]).arg("--config").arg(self.settings());
        for (name, password) in users.into_iter().flat_map(|users| &users.0) {
            format.arg("--add-scram").arg(format!("SCRAM-SHA-512=[name={name},password={password}]"));
        }
        tool::run("formatting Kafka's data folder", &mut format).map(drop)
    }

    /// Starts it and waits until it serves.
    pub(crate) fn up(&mut self) -> Result<(), Error> {
        self.launch()?;
        let until = Instant::now() + UP;
        loop {
            let process = self.process.as_mut().expect("it was launched");
            if let Some(code) = process.ended()? {
                let status = format!("exit code {code}");
                let output = process.log_tail();
                self.process = None;
                return Err(Error::Failed { what: "starting Kafka".to_owned(), status, output });
            }
            // Refused while it starts; that is what is waited out.
            if probe::serves(self.setup.address).unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() >= until {
                let tail = process.log_tail();
                self.process = None;
                return Err(Error::Silent { what: "Kafka", seconds: UP.as_secs(), tail });
            }
            thread::sleep(PAUSE);
        }
    }

    fn launch(&mut self) -> Result<(), Error> {
        let log = self.folder.path().join("kafka.log");
        let mut command = self.java();
        command.args(self.setup.short_lived.then_some(QUICK));
        command.args(self.setup.heap_mb.map(|size| format!("-Xmx{size}m")));
        command.arg(format!("-Dlog4j2.configurationFile={}", self.logging().display()));
        command.arg("kafka.Kafka").arg(self.settings());
        let leash = Leash { remove: Some(self.folder.path().to_owned()), ..Leash::new(command, log) };
        self.process = Some(leash.start()?);
        Ok(())
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.process.take() {
            process.terminate(DOWN)?;
        }
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Whether it answers clients at this moment.
    pub(crate) fn serves(&self) -> bool {
        self.process.is_some() && probe::serves(self.setup.address).unwrap_or(false)
    }

    /// The listener by which it is asked whether it serves.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.setup.address
    }

    /// Where its settings, its log and its data are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its own disk, if it has one.
    pub(crate) const fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// A file among its data, as it can be read from here.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.data().join(name);
        self.disk.as_ref().map_or_else(|| path.clone(), |disk| disk.seen_from_here(&path))
    }

    fn java(&self) -> Command {
        let command = tool::java_with(&self.origin.java, &self.origin.libs);
        match &self.disk {
            Some(disk) => disk.beside(&command),
            None => command,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn settings(&self) -> PathBuf {
        self.path("server.properties")
    }

    fn logging(&self) -> PathBuf {
        self.path("log4j2.properties")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }
}
