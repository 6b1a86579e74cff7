//! The figures and the verdict of a run, as tables on stdout.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::subscriber::Timing;
use super::verdict::Verdict;
use super::writer::Written;
use crate::sql::render::{new_table, right_aligned};

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Users with a table of their own.
    pub(super) users: usize,
    /// Live subscribers.
    pub(super) subscribers: usize,
    /// What the writers did.
    pub(super) written: Written,
    /// From the first request to the last acknowledgement, the crash included.
    pub(super) write_time: Duration,
    /// From the first request until the last row has arrived.
    pub(super) total_time: Duration,
    /// From SIGKILL until the server takes requests again.
    pub(super) recovery: Duration,
    /// Write to notification, outside of the crash.
    pub(super) latency: Latency,
    /// All segments of the log.
    pub(super) log_bytes: u64,
    /// Files, rows and bytes of the cold tier, if there is one.
    pub(super) cold: Option<(u64, u64, u64)>,
}

/// The distribution of the time from write to notification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Latency {
    /// Rows measured.
    pub(super) samples: usize,
    /// Half of them arrived within this.
    pub(super) p50: Duration,
    /// 99 % of them arrived within this.
    pub(super) p99: Duration,
}

impl Latency {
    /// Of all rows that were neither on their way nor sent within `outage_us` (from, to).
    pub(super) fn outside<'a>(outage_us: (u64, u64), timings: impl IntoIterator<Item = &'a Timing>) -> Self {
        let (from, to) = outage_us;
        let mut latencies: Vec<u64> = timings
            .into_iter()
            .filter(|timing| timing.received_us < from || timing.sent_us > to)
            .map(|timing| timing.received_us.saturating_sub(timing.sent_us))
            .collect();
        latencies.sort_unstable();
        let at = |percent: usize| {
            let index = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            Duration::from_micros(latencies.get(index).copied().unwrap_or_default())
        };
        Latency { samples: latencies.len(), p50: at(50), p99: at(99) }
    }
}

/// Bytes of all segments of the log below `data_dir`.
pub(super) fn log_bytes(data_dir: &Path) -> anyhow::Result<u64> {
    let log = data_dir.join("log");
    let mut bytes = 0;
    for entry in std::fs::read_dir(&log).with_context(|| format!("can't list {}", log.display()))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "klog") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Writes both tables and what is wrong, if anything is.
pub(super) fn write(out: &mut impl Write, figures: &Figures, verdict: &Verdict) -> std::io::Result<()> {
    let mut table = new_table(["figure", "value"]);
    for (name, value) in rows(figures) {
        table.add_row([name.into(), right_aligned(value)]);
    }
    writeln!(out, "{table}")?;
    let counts = verdict.counts;
    let mut table = new_table(["delivery, against the input", "rows"]);
    let all =
        [("expected", counts.expected), ("received", counts.received)].into_iter().chain(counts.faults());
    for (name, count) in all.chain(verdict.others()) {
        table.add_row([name.into(), right_aligned(grouped(count))]);
    }
    writeln!(out, "{table}")?;
    for offender in &verdict.offenders {
        writeln!(out, "  {offender}")?;
    }
    Ok(())
}

fn rows(figures: &Figures) -> Vec<(&'static str, String)> {
    let Figures { written, latency, .. } = figures;
    let mut rows = vec![
        ("users", grouped(figures.users as u64)),
        ("live subscribers", grouped(figures.subscribers as u64)),
        ("rows written", grouped(written.rows)),
        ("commits", grouped(written.batches)),
        ("requests cut off by the crash", grouped(written.resent)),
        ("… already committed", grouped(written.found_committed)),
        ("writing, crash included", format!("{:.2} s", figures.write_time.as_secs_f64())),
        ("until the last notification", format!("{:.2} s", figures.total_time.as_secs_f64())),
        ("rows/s", format!("{:.0}", ratio(written.rows, figures.write_time.as_secs_f64()))),
        ("write→notification p50", millis(latency.p50)),
        ("write→notification p99", millis(latency.p99)),
        ("… rows measured", grouped(latency.samples as u64)),
        ("recovery after SIGKILL", millis(figures.recovery)),
        ("log", format!("{} bytes", grouped(figures.log_bytes))),
        ("log per row", format!("{:.0} bytes", ratio(figures.log_bytes, ratio(written.rows, 1.0)))),
    ];
    if let Some((files, cold_rows, bytes)) = figures.cold {
        rows.extend([
            ("Parquet files", grouped(files)),
            ("… rows in them", grouped(cold_rows)),
            ("… their size", format!("{} bytes", grouped(bytes))),
            ("… per row", format!("{:.0} bytes", ratio(bytes, ratio(cold_rows, 1.0)))),
        ]);
    }
    rows
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn ratio(amount: u64, per: f64) -> f64 {
    if per > 0.0 { amount as f64 / per } else { 0.0 }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(sent_us: u64, received_us: u64) -> Timing {
        Timing { sent_us, received_us }
    }

    #[test]
    fn latency_leaves_out_what_the_crash_delayed() {
        let timings =
            [timing(1, 11), timing(90, 500), timing(150, 600), timing(1000, 1030), timing(1001, 1021)];
        let latency = Latency::outside((100, 900), &timings);
        let expected = Latency { samples: 3, p50: Duration::from_micros(20), p99: Duration::from_micros(30) };
        assert_eq!(latency, expected);
        assert_eq!(Latency::outside((0, 0), &[]), Latency::default());
    }

    #[test]
    fn only_segments_count_as_log() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        for (name, bytes) in [("0.klog", 10), ("1.klog", 5), ("index", 100)] {
            std::fs::write(dir.path().join("log").join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(log_bytes(dir.path()).unwrap(), 15);
    }
}
