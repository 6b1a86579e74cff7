//! A table's definition as SQL: what CREATE TABLE would have to say, and the parts of it.
//!
//! *Invariant*: what is written here is read back by `definition` as the very same table.

use std::fmt::Write;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use kalamdb_query::dialect::SqlDialect;
use log_format::{
    Access, Column, ColumnDefault, DataType, FlushPolicy, StreamOptions, StreamScope, TableKind, Value,
};

use crate::changes::cell_text;
use crate::table::{TableInfo, constant_default};

/// The column that tables without a key of their own get.
const GENERATED_KEY: &str = "_id";

/// The statement that makes this table, under this name.
pub(crate) fn create_table_text(info: &TableInfo, name: &str) -> String {
    let keys: Vec<&Column> = info.key_columns().iter().filter_map(|at| info.columns().get(*at)).collect();
    let is_generated = |column: &Column| column.name == GENERATED_KEY;
    let written = info.columns().iter().filter(|column| !is_generated(column));
    let mut lines: Vec<String> = written.map(|column| format!("  {}", column_text(column))).collect();
    if !keys.iter().any(|column| is_generated(column)) {
        let keys: Vec<String> = keys.iter().map(|column| name_text(&column.name)).collect();
        lines.push(format!("  PRIMARY KEY ({})", keys.join(", ")));
    }
    let kind = info.kind_name().to_uppercase();
    let options: Vec<String> =
        options(info).iter().map(|(name, value)| format!("{name} = {}", string_text(value))).collect();
    let options = if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
    format!("CREATE {kind} TABLE {name} (\n{}\n){options}", lines.join(",\n"))
}

/// What `WITH (…)` has to say.
pub(crate) fn options(info: &TableInfo) -> Vec<(&'static str, String)> {
    let record = info.record();
    let mut options = match &record.kind {
        TableKind::User => Vec::new(),
        TableKind::Shared(access) => vec![("ACCESS_LEVEL", access_name(*access).to_owned())],
        TableKind::Stream(stream) => stream_options(stream),
    };
    let mut add = |name, value: Option<String>| options.extend(value.map(|value| (name, value)));
    add("LOCATION", record.location_path.clone());
    add("LOCATION_REFERENCE", record.location_reference.clone());
    add("FLUSH_POLICY", record.flush_policy.as_ref().map(flush_policy_text));
    add("DELETED_RETENTION", record.deleted_retention_ms.map(duration_text));
    options
}

const fn access_name(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Restricted => "restricted",
        Access::Private => "private",
    }
}

fn stream_options(stream: &StreamOptions) -> Vec<(&'static str, String)> {
    let scope = match stream.scope {
        StreamScope::User => "user",
        StreamScope::All => "all",
    };
    let mut options = vec![("SCOPE", scope.to_owned())];
    options.extend(stream.ttl_ms.map(|ttl| ("TTL_SECONDS", duration_text(ttl))));
    options.extend(stream.max_buffer.map(|rows| ("MAX_BUFFER", rows.to_string())));
    options.push(("EPHEMERAL", stream.ephemeral.to_string()));
    options
}

pub(crate) fn flush_policy_text(policy: &FlushPolicy) -> String {
    let rows = policy.rows.map(|rows| format!("rows:{rows}"));
    let interval = policy.interval_ms.map(|interval| format!("interval:{}", duration_text(interval)));
    rows.into_iter().chain(interval).collect::<Vec<_>>().join(",")
}

/// Milliseconds in the greatest unit that says them exactly.
fn duration_text(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units.into_iter().find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, factor)| format!("{}{unit}", ms / factor))
}

/// `name TYPE [NOT NULL] [DEFAULT x]`.
pub(crate) fn column_text(column: &Column) -> String {
    let nullable = if column.nullable { "" } else { " NOT NULL" };
    let default = default_text(column).map(|default| format!(" DEFAULT {default}")).unwrap_or_default();
    format!("{} {}{nullable}{default}", name_text(&column.name), column.data_type)
}

