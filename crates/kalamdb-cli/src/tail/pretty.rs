//! One line per event, for people: aligned, coloured on a terminal, long values cut.
//!
//! Names and values come from users, so they are escaped: none of them moves the cursor or colours the terminal.

use std::io::{self, Write};

use kalamdb_core::format::Operation;
use serde_json::Value as Json;

use super::event::{Cell, Row, Shown};
use super::value::{instant, to_json};

/// Characters of one value that are shown.
const VALUE_CHARS_MAX: usize = 80;

/// Remembers how wide columns have been, so that lines stay aligned.
#[derive(Debug)]
pub(crate) struct Pretty {
    is_coloured: bool,
    seq_width: usize,
    table_width: usize,
    user_width: usize,
}

impl Pretty {
    pub(crate) const fn new(is_coloured: bool) -> Self {
        Self { is_coloured, seq_width: 6, table_width: 12, user_width: 6 }
    }

    /// Writes an event's line.
    pub(crate) fn line(&mut self, out: &mut impl Write, shown: &Shown) -> io::Result<()> {
        let seq = shown.seq.to_string();
        let table = escape(shown.table.as_deref().unwrap_or("-"));
        let user = escape(shown.user.as_deref().unwrap_or("-"));
        self.seq_width = self.seq_width.max(seq.len());
        self.table_width = self.table_width.max(table.chars().count()).min(40);
        self.user_width = self.user_width.max(user.chars().count()).min(24);
        let (time, operation) = (instant(shown.commit_time), shown.operation.as_str());
        let (dim, colour, plain) = self.colours(shown.operation);
        writeln!(
            out,
            "{dim}{time}{plain}  {seq:>seq_width$}  {colour}{operation:<7}{plain}  {table:<table_width$}  \
             {user:<user_width$}  {what}",
            what = what(shown),
            seq_width = self.seq_width,
            table_width = self.table_width,
            user_width = self.user_width,
        )
    }

    const fn colours(&self, operation: Operation) -> (&'static str, &'static str, &'static str) {
        if !self.is_coloured {
            return ("", "", "");
        }
        let colour = match operation {
            Operation::Insert => "\x1b[32m",
            Operation::Update => "\x1b[33m",
            Operation::Delete => "\x1b[31m",
            Operation::Evict => "\x1b[35m",
            Operation::Catalog => "\x1b[36m",
            Operation::Epoch => "\x1b[34m",
        };
        ("\x1b[2m", colour, "\x1b[0m")
    }
}

fn what(shown: &Shown) -> String {
    match (&shown.row, &shown.old) {
        (Some(new), Some(old)) => changes(&shown.key, old, new),
        (Some(row), None) | (None, Some(row)) => row.cells.iter().map(named).collect::<Vec<_>>().join("  "),
        (None, None) => {
            let details = shown
                .details
                .iter()
                .map(|(name, value)| format!("{name}={}", cut(&escape(&value.to_string()))));
            std::iter::once(shown.name.to_owned()).chain(details).collect::<Vec<_>>().join("  ")
        }
    }
}

/// The key, then what is different.
fn changes(key: &[Cell], old: &Row, new: &Row) -> String {
    let mut parts: Vec<_> = key.iter().map(named).collect();
    for cell in &new.cells {
        let before = old.cells.iter().find(|before| before.name == cell.name);
        if before.is_none_or(|before| before.value != cell.value) {
            let before = before.map_or_else(|| "-".to_owned(), text);
            parts.push(format!("{}: {before} → {}", escape(&cell.name), text(cell)));
        }
    }
    parts.join("  ")
}

fn named(cell: &Cell) -> String {
    format!("{}={}", escape(&cell.name), text(cell))
}

fn text(cell: &Cell) -> String {
    match to_json(&cell.value, cell.scale) {
        // Numbers and times travel as strings, but read better without quotes.
        Json::String(text) if !is_text(cell) => text,
        Json::String(text) => format!("\"{}\"", cut(&escape(&text))),
        other => cut(&other.to_string()),
    }
}

const fn is_text(cell: &Cell) -> bool {
    use kalamdb_core::format::Value;
    matches!(cell.value, Value::Text(_) | Value::Json(_) | Value::Bytes(_))
}

fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|letter| {
            let (escaped, itself) =
                if is_unsafe(letter) { (Some(letter.escape_default()), None) } else { (None, Some(letter)) };
            escaped.into_iter().flatten().chain(itself)
        })
        .collect()
}

/// Characters that act on a terminal, or turn the direction of what follows.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_user_wrote_reaches_the_terminal_as_a_command() {
        assert_eq!(escape("a\x1b[2Jb\n\u{202e}ü\u{9b}"), "a\\u{1b}[2Jb\\n\\u{202e}ü\\u{9b}");
        assert_eq!(cut(&"ä".repeat(200)).chars().count(), VALUE_CHARS_MAX + 1);
        assert_eq!(cut("short"), "short");
    }
}
