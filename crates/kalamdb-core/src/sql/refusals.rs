//! Statements and clauses of other databases that this one does not have, and what takes their place here.
//!
//! Statements are told by their first words, before the parser looks at the rest: what is said does not depend on how they go on.
//! Clauses that the query engine would pass over in silence are refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Query, Select, TableFactor, Visit, Visitor};

use crate::error::{Error, Result};

/// Hint: the way to do without constraints that a table does not have.
pub(crate) const CONSTRAINTS: &str = "a table's constraints are its primary key and NOT NULL: make what has to be unique the primary key, here \
     or of a second table that is written in the same BEGIN … COMMIT; check other conditions before writing";

const INDEX: &str = "rows are found by the primary key, and in files by the bounds and bloom filters that each has: choose the \
     primary key for what is looked up most, or keep a second table with another key";
const VIEW: &str = "give the query a name in each statement (WITH v AS (SELECT …) SELECT …), or subscribe to it: a live query keeps \
     its result up to date";
const RIGHTS: &str = "what somebody may do is their role (CREATE USER … ROLE user|service|dba, ALTER USER … SET ROLE) and the kind of table: \
     a USER table's rows are each user's own, a SHARED table has an ACCESS_LEVEL";
const CODE: &str = "follow changes with a live query or system.changes, and do it in your program";
const CURSOR: &str = "read pages: WHERE key > $1 ORDER BY key LIMIT n, with the last key of the page before; or ask for an Arrow stream";
const PREPARED: &str =
    "send the statement with parameters ($1, …); its plan is kept for the next one with the same text";
const UPSERT: &str = "use INSERT … ON CONFLICT (key) DO UPDATE SET column = excluded.column, or DO NOTHING; for deletes a DELETE in the same \
     BEGIN … COMMIT";
const FILES: &str = "use the commands kalamdb import FILE INTO table and kalamdb export table FILE (CSV, JSON lines, Parquet)";
const NOTIFY: &str =
    "use a live query (subscribe over the WebSocket); for what need not be kept, of a STREAM table";
const LOCK: &str = "a BEGIN; …; COMMIT in one request reads one snapshot and is run anew where others changed the same rows meanwhile, so \
     no row has to be locked";
const UPKEEP: &str =
    "the database does that by itself; STORAGE COMPACT TABLE t puts a table's files together";
const NAMESPACE: &str = "use CREATE NAMESPACE, DROP NAMESPACE, SHOW NAMESPACES and USE";
const TEMPORARY: &str = "use WITH t AS (SELECT …) in the statement, or a table that is dropped after";
const SEQUENCE: &str =
    "use DEFAULT SNOWFLAKE_ID() for numbers that rise, UUID_V7() or ULID() for texts that do";
const TYPE: &str = "use one of the types there are; JSON holds what has a structure of its own";
const SETTING: &str = "a session's namespace is set by USE; settings are given when the server starts (system.settings shows them)";
const SHOWN: &str = "there are SHOW TABLES, SHOW NAMESPACES, SHOW STATS FOR TABLE, SHOW CREATE TABLE, SHOW BACKUP, DESCRIBE, and system.settings";

