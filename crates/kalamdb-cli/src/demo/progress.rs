//! Progress on stderr: bars on a terminal, a line at every tenth elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

const TEMPLATE: &str = "{prefix:>10} {bar:40} {human_pos:>9}/{human_len} {per_sec:>14} {elapsed:>5}";

/// Where bars are drawn.
#[derive(Debug)]
pub(super) struct Progress {
    bars: Option<MultiProgress>,
}

/// One count on its way to a total.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    name: &'static str,
    total: u64,
    value: Arc<AtomicU64>,
    drawn: Option<ProgressBar>,
}

impl Progress {
    /// Bars if stderr is a terminal.
    pub(super) fn new() -> Self {
        Progress { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// A line of its own.
    pub(super) fn say(&self, line: &str) {
        match &self.bars {
            // A terminal that can't be written to is no reason to stop.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }

    /// A new bar below the others.
    pub(super) fn bar(&self, name: &'static str, total: u64) -> Bar {
        let drawn = self.bars.as_ref().map(|bars| {
            let style =
                ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(total).with_style(style).with_prefix(name))
        });
        Bar { name, total, value: Arc::new(AtomicU64::new(0)), drawn }
    }

    /// A bar that shows a count until the count is dropped or the task is.
    pub(super) fn follow(&self, name: &'static str, total: u64, count: &watch::Sender<u64>) -> Follower {
        let bar = self.bar(name, total);
        let mut count = count.subscribe();
        let task = tokio::spawn({
            let bar = bar.clone();
            async move {
                while count.changed().await.is_ok() {
                    let value = *count.borrow_and_update();
                    bar.set(value);
                }
            }
        });
        Follower { bar, task }
    }
}

impl Bar {
    /// Some more is done.
    pub(super) fn advance(&self, more: u64) {
        let before = self.value.fetch_add(more, Ordering::Relaxed);
        self.show(before, before + more);
    }

    fn set(&self, value: u64) {
        let before = self.value.swap(value, Ordering::Relaxed);
        self.show(before, value);
    }

    fn show(&self, before: u64, value: u64) {
        match &self.drawn {
            Some(bar) => bar.set_position(value),
            None if self.tenths(before) < self.tenths(value) => {
                eprintln!("{:>10}  {value} of {} ({} %)", self.name, self.total, self.tenths(value) * 10);
            }
            None => {}
        }
    }

    fn tenths(&self, value: u64) -> u64 {
        value * 10 / self.total.max(1)
    }

    /// Leaves the bar as it stands.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.drawn {
            bar.abandon();
        }
    }
}

/// Keeps a bar in step with a count as long as it lives.
#[derive(Debug)]
pub(super) struct Follower {
    bar: Bar,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish();
    }
}
