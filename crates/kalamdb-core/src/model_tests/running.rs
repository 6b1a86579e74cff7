//! An engine that is closed or killed, and started again on what is left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use kalamdb_log::Durability;

use crate::commit::Sequencer;
use crate::engine::Machine;
use crate::{Engine, EngineOptions};

pub(super) struct Running {
    pub(super) engine: Engine,
    is_killed: Arc<AtomicBool>,
    sequencer: JoinHandle<()>,
    jobs: JoinHandle<()>,
}

impl Running {
    pub(super) fn open(directory: &Path) -> Self {
        let mut options = EngineOptions::new(directory);
        options.durability = Durability::Os;
        // Small, so that segments rotate and projections are flushed while it runs.
        options.segment_bytes = 256 << 10;
        options.unflushed_bytes_max = 128 << 10;
        let (engine, workers, _) = Engine::assemble(options, Machine::default()).unwrap();
        let is_killed = Arc::new(AtomicBool::new(false));
        let (killed, sequencer) = (Arc::clone(&is_killed), workers.sequencer);
        let sequencer = std::thread::spawn(move || commit_until_closed(&killed, sequencer));
        let jobs = std::thread::spawn(move || workers.jobs.run());
        Self { engine, is_killed, sequencer, jobs }
    }

    /// Ends it. Killed, nothing is put into files that was not there.
    pub(super) fn end(self, kill: bool) {
        let Self { engine, is_killed, sequencer, jobs } = self;
        is_killed.store(kill, Ordering::Release);
        engine.close();
        // A job that waits for its commit gets it: only then is everybody gone who could hand in more.
        jobs.join().unwrap();
        sequencer.join().unwrap();
    }
}

fn commit_until_closed(killed: &AtomicBool, mut sequencer: Sequencer) {
    while sequencer.turn(None) {}
    if !killed.load(Ordering::Acquire) {
        sequencer.finish();
    }
}
