//! CREATE TABLE: columns and options, in both spellings.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, DataType as SqlType, ExactNumberInfo, Expr, ObjectName, TableConstraint,
    TimezoneInfo,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use kalamdb_store::USER_IN_PATH;
use log_format::{
    Access, Column, ColumnDefault, ColumnId, DataType, FlushPolicy, KeyBuilder, StreamOptions, StreamScope,
    TableKind,
};

use crate::error::{Error, Result};
use crate::sql::literal;
use crate::sql::parse::{TableName, identifier, option_list, option_value, table_name};
use crate::sql::refusals::CONSTRAINTS;
use crate::table::SystemColumn;

/// Columns a table may have.
pub(crate) const COLUMNS_MAX: usize = 1000;

/// A table as CREATE TABLE describes it.
#[derive(Clone, Debug)]
pub(crate) struct TableDefinition {
    pub(crate) name: TableName,
    pub(crate) if_not_exists: bool,
    pub(crate) kind: TableKind,
    pub(crate) columns: Vec<Column>,
    pub(crate) primary_key: Vec<ColumnId>,
    pub(crate) location_path: Option<String>,
    pub(crate) location_reference: Option<String>,
    pub(crate) flush_policy: Option<FlushPolicy>,
    pub(crate) deleted_retention_ms: Option<u64>,
}

/// The options, by their names in `WITH (…)`.
type Options = BTreeMap<String, String>;

/// Bytes of a table's path at the most.
const LOCATION_PATH_BYTES_MAX: usize = 512;

impl TableDefinition {
    /// Reads what follows `CREATE [kind] TABLE`.
    pub(crate) fn parse(parser: &mut Parser<'_>, kind: Option<&str>) -> Result<Self> {
        let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = table_name(&parser.parse_object_name(false)?)?;
        let (columns, constraints) = parser.parse_columns()?;
        let mut options = parse_options(parser)?;
        let kind = table_kind(kind, &mut options)?;
        let (columns, primary_key) = table_columns(&columns, &constraints)?;
        let definition = Self {
            name,
            if_not_exists,
            columns,
            primary_key,
            location_path: options.remove("LOCATION").map(|path| location_path(path, &kind)).transpose()?,
            location_reference: options.remove("LOCATION_REFERENCE"),
            flush_policy: options.remove("FLUSH_POLICY").map(|text| parse_flush_policy(&text)).transpose()?,
            deleted_retention_ms: options
                .remove("DELETED_RETENTION")
                .map(|text| duration_ms("DELETED_RETENTION", &text))
                .transpose()?,
            kind,
        };
        if let Some(unknown) = options.keys().next() {
            return Err(Error::definition(format!(
                "there is no option {unknown} for this kind of table; there are TYPE, ACCESS_LEVEL (shared), SCOPE, \
                 TTL_SECONDS, MAX_BUFFER, EPHEMERAL (stream), LOCATION, LOCATION_REFERENCE, FLUSH_POLICY, \
                 DELETED_RETENTION"
            )));
        }
        definition.check()?;
        Ok(definition)
    }

    fn check(&self) -> Result<()> {
        let stream = matches!(self.kind, TableKind::Stream(_));
        if stream && (self.flush_policy.is_some() || self.deleted_retention_ms.is_some()) {
            return Err(Error::definition(
                "a STREAM table has no cold tier: it takes no FLUSH POLICY and no DELETED_RETENTION",
            ));
        }
        Ok(())
    }
}

