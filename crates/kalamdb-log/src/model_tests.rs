//! A log on a failing disk beside a model of it: what was acknowledged stays, what is found is a beginning of what was
//! written, no seq is used twice. `KALAMDB_SEEDS` says how many seeds (or `FROM..TO`).

use std::collections::BTreeMap;
use std::sync::Arc;

use log_format::{ArchivedChangeEvent, ChangeEvent, EncodedEvent, Frame, Partition, RowInserted, TableId};

use crate::simulation::{Fault, Random, SimulatedDisk};
use crate::{Disk, Durability, Error, FramesAlone, LogDirectory, LogOptions, LogReader, LogWriter, verify};

const STEPS: usize = 150;
const FAULTS: [Fault; 4] = [Fault::Short, Fault::InputOutput, Fault::NoSpace, Fault::Halt];

/// A frame as it was staged: its seqs, and the number in its first event's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Commit {
    first: u64,
    last: u64,
    number: u64,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
    Crashed,
}

struct Simulation {
    seed: u64,
    random: Random,
    disk: SimulatedDisk,
    /// None between an end and the next start.
    writer: Option<LogWriter>,
    reader: Option<LogReader>,
    /// Commits the reader gave since it was opened.
    read: usize,
    /// Everything that may be in the log, in order.
    history: Vec<Commit>,
    /// How many of them were told to be durable.
    acknowledged: usize,
    /// How many of them were written, as far as the operating system told.
    written: usize,
    /// The last seq anybody outside was given.
    handed_out: u64,
    next_number: u64,
    counts: BTreeMap<&'static str, usize>,
}

fn event(number: u64, bytes: usize) -> EncodedEvent {
    let partition = Partition::shared(TableId::new(number % 5));
    let (key, row) = (number.to_le_bytes().to_vec(), vec![0xab; bytes]);
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key, row })).encode().unwrap()
}

