//! Finds programs, and runs those that end by themselves.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// How many lines of a failed program's output an error quotes.
const TAIL: usize = 30;

/// The program's path, from `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// A Java of at least version 17, from `JAVA_HOME` or `PATH`.
pub(crate) fn java() -> Result<PathBuf, Error> {
    const OLDEST: u32 = 17;
    let what = || format!("Java {OLDEST} or newer");
    let get = "apt-get install openjdk-17-jre-headless (or set JAVA_HOME)";
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let java = home
        .filter(|java| java.is_file())
        .or_else(|| on_path("java"))
        .ok_or_else(|| Error::Missing { what: what(), get })?;
    let output = Command::new(&java)
        .arg("-version")
        .output()
        .map_err(Error::io(format!("running {} -version", java.display())))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match major(&said) {
        Some(major) if major >= OLDEST => Ok(java),
        _ => {
            let first = said.lines().next().unwrap_or("no version");
            Err(Error::TooOld { what: what(), found: format!("{} says {first}", java.display()), get })
        }
    }
}

/// `openjdk version "17.0.15" 2025-04-15` → 17; `java version "1.8.0_402"` → 1.
fn major(said: &str) -> Option<u32> {
    let version = said.split('"').nth(1)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Runs a program to its end, with nothing on stdin.
pub(crate) fn run(what: impl Into<String>, command: &mut Command) -> Result<String, Error> {
    let what = what.into();
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(Error::io(format!("running {program} ({what})")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed { what, status: output.status.to_string(), output: tail(&format!("{said}{errors}")) })
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// The last lines of a file; what cannot be read says so.
pub(crate) fn tail_of(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => tail(&String::from_utf8_lossy(&bytes)),
        Err(error) => format!("({}: {error})", path.display()),
    }
}

/// A `java` command with what every call of Kafka's classes needs.
pub(crate) fn java_with(java: &Path, libs: &Path) -> Command {
    let mut classes = libs.as_os_str().to_owned();
    classes.push(OsStr::new("/*"));
    let mut command = Command::new(java);
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp"]).arg(classes);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_are_read() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(major("java version \"1.8.0_402\""), Some(1));
        assert_eq!(major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(major("no java here"), None);
    }

    #[test]
    fn a_failure_quotes_what_was_said() {
        let error = run("trying", Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "trying failed (exit status: 3):\nwhy");
    }
}
