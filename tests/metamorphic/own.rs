//! Tables with columns of every type of KalamDB, rows for them, and expressions that PostgreSQL has not or has otherwise.

use crate::differential::expressions::{Column, Scope};
use crate::differential::node::Type;
use crate::differential::pair::flush;
use crate::support::Api;

/// Tables of both kinds, with hot and with cold rows.
pub(crate) const TABLES: [&str; 4] = ["shared_hot.t", "shared_cold.t", "user_hot.t", "user_cold.t"];

/// Columns: the name, the type, and for each row the literal of its value.
pub(crate) const COLUMNS: [(&str, &str, [&str; 4]); 18] = [
    ("id", "INT", ["1", "2", "3", "4"]),
    ("i", "INT", ["5", "-3", "NULL", "0"]),
    ("l", "BIGINT", ["9007199254740993", "-7", "0", "NULL"]),
    ("s", "SMALLINT", ["32767", "NULL", "-1", "2"]),
    ("d", "DOUBLE PRECISION", ["1.5", "-0.25", "NULL", "1e300"]),
    ("r", "REAL", ["0.1", "NULL", "-2.5", "3"]),
    ("m", "DECIMAL(10,2)", ["12.50", "-0.01", "0.00", "NULL"]),
    ("n", "DECIMAL(38,10)", ["1234567890123456789.0123456789", "NULL", "-0.0000000001", "7"]),
    ("x", "TEXT", ["'ab'", "''", "'Ünï 日'", "NULL"]),
    ("f", "BOOLEAN", ["TRUE", "FALSE", "NULL", "TRUE"]),
    (
        "at",
        "TIMESTAMP",
        ["'2024-02-29 23:59:59.999999'", "'1969-12-31 23:59:59'", "NULL", "'9999-12-31 00:00:00'"],
    ),
    (
        "tz",
        "DATETIME",
        ["'2024-02-29T23:59:59+02:00'", "NULL", "'1970-01-01T00:00:00Z'", "'0001-01-01T00:00:00Z'"],
    ),
    ("day", "DATE", ["'2024-02-29'", "'1969-12-31'", "NULL", "'9999-12-31'"]),
    ("tm", "TIME", ["'23:59:59.999999'", "'00:00:00'", "NULL", "'12:30:00'"]),
    (
        "j",
        "JSON",
        [
            r#"'{"a": 1, "b": [1, 2.50, null], "c": {"d": "text"}}'"#,
            r#"'[10, "x", true]'"#,
            "NULL",
            r#"'{"a": null, "A": "1", "b": "no"}'"#,
        ],
    ),
    (
        "u",
        "UUID",
        [
            "'01234567-89AB-CDEF-0123-456789ABCDEF'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "NULL",
            "'00000000-0000-0000-0000-000000000000'",
        ],
    ),
    ("y", "BYTES", [r"'\x00ff'", "'abc'", "''", "NULL"]),
    ("e", "EMBEDDING(3)", ["'[1, -2.5, 0.1]'", "NULL", "'[0, 0, 0]'", "'[1e30, 0.5, -1]'"]),
];

/// Rows of the tables.
pub(crate) const ROWS: usize = 4;

/// The value of a column in a row, as a constant of the column's type.
pub(crate) fn constant(column: usize, row: usize) -> String {
    let (_, of, values) = COLUMNS[column];
    format!("CAST({} AS {of})", values[row])
}

/// Columns that generated expressions may use.
pub(crate) fn scope() -> Scope {
    let of = |sql: &str| match sql {
        "INT" | "BIGINT" | "SMALLINT" => Some(Type::Int),
        "DOUBLE PRECISION" => Some(Type::Double),
        "TEXT" => Some(Type::Text),
        "BOOLEAN" => Some(Type::Bool),
        "TIMESTAMP" => Some(Type::Timestamp),
        "DATE" => Some(Type::Date),
        sql if sql.starts_with("DECIMAL") => Some(Type::Decimal),
        _ => None,
    };
    let column = |(name, sql, _): &(&str, &str, _)| Some(Column { name: format!("t.{name}"), of: of(sql)? });
    Scope { columns: COLUMNS.iter().filter_map(column).collect(), ..Scope::default() }
}

/// An INSERT of one row, without what comes after its values.
pub(crate) fn insert(table: &str, row: usize) -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let values: Vec<&str> = COLUMNS.iter().map(|(.., values)| values[row]).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "))
}

/// A CREATE TABLE with all columns.
pub(crate) fn create(kind: &str, table: &str) -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|(name, of, _)| format!("{name} {of}")).collect();
    format!("CREATE {kind} TABLE {table} ({}, PRIMARY KEY (id))", columns.join(", "))
}

