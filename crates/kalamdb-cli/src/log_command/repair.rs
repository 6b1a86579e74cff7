//! `kalamdb log repair`: a damaged log is made readable again, and what that costs is told.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use kalamdb_core::clock;
use kalamdb_core::log::{Mended, repair as repair_log};

use super::place;
use crate::tail::catalog::Catalog;

/// Repairs what is damaged.
pub(super) fn repair(dir: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mended = repair_log(dir, clock::now_micros())?;
    if mended.is_empty() {
        writeln!(out, "nothing is damaged, nothing was changed")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut catalog = Catalog::new(dir);
    for one in &mended {
        write_mended(out, one, &mut catalog)?;
    }
    writeln!(out, "the log can be opened again; nothing was deleted")?;
    Ok(ExitCode::SUCCESS)
}

fn write_mended(out: &mut impl Write, mended: &Mended, catalog: &mut Catalog) -> anyhow::Result<()> {
    writeln!(out, "{}: {}", place(&mended.segment, mended.offset), mended.problem)?;
    match (mended.lost_from, mended.lost_to) {
        (None, _) => writeln!(out, "  lost: nothing")?,
        (Some(from), Some(to)) => {
            writeln!(out, "  lost: seq {from} to {to}, {} events", to.get().saturating_sub(from.get()) + 1)?;
        }
        (Some(from), None) => writeln!(out, "  lost: everything from seq {from} on, nobody knows how much")?,
    }
    for (table, events) in &mended.tables {
        let seq = mended.lost_from.unwrap_or_default();
        // What is lost may be what named the table.
        let name = catalog.table(*table, seq).ok().flatten().map(|name| name.escape_debug().to_string());
        let name = name.unwrap_or_else(|| format!("table {table}"));
        writeln!(out, "  of {name}: {events} events, as far as they can be read")?;
    }
    if mended.catalog_events > 0 {
        let events = mended.catalog_events;
        writeln!(out, "  of the catalog: {events} events, as far as they can be read")?;
    }
    if mended.lost_from.is_some() && mended.has_unreadable {
        writeln!(out, "  some of it cannot be read at all")?;
    }
    for path in &mended.kept {
        writeln!(out, "  kept: {}", path.display())?;
    }
    Ok(())
}
