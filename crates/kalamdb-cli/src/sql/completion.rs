//! What Tab offers at the prompt: keywords, tables, columns.
//!
//! It owns the list of keywords and the matching; the names are handed to it (they come from the server and may be
//! stale or missing, which costs nothing but a suggestion).

use std::sync::{Arc, Mutex, PoisonError};

use reedline::{Completer, CompletionResult, Span, Suggestion};

const KEYWORDS: &[&str] = &[
    "ADD COLUMN",
    "ALTER TABLE",
    "AND",
    "AS",
    "ASC",
    "BACKUP DATABASE",
    "BEGIN",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "BYTES",
    "CASCADE",
    "CASE",
    "CAST",
    "COMMIT",
    "COUNT",
    "CREATE NAMESPACE",
    "CREATE SHARED TABLE",
    "CREATE STREAM TABLE",
    "CREATE TABLE",
    "CREATE USER",
    "CREATE USER TABLE",
    "DATE",
    "DATETIME",
    "DECIMAL",
    "DEFAULT",
    "DELETE FROM",
    "DESC",
    "DESCRIBE TABLE",
    "DISTINCT",
    "DO NOTHING",
    "DO UPDATE",
    "DOUBLE",
    "DROP COLUMN",
    "DROP NAMESPACE",
    "DROP TABLE",
    "DROP USER",
    "ELSE",
    "EMBEDDING",
    "END",
    "EPHEMERAL",
    "EXECUTE AS USER",
    "EXISTS",
    "EXPLAIN",
    "FLOAT",
    "FLUSH POLICY",
    "FROM",
    "GROUP BY",
    "HAVING",
    "IF EXISTS",
    "IF NOT EXISTS",
    "IN",
    "INNER JOIN",
    "INSERT INTO",
    "INT",
    "INTERVAL",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "JSON",
    "KILL LIVE QUERY",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "MAX_BUFFER",
    "MODIFY COLUMN",
    "NOT NULL",
    "NOW()",
    "NULL",
    "OFFSET",
    "ON",
    "ON CONFLICT",
    "OR",
    "ORDER BY",
    "PRIMARY KEY",
    "RENAME COLUMN",
    "RESTORE DATABASE",
    "RETENTION",
    "RETURNING",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW CREATE TABLE",
    "SHOW NAMESPACES",
    "SHOW STATS FOR TABLE",
    "SHOW TABLES",
    "SMALLINT",
    "SNOWFLAKE_ID()",
    "STORAGE COMPACT TABLE",
    "STORAGE FLUSH TABLE",
    "SUM",
    "TEXT",
    "THEN",
    "TIME",
    "TIMESTAMP",
    "TRUNCATE TABLE",
    "ULID()",
    "UNION",
    "UPDATE",
    "USE",
    "UUID",
    "UUID_V7()",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

const SUGGESTIONS_MAX: usize = 200;

/// The names of the server's tables and columns, shared between the prompt and whoever refreshes them.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    /// Replaces all of them.
    pub(super) fn set(&self, names: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

/// Completes the word before the cursor.
pub(super) struct SqlCompleter {
    names: Names,
}

impl SqlCompleter {
    /// Completes keywords and these names.
    pub(super) fn new(names: Names) -> Self {
        SqlCompleter { names }
    }

    fn candidates(&self, word: &str) -> Vec<String> {
        if word.is_empty() {
            return Vec::new();
        }
        let folded = word.to_lowercase();
        let is_lower = word == folded;
        let keywords = KEYWORDS.iter().filter(|keyword| keyword.to_lowercase().starts_with(&folded));
        let mut found: Vec<String> = keywords
            .map(|keyword| if is_lower { keyword.to_lowercase() } else { (*keyword).to_owned() })
            .collect();
        let names = self.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.extend(names.iter().filter(|name| name.to_lowercase().starts_with(&folded)).cloned());
        found.truncate(SUGGESTIONS_MAX);
        found
    }
}

impl Completer for SqlCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let before = line.get(..pos).unwrap_or(line);
        let start = before
            .char_indices()
            .rev()
            .find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '_' | '.')))
            .map_or(0, |(at, c)| at + c.len_utf8());
        let word = before.get(start..).unwrap_or_default();
        let span = Span { start, end: before.len() };
        let suggestions: Vec<Suggestion> = self
            .candidates(word)
            .into_iter()
            .map(|value| Suggestion { value, span, append_whitespace: true, ..Suggestion::default() })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[&str]) {
        let names = Names::default();
        names.set(vec!["chat.messages".to_owned(), "selector".to_owned()]);
        let result = SqlCompleter::new(names).complete(line, line.len());
        let values: Vec<&str> =
            result.suggestions().iter().map(|suggestion| suggestion.value.as_str()).collect();
        assert_eq!(values, expected, "{line}");
    }

    #[test]
    fn keywords_follow_the_typed_case_and_names_keep_theirs() {
        check("sele", &["select", "selector"]);
        check("SELE", &["SELECT", "selector"]);
        check("SELECT * FROM chat.m", &["chat.messages"]);
        check("SELECT é.nothing", &[]);
        check("SELECT ", &[]);
    }

    #[test]
    fn the_word_is_what_is_replaced() {
        let result = SqlCompleter::new(Names::default()).complete("é WHER", 7);
        let spans: Vec<Span> = result.suggestions().iter().map(|suggestion| suggestion.span).collect();
        assert_eq!(spans, [Span { start: 3, end: 7 }]);
    }
}
