//! Says what is under way, on stderr: a spinner on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::ProgressBar;

/// Shown until it is dropped.
pub(crate) struct Progress {
    title: &'static str,
    spinner: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(title: &'static str) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_message(title);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { title, spinner }
    }

    /// What is done now.
    pub(crate) fn say(&self, what: &str) {
        let line = format!("{}: {what}", self.title);
        match &self.spinner {
            Some(spinner) => spinner.set_message(line),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
