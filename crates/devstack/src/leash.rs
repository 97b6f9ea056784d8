//! Processes on a leash: they end with the process that started them, however it ends.
//!
//! The leash is a pipe. A small shell stands between: it starts the program, and a watcher beside
//! it reads the pipe, whose other end only we hold. When we are gone, by a return, a panic or a
//! `kill -9`, the read ends, and the watcher kills the program and removes its data. (Linux'
//! parent-death signal would not do: it follows the *thread* that started the program, and it
//! cleans nothing up.)
//!
//! The program runs in a process group of its own, so that Ctrl-C on the terminal reaches us
//! alone and we stop things in order.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;
use crate::tool::tail_of;

/// `$1` is what to remove when the parent is gone (empty: nothing), the rest is the program.
/// TERM is for the program; the shell only notes it, so that it still reports how the program ended.
const SHELL: &str = r#"
remove=$1; shift
trap : TERM
trap cut=1 USR1
exec 3<&0 4>&1 1>&2
"$@" </dev/null 3<&- 4>&- &
program=$!
( read -r _ <&3; kill -USR1 $$; kill -9 "$program" ) >/dev/null 2>&1 4>&- &
watcher=$!
exec 3<&-
echo "$program" >&4
exec 4>&-
while [ -z "$waited" ] || kill -0 "$program" 2>/dev/null; do wait "$program"; status=$?; waited=1; done
kill -9 "$watcher" 2>/dev/null
if [ -n "$cut" ] && [ -n "$remove" ]; then
    for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$remove" 2>/dev/null && break; sleep 0.1; done
fi
exit "$status"
"#;

/// How long between two looks at a process that is to end.
const PAUSE: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Debug)]
pub struct Leash {
    /// The program with its arguments, environment and folder. Its standard streams are set here.
    pub command: Command,
    /// Where its output goes, appended.
    pub log: PathBuf,
    /// User and group to run as; none: the same as this process.
    pub user: Option<(u32, u32)>,
    /// A folder to remove when this process ends without stopping it.
    pub remove: Option<PathBuf>,
}

/// A program that runs, or ran, on a leash. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    shell: Child,
    program: Pid,
    log: PathBuf,
    /// The leash: the program lives while this end is open.
    _leash: Option<ChildStdin>,
}

impl Leash {
    /// A program as this process's user, logging to `log`.
    #[must_use]
    pub fn new(command: Command, log: PathBuf) -> Self {
        Self { command, log, user: None, remove: None }
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When the log cannot be written or no process be made. A program that is not there shows
    /// as one that ended with code 127.
    pub fn start(self) -> Result<Process, Error> {
        let Self { command, log, user, remove } = self;
        let what = format!("starting {}", command.get_program().to_string_lossy());
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(Error::io(format!("opening the log {}", log.display())))?;

        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SHELL, "leash"]).arg(remove.as_deref().unwrap_or(Path::new("")));
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        if let Some((user, group)) = user {
            shell.uid(user).gid(group);
        }
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(output);
        let mut shell = shell.spawn().map_err(Error::io(&what))?;
        let leash = shell.stdin.take().expect("stdin is piped");
        let stdout = shell.stdout.take().expect("stdout is piped");

        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let program = read.and_then(|_| line.trim().parse().map_err(std::io::Error::other));
        match program {
            Ok(program) => Ok(Process { shell, program: Pid::from_raw(program), log, _leash: Some(leash) }),
            Err(source) => {
                drop(leash);
                let _ = shell.wait();
                Err(Error::Io { tried: what, source })
            }
        }
    }
}