/// The refusal of a statement with these first words, where there is no such statement.
pub(super) fn refused([first, second, third, fourth]: [&str; 4]) -> Option<Error> {
    let hint = match (first, second, third) {
        ("CREATE" | "ALTER" | "DROP", "INDEX", _) | ("CREATE", "UNIQUE" | "FULLTEXT" | "SPATIAL", _) => INDEX,
        ("CREATE" | "ALTER" | "DROP", "SCHEMA" | "DATABASE", _) | ("SHOW", "DATABASES" | "SCHEMAS", _) => {
            NAMESPACE
        }
        ("CREATE" | "ALTER" | "DROP", "VIEW" | "MATERIALIZED" | "RECURSIVE", _) | ("REFRESH", _, _) => VIEW,
        ("CREATE", "OR", "REPLACE") if fourth == "TABLE" => {
            "DROP TABLE IF EXISTS t first, or use CREATE TABLE IF NOT EXISTS"
        }
        ("CREATE", "OR", "REPLACE") => return refused(["CREATE", fourth, "", ""]),
        ("CREATE", "TEMP" | "TEMPORARY" | "LOCAL" | "GLOBAL" | "UNLOGGED", _) => TEMPORARY,
        (
            "CREATE" | "ALTER" | "DROP",
            "FUNCTION" | "PROCEDURE" | "TRIGGER" | "RULE" | "AGGREGATE" | "EVENT" | "OPERATOR",
            _,
        )
        | ("CALL" | "DO", _, _) => CODE,
        ("CREATE" | "ALTER" | "DROP", "SEQUENCE", _) => SEQUENCE,
        ("CREATE" | "ALTER" | "DROP", "TYPE" | "DOMAIN" | "EXTENSION" | "CAST" | "COLLATION", _) => TYPE,
        ("CREATE" | "ALTER" | "DROP", "ROLE" | "POLICY" | "GROUP", _)
        | ("GRANT" | "REVOKE" | "REASSIGN" | "DENY", _, _) => RIGHTS,
        ("CREATE" | "ALTER" | "DROP", "PUBLICATION" | "SUBSCRIPTION", _)
        | ("LISTEN" | "UNLISTEN" | "NOTIFY", _, _) => NOTIFY,
        ("CREATE", "EXTERNAL" | "FOREIGN" | "VIRTUAL", _)
        | ("COPY" | "LOAD" | "UNLOAD" | "IMPORT" | "EXPORT", _, _) => FILES,
        ("MERGE" | "UPSERT" | "REPLACE", _, _) => UPSERT,
        ("PREPARE" | "DEALLOCATE", _, _) => PREPARED,
        ("EXECUTE", other, _) if other != "AS" => PREPARED,
        ("DECLARE" | "FETCH" | "CLOSE" | "MOVE" | "OPEN", _, _) => CURSOR,
        ("LOCK" | "UNLOCK" | "SAVEPOINT" | "RELEASE", _, _) => LOCK,
        (
            "VACUUM" | "ANALYZE" | "OPTIMIZE" | "REINDEX" | "CLUSTER" | "CHECKPOINT" | "MSCK" | "CACHE"
            | "UNCACHE",
            _,
            _,
        ) => UPKEEP,
        ("SET" | "RESET" | "PRAGMA" | "DISCARD", _, _) => SETTING,
        ("COMMENT", _, _) => "comments are not kept; a user's METADATA is",
        ("ATTACH" | "DETACH" | "INSTALL", _, _) => {
            "a server has one database; RESTORE DATABASE brings another one's backup in"
        }
        ("KILL", other, _) if other != "LIVE" => {
            "KILL LIVE QUERY 'id' ends a live query; a statement ends with its request, or after the time limit"
        }
        ("SHOW", "COLUMNS" | "FIELDS" | "INDEX" | "INDEXES" | "KEYS", _) => {
            "use DESCRIBE t, or information_schema.columns"
        }
        ("SHOW", "USERS" | "GRANTS" | "ROLES", _) => "use SELECT * FROM system.users",
        ("SHOW", "PROCESSLIST" | "STATUS", _) => "use SELECT * FROM system.live_queries and system.jobs",
        ("SHOW", other, _)
            if !matches!(other, "NAMESPACES" | "TABLES" | "STATS" | "CREATE" | "BACKUP" | "BACKUPS") =>
        {
            SHOWN
        }
        _ => return None,
    };
    let words = [first, second].into_iter().filter(|word| !word.is_empty());
    let words: Vec<&str> = if is_one_word(first) { words.take(1).collect() } else { words.collect() };
    Some(Error::Unsupported { what: words.join(" "), hint: Some(hint) })
}

/// Statements whose second word is a name.
fn is_one_word(first: &str) -> bool {
    !matches!(first, "CREATE" | "ALTER" | "DROP" | "SHOW" | "REFRESH")
}

/// Refuses clauses that would be passed over.
pub(super) fn refuse_ignored(statement: &ast::Statement) -> Result<()> {
    match statement.visit(&mut Ignored) {
        ControlFlow::Break((what, hint)) => {
            Err(Error::Unsupported { what: what.to_owned(), hint: Some(hint) })
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Ignored;

type Refusal = (&'static str, &'static str);

fn first_of(clauses: &[(bool, Refusal)]) -> ControlFlow<Refusal> {
    match clauses.iter().find(|(is_there, _)| *is_there) {
        Some((_, refusal)) => ControlFlow::Break(*refusal),
        None => ControlFlow::Continue(()),
    }
}

const SAMPLE: Refusal = (
    "TABLESAMPLE",
    "use WHERE random() < 0.01 for about one row of a hundred, or ORDER BY random() LIMIT n for n rows",
);

impl Visitor for Ignored {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        first_of(&[
            (!query.locks.is_empty(), ("FOR UPDATE or FOR SHARE", LOCK)),
            (
                query.for_clause.is_some(),
                ("FOR XML, JSON or BROWSE", "results are JSON already; or ask for an Arrow stream"),
            ),
            (query.settings.is_some(), ("SETTINGS", SETTING)),
            (
                query.format_clause.is_some(),
                ("FORMAT", "the request says how its result is to look (Accept); or use kalamdb export"),
            ),
        ])
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refusal> {
        first_of(&[
            (select.into.is_some(), ("SELECT … INTO", "CREATE TABLE first, then INSERT INTO t SELECT …")),
            (select.prewhere.is_some(), ("PREWHERE", "use WHERE")),
            (!select.connect_by.is_empty(), ("CONNECT BY", "use WITH RECURSIVE")),
            (!select.distribute_by.is_empty(), ("DISTRIBUTE BY", "leave it out: it changes no result")),
            (select.value_table_mode.is_some(), ("SELECT AS STRUCT or VALUE", "select the columns")),
        ])
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Refusal> {
        match factor {
            TableFactor::Table {
                with_hints, version, partitions, json_path, sample, index_hints, ..
            } => first_of(&[
                (sample.is_some(), SAMPLE),
                (
                    version.is_some(),
                    (
                        "a table as of another time",
                        "system.changes and changes('table', from_seq) have what was before",
                    ),
                ),
                (!partitions.is_empty(), ("PARTITION in FROM", "use WHERE")),
                (json_path.is_some(), ("a path behind a table's name", "use -> and ->> on the column")),
                (
                    !with_hints.is_empty() || !index_hints.is_empty(),
                    (
                        "a hint behind a table's name",
                        "leave it out: how a table is read is chosen by the condition",
                    ),
                ),
            ]),
            TableFactor::Derived { sample, .. } => first_of(&[(sample.is_some(), SAMPLE)]),
            _ => ControlFlow::Continue(()),
        }
    }
}
