//! The log of a directory: read from its files, with or without a writer at work there.
//!
//! Segments that retention deletes are read to their end if they were begun; a reader that retention overtakes ends with
//! an error that names the first seq there is.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;
use kalamdb_core::ChangeRecord;
use kalamdb_core::format::{Frame, Seq};
use kalamdb_core::log::LogReader;

use super::catalog::Catalog;
use super::filter::Filter;
use super::narrow::Narrow;
use super::start::{From, seek, seek_time};
use super::{Output, TailArgs, log_directory};

/// How long a follower waits before it looks again.
const POLL: Duration = Duration::from_millis(50);

/// A reader at its place.
pub(super) struct Tail {
    reader: LogReader,
    /// Nothing before this seq is shown, …
    from: Seq,
    /// … nor what was committed before this time.
    since: i64,
    filter: Filter,
    /// What the filter leaves of the log; none for all of it.
    narrow: Option<Narrow>,
    names: Catalog,
    record: ChangeRecord,
}

impl Tail {
    /// Finds the place to begin at.
    pub(super) fn open(args: &TailArgs, filter: Filter) -> anyhow::Result<Self> {
        let dir = log_directory(&args.data_dir)?;
        let mut reader = LogReader::open(&dir);
        let default = if args.no_follow { From::Start } else { From::End };
        let (from, since) = match args.since.map(super::Since::micros) {
            Some(micros) => {
                seek_time(&dir, &mut reader, micros)?;
                (Seq::ZERO, micros)
            }
            None => (seek(&mut reader, args.from.unwrap_or(default))?, i64::MIN),
        };
        let mut narrow = filter.narrow();
        if let Some(narrow) = &mut narrow {
            narrow.learn(&dir)?;
            narrow.apply(&mut reader);
        }
        let names = Catalog::new(&dir);
        Ok(Self { reader, from, since, filter, narrow, names, record: ChangeRecord::default() })
    }

    /// Shows events until it is told to stop; `once` until there are no more.
    pub(super) fn follow<W: std::io::Write>(
        mut self,
        out: &mut Output<W>,
        stop: &Receiver<()>,
        once: bool,
    ) -> anyhow::Result<()> {
        loop {
            while let Some(frame) = self.reader.next()? {
                self.show(&frame, out)?;
                if stop.try_recv().is_ok() {
                    return Ok(out.flush()?);
                }
            }
            out.flush()?;
            if once {
                return Ok(());
            }
            match stop.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn show<W: std::io::Write>(&mut self, frame: &Frame, out: &mut Output<W>) -> anyhow::Result<()> {
        let fields = &frame.header().fields;
        for (seq, archived) in frame.events() {
            let archived = archived?;
            self.names.note(archived)?;
            if let Some(narrow) = &mut self.narrow
                && narrow.note(archived)?
            {
                narrow.apply(&mut self.reader);
            }
            if seq < self.from
                || fields.commit_time < self.since
                || !self.filter.may_match(seq, archived, &mut self.names)?
            {
                continue;
            }
            self.record
                .fill(seq, fields, archived, &mut self.names)
                .with_context(|| format!("the event of seq {seq} cannot be shown"))?;
            if self.filter.matches(&self.record) {
                out.show(&self.record)?;
            }
        }
        Ok(())
    }
}