impl Process {
    /// The program's own process id, for signals of any kind.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.program.as_raw()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail_of(&self.log)
    }

    /// Its exit code, 128 and more for a signal, once it has ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<i32>, Error> {
        let status = self.shell.try_wait().map_err(Error::io(format!("watching process {}", self.program)))?;
        Ok(status.map(exit_code))
    }

    /// Sends a signal to the program. One that has ended already is no error.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        match kill(self.program, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::Io {
                tried: format!("sending {signal} to process {}", self.program),
                source: std::io::Error::from(errno),
            }),
        }
    }

    /// Waits for it to end by itself, at most `limit`.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<i32>, Error> {
        let until = Instant::now() + limit;
        loop {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() >= until {
                return Ok(ended);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks it to end (SIGTERM), waits at most `limit`, then kills it. Returns its exit code.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn terminate(&mut self, limit: Duration) -> Result<i32, Error> {
        self.signal(Signal::SIGTERM)?;
        match self.wait(limit)? {
            Some(code) => Ok(code),
            None => self.kill(),
        }
    }

    /// Kills it (SIGKILL) with the processes that it started itself, and waits until all of them are gone. Returns its
    /// exit code, 137 unless it was faster.
    ///
    /// A Postgres whose postmaster alone is killed goes on answering for a moment in the backends that are left.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<i32, Error> {
        // Stopped first, so that it starts none between the look at them and its own end.
        self.signal(Signal::SIGSTOP)?;
        let children = children(self.program);
        for &child in &children {
            // It may have ended by itself.
            let _ = kill(child, Signal::SIGKILL);
        }
        self.signal(Signal::SIGKILL)?;
        // The shell reaps the program before it ends itself, so after this the program is gone.
        let status = self.shell.wait().map_err(Error::io(format!("waiting for process {}", self.program)))?;
        while children.iter().any(|&child| lives(child)) {
            thread::sleep(PAUSE);
        }
        Ok(exit_code(status))
    }
}

/// The processes that one started itself and that have not ended; none where the system does not tell.
fn children(program: Pid) -> Vec<Pid> {
    let told = std::fs::read_to_string(format!("/proc/{program}/task/{program}/children")).unwrap_or_default();
    told.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Whether a process still runs. One that has ended may stay listed as a zombie until somebody asks how it ended.
fn lives(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // `pid (name) state …`, and the name may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn exit_code(status: ExitStatus) -> i32 {
    // No code: somebody killed the shell too.
    status.code().unwrap_or(128 + Signal::SIGKILL as i32)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell, and the closing leash kills it once more.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let log = tempfile::Builder::new().prefix("leash-").tempfile().unwrap();
        Leash::new(command, log.into_temp_path().keep().unwrap()).start().unwrap()
    }

    fn end(process: &mut Process) -> Option<i32> {
        process.wait(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn the_exit_code_is_the_programs() {
        assert_eq!(end(&mut sh("exit 7")), Some(7));
        assert_eq!(end(&mut sh("kill -9 $$")), Some(137));
    }

    #[test]
    fn output_goes_to_the_log() {
        let mut process = sh("echo out; echo err >&2");
        end(&mut process);
        assert_eq!(process.log_tail(), "out\nerr");
        std::fs::remove_file(process.log()).unwrap();
    }

    #[test]
    fn terminate_asks_first_and_kills_then() {
        let mut polite = sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        while polite.log_tail() != "ready" {
            thread::sleep(PAUSE);
        }
        assert_eq!(polite.terminate(Duration::from_secs(20)).unwrap(), 5);
        let mut deaf = sh("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        while deaf.log_tail() != "ready" {
            thread::sleep(PAUSE);
        }
        assert_eq!(deaf.terminate(Duration::from_millis(100)).unwrap(), 137);
    }

    #[test]
    fn what_the_program_started_dies_with_it() {
        let mut parent = sh("sleep 1000 & echo $!; wait");
        while parent.log_tail().is_empty() {
            thread::sleep(PAUSE);
        }
        let child = Pid::from_raw(parent.log_tail().parse().unwrap());
        assert!(lives(child));
        assert_eq!(parent.kill().unwrap(), 137);
        assert!(!lives(child));
    }

    #[test]
    fn a_cut_leash_ends_the_program_and_removes_its_data() {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut command = Command::new("/bin/sleep");
        command.arg("1000");
        let leash = Leash { remove: Some(folder.clone()), ..Leash::new(command, folder.join("log")) };
        let mut process = leash.start().unwrap();
        process._leash = None;
        assert_eq!(end(&mut process), Some(137));
        assert!(!folder.exists());
    }
}