/// `WITH (…)` and the clauses in words, in any order.
fn parse_options(parser: &mut Parser<'_>) -> Result<Options> {
    let mut options = Options::new();
    let mut set = |name: &str, value: String| match options.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(Error::definition(format!("the option {name} is given twice"))),
    };
    while let Token::Word(word) = parser.peek_token().token {
        let word = word.value.to_uppercase();
        parser.advance_token();
        match word.as_str() {
            "WITH" => {
                for (name, value) in option_list(parser)? {
                    let name =
                        if name == "RETENTION" || name == "TTL" { "TTL_SECONDS" } else { name.as_str() };
                    set(name, value)?;
                }
            }
            "LOCATION" => {
                let reference = next_word_is(parser, "REFERENCE");
                let name = if reference { "LOCATION_REFERENCE" } else { "LOCATION" };
                set(name, parser.parse_literal_string()?)?;
            }
            "FLUSH" => {
                if !next_word_is(parser, "POLICY") {
                    return Err(Error::definition("write FLUSH POLICY ROWS n [INTERVAL '5m']"));
                }
                set("FLUSH_POLICY", flush_policy_words(parser)?)?;
            }
            "DELETED_RETENTION" | "EPHEMERAL" | "MAX_BUFFER" | "SCOPE" | "ACCESS_LEVEL" => {
                let value = option_value(parser)?;
                set(&word, value)?;
            }
            "RETENTION" | "TTL" => {
                let value = option_value(parser)?;
                set("TTL_SECONDS", value)?;
            }
            _ => {
                return Err(Error::definition(format!(
                    "{word} is no clause of CREATE TABLE; there are WITH (…), LOCATION, FLUSH POLICY, \
                     DELETED_RETENTION, RETENTION, EPHEMERAL, MAX_BUFFER"
                )));
            }
        }
    }
    Ok(options)
}

fn next_word_is(parser: &mut Parser<'_>, expected: &str) -> bool {
    let found =
        matches!(parser.peek_token().token, Token::Word(word) if word.value.eq_ignore_ascii_case(expected));
    if found {
        parser.advance_token();
    }
    found
}

/// `LOCATION 'path'`: where below the directory or storage location of cold files a table's are.
fn location_path(path: String, kind: &TableKind) -> Result<String> {
    let wrong = |problem: &str| Err(Error::definition(format!("LOCATION {path:?} {problem}")));
    let users = path.matches(USER_IN_PATH).count();
    let without = path.replace(USER_IN_PATH, "x");
    if path.is_empty() || path.len() > LOCATION_PATH_BYTES_MAX {
        wrong("is empty or too long; write a path like archive/${user_id}/chat")
    } else if path.starts_with('/') || path.contains('\\') || path.contains("://") {
        wrong(
            "is not below the directory of cold files; leave out what it begins with, or name a storage location with \
             LOCATION REFERENCE",
        )
    } else if without.split('/').any(|it| it.is_empty() || it == "." || it == "..") {
        wrong("has a part that is empty, . or ..; write plain names with / between them")
    } else if without.contains("${") {
        wrong("has a placeholder that is not known; there is ${user_id}")
    } else if path.split('/').any(|it| it.contains(USER_IN_PATH) && it != USER_IN_PATH) || users > 1 {
        wrong("has ${user_id} in the middle of a name, or twice; it is a whole directory, once")
    } else if users > 0 && !matches!(kind, TableKind::User) {
        wrong("has ${user_id}, but only the rows of USER tables belong to users")
    } else {
        Ok(path)
    }
}

/// `ROWS n`, `INTERVAL '5m'`, or both, as `rows:n,interval:5m`.
fn flush_policy_words(parser: &mut Parser<'_>) -> Result<String> {
    let mut parts = Vec::new();
    if next_word_is(parser, "ROWS") {
        parts.push(format!("rows:{}", option_value(parser)?));
    }
    if next_word_is(parser, "INTERVAL") {
        parts.push(format!("interval:{}", option_value(parser)?));
    }
    Ok(parts.join(","))
}

