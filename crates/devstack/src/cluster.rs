//! Three Apache Kafka nodes that replicate to each other, each broker and controller in one process.
//!
//! Every broker has, beside the listener for its peers, one for each group of clients that was named. What a listener
//! advertises can be a way of somebody else's, put between: so each group of clients can be troubled alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use crate::leash::Process;
use crate::node::{Node, Origin, Setup};
use crate::{Error, port};

/// How many nodes: the fewest that survive the loss of one without losing the right to write.
pub const NODES: usize = 3;

/// What a cluster needs beyond the settings of a single node: three replicas of everything, two of which make a write,
/// and quick judgement of who is gone, though not so quick that a busy machine makes it up.
const SETTINGS: [(&str, &str); 17] = [
    ("default.replication.factor", "3"),
    ("min.insync.replicas", "2"),
    ("offsets.topic.replication.factor", "3"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
    ("share.coordinator.state.topic.replication.factor", "3"),
    ("share.coordinator.state.topic.min.isr", "2"),
    ("broker.heartbeat.interval.ms", "1000"),
    ("broker.session.timeout.ms", "6000"),
    ("controller.quorum.election.timeout.ms", "2000"),
    ("controller.quorum.fetch.timeout.ms", "4000"),
    ("replica.lag.time.max.ms", "8000"),
    // Who was away gets its partitions back soon, so that leaders move without anybody's death, too.
    ("leader.imbalance.check.interval.seconds", "5"),
    ("leader.imbalance.per.broker.percentage", "0"),
    // One thread for each listener: there are many, and few clients at each.
    ("num.network.threads", "1"),
    // Sparse files, but each index is mapped as a whole.
    ("log.index.size.max.bytes", "1048576"),
    ("log.segment.bytes", "67108864"),
];

/// How the cluster is set up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Groups of clients, each with listeners of its own: letters, digits and `_`.
    pub listeners: Vec<String>,
    /// Broker settings beyond (and over) ours.
    pub settings: Vec<(String, String)>,
    /// Java's heap of each node, in megabytes.
    pub heap_mb: u32,
    /// Each node's data is on a disk of its own of so many megabytes, where the system lets us make one.
    pub disk_mb: Option<u32>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { listeners: Vec::new(), settings: Vec::new(), heap_mb: 320, disk_mb: None }
    }
}

/// Three nodes. They end when this is dropped, or this process ends.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    plans: Vec<Plan>,
    nodes: Vec<Node>,
}

/// Where one node listens.
#[derive(Debug)]
struct Plan {
    peers: SocketAddr,
    controller: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
    advertised: BTreeMap<String, SocketAddr>,
}

impl Cluster {
    /// Chooses where everything listens; nothing runs yet.
    ///
    /// # Errors
    /// When there are no ports left.
    pub fn plan(options: ClusterOptions) -> Result<Self, Error> {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut ports = port::several(NODES * (2 + options.listeners.len()))?.into_iter().map(address);
        let mut next = || ports.next().expect("as many ports as listeners were found");
        let plans = (0..NODES)
            .map(|_| {
                let (peers, controller) = (next(), next());
                let listeners: BTreeMap<_, _> = options.listeners.iter().map(|name| (name.clone(), next())).collect();
                Plan { peers, controller, advertised: listeners.clone(), listeners }
            })
            .collect();
        Ok(Self { options, plans, nodes: Vec::new() })
    }

    /// Where a node, counted from 0, listens for a group of clients.
    ///
    /// # Panics
    /// When there is no such node or group.
    #[must_use]
    pub fn listener(&self, node: usize, group: &str) -> SocketAddr {
        self.plans[node].listeners[group]
    }

    /// Lets a node tell a group of clients another address than its own. Before [`Cluster::start`].
    pub fn advertise(&mut self, node: usize, group: &str, address: SocketAddr) {
        self.plans[node].advertised.insert(group.to_owned(), address);
    }

    /// What clients of a group connect to at first.
    #[must_use]
    pub fn bootstrap(&self, group: &str) -> String {
        self.plans.iter().map(|plan| plan.advertised[group].to_string()).collect::<Vec<_>>().join(",")
    }

