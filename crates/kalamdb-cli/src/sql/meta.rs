//! The backslash commands.
//!
//! It owns their names and what each stands for: most are a statement in disguise. It runs nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum as _;

use super::render::{Expanded, Format};
use crate::client::quote_literal;

/// A backslash command, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meta {
    /// Leave.
    Quit,
    /// Show the backslash commands.
    Help,
    /// Show how a statement is written.
    StatementHelp(String),
    /// Write results differently from now on.
    Set(Setting),
    /// Show the settings.
    Settings,
    /// Run the statements of a file.
    Include(PathBuf),
    /// Write results to a file, or to the screen again.
    Output(Option<PathBuf>),
    /// Change the statement, or a file, in an editor.
    Edit,
    /// Tell who is logged in where.
    Connection,
    /// Run the statement again and again.
    Watch { every: Duration, times: Option<u64> },
    /// Run the statement as it stands.
    Go { is_expanded: bool },
    /// Show the statement as it stands.
    Print,
    /// Drop the statement as it stands.
    Reset,
    /// Write a text.
    Echo(String),
    /// Run this statement.
    Sql(String),
}

/// A setting of the output; where nothing is said, what can be on or off is turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Format(Format),
    /// None for on where it is off, and off where it is not.
    Expanded(Option<Expanded>),
    Timing(Option<bool>),
    Pager(Option<bool>),
    Cut(Option<bool>),
    NullText(String),
}

const TABLES: &str = "SELECT table_schema AS namespace, table_name AS name, table_type AS type \
     FROM information_schema.tables WHERE table_schema NOT IN ('information_schema', 'system')";
const USERS: &str = "SELECT username, role, created_at, updated_at FROM system.users ORDER BY username";
const JOBS: &str = "SELECT job_id, coalesce(namespace_id || '.' || table_name, namespace_id) AS about, status, \
     error_message AS error, date_trunc('second', created_at) AS created_at, finished_at - started_at AS took \
     FROM system.jobs";
const LIVE_QUERIES: &str = "SELECT live_id, user_id AS user, query, state, lag, changes, created_at \
     FROM system.live_queries ORDER BY created_at";

/// Reads one backslash command.
pub(super) fn parse(line: &str) -> Result<Meta, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let named = |prefix: &str, suffix: &str| {
        table_name(command, argument).map(|name| Meta::Sql(format!("{prefix} {name}{suffix}")))
    };
    let sql = |text: &str| Ok(Meta::Sql(text.to_owned()));
    // psql's \d+ and the like show more; here everything is shown.
    match command.trim_end_matches('+') {
        "\\d" if argument.is_empty() => Ok(Meta::Sql(tables(""))),
        "\\d" => named("DESCRIBE TABLE", ""),
        "\\dt" => Ok(Meta::Sql(tables(argument))),
        "\\dh" => named("DESCRIBE TABLE", " HISTORY"),
        "\\ds" => named("SHOW STATS FOR TABLE", ""),
        "\\sc" => named("SHOW CREATE TABLE", ""),
        "\\dn" | "\\l" => sql("SHOW NAMESPACES"),
        "\\du" => sql(USERS),
        "\\dj" => Ok(Meta::Sql(jobs(argument))),
        "\\dl" => sql(LIVE_QUERIES),
        "\\c" | "\\connect" if argument.is_empty() => Ok(Meta::Connection),
        "\\c" | "\\connect" => named("USE", ""),
        _ => parse_own(command, argument),
    }
}

/// Commands that are not statements.
fn parse_own(command: &str, argument: &str) -> Result<Meta, String> {
    let path = || PathBuf::from(unquoted(argument));
    match command {
        "\\q" | "\\quit" | "\\exit" => Ok(Meta::Quit),
        "\\?" | "\\help" => Ok(Meta::Help),
        "\\h" => Ok(Meta::StatementHelp(argument.to_owned())),
        "\\conninfo" => Ok(Meta::Connection),
        "\\timing" => on_or_off(command, argument).map(|on| Meta::Set(Setting::Timing(on))),
        "\\x" => expanded(command, argument),
        "\\format" => format(command, argument),
        "\\pset" => pset(argument),
        "\\i" | "\\include" if argument.is_empty() => Err("\\i takes a file".to_owned()),
        "\\i" | "\\include" => Ok(Meta::Include(path())),
        "\\o" | "\\out" if argument.is_empty() => Ok(Meta::Output(None)),
        "\\o" | "\\out" if argument.starts_with('|') => Err("\\o takes a file, no command".to_owned()),
        "\\o" | "\\out" => Ok(Meta::Output(Some(path()))),
        "\\e" | "\\edit" if argument.is_empty() => Ok(Meta::Edit),
        "\\e" | "\\edit" => Err("\\e changes the statement; \\i runs a file".to_owned()),
        "\\g" => Ok(Meta::Go { is_expanded: false }),
        "\\gx" => Ok(Meta::Go { is_expanded: true }),
        "\\p" => Ok(Meta::Print),
        "\\r" => Ok(Meta::Reset),
        "\\watch" => watch(argument),
        "\\echo" => Ok(Meta::Echo(unquoted(argument).to_owned())),
        "\\copy" => Err(copy(argument)),
        _ => Err(format!("{command} is not a command; \\? lists them")),
    }
}

