//! What the processes live in: three brokers, Postgres and a simulated Gmail, and a way to each for every process alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use devstack::{Cluster, ClusterOptions, Database, NODES, Postgres, PostgresOptions};
use proxy::{Trouble, Way};
use serde_json::Value;
use url::Url;

use crate::crew::{CREW, Dependency, Member, settings_of_ours};

/// The prefix of everything in Kafka.
pub(crate) const PREFIX: &str = "chaos.";

/// How long a member of a group may be silent before its partitions are taken from it.
pub(crate) const SESSION: Duration = Duration::from_secs(4);

/// A client's secret at Google, and the key of the stored tokens: looked for everywhere.
const CLIENT_SECRET: &str = "unmistakable-client-secret";
const TOKEN_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Partitions of the topics keyed by connection: enough that each poller has some.
const PARTITIONS: &str = "6";

/// Units of the project in a day, for Gmail and for the services. A budget is paced, so the tariff's would have the load
/// of a small project's whole day wait for hours after a run: the minutes' are what holds it here.
const PROJECT_DAY: u64 = 1_000_000_000;

/// The world. It ends when it is dropped.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) postgres: Postgres,
    pub(crate) database: Database,
    pub(crate) simulator: simulator::Running,
    /// Each process' ways, by its place in the crew.
    ways: Vec<Ways>,
    program: PathBuf,
}

/// The ways of one process.
struct Ways {
    kafka: Vec<Way>,
    postgres: Way,
    gmail: Way,
}

/// The tenant: its API key.
pub(crate) struct Tenant {
    pub(crate) key: String,
}

impl World {
    /// Starts everything but the processes. `minutes`: how long it is to last, which says how large the brokers' disks
    /// are.
    pub(crate) async fn start(program: &Path, minutes: u64) -> anyhow::Result<Self> {
        // The limits are the services' own, so that a call beyond their budget is refused and counted.
        let settings = simulator::Settings { project_day: Some(PROJECT_DAY), ..simulator::Settings::default() };
        let simulator = simulator::start(settings).await.context("starting the simulator")?;
        let postgres = tokio::task::spawn_blocking(|| Postgres::start(&PostgresOptions { own: true })).await??;
        let database = tokio::task::block_in_place(|| postgres.database("chaos"))?;
        let mut ways = Vec::new();
        let (cluster, brokers) = brokers(u32::try_from(256 + 16 * minutes)?).await?;
        for kafka in brokers {
            let postgres = Way::to(server(&database.url().parse()?)).await?;
            ways.push(Ways { kafka, postgres, gmail: Way::to(server(&simulator.base_url.parse()?)).await? });
        }
        let this = Self { cluster, postgres, database, simulator, ways, program: program.to_owned() };
        this.command(&["topics", "create"]).await?;
        Ok(this)
    }

    /// Makes the tenant, by the program's own commands.
    pub(crate) async fn tenant(&self) -> anyhow::Result<Tenant> {
        let made = self
            .command(&["organisations", "create", "--name", "chaos", "--return-host", "app.example", "--json"])
            .await?;
        let organisation = made["organisationId"].as_str().context("an organisation has an id")?.to_owned();
        let made =
            self.command(&["keys", "create", "--organisation", &organisation, "--name", "chaos", "--json"]).await?;
        Ok(Tenant { key: made["key"].as_str().context("a key that was made is shown")?.to_owned() })
    }

