//! From a write to the one subscription that matches it, among those that do not.

use criterion::Criterion;
use kalamdb_benches::{Listened, Subject};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for subscriptions in [1, 100, 10_000] {
        let listened = Listened::by(subscriptions, Subject::Points);
        criterion.bench_function(&format!("notify/{subscriptions}"), |bencher| {
            bencher.iter_custom(|iterations| (0..iterations).map(|_| listened.notify()).sum());
        });
    }
    criterion.final_summary();
}