/// The flush policy that is written like `rows:10000,interval:5m`, or one of both.
///
/// # Errors
/// Where it is none, with how to write one.
pub fn parse_flush_policy(text: &str) -> Result<FlushPolicy> {
    let wrong = || {
        Error::definition(format!(
            "{text:?} is no flush policy; write rows:10000, interval:300 or rows:10000,interval:5m"
        ))
    };
    let mut policy = FlushPolicy::default();
    for part in text.split(',') {
        match part.trim().split_once(':') {
            Some(("rows", rows)) => policy.rows = Some(rows.trim().parse().map_err(|_| wrong())?),
            Some(("interval", interval)) => policy.interval_ms = Some(duration_ms("FLUSH_POLICY", interval)?),
            _ => return Err(wrong()),
        }
    }
    if policy.rows == Some(0) || policy.interval_ms == Some(0) {
        return Err(wrong());
    }
    Ok(policy)
}

pub(crate) fn duration_ms(option: &str, text: &str) -> Result<u64> {
    parse_duration_ms(text).ok_or_else(|| {
        Error::definition(format!("{option}: {text:?} is no duration; write 500ms, 10s, 5m, 1h or 7d"))
    })
}

/// The milliseconds of `500ms`, `10s`, `5m`, `1h`, `7d`; a bare number is seconds.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    factor
        .and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor))
        .filter(|ms| i64::try_from(*ms).is_ok_and(|ms| ms < i64::MAX / 1000))
}

fn table_kind(keyword: Option<&str>, options: &mut Options) -> Result<TableKind> {
    let option = options.remove("TYPE").map(|name| name.to_uppercase());
    let kind = match (keyword, option) {
        (Some(keyword), Some(option)) if keyword != option => {
            return Err(Error::definition(format!(
                "the table is called {keyword} and TYPE = '{option}': keep one"
            )));
        }
        (Some(keyword), _) => keyword.to_owned(),
        (None, Some(option)) => option,
        (None, None) => {
            return Err(Error::definition(
                "say which kind of table: CREATE USER TABLE, CREATE SHARED TABLE or CREATE STREAM TABLE, or WITH (TYPE = 'USER')",
            ));
        }
    };
    match kind.as_str() {
        "USER" => Ok(TableKind::User),
        "SHARED" => access(options.remove("ACCESS_LEVEL").as_deref()).map(TableKind::Shared),
        "STREAM" => stream_options(options).map(TableKind::Stream),
        _ => Err(Error::definition(format!(
            "there is no table type {kind}; there are USER, SHARED and STREAM"
        ))),
    }
}

pub(crate) fn access(level: Option<&str>) -> Result<Access> {
    match level.map(str::to_lowercase).as_deref() {
        None | Some("private") => Ok(Access::Private),
        Some("restricted") => Ok(Access::Restricted),
        Some("public") => Ok(Access::Public),
        Some(other) => Err(Error::definition(format!(
            "there is no access level {other:?}; there are public, restricted and private"
        ))),
    }
}

fn stream_options(options: &mut Options) -> Result<StreamOptions> {
    let scope = match options.remove("SCOPE").map(|scope| scope.to_lowercase()).as_deref() {
        None | Some("user") => StreamScope::User,
        Some("all") => StreamScope::All,
        Some(other) => {
            return Err(Error::definition(format!("there is no scope {other:?}; there are user and all")));
        }
    };
    let ttl_ms = options.remove("TTL_SECONDS").map(|text| duration_ms("TTL_SECONDS", &text)).transpose()?;
    let max_buffer = match options.remove("MAX_BUFFER") {
        None => None,
        Some(text) => Some(text.parse().ok().filter(|rows| *rows > 0).ok_or_else(|| {
            Error::definition(format!("MAX_BUFFER: {text:?} is no number of rows above 0"))
        })?),
    };
    let ephemeral = match options.remove("EPHEMERAL").map(|text| text.to_lowercase()).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(Error::definition(format!("EPHEMERAL: {other:?} is neither true nor false")));
        }
    };
    if ttl_ms.is_none() && max_buffer.is_none() && !ephemeral {
        return Err(Error::definition(
            "a STREAM table needs an end for its rows: RETENTION '10s', MAX_BUFFER 10000 or EPHEMERAL true",
        ));
    }
    Ok(StreamOptions { scope, ttl_ms, max_buffer, ephemeral })
}

