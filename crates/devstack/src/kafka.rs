//! One Apache Kafka node (KRaft: broker and controller in one process).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::leash::{Leash, Process};
use crate::{Error, jars, port, probe, tool};

const SETTINGS: &str = include_str!("../../../docker/kafka/server.properties");
const LOGGING: &str = include_str!("../../../docker/kafka/log4j2.properties");

/// Any 16 bytes in base64: "mailtidedevstack".
const CLUSTER_ID: &str = "bWFpbHRpZGVkZXZzdGFjaw";

/// The variable that names a cluster to use instead.
const GIVEN: &str = "KAFKA_BOOTSTRAP_SERVERS";

/// From start to serving; 4 s on a quiet machine.
const UP: Duration = Duration::from_secs(90);

/// From SIGTERM to the end, after which it is killed.
const DOWN: Duration = Duration::from_secs(30);

/// Java's quick compiler only.
const QUICK: &str = "-XX:TieredStopAtLevel=1";

const PAUSE: Duration = Duration::from_millis(20);

/// How the node is set up.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Broker settings beyond (and over) those of `docker/kafka/server.properties`.
    pub settings: Vec<(String, String)>,
    /// Compiled by Java's quick compiler only: up in about half the processor time, slower in the
    /// long run. For tests; not for what is measured.
    pub short_lived: bool,
    /// A node of its own even where `KAFKA_BOOTSTRAP_SERVERS` is set: for tests that kill it.
    pub own: bool,
}

/// A Kafka to work with: a node started here, or the cluster that was given.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    node: Option<Node>,
}

#[derive(Debug)]
struct Node {
    java: PathBuf,
    libs: PathBuf,
    short_lived: bool,
    address: SocketAddr,
    // Before the folder, so that it has ended when the folder goes.
    process: Option<Process>,
    folder: TempDir,
}

impl Kafka {
    /// Starts a node with a fresh log and waits until it serves, or takes the cluster that
    /// `KAFKA_BOOTSTRAP_SERVERS` names.
    ///
    /// # Errors
    /// When Java or Maven is missing, or the node does not come up; its log is quoted.
    pub fn start(options: &KafkaOptions) -> Result<Self, Error> {
        if let Some(bootstrap) = std::env::var(GIVEN).ok().filter(|given| !given.is_empty() && !options.own) {
            return Ok(Self { bootstrap, node: None });
        }
        let java = tool::java()?;
        let libs = jars::fetch()?;
        let folder = tempfile::Builder::new().prefix("mailtide-kafka-").tempdir();
        let folder = folder.map_err(Error::io("creating a folder for Kafka's data"))?;
        let [broker, controller] = port::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, broker));
        let mut node = Node { java, libs, short_lived: options.short_lived, address, process: None, folder };
        node.format(controller, &options.settings)?;
        node.up()?;
        Ok(Self { bootstrap: address.to_string(), node: Some(node) })
    }

    /// What clients connect to: `host:port`, or several with commas between.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether the node was started here, so that it may be stopped.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.node.is_some()
    }

    /// Stops the node in order. Its data and its port stay for [`Kafka::restart`].
    ///
    /// # Errors
    /// When it is not ours.
    pub fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.node("stop")?.process.take() {
            process.terminate(DOWN)?;
        }
        Ok(())
    }

    /// Kills the node (SIGKILL). Its data and its port stay for [`Kafka::restart`].
    ///
    /// # Errors
    /// When it is not ours.
    pub fn kill(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.node("kill")?.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts the node again on the same port and data, after stopping it if it still runs, and
    /// waits until it serves.
    ///
    /// # Errors
    /// When it is not ours or does not come up.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        self.node("restart")?.up()
    }

    /// The node's process, to stop or trouble it by signals; none while it is down or not ours.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.node.as_mut()?.process.as_mut()
    }

    fn node(&mut self, verb: &'static str) -> Result<&mut Node, Error> {
        self.node.as_mut().ok_or(Error::NotOurs { what: "Kafka", variable: GIVEN, verb })
    }
}

impl Node {
    /// Writes the settings and formats the data folder.
    fn format(&self, controller: u16, settings: &[(String, String)]) -> Result<(), Error> {
        let data = self.folder.path().join("data");
        let broker = self.address;
        let mut text = format!(
            "{SETTINGS}\n\
             listeners=PLAINTEXT://{broker},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://{broker},CONTROLLER://127.0.0.1:{controller}\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             log.dirs={}\n",
            data.display()
        );
        for (name, value) in settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        for (path, text) in [(self.settings(), text.as_str()), (self.logging(), LOGGING)] {
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        // Only started and ended: nothing beyond the quick compiler pays off.
        let mut format = tool::java_with(&self.java, &self.libs);
        format.args([QUICK, "kafka.tools.StorageTool", "format", "--standalone", "--cluster-id"]);
        format.arg(CLUSTER_ID).arg("--config").arg(self.settings());
        tool::run("formatting Kafka's data folder", &mut format).map(drop)
    }

    fn up(&mut self) -> Result<(), Error> {
        let log = self.folder.path().join("kafka.log");
        let mut command = tool::java_with(&self.java, &self.libs);
        command.args(self.short_lived.then_some(QUICK));
        command.arg(format!("-Dlog4j2.configurationFile={}", self.logging().display()));
        command.arg("kafka.Kafka").arg(self.settings());
        let leash = Leash { remove: Some(self.folder.path().to_owned()), ..Leash::new(command, log) };
        let mut process = leash.start()?;
        let until = Instant::now() + UP;
        loop {
            if let Some(code) = process.ended()? {
                let status = format!("exit code {code}");
                return Err(Error::Failed { what: "starting Kafka".to_owned(), status, output: process.log_tail() });
            }
            // Refused while it starts; that is what is waited out.
            if probe::serves(self.address).unwrap_or(false) {
                self.process = Some(process);
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::Silent { what: "Kafka", seconds: UP.as_secs(), tail: process.log_tail() });
            }
            thread::sleep(PAUSE);
        }
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn logging(&self) -> PathBuf {
        self.folder.path().join("log4j2.properties")
    }
}
