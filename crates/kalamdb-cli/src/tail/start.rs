//! Where a tail begins: a seq, an end of the log, or a time.
//!
//! Commit times never decrease along the log, so a time is found by bisection over the segments, and then by reading.

use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use chrono::DateTime;
use kalamdb_core::clock::now_micros;
use kalamdb_core::format::Seq;
use kalamdb_core::log::{Error as LogError, LogReader, list_segments};

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    End,
    Seq(Seq),
}

impl FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            number => match number.parse() {
                Ok(seq) => Ok(Self::Seq(Seq::new(seq))),
                Err(_) => Err("neither a seq nor `start` nor `end`"),
            },
        }
    }
}

/// A point in time: absolute, or that long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    At(i64),
    MicrosAgo(i64),
}

impl Since {
    /// Microseconds since 1970.
    pub(crate) fn micros(self) -> i64 {
        match self {
            Self::At(micros) => micros,
            Self::MicrosAgo(micros) => now_micros().saturating_sub(micros),
        }
    }
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "neither a time such as 2026-09-21T14:13:20Z nor a duration such as 90s, 10m, 2h, 1d";
        let units =
            [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
        let duration = units.into_iter().find_map(|(unit, micros): (&str, i64)| {
            let number: i64 = text.strip_suffix(unit)?.parse().ok().filter(|number| *number >= 0)?;
            number.checked_mul(micros)
        });
        match (duration, DateTime::parse_from_rfc3339(text)) {
            (Some(micros), _) => Ok(Self::MicrosAgo(micros)),
            (None, Ok(time)) => Ok(Self::At(time.timestamp_micros())),
            (None, Err(_)) => Err(WRONG),
        }
    }
}

/// Takes `reader` to the place to begin at, and tells the first seq that is wanted.
pub(crate) fn seek(reader: &mut LogReader, from: From) -> anyhow::Result<Seq> {
    let seq = match from {
        From::Start => return seek_retained(reader, Seq::new(1)),
        From::End => reader.end()?.next(),
        From::Seq(seq) => seq,
    };
    reader.seek_from(seq)?;
    Ok(seq)
}

/// Takes `reader` to a place at or before the first commit of this time or after it.
pub(crate) fn seek_time(dir: &Path, reader: &mut LogReader, micros: i64) -> anyhow::Result<()> {
    let segments = list_segments(dir).with_context(|| format!("no log in {}", dir.display()))?;
    let (mut low, mut high) = (0, segments.len());
    while low < high {
        let middle = low.midpoint(high);
        let Some(segment) = segments.get(middle) else { break };
        if begins_before(dir, segment.base_seq, micros)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let before = low.checked_sub(1).and_then(|index| segments.get(index));
    seek_retained(reader, before.map_or(Seq::new(1), |segment| segment.base_seq)).map(|_| ())
}

/// Whether a segment's first commit is older. So is one that retention has taken meanwhile.
fn begins_before(dir: &Path, base: Seq, micros: i64) -> anyhow::Result<bool> {
    let mut reader = LogReader::open(dir);
    match reader.seek_from(base) {
        Ok(()) => Ok(reader.next()?.is_some_and(|frame| frame.header().fields.commit_time < micros)),
        Err(LogError::BelowFloor { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Goes to `seq`, or to the first one after it that is retained.
fn seek_retained(reader: &mut LogReader, seq: Seq) -> anyhow::Result<Seq> {
    match reader.seek_from(seq) {
        Ok(()) => Ok(seq),
        Err(LogError::BelowFloor { floor }) => {
            reader.seek_from(floor)?;
            Ok(floor)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_that_long_ago() {
        let cases = [
            ("10m", Ok(Since::MicrosAgo(600_000_000))),
            ("250ms", Ok(Since::MicrosAgo(250_000))),
            ("0s", Ok(Since::MicrosAgo(0))),
            ("1d", Ok(Since::MicrosAgo(86_400_000_000))),
            ("2026-09-21T14:13:20Z", Ok(Since::At(1_790_000_000_000_000))),
            ("2026-09-21T16:13:20.000001+02:00", Ok(Since::At(1_790_000_000_000_001))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Since>(), expected, "{text}");
        }
        for text in ["", "m", "-5m", "10", "10 m", "1y", "2026-09-21", "9223372036854775807d"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