fn table_columns(
    definitions: &[ColumnDef],
    constraints: &[TableConstraint],
) -> Result<(Vec<Column>, Vec<ColumnId>)> {
    let mut columns = Vec::with_capacity(definitions.len());
    let mut key_names: Vec<String> = Vec::new();
    for (number, definition) in (1_u32..).zip(definitions) {
        let (column, is_key) = column(ColumnId::new(number), definition)?;
        if columns.iter().any(|other: &Column| other.name == column.name) {
            return Err(Error::definition(format!("the column {} is defined twice", column.name)));
        }
        if is_key {
            key_names.push(column.name.clone());
        }
        columns.push(column);
    }
    for constraint in constraints {
        match constraint {
            TableConstraint::PrimaryKey(key) if key_names.is_empty() => {
                key_names = key
                    .columns
                    .iter()
                    .map(|it| it.column.expr.to_string())
                    .map(|name| unquote(&name))
                    .collect();
            }
            other => return Err(unsupported_constraint(format!("the constraint {other}"))),
        }
    }
    if key_names.is_empty() {
        columns.insert(0, generated_key(columns.len())?);
        key_names.push("_id".to_owned());
    }
    if columns.len() > COLUMNS_MAX {
        return Err(Error::definition(format!("a table takes {COLUMNS_MAX} columns at the most")));
    }
    let mut primary_key = Vec::with_capacity(key_names.len());
    for name in &key_names {
        let column = columns.iter_mut().find(|column| column.name == *name).ok_or_else(|| {
            Error::definition(format!("the primary key names {name}, which is no column of the table"))
        })?;
        if !KeyBuilder::supports(column.data_type) {
            return Err(Error::definition(format!(
                "{name} is {}, which has no order: it cannot be a key",
                column.data_type
            )));
        }
        column.nullable = false;
        primary_key.push(column.id);
    }
    Ok((columns, primary_key))
}

/// The key of a table that names none.
fn generated_key(columns: usize) -> Result<Column> {
    let number = u32::try_from(columns).map_err(|_| Error::definition("too many columns"))?;
    Ok(Column {
        id: ColumnId::new(number + 1),
        name: "_id".to_owned(),
        data_type: DataType::BigInt,
        nullable: false,
        default: Some(ColumnDefault::SnowflakeId),
    })
}

fn unquote(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_lowercase(),
    }
}

/// Whether a column may be called so.
pub(crate) fn check_column_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 128 {
        return Err(Error::definition("a column's name has 1 to 128 bytes"));
    }
    if name == "_id" || SystemColumn::ALL.iter().any(|system| system.name() == name) {
        return Err(Error::definition(format!(
            "{name} is a name of the system's own columns; choose another"
        )));
    }
    Ok(())
}

fn unsupported_constraint(what: String) -> Error {
    Error::Unsupported { what, hint: Some(CONSTRAINTS) }
}

/// A column as it is defined, and whether it says that it is the primary key.
pub(crate) fn column(id: ColumnId, definition: &ColumnDef) -> Result<(Column, bool)> {
    let name = identifier(&definition.name);
    check_column_name(&name)?;
    let data_type = column_type(&definition.data_type)?;
    let mut column = Column { id, name, data_type, nullable: true, default: None };
    let mut is_key = false;
    for option in &definition.options {
        match &option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::PrimaryKey(_) => {
                is_key = true;
                column.nullable = false;
            }
            ColumnOption::Default(expression) => column.default = Some(column_default(&column, expression)?),
            other => return Err(unsupported_constraint(format!("{other} for the column {}", column.name))),
        }
    }
    Ok((column, is_key))
}

