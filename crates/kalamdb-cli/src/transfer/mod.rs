//! Files into tables and tables into files: `kalamdb import`, `kalamdb export`.
//!
//! Both are clients of a running server, so whose rows they see and write is the server's to say. What a file is (CSV, JSON
//! lines, Parquet, compressed or not), what a table is and how far a command has come is the same for both and stands here;
//! which statements are sent is for [`mod@import`] and [`mod@export`].

mod csv_text;
mod export;
mod format;
mod import;
mod json_text;
mod progress;
mod table;
mod values;

pub(crate) use export::{ExportArgs, run as export};
pub(crate) use import::{ImportArgs, run as import};

use std::process::ExitCode;

use tokio::sync::watch;

use crate::client::ClientError;

/// The bytes of one row at the most: a file of anything else must not fill the memory.
const ROW_BYTES_MAX: usize = 16 << 20;

/// Runs a command that a signal ends in order; the receiver turns true once it is to.
fn run_until_stopped<F, W>(work: W) -> anyhow::Result<ExitCode>
where
    W: FnOnce(watch::Receiver<bool>) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let (sender, signals) = std::sync::mpsc::channel();
    crate::tail::stop_on_signals(sender)?;
    let (stop, stopped) = watch::channel(false);
    std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        // An error says that nothing will ever stop it.
        if signals.recv().is_ok() {
            let _ = stop.send(true);
        } else {
            std::thread::park();
        }
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let done = runtime.block_on(work(stopped));
    // What still waits for a terminal or a pipe must not keep the process.
    runtime.shutdown_background();
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What the client says of a request names its cause already.
            match error.downcast_ref::<ClientError>() {
                Some(error) => eprintln!("Error: {error}"),
                None => eprintln!("Error: {error:#}"),
            }
            ExitCode::FAILURE
        }
    })
}

/// What `work` gives, unless a signal comes first: then nobody waits for it any more.
async fn unless_stopped<T>(
    stopped: &mut watch::Receiver<bool>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        _ = stopped.wait_for(|is_to_stop| *is_to_stop) => anyhow::bail!("interrupted"),
        done = work => done,
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `1,234 rows`.
fn rows_text(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(count)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 12, 999, 1_000, 1_234_567].map(grouped), ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
