//! How far a command has come: a bar on a terminal, one line at the end, nothing with `--quiet`.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{grouped, rows_text};
use crate::clock;

const BAR: &str = "{bar:40} {percent:>3} %  {msg}  {elapsed}, {eta} to go";
const SPINNER: &str = "{spinner}  {msg}  {elapsed}";

/// What is being done.
pub(super) struct Progress {
    drawn: ProgressBar,
    is_quiet: bool,
    started: Instant,
    rows: u64,
}

impl Progress {
    /// Whether a bar is drawn, and so a total is of use.
    pub(super) fn is_shown(is_quiet: bool) -> bool {
        !is_quiet && std::io::stderr().is_terminal()
    }

    /// Towards a total (bytes or rows, whatever [`Self::advance`] counts), where it is known.
    pub(super) fn new(total: Option<u64>, is_quiet: bool) -> Self {
        let drawn = if Self::is_shown(is_quiet) {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total), BAR),
                None => (ProgressBar::new_spinner(), SPINNER),
            };
            let style = ProgressStyle::with_template(template);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::hidden()
        };
        Self { drawn, is_quiet, started: clock::now(), rows: 0 }
    }

    /// Some more rows are done; `position` is where the total is reached from.
    pub(super) fn advance(&mut self, rows: u64, position: u64) {
        self.rows += rows;
        if !self.drawn.is_hidden() {
            let rate = grouped(self.rate(self.elapsed()));
            self.drawn.set_message(format!("{}, {rate} rows/s", rows_text(self.rows)));
            self.drawn.set_position(position);
        }
    }

    /// Takes the bar away, so that what is written next stands alone.
    pub(super) fn clear(&self) {
        self.drawn.finish_and_clear();
    }

    /// The line at the end: `imported 19,676 rows into app.messages in 1.2 s (16,400 rows/s)`.
    pub(super) fn finish(&self, done: &str) {
        self.clear();
        if !self.is_quiet {
            let elapsed = self.elapsed();
            let rate = grouped(self.rate(elapsed));
            eprintln!("{done} in {:.1} s ({rate} rows/s)", elapsed.as_secs_f64());
        }
    }

    fn elapsed(&self) -> Duration {
        clock::now().saturating_duration_since(self.started)
    }

    fn rate(&self, elapsed: Duration) -> u64 {
        let micros = elapsed.as_micros().max(1);
        u64::try_from(u128::from(self.rows) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

/// A count that the thread which reads a file keeps, and the bar shows.
#[derive(Debug, Clone, Default)]
pub(super) struct Position(Arc<AtomicU64>);

impl Position {
    pub(super) fn advance(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