/// What a column's DEFAULT says.
pub(crate) fn column_default(column: &Column, expression: &Expr) -> Result<ColumnDefault> {
    if let Some(function) = literal::function_name(expression) {
        return Ok(match function.as_str() {
            "snowflake_id" => ColumnDefault::SnowflakeId,
            "uuid_v7" => ColumnDefault::UuidV7,
            "ulid" => ColumnDefault::Ulid,
            "now" | "current_timestamp" => ColumnDefault::Now,
            "current_user" => ColumnDefault::CurrentUser,
            "current_role" => ColumnDefault::CurrentRole,
            other => {
                return Err(Error::definition(format!(
                    "{other}() is no default; there are SNOWFLAKE_ID(), UUID_V7(), ULID(), NOW(), CURRENT_USER(), \
                     CURRENT_ROLE() and constants"
                )));
            }
        });
    }
    let value = literal::constant(expression, column.data_type)?.ok_or_else(|| {
        Error::definition(format!("the default {expression} of {} is no constant", column.name))
    })?;
    Ok(ColumnDefault::constant(&value)?)
}

/// The type a definition names, in PostgreSQL's, `DataFusion`'s or KalamDB's words.
pub(crate) fn column_type(named: &SqlType) -> Result<DataType> {
    Ok(match named {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::SmallInt(_) | SqlType::Int2(_) | SqlType::Int16 => DataType::SmallInt,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) | SqlType::Int32 => DataType::Int,
        SqlType::BigInt(_) | SqlType::Int8(_) | SqlType::Int64 => DataType::BigInt,
        SqlType::Float(_) | SqlType::Real | SqlType::Float4 | SqlType::Float32 => DataType::Float,
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 | SqlType::Float64 => {
            DataType::Double
        }
        SqlType::Decimal(info) | SqlType::Numeric(info) | SqlType::Dec(info) => decimal(*info)?,
        SqlType::Text
        | SqlType::String(_)
        | SqlType::Varchar(_)
        | SqlType::Char(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_) => DataType::Text,
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) | SqlType::Datetime(_) => {
            DataType::DateTime
        }
        SqlType::Timestamp(..) | SqlType::TimestampNtz(_) => DataType::Timestamp,
        SqlType::Date => DataType::Date,
        SqlType::Time(..) => DataType::Time,
        SqlType::JSON | SqlType::JSONB => DataType::Json,
        SqlType::Bytes(_) | SqlType::Bytea | SqlType::Blob(_) | SqlType::Varbinary(_) => DataType::Bytes,
        SqlType::Uuid => DataType::Uuid,
        SqlType::Custom(name, arguments) => custom_type(name, arguments)?,
        other => return Err(unknown_type(&other.to_string())),
    })
}

/// Digits behind the point of a NUMERIC that names none: values with more are refused, not cut.
pub(crate) const FREE_NUMERIC_SCALE: i64 = 18;

fn decimal(info: ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (38, FREE_NUMERIC_SCALE),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => {
            Ok(DataType::Decimal { precision, scale })
        }
        _ => Err(Error::definition(format!(
            "DECIMAL({precision}, {scale}): the precision is 1 to 38, the scale 0 to the precision"
        ))),
    }
}

fn custom_type(name: &ObjectName, arguments: &[String]) -> Result<DataType> {
    let name = name.to_string().to_uppercase();
    match (name.as_str(), arguments) {
        ("EMBEDDING", [dimension]) => match dimension.parse() {
            Ok(dimension @ 1..=8192) => Ok(DataType::Embedding(dimension)),
            _ => Err(Error::definition("EMBEDDING(n): n is 1 to 8192")),
        },
        ("TIMESTAMPTZ", _) => Ok(DataType::DateTime),
        ("BYTES", _) => Ok(DataType::Bytes),
        ("JSONB", _) => Ok(DataType::Json),
        _ => Err(unknown_type(&name)),
    }
}

fn unknown_type(name: &str) -> Error {
    Error::definition(format!(
        "there is no type {name}; there are BOOLEAN, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), TEXT, TIMESTAMP, \
         DATETIME, DATE, TIME, JSON, BYTES, UUID and EMBEDDING(n)"
    ))
}
