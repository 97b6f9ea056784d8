//! A private Postgres cluster, and databases of one's own in it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User};
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

use crate::leash::{Leash, Process};
use crate::sql::Psql;
use crate::{Error, port, tool};

/// The variable that names a server to use instead.
const GIVEN: &str = "DATABASE_URL";

const GET: &str = "apt-get install postgresql (or set DATABASE_URL to use a Postgres of yours)";

/// From start to serving; a second on a quiet machine, more after a crash.
const UP: Duration = Duration::from_secs(60);

/// From the order to stop to the end, after which it is killed.
const DOWN: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(20);

/// What a cluster for demo and tests needs beyond the defaults. It may forget what it has not
/// written to disk when the *machine* dies, since its data dies then too; killing it loses nothing.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 64MB
fsync = off
full_page_writes = off
logging_collector = off
log_min_messages = warning
";

/// How the cluster is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// A cluster of its own even where `DATABASE_URL` is set: for tests that kill it.
    pub own: bool,
}

/// A Postgres to work with: a cluster started here, or the server that was given.
#[derive(Debug)]
pub struct Postgres {
    psql: Psql,
    cluster: Option<Cluster>,
}

#[derive(Debug)]
struct Cluster {
    bin: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    // Before the folder, so that it has ended when the folder goes.
    process: Option<Process>,
    folder: TempDir,
}

impl Postgres {
    /// Makes and starts a cluster and waits until it serves, or takes the server that
    /// `DATABASE_URL` names (see [`Postgres::given`]).
    ///
    /// # Errors
    /// When the programs are missing or the cluster does not come up; its log is quoted.
    pub fn start(options: &PostgresOptions) -> Result<Self, Error> {
        if let Some(given) = std::env::var(GIVEN).ok().filter(|given| !given.is_empty() && !options.own) {
            return Self::given(&given);
        }
        let bin = programs()?;
        let user = unprivileged()?;
        let folder = tempfile::Builder::new().prefix("mailtide-postgres-").tempdir();
        let folder = folder.map_err(Error::io("creating a folder for Postgres' data"))?;
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group))
                .map_err(Error::io(format!("giving {} to user {user}", folder.path().display())))?;
        }
        let [port] = port::free()?;
        // Two version 4 UUIDs are 244 random bits, in characters that need no quoting anywhere.
        let password = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let url = Url::parse(&format!("postgres://mailtide:{password}@127.0.0.1:{port}/postgres"))?;
        let psql = Psql::new(Some(&bin), url)?;
        let mut cluster = Cluster { bin, port, user, process: None, folder };
        cluster.initialise(&password)?;
        cluster.up(&psql)?;
        Ok(Self { psql, cluster: Some(cluster) })
    }

    /// A server that runs already, in which nothing is touched but databases made by
    /// [`Postgres::database`].
    ///
    /// # Errors
    /// When the URL is none, `psql` is missing or the server does not answer.
    pub fn given(url: &str) -> Result<Self, Error> {
        let psql = Psql::new(None, Url::parse(url)?)?;
        psql.run("SELECT 1")?;
        Ok(Self { psql, cluster: None })
    }

    /// The server's own URL, with its password. Work in a [`Postgres::database`] instead.
    #[must_use]
    pub fn url(&self) -> &str {
        self.psql.url().as_str()
    }

    /// Whether the cluster was started here, so that it may be stopped.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.cluster.is_some()
    }

    /// A fresh, empty database whose name contains `name`, removed when it is dropped. On a given
    /// server whose user may not create databases it is a schema instead.
    ///
    /// # Errors
    /// When the server refuses both.
    pub fn database(&self, name: &str) -> Result<Database, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Process and number make it unique here, the random part on a server that is shared.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let random = &Uuid::new_v4().simple().to_string()[..8];
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(30).collect();
        let name = format!("mailtide_{}_{number}_{random}", plain.to_lowercase());
        let mut url = self.psql.url().clone();
        let refused = match self.psql.run(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")) {
            Ok(_) => {
                url.set_path(&name);
                let remove = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                return Ok(Database { url, schema: None, psql: self.psql.clone(), remove, ours: self.is_ours() });
            }
            Err(refused) => refused,
        };
        if self.is_ours() {
            return Err(refused);
        }
        self.psql.run(&format!("CREATE SCHEMA {name}")).map_err(|_| refused)?;
        // By hand: form encoding writes a blank as `+`, which libpq takes for a plus.
        let option = format!("options=-c%20search_path%3D{name}");
        let query = url.query().map_or_else(|| option.clone(), |query| format!("{query}&{option}"));
        url.set_query(Some(&query));
        let remove = format!("DROP SCHEMA IF EXISTS {name} CASCADE");
        Ok(Database { url, schema: Some(name), psql: self.psql.clone(), remove, ours: false })
    }

    /// Stops the cluster in order, without waiting for clients to go. Its data and its port stay
    /// for [`Postgres::restart`].
    ///
    /// # Errors
    /// When it is not ours.
    pub fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.cluster("stop")?.process.take() {
            // "Fast shutdown": clients are disconnected.
            process.signal(Signal::SIGINT)?;
            if process.wait(DOWN)?.is_none() {
                process.kill()?;
            }
        }
        Ok(())
    }

    /// Kills the cluster (SIGKILL). Its data and its port stay for [`Postgres::restart`].
    ///
    /// # Errors
    /// When it is not ours.
    pub fn kill(&mut self) -> Result<(), Error> {
        if let Some(mut process) = self.cluster("kill")?.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts the cluster again on the same port and data, after stopping it if it still runs,
    /// and waits until it serves.
    ///
    /// # Errors
    /// When it is not ours or does not come up.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        let psql = self.psql.clone();
        self.cluster("restart")?.up(&psql)
    }

    fn cluster(&mut self, verb: &'static str) -> Result<&mut Cluster, Error> {
        self.cluster.as_mut().ok_or(Error::NotOurs { what: "Postgres", variable: GIVEN, verb })
    }
}