fn tables(pattern: &str) -> String {
    let pattern = pattern.to_lowercase();
    let condition = match pattern.split_once('.') {
        _ if pattern.is_empty() => String::new(),
        Some((namespace, name)) => {
            format!(" AND table_schema {} AND table_name {}", like(namespace), like(name))
        }
        None => format!(" AND table_name {}", like(&pattern)),
    };
    format!("{TABLES}{condition} ORDER BY table_schema, table_name")
}

fn jobs(pattern: &str) -> String {
    let condition = if pattern.is_empty() {
        String::new()
    } else {
        format!(" WHERE job_type {0} OR status {0}", like(pattern))
    };
    format!("{JOBS}{condition} ORDER BY created_at DESC")
}

/// A condition by a pattern with `*` and `?`.
fn like(pattern: &str) -> String {
    let mut text = String::new();
    for character in pattern.chars() {
        match character {
            '*' => text.push('%'),
            '?' => text.push('_'),
            '%' | '_' | '\\' => text.extend(['\\', character]),
            _ => text.push(character),
        }
    }
    format!("LIKE {}", quote_literal(&text))
}

fn on_or_off(command: &str, argument: &str) -> Result<Option<bool>, String> {
    match argument.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "on" | "true" | "yes" | "1" => Ok(Some(true)),
        "off" | "false" | "no" | "0" => Ok(Some(false)),
        _ => Err(format!("{command} takes on or off")),
    }
}

fn expanded(command: &str, argument: &str) -> Result<Meta, String> {
    let expanded = if argument.eq_ignore_ascii_case("auto") {
        Some(Expanded::Auto)
    } else {
        let on = on_or_off(command, argument).map_err(|_| format!("{command} takes on, off or auto"))?;
        on.map(|on| if on { Expanded::On } else { Expanded::Off })
    };
    Ok(Meta::Set(Setting::Expanded(expanded)))
}

fn format(command: &str, argument: &str) -> Result<Meta, String> {
    let argument = if argument.eq_ignore_ascii_case("aligned") { "table" } else { argument };
    Format::from_str(argument, true)
        .map(|format| Meta::Set(Setting::Format(format)))
        .map_err(|_| format!("{command} takes table, line, json or csv"))
}

fn pset(argument: &str) -> Result<Meta, String> {
    let (name, value) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let value = value.trim();
    let on = |make: fn(Option<bool>) -> Setting| {
        on_or_off(&format!("\\pset {name}"), value).map(|on| Meta::Set(make(on)))
    };
    match name {
        "" => Ok(Meta::Settings),
        "pager" if value.eq_ignore_ascii_case("always") => Ok(Meta::Set(Setting::Pager(Some(true)))),
        "pager" => on(Setting::Pager),
        "timing" => on(Setting::Timing),
        "cut" => on(Setting::Cut),
        "x" | "expanded" => expanded(&format!("\\pset {name}"), value),
        "format" => format("\\pset format", value),
        "null" => Ok(Meta::Set(Setting::NullText(unquoted(value).to_owned()))),
        _ => Err(format!("\\pset has no {name}; it has pager, cut, expanded, format, null, timing")),
    }
}

fn watch(argument: &str) -> Result<Meta, String> {
    let wrong = || "\\watch takes seconds, and how often: \\watch 2 10".to_owned();
    let (mut every, mut times) = (Duration::from_secs(2), None);
    for (nth, word) in argument.split_whitespace().enumerate() {
        let (is_count, number) = match word.split_once('=') {
            Some(("c", count)) => (true, count),
            Some(("i", seconds)) => (false, seconds),
            _ => (nth > 0, word),
        };
        if is_count {
            times = Some(number.parse().map_err(|_| wrong())?);
        } else {
            let seconds: f64 = number.parse().map_err(|_| wrong())?;
            every = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        }
    }
    Ok(Meta::Watch { every, times })
}

