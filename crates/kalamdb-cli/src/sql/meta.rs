//! The backslash commands.
//!
//! It owns their names and what each stands for: most are a statement in disguise. It runs nothing.

use std::path::PathBuf;

use clap::ValueEnum as _;

use super::render::{Format, NULL_TEXT};

/// What a line that begins with a backslash asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meta {
    /// Leave.
    Quit,
    /// Show [`help`].
    Help,
    /// Write results differently from now on.
    Format(Format),
    /// Show or hide the timing line.
    Timing,
    /// Run the statements of a file.
    Include(PathBuf),
    /// Run this statement.
    Sql(String),
}

const TABLES: &str = "SELECT table_schema AS namespace, table_name AS name, table_type AS type \
     FROM information_schema.tables WHERE table_schema NOT IN ('information_schema', 'system') \
     ORDER BY table_schema, table_name";
const USERS: &str = "SELECT username, role, created_at, updated_at FROM system.users ORDER BY username";

/// Reads one backslash command.
pub(super) fn parse(line: &str) -> Result<Meta, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let sql = |text: &str| Ok(Meta::Sql(text.to_owned()));
    let about = |prefix: &str, suffix: &str| {
        table_name(command, argument).map(|name| Meta::Sql(format!("{prefix} {name}{suffix}")))
    };
    match command {
        "\\q" => Ok(Meta::Quit),
        "\\?" | "\\h" => Ok(Meta::Help),
        "\\timing" => Ok(Meta::Timing),
        "\\format" => Format::from_str(argument, true)
            .map(Meta::Format)
            .map_err(|_| "\\format takes table, json or csv".to_owned()),
        "\\i" if argument.is_empty() => Err("\\i takes a file".to_owned()),
        "\\i" => Ok(Meta::Include(PathBuf::from(argument))),
        "\\d" | "\\dt" if argument.is_empty() => sql(TABLES),
        "\\d" | "\\dt" => about("DESCRIBE TABLE", ""),
        "\\dh" => about("DESCRIBE TABLE", " HISTORY"),
        "\\ds" => about("SHOW STATS FOR TABLE", ""),
        "\\sc" => about("SHOW CREATE TABLE", ""),
        "\\dn" | "\\l" => sql("SHOW NAMESPACES"),
        "\\du" => sql(USERS),
        "\\dj" => sql("SELECT * FROM system.jobs ORDER BY created_at"),
        "\\dl" => sql("SELECT * FROM system.live_queries"),
        _ => Err(format!("{command} is not a command; \\? lists them")),
    }
}

/// A name as it may stand in a statement: plain or quoted, with or without a namespace.
fn table_name<'a>(command: &str, argument: &'a str) -> Result<&'a str, String> {
    let mut quoted = false;
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
    let fits = argument.chars().all(|c| {
        if c == '"' {
            quoted = !quoted;
        }
        c == '"' || quoted || is_plain(c)
    });
    if argument.is_empty() || !fits || quoted {
        return Err(format!("{command} takes the name of a table, such as chat.messages"));
    }
    Ok(argument)
}

/// What `\?` shows.
pub(super) fn help() -> String {
    format!(
        "\
A statement ends with ; and may span lines. BEGIN; … COMMIT; is sent as one. NULL looks like {NULL_TEXT}.

  \\d              tables               \\d TABLE        columns, options, versions
  \\dn, \\l         namespaces           \\dh TABLE       schema history
  \\du             users                \\ds TABLE       rows, bytes, files
  \\dj             jobs                 \\sc TABLE       its CREATE TABLE
  \\dl             live queries         USE NAMESPACE;  where plain names resolve
  \\i FILE         run a file           \\timing         show or hide times
  \\format FORMAT  table, json, csv     \\?              this
  \\q              leave (also Ctrl-D)
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcuts_become_statements() {
        assert_eq!(parse("\\d chat.messages;"), Ok(Meta::Sql("DESCRIBE TABLE chat.messages".to_owned())));
        assert_eq!(parse("\\dn"), Ok(Meta::Sql("SHOW NAMESPACES".to_owned())));
        assert_eq!(parse("\\dh  \"a b\".c "), Ok(Meta::Sql("DESCRIBE TABLE \"a b\".c HISTORY".to_owned())));
        assert!(matches!(parse("\\d"), Ok(Meta::Sql(text)) if text.contains("information_schema.tables")));
    }

    #[test]
    fn settings_and_leaving() {
        assert_eq!(parse("\\format JSON"), Ok(Meta::Format(Format::Json)));
        assert_eq!(parse("\\q"), Ok(Meta::Quit));
        assert_eq!(parse("\\i a b.sql"), Ok(Meta::Include(PathBuf::from("a b.sql"))));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["\\format xml", "\\d a; DROP TABLE b", "\\d \"open", "\\nope", "\\i", "\\ds"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
