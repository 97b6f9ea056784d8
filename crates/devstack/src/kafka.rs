//! One Apache Kafka node (KRaft: broker and controller in one process).

use std::net::{Ipv4Addr, SocketAddr};

use crate::leash::Process;
use crate::node::{Node, Origin, Setup};
use crate::{Error, port};

/// The variable that names a cluster to use instead.
const GIVEN: &str = "KAFKA_BOOTSTRAP_SERVERS";

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
        let [broker, controller] = port::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, broker));
        let setup = Setup { address, short_lived: options.short_lived, heap_mb: None, disk_mb: None };
        let mut node = Node::new(&Origin::find()?, setup)?;
        let listeners = format!("PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}");
        let own = [
            ("listeners", listeners.clone()),
            ("advertised.listeners", listeners),
            ("controller.quorum.bootstrap.servers", format!("127.0.0.1:{controller}")),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let settings: Vec<_> = own.into_iter().chain(options.settings.iter().cloned()).collect();
        node.format(&settings, true)?;
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
        self.node("stop")?.stop()
    }

    /// Kills the node (SIGKILL). Its data and its port stay for [`Kafka::restart`].
    ///
    /// # Errors
    /// When it is not ours.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.node("kill")?.kill()
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
