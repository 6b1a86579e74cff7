//! Statements that change the catalog.

use kalamdb_log::simulation::Random;
use log_format::{DataType, Role};

use super::any::{any_name, known_name};
use super::schema::{Alter, Column, Default, Kind, Refused, Table, Version};
use super::statement::{Name, Tables, full};
use super::values::{Cell, any_cell, any_key_type, any_type, below, name, written};
use crate::{ErrorCode, Session};

const COLUMNS: [&str; 7] = ["c1", "c2", "c3", "Odd", "séq", "order", "a\"b"];

#[derive(Clone, Debug)]
pub(super) enum Ddl {
    Create { at: Name, table: Result<Box<Table>, ErrorCode>, if_not_exists: bool },
    Drop { at: Name, kind: Option<bool>, if_exists: bool },
    Truncate(Name),
    Alter { at: Name, changes: Vec<Alter>, if_exists: bool },
}

/// Something, and its text.
pub(super) fn any(random: &mut Random, tables: &Tables) -> (Ddl, String) {
    match random.below(100) {
        _ if tables.len() < 3 => create(random),
        0..24 => create(random),
        24..30 => {
            let at = known_name(random, tables);
            let kind = random.per_mille(300).then(|| random.per_mille(500));
            let if_exists = random.per_mille(500);
            let word = kind.map_or("", |is_user| if is_user { "USER " } else { "SHARED " });
            let exists = if if_exists { "IF EXISTS " } else { "" };
            let sql = format!("DROP {word}TABLE {exists}{}", full(&at));
            (Ddl::Drop { at, kind, if_exists }, sql)
        }
        30..33 => {
            let at = known_name(random, tables);
            let sql = format!("TRUNCATE {}", full(&at));
            (Ddl::Truncate(at), sql)
        }
        _ => alter(random, tables),
    }
}

impl Ddl {
    pub(super) const fn table(&self) -> &Name {
        match self {
            Self::Create { at, .. } | Self::Drop { at, .. } | Self::Truncate(at) | Self::Alter { at, .. } => {
                at
            }
        }
    }

    /// What it does to the model.
    pub(super) fn apply(&self, tables: &mut Tables, who: &Session) -> Refused<()> {
        if let Self::Create { table: Err(code), .. } = self {
            // A definition that makes no sense is found out before anybody asks who says so.
            return Err(*code);
        }
        if who.role() < Role::Service {
            return Err(ErrorCode::PermissionDenied);
        }
        let at = self.table();
        let by = who.user().to_string();
        match self {
            Self::Create { table, if_not_exists, .. } => {
                if tables.contains_key(at) {
                    return if *if_not_exists { Ok(()) } else { Err(ErrorCode::AlreadyExists) };
                }
                let mut table = *table.clone()?;
                table.history = vec![Version { change: "CREATE TABLE".to_owned(), by }];
                tables.insert(at.clone(), table);
            }
            Self::Drop { kind, if_exists, .. } => match tables.get(at) {
                None if *if_exists => {}
                None => return Err(ErrorCode::TableNotFound),
                Some(table) if kind.is_some_and(|is_user| is_user != (table.kind == Kind::User)) => {
                    return Err(ErrorCode::InvalidSql);
                }
                Some(_) => {
                    tables.remove(at);
                }
            },
            Self::Truncate(_) => tables.get_mut(at).ok_or(ErrorCode::TableNotFound)?.rows.clear(),
            Self::Alter { changes, if_exists, .. } => match tables.get_mut(at) {
                None if *if_exists => {}
                None => return Err(ErrorCode::TableNotFound),
                Some(table) => table.alter(changes, &by)?,
            },
        }
        Ok(())
    }
}

// ── CREATE ──

