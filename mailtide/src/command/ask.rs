//! Asking first, and saying how far it is.

use std::io::{BufRead, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::WrongUse;

/// What somebody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Do it.
    Yes,
    /// Anything else.
    No,
}

/// Refuses what has to be confirmed where nobody can be asked.
///
/// # Errors
/// [`WrongUse`] when stdin is no terminal.
pub(crate) fn needs_terminal(what: &str) -> Result<(), WrongUse> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(WrongUse(format!("{what} has to be confirmed, and stdin is no terminal: look with --dry-run, then say --yes")))
}

/// Asks on the terminal.
///
/// # Errors
/// When stdin cannot be read.
pub(crate) async fn confirm(question: &str) -> anyhow::Result<Answer> {
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = read.await??;
    Ok(if matches!(line.trim(), "y" | "Y" | "yes") { Answer::Yes } else { Answer::No })
}

/// Prints on stdout.
///
/// # Errors
/// When nobody reads it.
pub(crate) fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// What goes on, on stderr, where that is a terminal and it is not known how long it takes.
pub(crate) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("a constant template parses");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// A bar on stderr, where that is a terminal.
pub(crate) fn bar(total: u64, unit: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} {msg}, {per_sec}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.with_style(style.expect("a constant template parses")).with_message(unit)
}
