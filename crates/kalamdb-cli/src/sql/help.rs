//! Help texts: the answers of `\?` and `\h`.

use std::fmt::Write as _;

use super::render::NULL_TEXT;

/// Statements and how they are written; docs/sql.md has the rest.
const STATEMENTS: &[(&str, &str)] = &[
    ("ALTER NAMESPACE", "ALTER NAMESPACE name SET OPTIONS (option = value, …)"),
    (
        "ALTER TABLE",
        "ALTER TABLE [IF EXISTS] table change, …\n  ADD [COLUMN] [IF NOT EXISTS] column type [NOT NULL] [DEFAULT value]\n  \
         DROP [COLUMN] [IF EXISTS] column\n  RENAME [COLUMN] column TO name\n  \
         ALTER [COLUMN] column SET DEFAULT value | DROP DEFAULT | TYPE type\n  \
         SET (FLUSH_POLICY = '…', DELETED_RETENTION = '…', ACCESS_LEVEL = '…')",
    ),
    ("ALTER USER", "ALTER USER name SET PASSWORD '…' | ROLE user|service|dba | METADATA '…'"),
    ("BACKUP DATABASE", "BACKUP DATABASE namespace TO 'directory'"),
    ("BEGIN", "BEGIN; statement; …; COMMIT;  (sent as one request, one commit)"),
    ("CREATE NAMESPACE", "CREATE NAMESPACE [IF NOT EXISTS] name [WITH OPTIONS (option = value, …)]"),
    (
        "CREATE TABLE",
        "CREATE [USER | SHARED | STREAM] TABLE [IF NOT EXISTS] table (\n  column type [PRIMARY KEY] [NOT NULL] [DEFAULT value], …\n\
         ) [FLUSH POLICY ROWS n INTERVAL 'time'] [DELETED_RETENTION 'time'] [ACCESS_LEVEL 'public|restricted|private']\n\
         STREAM tables: [RETENTION 'time'] [MAX_BUFFER n] [EPHEMERAL true|false] [SCOPE 'user|all']",
    ),
    ("CREATE USER", "CREATE USER name WITH PASSWORD '…' ROLE user|service|dba"),
    ("DELETE", "DELETE FROM table [WHERE condition] [RETURNING expression, …]"),
    ("DESCRIBE TABLE", "DESCRIBE TABLE table [HISTORY]"),
    ("DROP NAMESPACE", "DROP NAMESPACE [IF EXISTS] name [CASCADE]"),
    ("DROP TABLE", "DROP TABLE [IF EXISTS] table"),
    ("DROP USER", "DROP USER [IF EXISTS] name"),
    ("EXECUTE AS USER", "EXECUTE AS USER 'name' (statement)"),
    ("EXPLAIN", "EXPLAIN [ANALYZE] statement"),
    (
        "INSERT",
        "INSERT INTO table [(column, …)] VALUES (value, …), … | SELECT …\n  \
         [ON CONFLICT [(key column, …)] DO NOTHING | DO UPDATE SET column = expression, … [WHERE condition]]\n  \
         [RETURNING expression, …]",
    ),
    ("KILL LIVE QUERY", "KILL LIVE QUERY 'live_id'"),
    (
        "RESTORE DATABASE",
        "RESTORE DATABASE namespace FROM 'directory' [AS name] [UNTIL 'time' | UNTIL SEQ n]",
    ),
    (
        "SELECT",
        "[WITH name AS (query), …] SELECT expression, … FROM table [JOIN table ON condition] [WHERE condition]\n  \
         [GROUP BY expression, … [HAVING condition]] [ORDER BY expression [DESC], …] [LIMIT n [OFFSET n]]",
    ),
    (
        "SHOW",
        "SHOW NAMESPACES | TABLES | CREATE TABLE table | STATS FOR TABLE table | BACKUPS | BACKUP FROM 'directory'",
    ),
    ("STORAGE", "STORAGE FLUSH TABLE table | STORAGE COMPACT TABLE table"),
    ("TRUNCATE TABLE", "TRUNCATE TABLE table"),
    ("UPDATE", "UPDATE table SET column = expression, … [WHERE condition] [RETURNING expression, …]"),
    ("USE", "USE namespace"),
];

/// The answer of `\h`: how the statements with that beginning are written, or which there are.
pub(super) fn statements(beginning: &str) -> Result<String, String> {
    if beginning.is_empty() {
        let mut text = "\\h STATEMENT shows how one is written:\n".to_owned();
        for (at, (name, _)) in STATEMENTS.iter().enumerate() {
            // A string takes everything.
            let _ = if at % 3 == 0 { write!(text, "\n  {name:<22}") } else { write!(text, "{name:<22}") };
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        return Ok(lines.join("\n") + "\n");
    }
    let beginning = beginning.to_ascii_uppercase();
    let found =
        STATEMENTS.iter().filter(|(name, _)| name.starts_with(&beginning) || beginning.starts_with(name));
    let found: Vec<&str> = found.map(|(_, syntax)| *syntax).collect();
    match found.as_slice() {
        [] => Err(format!("\\h knows no statement {beginning}; \\h alone lists them")),
        found => Ok(format!("{}\n", found.join("\n\n"))),
    }
}

/// The answer of `\?`.
pub(super) fn commands() -> String {
    format!(
        "\
A statement ends with ; and may span lines. BEGIN; … COMMIT; is sent as one.
A backslash command may stand within a statement; what was typed stays.
NULL looks like {NULL_TEXT}.

  \\?, help             this
  \\h [STATEMENT]       how SQL is written
  \\q, quit, exit       leave (also Ctrl-D)
  \\c [NAMESPACE]       plain names are of this namespace; alone: who is where

  \\d                   tables
  \\d TABLE             columns, options, versions of a table
  \\dt [PATTERN]        tables, such as chat.*
  \\dh TABLE            schema history
  \\ds TABLE            rows, bytes, files
  \\sc TABLE            its CREATE TABLE
  \\dn, \\l              namespaces
  \\du                  users
  \\dj [PATTERN]        jobs, the newest first; by type or status
  \\dl                  live queries

  \\g, \\gx              run the statement; \\gx with a line for each value
  \\e                   change it in $EDITOR
  \\p, \\r               show it; drop it
  \\watch [S [N]]       run it every S seconds, N times
  \\timing [on|off]     how long statements take

  \\i FILE              run the statements of a file
  \\o [FILE]            results into a file; alone: to the screen again
  \\copy                how to import and export files
  \\echo TEXT           write a text

  \\x [on|off|auto]     a line for each value; auto: where a table is too wide
  \\format FORMAT       table, line, json, csv
  \\pset                how all of these stand
  \\pset pager on|off   $PAGER or less for what is larger than the screen
  \\pset cut on|off     cut values so that a table fits the screen
  \\pset null TEXT      how NULL looks
"
    )
}

/// The greeting before the first prompt.
pub(super) fn greeting(url: &str, user: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("kalamdb {version} · {url} as {user} · \\? or help for help, \\q or exit to leave")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_by_their_beginning() {
        assert!(statements("").unwrap().contains("CREATE TABLE"));
        assert!(statements("create table").unwrap().starts_with("CREATE [USER"));
        assert!(statements("create table chat.messages").unwrap().starts_with("CREATE [USER"));
        assert_eq!(statements("create").unwrap().matches("CREATE ").count(), 3);
        assert!(statements("vacuum").is_err());
    }

    #[test]
    fn help_fits_a_terminal() {
        for text in [commands(), statements("").unwrap()] {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
