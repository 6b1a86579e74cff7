//! Figures of benches whose subjects take turns: medians, ranges and ratios of rounds.

/// Rounds of each, where nothing else is said.
pub const ROUNDS: usize = 7;

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The figures, in the order they were measured.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<[String; 5]>,
}

impl Report {
    /// How often a second.
    pub fn rate(&mut self, what: &str, rounds: &[f64]) {
        self.add(what, rounds, |value| format!("{value:.0}/s"), String::new());
    }

    /// How many mebibytes a second.
    pub fn throughput(&mut self, what: &str, rounds: &[f64]) {
        self.add(what, rounds, |value| format!("{value:.0} MiB/s"), String::new());
    }

    /// How many microseconds.
    pub fn micros(&mut self, what: &str, rounds: &[f64]) {
        self.add(what, rounds, |value| format!("{value:.1} µs"), String::new());
    }

    /// The median of the rounds' ratios, and whether it is where it should be.
    pub fn ratio(&mut self, what: &str, left: &[f64], right: &[f64], wanted: std::ops::Range<f64>) {
        let rounds: Vec<f64> = left.iter().zip(right).map(|(left, right)| left / right).collect();
        let verdict = match (wanted.start, wanted.end) {
            (0.0, f64::INFINITY) => String::new(),
            (least, f64::INFINITY) => format!("{}, at least {least}", verdict(median(&rounds) >= least)),
            (_, most) => format!("{}, at most {most}", verdict(median(&rounds) <= most)),
        };
        self.add(what, &rounds, |value| format!("{value:.2}"), verdict);
    }

    /// A line: the median and the range of some rounds, shown so, with a verdict on them.
    pub fn add(&mut self, what: &str, rounds: &[f64], show: impl Fn(f64) -> String, verdict: String) {
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = format!("{} to {}", show(least), show(most));
        self.lines.push([what.to_owned(), rounds.len().to_string(), show(median(rounds)), range, verdict]);
    }

    /// Writes it all.
    #[expect(clippy::print_stdout, reason = "that is what it is for")]
    pub fn print(&self) {
        let width = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let [what, rounds, median, range] = [width(0), 6, width(2).max(6), width(3)];
        println!("{:<what$}  rounds  {:>median$}  {:>range$}", "", "median", "range");
        for [name, count, middle, spread, verdict] in &self.lines {
            println!("{name:<what$}  {count:>rounds$}  {middle:>median$}  {spread:>range$}  {verdict}");
        }
    }
}

/// Whether a figure is where it should be.
pub const fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "FAILS" }
}
