//! Catalog, schemas and rows against a model: random statements over random tables, with restarts and replays between.
//!
//! The model is what docs/sql.md says, done the plainest way: tables are maps, an ALTER changes every row at once, a
//! transaction works on a copy. Every answer of the engine must be the model's: rows, counts, refusals. After every restart
//! (closed, killed, with projections deleted, so that the log alone makes them anew) everything is compared, and everything
//! is to the byte what it was before.
//!
//! One seed does the same again. A short run is part of the suite; `KALAMDB_SEEDS=50 KALAMDB_STEPS=2000 cargo test --workspace
//! --lib model_tests` is a long one, `KALAMDB_SEED=7` a single seed, said when it fails. `KALAMDB_TRAIL=1` tells of every
//! statement.

mod any;
mod condition;
mod ddl;
mod query;
mod running;
mod schema;
mod statement;
mod values;
mod world;

use world::World;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
#[expect(clippy::print_stdout, reason = "the totals of a long run are what it is run for")]
fn the_engine_answers_as_the_model_whatever_is_asked() {
    let steps = number("KALAMDB_STEPS", 120);
    let (first, seeds) = match std::env::var("KALAMDB_SEED") {
        Ok(_) => (number("KALAMDB_SEED", 0), 1),
        Err(_) => (1, number("KALAMDB_SEEDS", 4)),
    };
    for seed in first..first + seeds {
        println!("seed {seed}: {:?}", World::run(seed, steps));
    }
}