    /// Runs one of the program's commands to its end; what it says, as JSON where it is.
    async fn command(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = tokio::process::Command::new(&self.program);
        for name in settings_of_ours() {
            command.env_remove(name);
        }
        command.args(arguments).envs(self.settings_of(None)).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("running {}", self.program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`mailtide {}` failed:\n{errors}", arguments.join(" "));
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// The settings of a process, as environment variables; of nobody's: those of a command, by no way of ours.
    pub(crate) fn settings_of(&self, process: Option<usize>) -> BTreeMap<String, String> {
        let ways = process.map(|process| &self.ways[process]);
        let by = |url: &str, way: Option<&Way>| way.map_or_else(|| url.to_owned(), |way| by(url, way));
        let google = by(&self.simulator.base_url, ways.map(|ways| &ways.gmail));
        let google = google.trim_end_matches('/');
        let seconds = |more: u64| format!("{}s", SESSION.as_secs() + more);
        let (bootstrap, name) = match process {
            Some(process) => (self.cluster.bootstrap(&group(CREW[process])), CREW[process].name),
            None => (self.cluster.bootstrap_untroubled(), "command"),
        };
        let settings = [
            ("KAFKA_BOOTSTRAP_SERVERS", bootstrap),
            ("MAILTIDE_KAFKA_INSTANCE", name.to_owned()),
            ("MAILTIDE_KAFKA_TOPIC_PREFIX", PREFIX.to_owned()),
            ("MAILTIDE_KAFKA_PARTITIONS", PARTITIONS.to_owned()),
            ("MAILTIDE_KAFKA_REPLICATION_FACTOR", "3".to_owned()),
            // A group notices soon that a member is gone, and a transaction outlives its owner's session, so that
            // there are zombies to be fenced.
            ("MAILTIDE_LANE_SESSION_TIMEOUT", seconds(0)),
            ("MAILTIDE_LANE_DELIVERY_TIMEOUT", seconds(1)),
            ("MAILTIDE_LANE_TRANSACTION_TIMEOUT", seconds(2)),
            ("MAILTIDE_LANE_MAX_POLL_INTERVAL", seconds(14)),
            ("DATABASE_URL", by(self.database.url(), ways.map(|ways| &ways.postgres))),
            ("MAILTIDE_STORE_TOKEN_KEY", format!("chaos:{TOKEN_KEY}")),
            ("MAILTIDE_GMAIL_API_URL", google.to_owned()),
            // Browsers do not go by the processes' ways.
            ("MAILTIDE_GMAIL_AUTH_URL", format!("{}/o/oauth2/v2/auth", self.simulator.base_url.trim_end_matches('/'))),
            ("MAILTIDE_GMAIL_TOKEN_URL", format!("{google}/token")),
            ("MAILTIDE_GMAIL_REVOKE_URL", format!("{google}/revoke")),
            ("MAILTIDE_GMAIL_CLIENT_ID", "chaos".to_owned()),
            ("MAILTIDE_GMAIL_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("MAILTIDE_GMAIL_QUOTA_INGRESS_INSTANCES", "2".to_owned()),
            ("MAILTIDE_GMAIL_QUOTA_PROJECT_DAY", PROJECT_DAY.to_string()),
            ("MAILTIDE_ADMIN_ADDRESS", "127.0.0.1:0".to_owned()),
            ("MAILTIDE_INGRESS_LISTEN", "127.0.0.1:0".to_owned()),
            ("MAILTIDE_INGRESS_PUBLIC_URL", "http://mailtide.example".to_owned()),
            ("MAILTIDE_INGRESS_RATE_LIMIT", "1000000".to_owned()),
            ("MAILTIDE_INGRESS_RATE_BURST", "1000000".to_owned()),
            // Slots and audits come all the time, twice each: there are two schedulers.
            ("MAILTIDE_SCHEDULER_INTERVAL", "60s".to_owned()),
            ("MAILTIDE_SCHEDULER_AUDIT_INTERVAL", "150s".to_owned()),
            ("MAILTIDE_SCHEDULER_LOOK_AHEAD", "20s".to_owned()),
            ("MAILTIDE_LOG_FORMAT", "json".to_owned()),
        ];
        let mut settings: BTreeMap<_, _> = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some(schema) = self.database.schema() {
            settings.insert("MAILTIDE_DATABASE_SCHEMA".to_owned(), schema.to_owned());
        }
        settings
    }

    /// Troubles what lies between a process and one of its dependencies.
    pub(crate) fn trouble(&self, process: usize, from: Dependency, trouble: Trouble) {
        let Ways { kafka, postgres, gmail } = &self.ways[process];
        match from {
            Dependency::Kafka => kafka.iter().for_each(|way| way.set(trouble)),
            Dependency::Postgres => postgres.set(trouble),
            Dependency::Gmail => gmail.set(trouble),
        }
    }

    /// What must be seen nowhere, by name.
    pub(crate) fn secrets(&self, tenant: &Tenant) -> BTreeMap<String, String> {
        let password = |url: &str| url.parse::<Url>().ok().and_then(|url| url.password().map(str::to_owned));
        let mut secrets = BTreeMap::from([
            ("the API key".to_owned(), tenant.key.clone()),
            ("the client's secret".to_owned(), CLIENT_SECRET.to_owned()),
            ("the key of the tokens".to_owned(), TOKEN_KEY.to_owned()),
        ]);
        secrets.extend(password(self.database.url()).map(|password| ("the database's password".to_owned(), password)));
        secrets
    }
}

/// So often brokers are started on other ports, for somebody else may have taken one in between.
const ATTEMPTS: usize = 3;

/// How long a broker may take from its first listener to its last.
const LISTENS: Duration = Duration::from_secs(60);

/// Brokers, each with a disk of so many megabytes, and each process' ways to them.
async fn brokers(disk_mb: u32) -> anyhow::Result<(Cluster, Vec<Vec<Way>>)> {
    let mut attempts = 1..=ATTEMPTS;
    loop {
        attempts.next().context("a broker did not come up, on whatever ports; see above")?;
        let listeners = CREW.iter().map(|member| group(*member)).collect();
        let options = ClusterOptions { listeners, disk_mb: Some(disk_mb), ..ClusterOptions::default() };
        let mut cluster = Cluster::plan(options)?;
        let mut ways = Vec::new();
        for member in CREW {
            let mut to_brokers = Vec::new();
            for node in 0..NODES {
                let way = Way::to(cluster.listener(node, &group(member)).to_string()).await?;
                cluster.advertise(node, &group(member), way.address());
                to_brokers.push(way);
            }
            ways.push(to_brokers);
        }
        let started = tokio::task::spawn_blocking(move || cluster.start().map(|()| cluster)).await?;
        match started {
            Ok(cluster) if listen(&cluster).await => return Ok((cluster, ways)),
            Ok(_) => eprintln!("A broker ended while it began to listen"),
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// Whether every broker listens to every process.
async fn listen(cluster: &Cluster) -> bool {
    let begun = Instant::now();
    for (node, member) in (0..NODES).flat_map(|node| CREW.map(|member| (node, member))) {
        while tokio::net::TcpStream::connect(cluster.listener(node, &group(member))).await.is_err() {
            if begun.elapsed() > LISTENS || !tokio::task::block_in_place(|| cluster.serves(node)) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    true
}

/// The listeners of a process.
fn group(member: Member) -> String {
    member.name.to_uppercase()
}

/// Where the server of a URL is.
fn server(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port_or_known_default().unwrap_or(5432))
}

/// The same URL by a way to its server.
fn by(url: &str, way: &Way) -> String {
    let mut url: Url = url.parse().expect("it was parsed when the way was made");
    url.set_ip_host(way.address().ip()).expect("a URL with a host can have another");
    url.set_port(Some(way.address().port())).expect("a URL with a host can have a port");
    url.into()
}
