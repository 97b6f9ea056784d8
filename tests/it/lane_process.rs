//! A counting lane in a process of its own, to be killed and held.
//!
//! The process is this test binary, told to run nothing but the test at the end of this file.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka::{Faults, Point, Settings};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

use crate::lane_support::{Bench, Knobs};
use crate::support::LONG;

const PREFIX: &str = "LANE_PROCESS_PREFIX";
const BOOTSTRAP: &str = "LANE_PROCESS_BOOTSTRAP";
const INSTANCE: &str = "LANE_PROCESS_INSTANCE";
const WORK_MS: &str = "LANE_PROCESS_WORK_MS";
const HOLD_AT: &str = "LANE_PROCESS_HOLD_AT";

/// What a process says.
const HOLDING: &str = "holding myself";
const DECIDED: &str = "what I held is decided";

/// Where a process holds itself (SIGSTOP), once: with the first result of work, which comes in a transaction that moves
/// no partition, since the input was committed long before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// In the application, before anything is published. When it wakes, it gives its client time to hear from the group.
    Result,
    /// At this point of the transaction.
    At(Point),
}

impl Hold {
    const ALL: [Self; 3] = [Self::Result, Self::At(Point::Checked), Self::At(Point::Sent)];
}

/// A counting lane in a process of its own. It is killed when this is dropped.
pub(crate) struct LaneProcess {
    bench: Bench,
    instance: String,
    work: Duration,
    hold: Option<Hold>,
    faults: &'static str,
    child: Option<(Child, BufReader<ChildStdout>)>,
}

impl LaneProcess {
    pub(crate) fn new(bench: &Bench, instance: &str, work: Duration) -> Self {
        let (bench, instance) = (bench.clone(), instance.to_owned());
        Self { bench, instance, work, hold: None, faults: "", child: None }
    }

    /// Holds itself there, and puts out results without state.
    pub(crate) fn hold(mut self, hold: Hold) -> Self {
        self.hold = Some(hold);
        self
    }

    /// With these protections off, by name.
    pub(crate) fn faults(mut self, faults: &'static str) -> Self {
        self.faults = faults;
        self
    }

    pub(crate) fn start(&mut self) -> &mut Self {
        assert!(self.child.is_none(), "{} runs already", self.instance);
        let mut child = Command::new(program())
            .args(["lane_process::counts_in_a_process_of_its_own", "--exact", "--nocapture"])
            .env(PREFIX, &self.bench.prefix)
            .env(BOOTSTRAP, &self.bench.bootstrap)
            .env(INSTANCE, &self.instance)
            .env(WORK_MS, self.work.as_millis().to_string())
            .env(HOLD_AT, self.hold.map_or(String::new(), |hold| format!("{hold:?}")))
            .env(Faults::VARIABLE, self.faults)
            // The process ends when this pipe does, so also when the tests are killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        self.child = Some((child, output));
        self
    }

    /// Waits until the process says that it holds itself.
    pub(crate) async fn wait_until_held(self) -> Self {
        self.wait_until_it_says(HOLDING).await
    }

    /// Waits until the process, awake again, has committed what it was about to, or has lost its partitions.
    pub(crate) async fn wait_until_decided(self) -> Self {
        self.wait_until_it_says(DECIDED).await
    }

    async fn wait_until_it_says(mut self, word: &'static str) -> Self {
        let waiting = tokio::task::spawn_blocking(move || {
            let (_, output) = self.child.as_mut().unwrap();
            let mut line = String::new();
            while output.read_line(&mut line).unwrap() > 0 {
                if line.contains(word) {
                    return self;
                }
                line.clear();
            }
            panic!("{} ended without having said `{word}`", self.instance);
        });
        tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("never said `{word}`")).unwrap()
    }

    pub(crate) fn resume(&mut self) {
        let (child, _) = self.child.as_ref().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGCONT).unwrap();
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for LaneProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// This very program, also if a newer one has been built in its place meanwhile.
fn program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { running } else { std::env::current_exe().unwrap() }
}

/// Holds the whole process until somebody wakes it.
fn stop() {
    println!("{HOLDING}");
    raise(Signal::SIGSTOP).unwrap();
}

/// Makes the lane hold its process.
fn arm(hold: Hold, settings: &mut Settings, knobs: &mut Knobs) {
    settings.lane.transaction_timeout = Duration::from_secs(15);
    settings.lane.max_poll_interval = Duration::from_secs(60);
    // Its results leave no trace in the state: an open transaction there would hold its heir up by itself. So whoever
    // opens the partition once more would work on them again, and this one must not.
    knobs.only_outputs = true;
    knobs.forgets = true;
    let (has_result, has_held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (first, held) = (has_result.clone(), has_held.clone());
    knobs.on_done = Some(Arc::new(move |_| {
        if !first.swap(true, Ordering::SeqCst) && hold == Hold::Result {
            held.store(true, Ordering::SeqCst);
            stop();
            std::thread::sleep(HEARTBEATS);
        }
    }));
    let held = has_held.clone();
    settings.lane.faults = settings.lane.faults.clone().holding(move |point| {
        let is_due = hold == Hold::At(point) && has_result.load(Ordering::SeqCst);
        if is_due && !held.swap(true, Ordering::SeqCst) {
            stop();
        }
    });
    let say_decided: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        if has_held.load(Ordering::SeqCst) {
            println!("{DECIDED}");
        }
    });
    knobs.on_committed = Some(say_decided.clone());
    knobs.on_closed = Some(say_decided);
}

/// Several heartbeats of a session of one second: the first tells the client that it is no member any more.
const HEARTBEATS: Duration = Duration::from_secs(1);

/// Does nothing in a run of the tests; it is the body of the processes that other tests start.
#[tokio::test(flavor = "multi_thread")]
async fn counts_in_a_process_of_its_own() {
    let (Ok(prefix), Ok(bootstrap)) = (std::env::var(PREFIX), std::env::var(BOOTSTRAP)) else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    let bench = Bench::at(&bootstrap, &prefix);
    let mut settings = bench.settings(&variable(INSTANCE));
    settings.lane.session_timeout = Duration::from_secs(1);
    let mut knobs = Knobs { work: Duration::from_millis(variable(WORK_MS).parse().unwrap()), ..Knobs::default() };
    if let Some(hold) = Hold::ALL.into_iter().find(|hold| format!("{hold:?}") == variable(HOLD_AT)) {
        arm(hold, &mut settings, &mut knobs);
    }
    let mut lane = bench.start(&settings, 0, &knobs);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    lane.ended().await.unwrap();
}
