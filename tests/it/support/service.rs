//! A real process of the program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use devstack::leash::{Leash, Process};
use nix::sys::signal::Signal;

use super::{LONG, Place, wait_for, wait_until};

/// The program, to be started, killed (`kill -9`) and started again. It ends when this is dropped,
/// so also when the test panics, and when the tests' own process is killed.
pub(crate) struct Service {
    place: Place,
    arguments: Vec<String>,
    settings: BTreeMap<String, String>,
    log: PathBuf,
    /// Where in the log the present run begins.
    from: usize,
    process: Option<Process>,
}

impl Service {
    pub(super) fn new(place: Place, name: &str, arguments: &[&str]) -> Self {
        let mut settings = place.settings();
        settings.insert("MAILTIDE_KAFKA_INSTANCE".to_owned(), name.to_owned());
        let log = place.folder().join(format!("{name}.log"));
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { place, arguments, settings, log, from: 0, process: None }
    }

    /// With a setting (an environment variable) beyond or over the place's.
    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Without a setting of the place's.
    pub(crate) fn unset(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Starts it, at first or again.
    pub(crate) fn start(&mut self) -> &mut Self {
        assert!(!self.is_running(), "{} runs already", self.what());
        self.from = self.whole_log().len();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailtide-under-test"));
        // What the tests' own environment says is not for this process.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAILTIDE_")) {
            command.env_remove(name);
        }
        command.args(&self.arguments).envs(&self.settings).current_dir(self.place.folder());
        self.process = Some(Leash::new(command, self.log.clone()).start().unwrap());
        self
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.running().kill().unwrap();
        self.process = None;
    }

    /// Asks it to stop, once it can be asked, and gives its exit code. When it does not stop within [`LONG`] it is
    /// killed and the code is 137.
    pub(crate) fn stop(&mut self) -> i32 {
        let deadline = Instant::now() + LONG;
        // A process that was only just started dies of the signal like any other.
        while self.is_running() && !self.catches(Signal::SIGTERM) {
            assert!(Instant::now() < deadline, "{} does not listen to SIGTERM; its log:\n{}", self.what(), self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        let code = self.running().terminate(LONG).unwrap();
        self.process = None;
        code
    }

    /// Holds it, as if its machine hung, until [`Service::resume`].
    pub(crate) fn pause(&mut self) {
        self.running().signal(Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        self.running().signal(Signal::SIGCONT).unwrap();
    }

    /// The memory that it holds at this moment, in bytes.
    pub(crate) fn resident(&mut self) -> u64 {
        self.kib("VmRSS:") * 1024
    }

    /// The most memory that it ever held, in bytes.
    pub(crate) fn resident_at_most(&mut self) -> u64 {
        self.kib("VmHWM:") * 1024
    }

    fn kib(&mut self, field: &str) -> u64 {
        self.status(field).strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// Whether it has a handler of its own for a signal.
    fn catches(&mut self, signal: Signal) -> bool {
        let caught = u64::from_str_radix(&self.status("SigCgt:"), 16).unwrap();
        caught & 1 << (signal as i32 - 1) != 0
    }

    /// What the kernel says of it.
    fn status(&mut self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running().id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
    }

    /// Its process id.
    pub(crate) fn id(&mut self) -> i32 {
        self.running().id()
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().unwrap().is_none())
    }

    /// Waits until it has ended by itself, if it has not yet, and gives its exit code.
    pub(crate) async fn ended(&mut self) -> i32 {
        let what = format!("{} ends", self.what());
        let process = self.process.as_mut().expect("it was started");
        let code = wait_for(LONG, &what, || std::future::ready(process.ended().unwrap())).await;
        self.process = None;
        code
    }

    /// What it has written, stdout and stderr, since it was last started.
    pub(crate) fn log(&self) -> String {
        let whole = self.whole_log();
        whole.get(self.from..).unwrap_or_default().to_owned()
    }

    /// Waits for the log line whose message is `message`, and gives one of its fields as text.
    pub(crate) async fn logged(&mut self, message: &str, field: &str) -> String {
        wait_for(LONG, &format!("{} logs `{message}`", self.what()), || {
            let found = self.log().lines().find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                (line.get("message")?.as_str()? == message).then_some(())?;
                let value = line.get(field)?;
                Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            });
            if found.is_none() && !self.is_running() {
                panic!("{} ended before it logged `{message}`:\n{}", self.what(), self.log());
            }
            std::future::ready(found)
        })
        .await
    }

    /// Waits until its `/readyz` answers 200.
    pub(crate) async fn ready(&mut self) -> &mut Self {
        let address = self.logged("Admin port open", "address").await;
        let url = format!("http://{address}/readyz");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let what = format!("{} is ready", self.what());
        wait_until(LONG, &what, || {
            assert!(self.is_running(), "{} ended before it was ready:\n{}", self.what(), self.log());
            let answer = client.get(&url).send();
            async move { answer.await.is_ok_and(|answer| answer.status().is_success()) }
        })
        .await;
        self
    }

    fn running(&mut self) -> &mut Process {
        assert!(self.is_running(), "{} does not run; its log:\n{}", self.what(), self.log());
        self.process.as_mut().expect("it runs")
    }

    fn whole_log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn what(&self) -> String {
        format!("`mailtide {}` ({})", self.arguments.join(" "), self.log.display())
    }
}