impl Cluster {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn initialise(&self, password: &str) -> Result<(), Error> {
        let secret = self.folder.path().join("password");
        fs::write(&secret, password).map_err(Error::io(format!("writing {}", secret.display())))?;
        if let Some((user, group)) = self.user {
            chown(&secret, Some(user), Some(group)).map_err(Error::io("giving the password file away"))?;
        }
        let mut command = self.command("initdb");
        command.args(["--username=mailtide", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        command.args(["--no-sync", "--no-instructions"]);
        command.arg("--pwfile").arg(&secret).arg("--pgdata").arg(self.data());
        tool::run("making a Postgres cluster (initdb)", &mut command)?;
        fs::remove_file(&secret).map_err(Error::io(format!("removing {}", secret.display())))?;
        // Ours to append to, or root's: the file keeps its owner.
        let path = self.data().join("postgresql.conf");
        let settings = fs::read_to_string(&path).map(|text| format!("{text}{SETTINGS}port = {}\n", self.port));
        let written = settings.and_then(|text| fs::write(&path, text));
        written.map_err(Error::io(format!("writing {}", path.display())))
    }

    /// Runs as the cluster's user, in a folder that user may enter.
    fn command(&self, program: &str) -> Command {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.folder.path()).env("LC_ALL", "C").env_remove("PGDATA");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn up(&mut self, psql: &Psql) -> Result<(), Error> {
        let log = self.folder.path().join("postgres.log");
        let until = Instant::now() + UP;
        loop {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.data());
            let remove = Some(self.folder.path().to_owned());
            let mut process = Leash { command, log: log.clone(), user: self.user, remove }.start()?;
            match self.await_answer(&mut process, psql, until)? {
                None => {
                    self.process = Some(process);
                    return Ok(());
                }
                // After a kill its backends take a moment to notice; until then the new one refuses.
                Some(_) if process.log_tail().contains("still in use") && Instant::now() < until => {
                    thread::sleep(PAUSE);
                }
                Some(code) => {
                    let status = format!("exit code {code}");
                    let what = "starting Postgres".to_owned();
                    return Err(Error::Failed { what, status, output: process.log_tail() });
                }
            }
        }
    }

    /// Waits until it serves; gives its exit code when it ends instead.
    fn await_answer(&self, process: &mut Process, psql: &Psql, until: Instant) -> Result<Option<i32>, Error> {
        loop {
            if let Some(code) = process.ended()? {
                return Ok(Some(code));
            }
            if port::accepts(self.port) && psql.run("SELECT 1").is_ok() {
                return Ok(None);
            }
            if Instant::now() >= until {
                let tail = process.log_tail();
                return Err(Error::Silent { what: "Postgres", seconds: UP.as_secs(), tail });
            }
            thread::sleep(PAUSE);
        }
    }
}

/// An empty database of one's own, removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Database {
    url: Url,
    schema: Option<String>,
    psql: Psql,
    remove: String,
    ours: bool,
}

impl Database {
    /// Where to connect, with the password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The schema to stay in, where it could not be a database of one's own. The URL leads there
    /// too, for clients that do not set their own `search_path`.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A private cluster may be down at this moment, and goes as a whole anyway.
        if let Err(error) = self.psql.run(&self.remove)
            && !self.ours
        {
            eprintln!("A test database is left behind: {error}");
        }
    }
}

/// The folder with `initdb` and `postgres`: on `PATH`, where Debian keeps them (newest first), or
/// where `pg_config` says.
fn programs() -> Result<PathBuf, Error> {
    let complete = |folder: &Path| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    let from_path = tool::on_path("initdb").and_then(|initdb| Some(initdb.canonicalize().ok()?.parent()?.to_owned()));
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by(|(a, _), (b, _)| b.cmp(a));
    let candidates =
        from_path.into_iter().chain(versions.into_iter().map(|(_, folder)| folder)).chain(said_by_pg_config());
    candidates
        .into_iter()
        .find(|folder| complete(folder))
        .ok_or_else(|| Error::Missing { what: "The Postgres server (`initdb` and `postgres`)".to_owned(), get: GET })
}

fn said_by_pg_config() -> Option<PathBuf> {
    let program = tool::on_path("pg_config")?;
    let said = tool::run("asking pg_config", Command::new(program).arg("--bindir")).ok()?;
    Some(PathBuf::from(said.trim()))
}

/// Postgres refuses to run as root: then it is the user `postgres`, else `nobody`.
fn unprivileged() -> Result<Option<(u32, u32)>, Error> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        let user = User::from_name(name).map_err(|errno| Error::Io {
            tried: format!("looking up the user {name}"),
            source: std::io::Error::from(errno),
        })?;
        if let Some(User { uid, gid, .. }) = user {
            return Ok(Some((uid.as_raw(), Gid::as_raw(gid))));
        }
    }
    Err(Error::Missing {
        what: "An unprivileged user (`postgres` or `nobody`) to run Postgres as".to_owned(),
        get: "useradd --system nobody (or do not run as root)",
    })
}
