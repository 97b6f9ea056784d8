//! The program in Python: installed with what it needs beside the build's output, once for each version of that.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::inboxes::Inbox;

/// Whatever fails here.
const NEEDS: &str = "this benchmark needs python3 with venv (Debian: apt-get install python3-venv) and a package index";

pub(super) struct Python {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Python {
    /// Starts it; it connects when it has an order.
    pub(super) async fn start(gmail: &str, bootstrap_servers: &str, topic: &str) -> anyhow::Result<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let python = installed(&sources.join("requirements.txt")).await.context(NEEDS)?;
        let mut command = Command::new(&python);
        command.arg(sources.join("fetch.py")).args([gmail, bootstrap_servers, topic]);
        command.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("Running {}", python.display()))?;
        let orders = child.stdin.take().context("The program has a pipe to read from")?;
        let answers = child.stdout.take().context("The program has a pipe to write to")?;
        Ok(Self { child, orders, answers: BufReader::new(answers).lines() })
    }

    /// Has it fetch so many messages of each mailbox.
    pub(super) async fn fetch(&mut self, inboxes: &[Arc<Inbox>], each: usize) -> anyhow::Result<()> {
        let order: Vec<Value> = inboxes.iter().map(|inbox| order(inbox, each)).collect();
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await.context("Ordering the program in Python to fetch")?;
        let answer = self.answers.next_line().await?;
        ensure!(answer.as_deref() == Some("done"), "The program in Python ended early; its errors are above");
        Ok(())
    }

    /// Lets it end.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        let status = child.wait().await?;
        ensure!(status.success(), "The program in Python ended with {status}; its errors are above");
        Ok(())
    }
}

fn order(inbox: &Inbox, each: usize) -> Value {
    let messages = inbox.messages.iter().cycle().take(each).map(|event| event.message_id.to_string());
    json!({
        "key": inbox.mailbox.connection_id.to_string(),
        "refreshToken": inbox.refresh_token,
        "messages": messages.collect::<Vec<_>>(),
    })
}

/// The interpreter of an environment that has what these requirements name.
async fn installed(requirements: &Path) -> anyhow::Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).with_context(|| format!("Reading {}", requirements.display()))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/python");
    let (marker, python) = (folder.join("installed"), folder.join("venv/bin/python"));
    if fs::read_to_string(&marker).is_ok_and(|done| done == wanted) {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let venv = folder.join("venv");
    run(OsStr::new("python3"), &["-m".as_ref(), "venv".as_ref(), venv.as_os_str()]).await?;
    let install = ["-m", "pip", "install", "--quiet", "--requirement"].map(OsStr::new);
    let arguments: Vec<&OsStr> = install.into_iter().chain([requirements.as_os_str()]).collect();
    run(python.as_os_str(), &arguments).await?;
    fs::write(&marker, wanted)?;
    Ok(python)
}

async fn run(program: &OsStr, arguments: &[&OsStr]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).kill_on_drop(true).status().await;
    let status = status.with_context(|| format!("Running {}", program.display()))?;
    ensure!(status.success(), "{} {arguments:?} ended with {status}", program.display());
    Ok(())
}