    /// What clients connect to that are not to be troubled: the brokers' own listener.
    #[must_use]
    pub fn bootstrap_untroubled(&self) -> String {
        self.plans.iter().map(|plan| plan.peers.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Formats and starts all nodes, and waits until each serves.
    ///
    /// # Errors
    /// When Java or Maven is missing, or a node does not come up; its log is quoted.
    pub fn start(&mut self) -> Result<(), Error> {
        let origin = Origin::find()?;
        let started: Vec<Result<Node, Error>> = thread::scope(|scope| {
            let starting: Vec<_> = (0..NODES)
                .map(|number| {
                    let (this, origin) = (&*self, &origin);
                    scope.spawn(move || this.start_node(number, origin))
                })
                .collect();
            starting.into_iter().map(|node| node.join().expect("starting a node does not panic")).collect()
        });
        self.nodes = started.into_iter().collect::<Result<_, _>>()?;
        Ok(())
    }

    fn start_node(&self, number: usize, origin: &Origin) -> Result<Node, Error> {
        let Self { options, plans, nodes: _ } = self;
        let setup = Setup {
            address: plans[number].peers,
            short_lived: true,
            heap_mb: Some(options.heap_mb),
            disk_mb: options.disk_mb,
        };
        let mut node = Node::new(origin, setup)?;
        let mut settings = plans[number].settings(number, plans);
        settings.extend(SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        settings.extend(options.settings.iter().cloned());
        node.format(&settings, false, None)?;
        node.up()?;
        Ok(node)
    }

    /// Kills a node (SIGKILL). Its data and its ports stay for [`Cluster::restart`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, node: usize) -> Result<(), Error> {
        self.nodes[node].kill()
    }

    /// Stops a node in order: it hands on what it leads.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop(&mut self, node: usize) -> Result<(), Error> {
        self.nodes[node].stop()
    }

    /// Starts a node again, after killing it if it still runs, and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, node: usize) -> Result<(), Error> {
        self.nodes[node].kill()?;
        self.nodes[node].up()
    }

    /// A node's process, to trouble it by signals; none while it is down.
    pub fn process(&mut self, node: usize) -> Option<&mut Process> {
        self.nodes[node].process.as_mut()
    }

    /// Whether a node answers clients at this moment.
    #[must_use]
    pub fn serves(&self, node: usize) -> bool {
        self.nodes[node].serves()
    }

    /// The node that leads the controllers, as the nodes last wrote down; none when none did.
    #[must_use]
    pub fn controller(&self) -> Option<usize> {
        let told = self.nodes.iter().filter_map(|node| {
            let state = fs::read_to_string(node.file("__cluster_metadata-0/quorum-state")).ok()?;
            let number = |name: &str| -> Option<i64> {
                let (_, rest) = state.split_once(&format!("\"{name}\":"))?;
                rest.split([',', '}']).next()?.trim().parse().ok()
            };
            Some((number("leaderEpoch")?, number("leaderId")?))
        });
        let (_, leader) = told.filter(|(_, leader)| *leader > 0).max()?;
        usize::try_from(leader - 1).ok().filter(|node| *node < self.nodes.len())
    }

    /// Fills a node's disk to the last byte; false where it has none of its own.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn fill_disk(&self, node: usize) -> Result<bool, Error> {
        let Some(disk) = self.nodes[node].disk() else { return Ok(false) };
        disk.fill().map_err(Error::io("filling a broker's disk"))?;
        Ok(true)
    }

    /// Makes room on it again.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub fn free_disk(&self, node: usize) -> Result<(), Error> {
        match self.nodes[node].disk() {
            Some(disk) => disk.free().map_err(Error::io("making room on a broker's disk")),
            None => Ok(()),
        }
    }
}

impl Plan {
    fn settings(&self, number: usize, all: &[Self]) -> Vec<(String, String)> {
        let url = |name: &str, address: &SocketAddr| format!("{name}://{address}");
        let own = [url("PLAINTEXT", &self.peers), url("CONTROLLER", &self.controller)];
        let list = |listeners: &BTreeMap<String, SocketAddr>| {
            let more = listeners.iter().map(|(name, address)| url(name, address));
            own.iter().cloned().chain(more).collect::<Vec<_>>().join(",")
        };
        let names = ["PLAINTEXT", "CONTROLLER"].into_iter().chain(self.listeners.keys().map(String::as_str));
        let protocols = names.map(|name| format!("{name}:PLAINTEXT")).collect::<Vec<_>>().join(",");
        let voters = all.iter().zip(1..).map(|(plan, id)| format!("{id}@{}", plan.controller));
        [
            ("node.id", (number + 1).to_string()),
            ("controller.quorum.voters", voters.collect::<Vec<_>>().join(",")),
            ("listeners", list(&self.listeners)),
            ("advertised.listeners", list(&self.advertised)),
            ("listener.security.protocol.map", protocols),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
