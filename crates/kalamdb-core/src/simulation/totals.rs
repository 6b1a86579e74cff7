//! What happened, in numbers.

use std::fmt;

/// What happened, over all seeds.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) steps: u64,
    pub(super) commits: u64,
    pub(super) refused: u64,
    pub(super) closes: u64,
    pub(super) kills: u64,
    pub(super) power_losses: u64,
    pub(super) deaths: u64,
    pub(super) disk_faults: u64,
    pub(super) full_disks: u64,
    pub(super) looks: u64,
    pub(super) rows_checked: u64,
    pub(super) schema_versions: u64,
    pub(super) flushes: u64,
    pub(super) compactions: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        let fields = [
            (&mut self.steps, other.steps),
            (&mut self.commits, other.commits),
            (&mut self.refused, other.refused),
            (&mut self.closes, other.closes),
            (&mut self.kills, other.kills),
            (&mut self.power_losses, other.power_losses),
            (&mut self.deaths, other.deaths),
            (&mut self.disk_faults, other.disk_faults),
            (&mut self.full_disks, other.full_disks),
            (&mut self.looks, other.looks),
            (&mut self.rows_checked, other.rows_checked),
            (&mut self.schema_versions, other.schema_versions),
            (&mut self.flushes, other.flushes),
            (&mut self.compactions, other.compactions),
        ];
        for (total, more) in fields {
            *total += more;
        }
    }

    pub(super) const fn ends(&self) -> u64 {
        self.closes + self.kills + self.power_losses
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, commits, refused, closes, kills, power_losses, .. } = self;
        let Self {
            deaths,
            disk_faults,
            full_disks,
            looks,
            rows_checked,
            schema_versions,
            flushes,
            compactions,
            ..
        } = self;
        write!(
            f,
            "{steps} steps, {commits} commits, {refused} refused; ends: {closes} closed, {kills} killed, {power_losses} \
             without power, {deaths} of them within the write path; {disk_faults} disk faults, \
             {full_disks} full disks, {looks} looks of subscribers, {rows_checked} rows compared, \
             {schema_versions} schema versions, {flushes} flushes, {compactions} compactions"
        )
    }
}
