//! One Apache Kafka node (KRaft: broker and controller in one process).

use std::net::{Ipv4Addr, SocketAddr};

use crate::leash::Process;
use crate::node::{Node, Origin, Setup};
use crate::secure::{Secure, Users};
use crate::{Acl, Error, acls, port};

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
    /// Gives the node a listener with TLS, SASL and an authorizer, for these users.
    pub secure: Option<Users>,
}

/// A Kafka to work with: a node started here, or the cluster that was given.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    node: Option<Node>,
    secure: Option<Secure>,
}

impl Kafka {
    /// Starts a node with a fresh log and waits until it serves, or takes the cluster that
    /// `KAFKA_BOOTSTRAP_SERVERS` names.
    ///
    /// # Errors
    /// When Java or Maven is missing, or the node does not come up; its log is quoted.
    pub fn start(options: &KafkaOptions) -> Result<Self, Error> {
        if let Some(bootstrap) = std::env::var(GIVEN).ok().filter(|given| !given.is_empty() && !options.own) {
            return Ok(Self { bootstrap, node: None, secure: None });
        }
        let [broker, controller, clients] = port::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, broker));
        let setup = Setup { address, short_lived: options.short_lived, heap_mb: None, disk_mb: None };
        let mut node = Node::new(&Origin::find()?, setup)?;
        let (secure, mut settings) = match &options.secure {
            None => (None, Vec::new()),
            Some(_) => Secure::set_up(node.folder(), clients).map(|(secure, settings)| (Some(secure), settings))?,
        };
        let mut listeners = format!("PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}");
        if let Some(secure) = &secure {
            listeners.push(',');
            listeners.push_str(&secure.listener());
        }
        let own = [
            ("listeners", listeners.clone()),
            ("advertised.listeners", listeners),
            ("controller.quorum.bootstrap.servers", format!("127.0.0.1:{controller}")),
        ];
        settings.extend(own.map(|(name, value)| (name.to_owned(), value)));
        settings.extend(options.settings.iter().cloned());
        node.format(&settings, true, options.secure.as_ref())?;
        node.up()?;
        Ok(Self { bootstrap: address.to_string(), node: Some(node), secure })
    }

    /// What clients connect to: `host:port`, or several with commas between.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The listener with TLS and SASL, if there is one.
    #[must_use]
    pub fn secure(&self) -> Option<&Secure> {
        self.secure.as_ref()
    }

    /// Grants rights. The node takes a moment to know of them.
    ///
    /// # Errors
    /// When it is not ours, has no authorizer or does not answer.
    pub fn grant(&mut self, acls: &[Acl]) -> Result<(), Error> {
        acls::grant(self.node("change")?.address(), acls)
    }

    /// Takes rights away. The node takes a moment to know of it.
    ///
    /// # Errors
    /// As [`Kafka::grant`].
    pub fn revoke(&mut self, acls: &[Acl]) -> Result<(), Error> {
        acls::revoke(self.node("change")?.address(), acls)
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
