//! The real engine (log, both projections, sequencer, router) over a simulated disk, with a model beside it.
//!
//! One thread, no clock that matters, one seed: what a seed did once it does again. Each step commits something, moves a
//! subscriber, or breaks something: the process dies at a place in the write path or at a call to the disk, the power goes,
//! a write or a sync fails. After each end the next start must hold design §8:
//!
//! 1. what was acknowledged is there (all of it after the process died; in mode `always` also after the power went),
//! 2. what is there is a prefix of what was published, bytes and all, and no seq comes twice,
//! 3. the rows are what the log says, and a catalog built from the log alone is the live one,
//! 4. every subscriber's chain is whole and its rows are what its query answers,
//! 5. every row reads as one of the newest schema version, whichever version wrote it.
//!
//! A short run is part of the suite. `KALAMDB_SEEDS=200 KALAMDB_STEPS=500 cargo test --workspace --lib simulation` is a long
//! one, `KALAMDB_SEED=7` a single seed, said when it fails.
//!
//! RocksDB is on the real disk and is never closed with a flush, so what a restart finds of it is what the engine flushed.

mod check;
mod totals;
mod watcher;
mod work;
mod world;

use world::World;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Says which seed it was when a check fails.
struct SeedOnFailure(u64);

impl Drop for SeedOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}: KALAMDB_SEED={} runs it alone", self.0, self.0);
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the totals of a long run are what it is run for")]
fn nothing_is_lost_whatever_happens() {
    let steps = number("KALAMDB_STEPS", 120);
    let (first, seeds) = match std::env::var("KALAMDB_SEED") {
        Ok(_) => (number("KALAMDB_SEED", 0), 1),
        Err(_) => (1, number("KALAMDB_SEEDS", 8)),
    };
    let mut totals = totals::Totals::default();
    for seed in first..first + seeds {
        let _said = SeedOnFailure(seed);
        totals.add(&World::run(seed, steps));
    }
    println!("{totals}");
    assert!(
        totals.commits > 0 && totals.ends() > 0 && totals.flushes > 0 && totals.compactions > 0,
        "{totals}"
    );
}
