//! What was delivered, held against the input.
//!
//! It owns the counting: pure functions of what a subscriber had to receive and what it has received. Nothing here
//! trusts the server, and nothing here talks to it.

use std::collections::HashMap;

use super::data::Inbox;
use super::subscriber::{Delivery, Sightings};

const OFFENDERS_SHOWN_MAX: usize = 10;

/// The deliveries of one subscriber, or of all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Rows that had to arrive.
    pub(super) expected: u64,
    /// Rows that arrived, however often and whosever they were.
    pub(super) received: u64,
    /// Rows that never arrived.
    pub(super) missing: u64,
    /// Arrivals beyond the first of a row.
    pub(super) duplicated: u64,
    /// First arrivals after a later row had arrived.
    pub(super) out_of_order: u64,
    /// Rows of a conversation in which the user takes no part.
    pub(super) foreign: u64,
    /// Rows that are not exactly what was written.
    pub(super) altered: u64,
    /// Frames that do not follow the one before.
    pub(super) chain_breaks: u64,
}

impl Counts {
    /// What must be zero, with its names.
    pub(super) fn faults(&self) -> [(&'static str, u64); 6] {
        [
            ("missing", self.missing),
            ("duplicated", self.duplicated),
            ("out of order", self.out_of_order),
            ("foreign", self.foreign),
            ("altered", self.altered),
            ("chain breaks", self.chain_breaks),
        ]
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.received += other.received;
        self.missing += other.missing;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.foreign += other.foreign;
        self.altered += other.altered;
        self.chain_breaks += other.chain_breaks;
    }
}

/// Holds the arrivals of one subscriber against the ids that it had to receive, in their order.
fn count(expected: &[i64], deliveries: &[Delivery]) -> Counts {
    let mut unseen: HashMap<i64, usize> =
        expected.iter().enumerate().map(|(place, &id)| (id, place)).collect();
    let known = unseen.clone();
    let mut counts =
        Counts { expected: expected.len() as u64, received: deliveries.len() as u64, ..Counts::default() };
    let mut latest = None;
    for delivery in deliveries {
        if !known.contains_key(&delivery.id) {
            counts.foreign += 1;
            continue;
        }
        counts.altered += u64::from(!delivery.intact);
        match unseen.remove(&delivery.id) {
            None => counts.duplicated += 1,
            Some(place) if latest.is_some_and(|latest| place < latest) => counts.out_of_order += 1,
            Some(place) => latest = Some(place),
        }
    }
    counts.missing = unseen.len() as u64;
    counts
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// All subscribers together.
    pub(super) counts: Counts,
    /// Users who do not see exactly their rows.
    pub(super) wrong_tables: u64,
    /// Files with rows of somebody else.
    pub(super) wrong_files: u64,
    /// Subscribers that gave up.
    pub(super) gave_up: u64,
    /// Some of what went wrong, in words.
    pub(super) offenders: Vec<String>,
}

impl Verdict {
    /// Judges every subscriber, and takes note of the tables that are not as they should be.
    pub(super) fn new<'a>(
        subscribers: impl IntoIterator<Item = (&'a Inbox, &'a Sightings)>,
        wrong_tables: Vec<String>,
        wrong_files: Vec<String>,
    ) -> Self {
        let mut verdict = Verdict {
            wrong_tables: wrong_tables.len() as u64,
            wrong_files: wrong_files.len() as u64,
            ..Verdict::default()
        };
        for (inbox, sightings) in subscribers {
            verdict.add(inbox, sightings);
        }
        verdict.offenders.extend(wrong_tables.into_iter().chain(wrong_files));
        verdict.offenders.truncate(OFFENDERS_SHOWN_MAX);
        verdict
    }