/// The command that does what psql's `\copy` does.
fn copy(argument: &str) -> String {
    let words: Vec<&str> = argument.split_whitespace().collect();
    let place = |word: &str| words.iter().position(|it| it.eq_ignore_ascii_case(word));
    let file = |at: usize| words.get(at + 1).map_or("FILE", |file| unquoted(file));
    let before = |at: usize| words.get(..at).unwrap_or_default().join(" ");
    let command = match (place("from"), place("to")) {
        (_, Some(at)) if before(at).starts_with('(') => {
            let query = before(at);
            format!("kalamdb export --query \"{}\" {}", query.trim_matches(['(', ')']), file(at))
        }
        (_, Some(at)) => format!("kalamdb export {} {}", before(at), file(at)),
        (Some(at), None) => format!("kalamdb import {} INTO {}", file(at), before(at)),
        (None, None) => "kalamdb import FILE INTO TABLE, kalamdb export TABLE FILE".to_owned(),
    };
    format!("\\copy is a command of its own, for the shell: {command}")
}

/// Without the quotes around it.
fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('\'').or_else(|| within('"')).unwrap_or(text)
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
        let what = if command.starts_with("\\c") { "namespace" } else { "table, such as chat.messages" };
        return Err(format!("{command} takes the name of a {what}"));
    }
    Ok(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(line: &str) -> String {
        match parse(line) {
            Ok(Meta::Sql(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn shortcuts_become_statements() {
        assert_eq!(sql("\\d chat.messages;"), "DESCRIBE TABLE chat.messages");
        assert_eq!(sql("\\d+ chat.messages"), "DESCRIBE TABLE chat.messages");
        assert_eq!(sql("\\dn"), "SHOW NAMESPACES");
        assert_eq!(sql("\\dh  \"a b\".c "), "DESCRIBE TABLE \"a b\".c HISTORY");
        assert_eq!(sql("\\c chat"), "USE chat");
        assert!(sql("\\d").contains("information_schema.tables"));
        assert!(sql("\\dt Chat.m*_").contains("table_schema LIKE 'chat' AND table_name LIKE 'm%\\_'"));
        assert!(sql("\\dt it's").contains("LIKE 'it''s'"));
        assert!(sql("\\dj failed").contains("status LIKE 'failed'"));
    }

    #[test]
    fn settings_and_leaving() {
        let set = |line: &str| match parse(line) {
            Ok(Meta::Set(setting)) => setting,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(set("\\format JSON"), Setting::Format(Format::Json));
        assert_eq!(set("\\pset format aligned"), Setting::Format(Format::Table));
        assert_eq!(set("\\x"), Setting::Expanded(None));
        assert_eq!(set("\\x auto"), Setting::Expanded(Some(Expanded::Auto)));
        assert_eq!(set("\\x off;"), Setting::Expanded(Some(Expanded::Off)));
        assert_eq!(set("\\timing on"), Setting::Timing(Some(true)));
        assert_eq!(set("\\pset pager off"), Setting::Pager(Some(false)));
        assert_eq!(set("\\pset null 'n/a'"), Setting::NullText("n/a".to_owned()));
        for line in ["\\q", "\\quit", "\\q;"] {
            assert_eq!(parse(line), Ok(Meta::Quit));
        }
        assert_eq!(parse("\\i a b.sql"), Ok(Meta::Include(PathBuf::from("a b.sql"))));
        assert_eq!(parse("\\i 'a b.sql'"), Ok(Meta::Include(PathBuf::from("a b.sql"))));
        assert_eq!(parse("\\o"), Ok(Meta::Output(None)));
        assert_eq!(parse("\\pset"), Ok(Meta::Settings));
    }

    #[test]
    fn watching_takes_seconds_and_a_count() {
        let watch = |line: &str| match parse(line) {
            Ok(Meta::Watch { every, times }) => Some((every.as_millis(), times)),
            _ => None,
        };
        assert_eq!(watch("\\watch"), Some((2_000, None)));
        assert_eq!(watch("\\watch 0.5"), Some((500, None)));
        assert_eq!(watch("\\watch 1 3"), Some((1_000, Some(3))));
        assert_eq!(watch("\\watch i=1 c=3"), Some((1_000, Some(3))));
        assert_eq!(watch("\\watch c=3"), Some((2_000, Some(3))));
        for wrong in ["\\watch -1", "\\watch x", "\\watch 1 x"] {
            assert_eq!(watch(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn copy_says_which_command_does_it() {
        let said = |line: &str| parse(line).unwrap_err();
        assert!(said("\\copy chat.m FROM 'a.csv' CSV").ends_with("kalamdb import a.csv INTO chat.m"));
        assert!(said("\\copy chat.m to a.csv").ends_with("kalamdb export chat.m a.csv"));
        assert!(said("\\copy (SELECT 1) TO 'a.csv'").ends_with("kalamdb export --query \"SELECT 1\" a.csv"));
        assert!(said("\\copy").contains("kalamdb import FILE INTO TABLE"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "\\format xml",
            "\\d a; DROP TABLE b",
            "\\d \"open",
            "\\nope",
            "\\i",
            "\\ds",
            "\\x maybe",
            "\\o |less",
            "\\c a b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