/// What stands behind DEFAULT.
pub(crate) fn default_text(column: &Column) -> Option<String> {
    let function = match column.default.as_ref()? {
        ColumnDefault::Constant(_) => {
            return constant_default(column).ok().map(|value| value_text(&value, column.data_type));
        }
        ColumnDefault::SnowflakeId => "SNOWFLAKE_ID()",
        ColumnDefault::UuidV7 => "UUID_V7()",
        ColumnDefault::Ulid => "ULID()",
        ColumnDefault::Now => "NOW()",
        ColumnDefault::CurrentUser => "CURRENT_USER()",
        ColumnDefault::CurrentRole => "CURRENT_ROLE()",
    };
    Some(function.to_owned())
}

/// An identifier, quoted where it would be read as another or as no identifier.
pub(crate) fn name_text(name: &str) -> String {
    let is_plain = name.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_');
    if is_plain && is_a_name(name) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether the parser takes a word for a name wherever one may stand: some keywords it does, some only here or there.
fn is_a_name(word: &str) -> bool {
    let dialect = SqlDialect::of_text(word);
    let value = Parser::new(&dialect).try_with_sql(word).and_then(|mut parser| {
        let value = parser.parse_expr()?;
        parser.expect_token(&Token::EOF).map(|_| value)
    });
    let columns = Parser::new(&dialect).try_with_sql(&format!("({word} INT)"));
    let columns = columns.and_then(|mut parser| parser.parse_columns());
    let is_column = columns.is_ok_and(|(columns, constraints)| columns.len() == 1 && constraints.is_empty());
    is_column && matches!(value, Ok(Expr::Identifier(_)))
}

/// A string literal.
pub(crate) fn string_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A literal that is this value in a column of this type.
fn value_text(value: &Value, data_type: DataType) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(v) => v.to_string(),
        Value::SmallInt(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::BigInt(v) => v.to_string(),
        Value::Text(v) | Value::Json(v) => string_text(v),
        Value::Uuid(v) => string_text(&uuid::Uuid::from_bytes(*v).to_string()),
        Value::Bytes(v) => {
            let written = v.iter().fold("\\x".to_owned(), |mut text, byte| {
                // A string takes everything.
                let _ = write!(text, "{byte:02x}");
                text
            });
            string_text(&written)
        }
        Value::Float(v) => string_text(&v.to_string()),
        Value::Double(v) => string_text(&v.to_string()),
        Value::Embedding(items) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            string_text(&format!("[{}]", items.join(",")))
        }
        Value::Decimal(_) | Value::Timestamp(_) | Value::DateTime(_) | Value::Date(_) | Value::Time(_) => {
            let text = cell_text(&value.as_cell(&mut Vec::new()), data_type.decimal_scale());
            string_text(&text)
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

    use super::*;
    use crate::sql::parse::{Statement, parse};

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        for plain in ["id", "body", "name", "_x1", "value"] {
            assert_eq!(name_text(plain), plain);
        }
        for quoted in ["Mixed", "a b", "1st", "", "user", "key", "primary", "current_user", "é", "a\"b"] {
            assert!(name_text(quoted).starts_with('"'), "{quoted}");
        }
    }

    #[test]
    fn any_keyword_can_be_a_column() {
        for keyword in ALL_KEYWORDS {
            let name = keyword.to_lowercase();
            let text = name_text(&name);
            let sql =
                format!("CREATE SHARED TABLE {text} ({text} INT NOT NULL, \"o\" TEXT, PRIMARY KEY ({text}))");
            match parse(&sql).map(|mut statements| statements.remove(0)) {
                Ok(Statement::CreateTable(definition)) => {
                    assert_eq!(
                        (definition.columns[0].name.as_str(), definition.name.name.as_str()),
                        (&*name, &*name)
                    );
                }
                other => panic!("{sql}: {other:?}"),
            }
            let alter = format!("ALTER TABLE {text} RENAME COLUMN {text} TO {text}, DROP COLUMN {text}");
            assert!(parse(&alter).is_ok(), "{alter}");
        }
    }

    #[test]
    fn durations_are_said_in_the_greatest_unit_that_is_exact() {
        for (ms, text) in [
            (0, "0ms"),
            (1, "1ms"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (86_400_000, "1d"),
            (5_400_000, "90m"),
        ] {
            assert_eq!(duration_text(ms), text);
            assert_eq!(crate::parse_duration_ms(text), Some(ms));
        }
    }
}