fn create(random: &mut Random) -> (Ddl, String) {
    let at = any_name(random);
    let kind =
        [Kind::User, Kind::User, Kind::User, Kind::Public, Kind::Public, Kind::Restricted, Kind::Private]
            [random.below(7)];
    let mut names: Vec<&str> = COLUMNS.to_vec();
    let mut columns: Vec<Column> = Vec::new();
    let (width, keys) = (1 + below(random, 5), below(random, 4));
    for id in 1..=width {
        let is_key = id <= keys;
        let name = names.remove(random.below(names.len())).to_owned();
        let data_type = if is_key { any_key_type(random) } else { any_type(random) };
        columns.push(column(random, id.into(), name, data_type));
    }
    let mut key: Vec<u32> = (1..=u32::from(keys.min(width))).collect();
    if key.len() > 1 && random.per_mille(300) {
        key.reverse();
    }
    let mut texts: Vec<String> = columns.iter().map(|column| column_sql(random, column)).collect();
    let refused = refuse(random, &mut texts, &mut columns);
    // Which columns are the key says the definition behind them, or one of them.
    if let ([1], true) = (key.as_slice(), random.per_mille(600)) {
        texts[0] += " PRIMARY KEY";
    } else if !key.is_empty() {
        let names: Vec<String> = key.iter().map(|id| name(&columns[*id as usize - 1].name)).collect();
        texts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    columns.iter_mut().filter(|column| key.contains(&column.id)).for_each(|column| column.nullable = false);
    let mut last_id = u32::from(width);
    if key.is_empty() {
        last_id += 1;
        columns.insert(0, generated_key(last_id));
        key.push(last_id);
    }
    let if_not_exists = random.per_mille(300);
    let sql = create_sql(random, &at, kind, &texts, if_not_exists);
    let table =
        Table { kind, columns, key, last_id, history: Vec::new(), rows: std::collections::BTreeMap::new() };
    let table = refused.map_or_else(|| Ok(Box::new(table)), Err);
    (Ddl::Create { at, table, if_not_exists }, sql)
}

/// Once in a while a definition that makes no sense.
fn refuse(random: &mut Random, texts: &mut Vec<String>, columns: &mut [Column]) -> Option<ErrorCode> {
    match random.below(100) {
        0 => texts.push(format!("{} INT", name(&columns[0].name))),
        1 => texts.push("_seq BIGINT".to_owned()),
        2 => texts.push("d1 DECIMAL(39, 1)".to_owned()),
        3 => texts.push("d1 INT DEFAULT 'many'".to_owned()),
        _ => return None,
    }
    let is_value = texts.last().is_some_and(|text| text.ends_with("'many'"));
    Some(if is_value { ErrorCode::ConstraintViolation } else { ErrorCode::InvalidSql })
}

fn generated_key(id: u32) -> Column {
    let (name, default) = ("_id".to_owned(), Some(Default::Snowflake));
    Column { id, name, data_type: DataType::BigInt, nullable: false, default }
}

fn create_sql(random: &mut Random, at: &Name, kind: Kind, texts: &[String], if_not_exists: bool) -> String {
    let exists = if if_not_exists { "IF NOT EXISTS " } else { "" };
    let (word, access) = match kind {
        Kind::User => ("USER", None),
        Kind::Public => ("SHARED", Some("public")),
        Kind::Restricted => ("SHARED", Some("restricted")),
        Kind::Private => ("SHARED", Some("private")),
    };
    let (at, columns) = (full(at), texts.join(", "));
    let mut options: Vec<String> = access.iter().map(|access| format!("ACCESS_LEVEL = '{access}'")).collect();
    if random.per_mille(500) {
        options.push(format!("TYPE = '{word}'"));
        return format!("CREATE TABLE {exists}{at} ({columns}) WITH ({})", options.join(", "));
    }
    let options: Vec<String> = access.iter().map(|access| format!(" ACCESS_LEVEL '{access}'")).collect();
    format!("CREATE {word} TABLE {exists}{at} ({columns}){}", options.join(""))
}

/// A column of this name and type, nullable and with a default or not.
fn column(random: &mut Random, id: u32, name: String, data_type: DataType) -> Column {
    let default = match random.below(10) {
        0..4 => Some(Default::Constant(any_cell(random, data_type))),
        4 => Some(Default::Constant(Cell::Null)),
        5 => match data_type {
            DataType::BigInt => Some(Default::Snowflake),
            DataType::Timestamp | DataType::DateTime => Some(Default::Now),
            DataType::Text => Some([Default::CurrentUser, Default::CurrentRole][random.below(2)].clone()),
            _ => None,
        },
        _ => None,
    };
    Column { id, name, data_type, nullable: random.per_mille(650), default }
}

fn column_sql(random: &mut Random, column: &Column) -> String {
    let default = column.default.as_ref().map(|default| match default {
        Default::Constant(cell) => written(random, cell, column.data_type),
        Default::Snowflake => "SNOWFLAKE_ID()".to_owned(),
        Default::Now => "NOW()".to_owned(),
        Default::CurrentUser => "CURRENT_USER()".to_owned(),
        Default::CurrentRole => "CURRENT_ROLE()".to_owned(),
    });
    let default = default.map(|default| format!(" DEFAULT {default}")).unwrap_or_default();
    let null = if column.nullable { "" } else { " NOT NULL" };
    let words = if random.per_mille(500) { format!("{default}{null}") } else { format!("{null}{default}") };
    format!("{} {}{words}", name(&column.name), column.data_type)
}

// ── ALTER ──

fn alter(random: &mut Random, tables: &Tables) -> (Ddl, String) {
    let at = known_name(random, tables);
    let columns = tables.get(&at).map(|table| table.columns.clone()).unwrap_or_default();
    let (mut changes, mut texts) = (Vec::new(), Vec::new());
    for _ in 0..=[0, 0, 0, 1, 2][random.below(5)] {
        let (change, text) = alteration(random, &columns);
        changes.push(change);
        texts.push(text);
    }
    let if_exists = random.per_mille(200);
    let exists = if if_exists { "IF EXISTS " } else { "" };
    let sql = format!("ALTER TABLE {exists}{} {}", full(&at), texts.join(", "));
    (Ddl::Alter { at, changes, if_exists }, sql)
}

fn alteration(random: &mut Random, columns: &[Column]) -> (Alter, String) {
    let any_of = |random: &mut Random| match columns.get(random.below(columns.len() + 1)) {
        Some(column) => column.name.clone(),
        None => COLUMNS[random.below(COLUMNS.len())].to_owned(),
    };
    match random.below(100) {
        0..38 => {
            let named = COLUMNS[random.below(COLUMNS.len())].to_owned();
            let data_type = any_type(random);
            let column = column(random, 0, named, data_type);
            let if_not_exists = random.per_mille(300);
            let exists = if if_not_exists { "IF NOT EXISTS " } else { "" };
            let text = format!("ADD COLUMN {exists}{}", column_sql(random, &column));
            (Alter::Add { column, if_not_exists }, text)
        }
        38..55 => {
            let (named, if_exists) = (any_of(random), random.per_mille(300));
            let exists = if if_exists { "IF EXISTS " } else { "" };
            let text = format!("DROP COLUMN {exists}{}", name(&named));
            (Alter::Drop { name: named, if_exists }, text)
        }
        55..68 => {
            let from = any_of(random);
            let to =
                if random.per_mille(30) { "_seq" } else { COLUMNS[random.below(COLUMNS.len())] }.to_owned();
            let text = format!("RENAME COLUMN {} TO {}", name(&from), name(&to));
            (Alter::Rename { from, to }, text)
        }
        68..76 => set_default(random, columns),
        76..92 => {
            let named = any_of(random);
            let from = columns.iter().find(|column| column.name == named).map(|column| column.data_type);
            let data_type = wider(random, from);
            let text = if random.per_mille(500) {
                format!("MODIFY COLUMN {} {data_type}", name(&named))
            } else {
                format!("ALTER COLUMN {} TYPE {data_type}", name(&named))
            };
            (Alter::Modify { name: named, data_type }, text)
        }
        92..97 => {
            let (kind, level) =
                [(Kind::Public, "public"), (Kind::Restricted, "restricted"), (Kind::Private, "private")]
                    [random.below(3)];
            (Alter::SetAccess(kind), format!("SET (ACCESS_LEVEL = '{level}')"))
        }
        _ => (Alter::SetRetention, format!("SET (DELETED_RETENTION = '{}h')", 1 + random.below(9))),
    }
}

/// A default of a type that is written the same whatever the column becomes in the same statement; or none.
fn set_default(random: &mut Random, columns: &[Column]) -> (Alter, String) {
    let named = COLUMNS[random.below(COLUMNS.len())].to_owned();
    let found = columns.iter().find(|column| column.name == named).map(|column| column.data_type);
    let simple = [DataType::Boolean, DataType::SmallInt, DataType::Int, DataType::BigInt, DataType::Text];
    let data_type = found.filter(|data_type| simple.contains(data_type) && random.per_mille(700));
    let Some(data_type) = data_type else {
        let text = format!("ALTER COLUMN {} DROP DEFAULT", name(&named));
        return (Alter::SetDefault { name: named, default: None }, text);
    };
    let cell = any_cell(random, data_type);
    let text = format!("ALTER COLUMN {} SET DEFAULT {}", name(&named), written(random, &cell, data_type));
    (Alter::SetDefault { name: named, default: Some((cell, data_type)) }, text)
}

/// Often a type that this one may become.
fn wider(random: &mut Random, from: Option<DataType>) -> DataType {
    let decimal = |random: &mut Random, whole: u8, scale: u8| {
        let scale = scale + below(random, (39 - whole - scale).max(1));
        let precision = (whole + scale + below(random, 3)).clamp(1, 38);
        DataType::Decimal { precision, scale: scale.min(precision) }
    };
    match (from, random.below(6)) {
        (Some(DataType::SmallInt), 0) => DataType::Int,
        (Some(DataType::SmallInt), 1) => DataType::Float,
        (Some(DataType::SmallInt), 2) => decimal(random, 5, 0),
        (Some(DataType::SmallInt | DataType::Int), 3) => DataType::BigInt,
        (Some(DataType::SmallInt | DataType::Int | DataType::Float), 4) => DataType::Double,
        (Some(DataType::Int), 2) => decimal(random, 10, 0),
        (Some(DataType::BigInt), 0..4) => decimal(random, 19, 0),
        (Some(DataType::Decimal { precision, scale }), 0..4) => decimal(random, precision - scale, scale),
        (Some(DataType::Date), 0..4) => DataType::Timestamp,
        (Some(DataType::Uuid | DataType::Json), 0..4) => DataType::Text,
        _ => any_type(random),
    }
}