    fn add(&mut self, inbox: &Inbox, sightings: &Sightings) {
        let expected: Vec<i64> = inbox.messages.iter().map(|message| message.id).collect();
        let mut counts = count(&expected, &sightings.deliveries);
        counts.chain_breaks = sightings.chain_breaks;
        if let Some(reason) = &sightings.failure {
            self.gave_up += 1;
            self.offenders.push(reason.clone());
        }
        let faults: Vec<String> = faults_in_words(counts.faults());
        if !faults.is_empty() {
            self.offenders.push(format!("{}: {}", inbox.user, faults.join(", ")));
        }
        self.counts += counts;
    }

    /// What must be zero beside deliveries, with its names.
    pub(super) fn others(&self) -> [(&'static str, u64); 3] {
        [
            ("tables that differ", self.wrong_tables),
            ("files with others' rows", self.wrong_files),
            ("subscribers gave up", self.gave_up),
        ]
    }

    /// What is wrong in a few words; `None` if nothing is.
    pub(super) fn failure(&self) -> Option<String> {
        let faults = faults_in_words(self.counts.faults().into_iter().chain(self.others()));
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

fn faults_in_words(faults: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<String> {
    faults
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERFECT: Counts = Counts {
        expected: 3,
        received: 3,
        missing: 0,
        duplicated: 0,
        out_of_order: 0,
        foreign: 0,
        altered: 0,
        chain_breaks: 0,
    };

    fn check(received: &[i64], expected: Counts) {
        let deliveries: Vec<Delivery> = received.iter().map(|&id| Delivery { id, intact: true }).collect();
        assert_eq!(count(&[10, 5, 30], &deliveries), expected, "{received:?}");
    }

    #[test]
    fn everything_once_in_order_is_perfect() {
        check(&[10, 5, 30], PERFECT);
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        check(&[10, 30], Counts { received: 2, missing: 1, ..PERFECT });
        check(&[10, 5, 5, 30, 10], Counts { received: 5, duplicated: 2, ..PERFECT });
        check(&[30, 10, 5], Counts { out_of_order: 2, ..PERFECT });
        check(&[10, 5, 30, 11], Counts { received: 4, foreign: 1, ..PERFECT });
        check(&[], Counts { received: 0, missing: 3, ..PERFECT });
    }

    #[test]
    fn a_row_of_ones_own_with_other_contents_is_altered() {
        let deliveries = [10, 5, 30].map(|id| Delivery { id, intact: id != 5 });
        assert_eq!(count(&[10, 5, 30], &deliveries), Counts { altered: 1, ..PERFECT });
    }

    fn inbox() -> Inbox {
        Inbox { user: "a".to_owned(), messages: Vec::new() }
    }

    #[test]
    fn the_verdict_names_what_is_wrong() {
        let (inbox, mut sightings) = (inbox(), Sightings::default());
        assert_eq!(Verdict::new([(&inbox, &sightings)], Vec::new(), Vec::new()).failure(), None);
        sightings.deliveries.push(Delivery { id: 1, intact: true });
        sightings.chain_breaks = 2;
        let verdict = Verdict::new([(&inbox, &sightings)], Vec::new(), Vec::new());
        assert_eq!(verdict.failure().as_deref(), Some("1 foreign, 2 chain breaks"));
        assert_eq!(verdict.offenders, ["a: 1 foreign, 2 chain breaks"]);
    }

    #[test]
    fn a_wrong_table_or_a_lost_subscriber_fails_the_run_too() {
        let (inbox, mut sightings) = (inbox(), Sightings::default());
        let verdict =
            Verdict::new([(&inbox, &sightings)], vec!["b sees 1 rows instead of 2".to_owned()], Vec::new());
        assert_eq!(verdict.failure().as_deref(), Some("1 tables that differ"));
        sightings.failure = Some("a: RESYNC_REQUIRED".to_owned());
        let verdict = Verdict::new([(&inbox, &sightings)], Vec::new(), Vec::new());
        assert_eq!(verdict.failure().as_deref(), Some("1 subscribers gave up"));
    }
}
