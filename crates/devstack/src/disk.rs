//! A small disk of a broker's own, which can be filled without filling the machine's.
//!
//! It is a file system in memory, mounted where nobody but the broker sees it: in a mount namespace that lives as long
//! as a process on a leash. So nothing stays mounted, however this process ends. The system must let us do that
//! (Linux, as root); where it does not, there is no such disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::leash::{Leash, Process};
use crate::tool;

/// Mounts at `$1` a disk of `$2` megabytes, says so, and lives on: whoever holds the namespace.
const HOLD: &str = r#"mount -t tmpfs -o "size=$2m" mailtide "$1" && : >"$1/.mounted" && exec sleep infinity || exit 1"#;

/// From the start to the mount; milliseconds on a quiet machine.
const MADE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// What a full disk is full of.
const BALLAST: &str = ".ballast";

#[derive(Debug)]
pub(crate) struct Disk {
    /// Holds the namespace; the disk goes with it.
    holder: Process,
    mounted_at: PathBuf,
}

impl Disk {
    /// A disk at `folder` for those who are started [beside](Self::beside) it; none where the system does not let us.
    pub(crate) fn make(folder: &Path, size_mb: u32) -> Option<Self> {
        let unshare = tool::on_path("unshare")?;
        tool::on_path("nsenter")?;
        let mut command = Command::new(unshare);
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", HOLD, "disk"]);
        command.arg(folder).arg(size_mb.to_string());
        let log = folder.with_extension("disk.log");
        let mut holder = Leash::new(command, log).start().ok()?;
        let until = Instant::now() + MADE;
        loop {
            let disk = Self { holder, mounted_at: folder.to_owned() };
            if disk.seen_from_here(&folder.join(".mounted")).exists() {
                return Some(disk);
            }
            holder = disk.holder;
            if Instant::now() >= until || !matches!(holder.ended(), Ok(None)) {
                return None;
            }
            thread::sleep(PAUSE);
        }
    }

    /// The same command, run where the disk is mounted.
    pub(crate) fn beside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--");
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// A path on the disk, as it is seen by those who are not beside it.
    pub(crate) fn seen_from_here(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        let zeros = vec![0; 64 * 1024];
        for size in [zeros.len(), 1] {
            loop {
                match io::Write::write_all(&mut ballast, &zeros[..size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.seen_from_here(&self.mounted_at.join(BALLAST))
    }
}
