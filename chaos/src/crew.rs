//! The processes of the program: started, killed, hung, stopped and started again, and looked after meanwhile.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use devstack::leash::{Leash, Process};
use nix::sys::signal::Signal;
use serde::Serialize;

/// One process of the crew.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Its name: its instance, its log, its listeners.
    pub name: &'static str,
    /// The sub-command that it runs.
    pub service: &'static str,
}

/// What a process depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Dependency {
    /// All brokers.
    Kafka,
    /// The database.
    Postgres,
    /// Gmail and its token endpoint.
    Gmail,
}

const fn member(name: &'static str, service: &'static str) -> Member {
    Member { name, service }
}

/// All processes.
pub const CREW: [Member; 11] = [
    member("poller_a", "poller"),
    member("poller_b", "poller"),
    member("poller_c", "poller"),
    member("fetcher_a", "fetcher"),
    member("fetcher_b", "fetcher"),
    member("ingress_a", "ingress"),
    member("ingress_b", "ingress"),
    member("scheduler_a", "scheduler"),
    member("scheduler_b", "scheduler"),
    member("projector_a", "projector"),
    member("projector_b", "projector"),
];

impl Member {
    /// What it depends on.
    #[must_use]
    pub fn dependencies(&self) -> &'static [Dependency] {
        match self.service {
            "scheduler" | "projector" => &[Dependency::Kafka, Dependency::Postgres],
            _ => &[Dependency::Kafka, Dependency::Postgres, Dependency::Gmail],
        }
    }
}

/// From the order to stop to the end, after which a process is killed.
const DOWN: Duration = Duration::from_secs(30);

/// The library by which a process' wall clock can be moved, where `libfaketime` is installed.
#[must_use]
pub fn clock_library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    folders.iter().map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file())
}

/// Settings in this program's own environment, which are for none of its processes.
pub(crate) fn settings_of_ours() -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("MAILTIDE_"))
}

/// One process, as it stands.
pub(crate) struct Hand {
    pub(crate) member: Member,
    program: PathBuf,
    settings: BTreeMap<String, String>,
    log: PathBuf,
    clock: PathBuf,
    /// Where in the log the present run begins.
    from: u64,
    process: Option<Process>,
    /// Whether it is meant to be down, or held.
    pub(crate) is_down: bool,
    /// Writes the schemas' versions before the newest.
    pub(crate) writes_previous: bool,
    /// Addresses, once it has said them: of its admin port and, for an ingress, of the API.
    pub(crate) admin: Option<String>,
    pub(crate) api: Option<String>,
    /// When the log was last looked at for them.
    looked: Instant,
}

impl Hand {
    pub(crate) fn new(member: Member, program: &Path, folder: &Path, settings: BTreeMap<String, String>) -> Self {
        Self {
            member,
            program: program.to_owned(),
            settings,
            log: folder.join(format!("{}.log", member.name)),
            clock: folder.join(format!("{}.clock", member.name)),
            from: 0,
            process: None,
            is_down: true,
            writes_previous: false,
            admin: None,
            api: None,
            looked: Instant::now(),
        }
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.from = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        (self.admin, self.api) = (None, None);
        let mut command = Command::new(&self.program);
        for name in settings_of_ours() {
            command.env_remove(name);
        }
        command.arg(self.member.service).envs(&self.settings);
        if self.writes_previous {
            command.env("EVENTS_FAULTS", "previous-versions");
        }
        if let Some(library) = clock_library() {
            if !self.clock.exists() {
                self.set_clock(0)?;
            }
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.clock);
            // The wall clock alone, and it is looked at once a second.
            for (name, value) in
                [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_CACHE_DURATION", "1")]
            {
                command.env(name, value);
            }
        }
        self.process = Some(Leash::new(command, self.log.clone()).start()?);
        self.is_down = false;
        Ok(())
    }

    /// Moves its wall clock so far from the machine's.
    pub(crate) fn set_clock(&self, seconds: i64) -> std::io::Result<()> {
        std::fs::write(&self.clock, format!("{seconds:+}\n"))
    }

    /// SIGKILL; it is gone afterwards. Whether it ran until then.
    pub(crate) fn kill(&mut self) -> anyhow::Result<bool> {
        self.is_down = true;
        let Some(mut process) = self.process.take() else { return Ok(false) };
        let ran = process.ended()?.is_none();
        process.kill()?;
        Ok(ran)
    }

    /// Asks it to stop and gives its exit code: 137 where it had to be killed; none where it did not run.
    pub(crate) fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        self.is_down = true;
        match self.process.take() {
            Some(mut process) => Ok(Some(process.terminate(DOWN)?)),
            None => Ok(None),
        }
    }

    /// Holds it, or lets it go on.
    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process {
            process.signal(signal)?;
        }
        Ok(())
    }

    /// Its exit code, if it has ended though nobody asked it to.
    pub(crate) fn ended_by_itself(&mut self) -> anyhow::Result<Option<i32>> {
        if self.is_down {
            return Ok(None);
        }
        let Some(process) = &mut self.process else { return Ok(None) };
        let ended = process.ended()?;
        if ended.is_some() {
            self.process = None;
        }
        Ok(ended)
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        /// More than a line of any log.
        const END: u64 = 16 * 1024;
        let mut end = Vec::new();
        let read = std::fs::File::open(&self.log).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(END)))?;
            log.read_to_end(&mut end)
        });
        if read.is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&end).lines().last().unwrap_or_default().chars().take(400).collect()
    }

    /// Looks into the log for the addresses that are not known yet.
    pub(crate) fn look(&mut self) {
        const PAUSE: Duration = Duration::from_millis(200);
        let knows_all = self.admin.is_some() && (self.api.is_some() || self.member.service != "ingress");
        if knows_all || self.process.is_none() || self.looked.elapsed() < PAUSE {
            return;
        }
        self.looked = Instant::now();
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&self.log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.from))?;
            log.read_to_end(&mut bytes)
        });
        if read.is_err() {
            return;
        }
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let address = || line["address"].as_str().map(str::to_owned);
            match line["message"].as_str() {
                Some("Admin port open") => self.admin = address(),
                Some("API open") => self.api = address(),
                _ => {}
            }
        }
    }
}
