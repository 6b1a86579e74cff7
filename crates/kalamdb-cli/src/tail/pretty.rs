//! One line per event, for people: aligned, coloured on a terminal, long values cut.
//!
//! Names and values come from users, so they are escaped: none of them moves the cursor or colours the terminal. A value
//! is quoted where it would be taken for two, for none or for a name.

use std::io::Write;

use kalamdb_core::format::Operation;
use kalamdb_core::{ChangeRecord, instant};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

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
    pub(crate) fn line(&mut self, out: &mut Vec<u8>, record: &ChangeRecord) {
        let seq = record.seq.to_string();
        let table = match (record.namespace.as_str(), record.table.as_str()) {
            ("", "") => "-".to_owned(),
            ("", one) | (one, "") => escape(one),
            (namespace, table) => escape(&format!("{namespace}.{table}")),
        };
        let user = if record.user.is_empty() { "-".to_owned() } else { escape(&record.user) };
        self.seq_width = self.seq_width.max(seq.len());
        self.table_width = self.table_width.max(table.chars().count()).min(40);
        self.user_width = self.user_width.max(user.chars().count()).min(24);
        let (time, operation) = (instant(record.commit_time), record.operation.as_str());
        let (dim, colour, plain) = self.colours(record.operation);
        // A vector takes everything.
        let _ = writeln!(
            out,
            "{dim}{time}{plain}  {seq:>seq_width$}  {colour}{operation:<7}{plain}  {table:<table_width$}  \
             {user:<user_width$}  {what}",
            what = what(record),
            seq_width = self.seq_width,
            table_width = self.table_width,
            user_width = self.user_width,
        );
    }

    const fn colours(&self, operation: Operation) -> (&'static str, &'static str, &'static str) {
        if !self.is_coloured {
            return ("", "", "");
        }
        let colour = match operation {
            Operation::Insert => "\x1b[32m",
            Operation::Update => "\x1b[33m",
            Operation::Delete => "\x1b[31m",
            Operation::Evict | Operation::Flush | Operation::Compact => "\x1b[35m",
            Operation::Catalog => "\x1b[36m",
            Operation::Epoch => "\x1b[34m",
        };
        ("\x1b[2m", colour, "\x1b[0m")
    }
}

/// A JSON object's fields in the order they were written.
struct Fields(Vec<(String, Json)>);

impl Fields {
    fn of(json: &[u8]) -> Self {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        // Nothing is shown for what is no object: there is none.
        serde_json::Deserializer::from_slice(json).deserialize_map(Collect).unwrap_or(Self(Vec::new()))
    }

    fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

fn what(record: &ChangeRecord) -> String {
    let mut parts = Vec::new();
    if record.after.is_empty() && record.before.is_empty() {
        parts.push(record.event.clone());
        parts.extend(Fields::of(&record.details).0.iter().map(named));
    } else if record.before.is_empty() || record.after.is_empty() {
        parts.extend(Fields::of(&record.after).0.iter().map(named));
        parts.extend(Fields::of(&record.before).0.iter().map(named));
    } else {
        // The key, then what is different.
        let before = Fields::of(&record.before);
        parts.extend(Fields::of(&record.key).0.iter().map(named));
        for (name, value) in Fields::of(&record.after).0 {
            let old = before.get(&name);
            if old != Some(&value) {
                let old = old.map_or_else(|| "-".to_owned(), text);
                parts.push(format!("{}: {old} → {}", escape(&name), text(&value)));
            }
        }
    }
    parts.join("  ")
}

fn named((name, value): &(String, Json)) -> String {
    format!("{}={}", escape(name), text(value))
}

fn text(value: &Json) -> String {
    let Json::String(text) = value else { return cut(&escape(&value.to_string())) };
    let is_plain =
        |letter: char| !letter.is_whitespace() && !is_unsafe(letter) && !matches!(letter, '"' | '=');
    let is_word = matches!(text.as_str(), "" | "null" | "true" | "false" | "-" | "→");
    if !is_word && text.chars().all(is_plain) { cut(text) } else { format!("\"{}\"", cut(&escape(text))) }
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
