//! What the demo shows: lines as things happen, and how far it is while something takes long.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, how often a line says how far it is.
const QUIET: Duration = Duration::from_secs(5);

/// Lines on stdout; on a terminal, how far it is below them.
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    told: Mutex<Instant>,
}

impl Screen {
    /// Shows nothing yet.
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("a constant template parses");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, told: Mutex::new(Instant::now()) }
    }

    /// Prints a line.
    pub(super) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    /// Says how far it is.
    pub(super) fn status(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= QUIET {
            *told = Instant::now();
            println!("… {text}");
        }
    }

    /// Takes away what stands below the lines.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The time of day, UTC.
pub(super) fn clock() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S%.3f").to_string()
}