/// Creates and fills the tables.
pub(crate) async fn create_tables(root: &Api) {
    for table in TABLES {
        let (namespace, _) = table.split_once('.').unwrap();
        let kind = if namespace.starts_with("user") { "USER" } else { "SHARED" };
        root.sql(&format!("CREATE NAMESPACE IF NOT EXISTS {namespace}")).await;
        root.sql(&format!("DROP TABLE IF EXISTS {table}")).await;
        root.sql(&create(kind, table)).await;
        for row in 0..ROWS {
            root.sql(&insert(table, row)).await;
        }
        if namespace.ends_with("cold") {
            flush(root, table).await;
        }
    }
}

/// Conditions on the tables' rows.
pub(crate) const OWN_CONDITIONS: [&str; 23] = [
    "j ->> 'a' = '1'",
    "j -> 'b' ->> 0 <> 'x'",
    r#"j @> '{"a": 1}'"#,
    "j ? 'a'",
    "json_contains(j, 'a')",
    "json_get_int(j, 'a') > 0",
    "json_get_str(j, 'b') LIKE 'n%'",
    "json_length(j) > 2",
    "json_typeof(j) = 'object'",
    "j IN (SELECT j FROM shared_hot.t WHERE id < 3)",
    "u > '01234567-89ab-cdef-0123-456789abcdef'",
    "u NOT IN ('01234567-89AB-CDEF-0123-456789ABCDEF', NULL)",
    "y = '\\x00ff'",
    "length(y) < 3 OR i > 0",
    "tz < '2000-01-01T00:00:00Z'",
    "tm BETWEEN '00:00' AND '12:30'",
    "_seq % 2 = 0",
    "_seq > (SELECT min(_seq) FROM shared_hot.t) AND i IS NOT NULL",
    "CURRENT_USER() = x",
    "r = 0.1",
    "e IS DISTINCT FROM (SELECT e FROM shared_hot.t WHERE id = 1)",
    "u = ANY (SELECT u FROM shared_cold.t)",
    "NOT EXISTS (SELECT 1 FROM user_cold.t AS o WHERE o.u = t.u AND o.j ->> 'a' = t.j ->> 'A')",
];

/// Expressions over the tables' rows.
pub(crate) const OWN_EXPRESSIONS: [&str; 60] = [
    "t.j",
    "t.u",
    "t.y",
    "t.tz",
    "t.tm",
    "t.r",
    "t.n",
    "t.l",
    "t.j -> 'a'",
    "t.j ->> 'a'",
    "t.j -> 'b' -> 1",
    "t.j -> 'b' ->> 1",
    "t.j #> '{c,d}'",
    "t.j #>> '{c,d}'",
    "t.j ->> 0",
    "t.j @> '[10]'",
    "t.j ? 'A'",
    "t.j -> 'nothing'",
    "json_get_int(t.j, 'a')",
    "json_get_float(t.j, 'b', 1)",
    "json_get_str(t.j, 'c', 'd')",
    "json_get_bool(t.j, 2)",
    "json_get_json(t.j, 'c')",
    "json_as_text(t.j, 'b')",
    "json_contains(t.j, 'b')",
    "json_length(t.j)",
    "json_typeof(t.j)",
    "json_array_length(t.j)",
    "json_extract_path(t.j, 'c', 'd')",
    "json_extract_path_text(t.j, 'b', '1')",
    "json_build_object('k', t.i, 'm', t.m, 'x', t.x, 'f', t.f)",
    "json_build_array(t.i, t.x, t.d, NULL)",
    "to_json(t.x)",
    "to_json(t.m)",
    "to_jsonb(t.j)",
    "CAST(t.j AS TEXT)",
    "CAST(t.u AS TEXT)",
    "CAST(CAST(t.u AS TEXT) AS UUID)",
    "CAST(t.x AS UUID)",
    "CAST(t.x AS JSON)",
    "length(t.y)",
    "octet_length(t.x)",
    "substr(t.y, 2)",
    "encode(t.y, 'hex')",
    "md5(t.x)",
    "t.u < '7fffffff-ffff-ffff-ffff-ffffffffffff'",
    "COALESCE(t.u, CAST('00000000-0000-0000-0000-000000000001' AS UUID))",
    "CURRENT_USER()",
    "CURRENT_ROLE()",
    "concat(CURRENT_USER(), t.x)",
    "extract(epoch FROM t.tz)",
    "date_trunc('hour', t.tz)",
    "t.at - t.day",
    "t.tm + INTERVAL '1 hour'",
    "t.r * 3",
    "t.r = 0.1",
    "to_char(t.at, 'YYYY-MM-DD HH24:MI:SS.US')",
    "10 / t.i",
    "t.e",
    "CASE WHEN t.i > 0 THEN t.e END",
];
