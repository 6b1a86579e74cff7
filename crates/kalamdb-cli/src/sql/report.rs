//! Errors for people: code, message, the place in the statement or in the file, and what may help.

use super::render::printable;
use crate::client::ClientError;

/// The source of a statement: a file and line, or the prompt.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Origin<'a> {
    /// The file; none for what was typed or given with `-c`.
    pub(super) name: Option<&'a str>,
    /// The line of the file, from 1, that the statement begins in.
    pub(super) line: usize,
}

impl Origin<'_> {
    /// The prefix of a message about a line of the statement, itself from 1: `file.sql:12: `.
    pub(super) fn prefix(&self, line: usize) -> String {
        self.name.map_or_else(String::new, |name| format!("{}:{}: ", printable(name), self.line + line - 1))
    }

    /// The number that a line of the statement is shown with.
    fn number(&self, line: usize) -> usize {
        if self.name.is_some() { self.line + line - 1 } else { line }
    }
}

/// Writes an error to standard error.
pub(super) fn report(error: &ClientError, sql: &str, namespace: &str, origin: Origin<'_>) {
    eprintln!("{}", described(error, sql, namespace, origin));
}

fn described(error: &ClientError, sql: &str, namespace: &str, origin: Origin<'_>) -> String {
    let mut lines = Vec::new();
    match error {
        ClientError::Server { code, message, details, position, .. } => {
            let line = position.map_or_else(|| first_line(sql), |(line, _)| line.max(1));
            let message = if position.is_some() { without_position(message) } else { message };
            lines.push(format!("{}error[{code}]: {}", origin.prefix(line), printable(message)));
            lines.extend(
                position.and_then(|(line, column)| pointed_at(sql, line, column, origin.number(line))),
            );
            // Where it is has been shown, and in a file the server counts other lines.
            let details = details.as_ref().filter(|it| position.is_none() || !it.starts_with("at line"));
            lines.extend(details.map(|details| format!("details: {}", printable(details))));
        }
        other => lines.push(format!("{}error: {other}", origin.prefix(first_line(sql)))),
    }
    lines.extend(hint(error, namespace).map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

/// The line of a statement, from 1, that its first word stands in.
fn first_line(sql: &str) -> usize {
    let blank = sql.len() - super::split::without_blank(sql).len();
    1 + sql.get(..blank).unwrap_or_default().matches('\n').count()
}

/// A message without the position that it ends with.
fn without_position(message: &str) -> &str {
    match message.rfind(" at Line: ") {
        Some(at) if message.get(at..).is_some_and(|end| end.contains(", Column: ")) => {
            message.get(..at).unwrap_or(message)
        }
        _ => message,
    }
}

/// A line of a statement with a caret under one of its characters; both count from 1. It is shown with that number.
fn pointed_at(sql: &str, line: usize, column: usize, number: usize) -> Option<String> {
    /// Characters shown before and after the one pointed at.
    const AROUND: usize = 60;
    let text: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().collect();
    let at = column.checked_sub(1)?.min(text.len());
    let (from, until) = (at.saturating_sub(AROUND), text.len().min(at + AROUND));
    // A tab is one character and many columns.
    let shown = |character: &char| if character.is_control() { ' ' } else { *character };
    let excerpt: String = text.get(from..until)?.iter().map(shown).collect();
    let number = number.to_string();
    let margin = " ".repeat(number.len());
    Some(format!("{number} | {excerpt}\n{margin} | {}^", " ".repeat(at - from)))
}

fn hint(error: &ClientError, namespace: &str) -> Option<String> {
    let text = match error.code() {
        None if error.is_outcome_unknown() => "is the server running there? `kalamdb serve` starts one",
        Some("TABLE_NOT_FOUND") => {
            return Some(format!("\\d lists the tables; a plain name means one in namespace {namespace}"));
        }
        Some("NAMESPACE_NOT_FOUND") => "\\dn lists the namespaces; CREATE NAMESPACE name; makes one",
        Some("AUTH_REQUIRED" | "UNAUTHORIZED" | "INVALID_CREDENTIALS") => "check --user and the password",
        Some("PERMISSION_DENIED") => "SELECT CURRENT_USER(), CURRENT_ROLE(); tells who you are",
        Some("CONFLICT") => {
            "run it again: at once where rows were changed meanwhile, after the job where a namespace is restored"
        }
        Some("READ_ONLY") => "a write to the disk failed; the server's log says more",
        Some("TIMEOUT" | "MEMORY_LIMIT") => "a WHERE on the key or a LIMIT makes the query smaller",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let sql = "SELECT *\n  FROM nowhere\n WHERE x";
        assert_eq!(pointed_at(sql, 2, 8, 2).unwrap(), "2 |   FROM nowhere\n  |        ^");
        assert_eq!(pointed_at(sql, 2, 8, 120).unwrap(), "120 |   FROM nowhere\n    |        ^");
        assert_eq!(pointed_at("SELEC 1", 1, 1, 1).unwrap(), "1 | SELEC 1\n  | ^");
        assert_eq!(pointed_at("SELECT", 1, 40, 1).unwrap(), "1 | SELECT\n  |       ^", "the end");
        assert_eq!(pointed_at("SELECT", 2, 1, 2), None);
        let long = format!("{}x", "ä".repeat(500));
        let shown = pointed_at(&long, 1, 501, 1).unwrap();
        assert!(shown.lines().all(|line| line.chars().count() < 130), "{shown}");
    }

    fn error(message: &str, position: Option<(usize, usize)>) -> ClientError {
        let details = position.map(|(line, column)| format!("at line {line}, column {column}"));
        let (code, message) = ("INVALID_SQL".to_owned(), message.to_owned());
        ClientError::Server { status: 400, code, message, details, position }
    }

    #[test]
    fn a_place_is_one_of_the_file() {
        let origin = Origin { name: Some("a.sql"), line: 12 };
        let wrong = error("Expected: x, found: y at Line: 2, Column: 3", Some((2, 3)));
        let expected = "a.sql:13: error[INVALID_SQL]: Expected: x, found: y\n13 |   FROM\n   |   ^";
        assert_eq!(described(&wrong, "SELECT\n  FROM", "default", origin), expected);
        let typed = described(&wrong, "SELECT\n  FROM", "default", Origin::default());
        assert_eq!(typed, "error[INVALID_SQL]: Expected: x, found: y\n2 |   FROM\n  |   ^");
        let unplaced = error("no", None);
        let sql = "-- a comment\n\nDELETE FROM x";
        assert_eq!(described(&unplaced, sql, "default", origin), "a.sql:14: error[INVALID_SQL]: no");
    }
}