/// The commit in a frame; none where it only begins an epoch.
fn commit_of(frame: &Frame) -> Option<Commit> {
    let ArchivedChangeEvent::RowInserted(event) = frame.event(0).unwrap() else { return None };
    let number = u64::from_le_bytes(event.key.as_slice().try_into().unwrap());
    Some(Commit { first: frame.first_seq().get(), last: frame.last_seq().get(), number })
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random::new(seed),
            disk: SimulatedDisk::new(seed),
            writer: None,
            reader: None,
            read: 0,
            history: Vec::new(),
            acknowledged: 0,
            written: 0,
            handed_out: 0,
            next_number: 1,
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn options(&mut self) -> LogOptions {
        let durability = if self.random.per_mille(700) { Durability::Always } else { Durability::Os };
        LogOptions {
            segment_bytes: 4096 + self.random.below(8192) as u64,
            durability,
            seq_gap: 10_000,
            preallocate_bytes: [0, 1024, 8192][self.random.below(3)],
            write_behind: false,
            skips_always: false,
        }
    }

    fn directory(&self) -> LogDirectory {
        LogDirectory::new(Arc::new(self.disk.clone()), "/data/log")
    }

    fn plan_fault(&mut self) {
        let fault = FAULTS[self.random.below(FAULTS.len())];
        self.disk.fail_at(self.disk.calls() + self.random.below(12) as u64, fault);
    }

    fn step(&mut self) {
        if self.random.per_mille(40) {
            self.plan_fault();
        }
        if self.random.per_mille(50) {
            self.change_room();
        }
        match self.random.below(100) {
            _ if self.writer.is_none() => self.start(),
            0..=1 => self.end(End::Closed),
            2..=3 => self.end(End::Killed),
            4..=5 => self.end(End::Crashed),
            6..=30 => self.read(),
            31..=70 => self.write(),
            _ => self.sync(),
        }
    }

    fn write(&mut self) {
        if self.writer.as_ref().is_some_and(LogWriter::is_full) {
            return self.recover();
        }
        let Some(writer) = &mut self.writer else { return };
        let mut staged = Vec::new();
        for _ in 0..=self.random.below(4) {
            let number = self.next_number;
            self.next_number += 1;
            let size = if self.random.per_mille(100) { 3000 } else { 300 };
            let events: Vec<_> =
                (0..=self.random.below(3)).map(|_| event(number, self.random.below(size))).collect();
            let header = writer.stage(&events, 0).unwrap();
            staged.push(Commit {
                first: header.fields.first_seq.get(),
                last: header.last_seq().get(),
                number,
            });
        }
        assert!(staged[0].first > self.handed_out, "a seq is used twice");
        let durable_before = writer.durable();
        let before = self.history.len();
        self.history.extend(&staged);
        match writer.write() {
            Ok(frames) => {
                assert_eq!(frames.iter().filter_map(commit_of).collect::<Vec<_>>(), staged);
                self.written = self.history.len();
                self.handed_out = staged.last().unwrap().last;
                if writer.durable() > durable_before {
                    self.acknowledge();
                    self.count("rotations");
                }
            }
            Err(Error::Full { .. }) => {
                assert_eq!(writer.next_seq().get(), staged[0].first, "what was refused leaves its seqs");
                self.history.truncate(before);
                self.acknowledge();
                self.count("full disks");
            }
            Err(error) => {
                assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
                self.count("failed writes");
                self.end_some_way();
            }
        }
    }

    /// Asks whether there is space again.
    fn recover(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let refused = writer.stage(&[event(0, 10)], 0);
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        match writer.try_recover() {
            Ok(()) => self.count("recoveries"),
            Err(Error::Full { .. }) => {}
            Err(Error::Poisoned { .. }) => self.end_some_way(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Gives the disk some room, or a limit.
    fn change_room(&mut self) {
        let limit = self.disk.used() + self.random.below(12_000);
        self.disk.set_capacity(self.random.per_mille(500).then_some(limit));
    }

    /// Takes over what the writer says is durable.
    fn acknowledge(&mut self) {
        let durable = self.writer.as_ref().map_or(0, |writer| writer.durable().get());
        let durable = self.history.partition_point(|commit| commit.last <= durable);
        self.acknowledged = self.acknowledged.max(durable);
    }

    fn sync(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        match writer.sync() {
            Ok(_) => self.acknowledge(),
            Err(error) => {
                assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
                self.count("failed syncs");
                self.end_some_way();
            }
        }
    }

    /// A reader beside the writer sees what was written, in order, each once.
    fn read(&mut self) {
        let directory = self.directory();
        let reader = self.reader.get_or_insert_with(|| LogReader::open(directory));
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    let Some(commit) = commit_of(&frame) else { continue };
                    assert_eq!(Some(&commit), self.history.get(self.read));
                    self.read += 1;
                }
                Ok(None) => {
                    assert!(self.read >= self.written, "{} of {} read", self.read, self.written);
                    return;
                }
                Err(Error::Io { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn end_some_way(&mut self) {
        let end = if self.random.per_mille(500) { End::Killed } else { End::Crashed };
        self.end(end);
    }

    fn end(&mut self, end: End) {
        let mut end = end;
        if let Some(writer) = self.writer.take().filter(|_| end == End::Closed) {
            match writer.close() {
                Ok(()) => self.acknowledged = self.history.len(),
                Err(Error::Poisoned { .. } | Error::Full { .. } | Error::Io { .. }) => end = End::Killed,
                Err(error) => panic!("{error}"),
            }
        }
        // The power may go after a clean close as well: everything is durable then.
        let crashes = end == End::Crashed || end == End::Closed && self.random.per_mille(500);
        self.disk = if crashes { self.disk.crash(&mut self.random) } else { self.disk.kill() };
        if crashes {
            self.written = self.acknowledged;
        }
        (self.reader, self.read) = (None, 0);
        self.count(match end {
            End::Closed => "closes",
            End::Killed => "kills",
            End::Crashed => "crashes",
        });
    }

    fn start(&mut self) {
        if self.random.per_mille(300) {
            let fault = FAULTS[self.random.below(FAULTS.len())];
            self.disk.fail_at(self.disk.calls() + self.random.below(25) as u64, fault);
        }
        let options = self.options();
        match LogWriter::open(self.directory(), &options, 0) {
            Ok((writer, recovery)) => {
                assert!(recovery.end.get() > self.handed_out, "an epoch begins at a seq that was given away");
                self.handed_out = recovery.end.get();
                self.writer = Some(writer);
                self.disk.mend();
                self.compare();
                self.count("starts");
            }
            Err(Error::Io { .. } | Error::Full { .. } | Error::Poisoned { .. }) => {
                self.count("failed starts");
                self.disk.set_capacity(None);
                self.end_some_way();
            }
            Err(error) => panic!("refused: {error}"),
        }
    }

    /// What is there after a start is a beginning of what was written, with all that was acknowledged.
    fn compare(&mut self) {
        let mut reader = LogReader::open(self.directory());
        let mut found = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            found.extend(commit_of(&frame));
        }
        assert!(found.len() >= self.acknowledged, "{} of {} are left", found.len(), self.acknowledged);
        assert!(found.len() >= self.written, "a killed process loses nothing that was written");
        assert_eq!(found, self.history[..found.len()]);
        let verified = verify(self.directory(), 1, &FramesAlone).unwrap();
        assert_eq!(verified.problems, []);
        self.history.truncate(found.len());
        (self.acknowledged, self.written) = (found.len(), found.len());
    }

    fn run(&mut self) {
        self.disk.create_dir_all("/data".as_ref()).unwrap();
        for _ in 0..STEPS {
            self.step();
        }
    }
}

/// Says which seed it was where a test panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("KALAMDB_SEEDS={}..{} does it again", self.0, self.0 + 1);
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("KALAMDB_SEEDS") else { return 0..150 };
    match text.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 0..text.parse().unwrap(),
    }
}

#[test]
fn a_log_on_a_failing_disk_keeps_what_it_promised() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds() {
        let named = Named(seed);
        let mut simulation = Simulation::new(seed);
        simulation.run();
        assert_eq!(simulation.seed, named.0);
        for (what, count) in simulation.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    eprintln!("{counts:?}");
    if seeds().count() >= 100 {
        for what in [
            "closes",
            "kills",
            "crashes",
            "failed writes",
            "failed syncs",
            "failed starts",
            "rotations",
            "full disks",
            "recoveries",
        ] {
            assert!(counts.get(what).is_some_and(|count| *count > 20), "{what}: {counts:?}");
        }
    }
}

/// Every call of a short life fails once, in each way: whatever happens, the next start finds what was acknowledged.
#[test]
fn any_call_may_fail() {
    let options = LogOptions { segment_bytes: 2048, preallocate_bytes: 512, ..crate::testing::options() };
    let life = |disk: &SimulatedDisk| -> (usize, crate::Result<()>) {
        let mut acknowledged = 0;
        let mut lived = || {
            let dir = LogDirectory::new(Arc::new(disk.clone()), "/log");
            let (mut writer, _) = LogWriter::open(&dir, &options, 0)?;
            for number in 0..12 {
                writer.stage(&[event(number, 200)], 0)?;
                writer.write()?;
                writer.sync()?;
                acknowledged += 1;
            }
            writer.close()?;
            LogWriter::open(&dir, &options, 0)?.0.close()
        };
        let result = lived();
        (acknowledged, result)
    };
    let whole = SimulatedDisk::new(0);
    assert_eq!(life(&whole).0, 12);
    for call in 0..whole.calls() {
        for (way, fault) in FAULTS.into_iter().enumerate() {
            let disk = SimulatedDisk::new(call);
            disk.fail_at(call, fault);
            let (acknowledged, _) = life(&disk);
            let mut random = Random::new(call * 4 + way as u64);
            for after in [disk.kill(), disk.crash(&mut random)] {
                let dir = LogDirectory::new(Arc::new(after), "/log");
                let (writer, _) = LogWriter::open(&dir, &options, 0)
                    .unwrap_or_else(|error| panic!("{fault:?} at call {call}: {error}"));
                drop(writer);
                let mut reader = LogReader::open(dir);
                let mut found = 0;
                while let Some(frame) = reader.next().unwrap() {
                    if let Some(commit) = commit_of(&frame) {
                        assert_eq!(commit.number, found, "{fault:?} at call {call}");
                        found += 1;
                    }
                }
                assert!(found >= acknowledged as u64, "{fault:?} at call {call}: {found} of {acknowledged}");
            }
        }
    }
}
