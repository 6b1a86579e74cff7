//! What a table is: its columns and options now, its schema versions, the statement that would make it.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use log_format::{Role, TableSchema};

use crate::changes::instant;
use crate::engine::Engine;
use crate::error::Result;
use crate::session::Session;
use crate::sql::ddl::{one_batch, rows};
use crate::sql::definition_text::{create_table_text, default_text, name_text, options};
use crate::sql::execute::StatementResult;
use crate::sql::parse::TableName;
use crate::table::TableInfo;

/// One row of DESCRIBE TABLE.
struct Described {
    name: String,
    data_type: String,
    nullable: bool,
    /// Its place in the primary key, from 1.
    key: Option<String>,
    default: Option<String>,
    is_system: bool,
}

/// `DESCRIBE TABLE t`: a row for each column; what concerns the table as a whole in words.
pub(crate) fn describe(engine: &Engine, session: &Session, name: &TableName) -> Result<StatementResult> {
    let info = engine.resolve(session, name)?;
    let own = info.columns().iter().enumerate().map(|(at, column)| Described {
        name: column.name.clone(),
        data_type: column.data_type.to_string(),
        nullable: column.nullable,
        key: info.key_columns().iter().position(|key| *key == at).map(|at| (at + 1).to_string()),
        default: default_text(column),
        is_system: false,
    });
    let system = info.system_columns().iter().map(|column| Described {
        name: column.name().to_owned(),
        data_type: column.data_type().to_string(),
        nullable: false,
        key: None,
        default: None,
        is_system: true,
    });
    let all: Vec<Described> = own.chain(system).collect();
    let text = |read: fn(&Described) -> Option<String>| {
        Arc::new(all.iter().map(read).collect::<StringArray>()) as ArrayRef
    };
    let flags = |read: fn(&Described) -> bool| {
        Arc::new(BooleanArray::from(all.iter().map(read).collect::<Vec<bool>>())) as ArrayRef
    };
    let batch = RecordBatch::try_from_iter([
        ("column", text(|it| Some(it.name.clone()))),
        ("type", text(|it| Some(it.data_type.clone()))),
        ("nullable", flags(|it| it.nullable)),
        ("key", text(|it| it.key.clone())),
        ("default", text(|it| it.default.clone())),
        ("system", flags(|it| it.is_system)),
    ])?;
    Ok(one_batch(session, batch, Some(summary(&info))))
}

/// What there is to say of the table as a whole.
fn summary(info: &TableInfo) -> String {
    let record = info.record();
    let mut options: Vec<String> =
        options(info).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    if info.stream().is_none() && record.location_path.is_none() && record.location_reference.is_none() {
        options.push("LOCATION_REFERENCE local".to_owned());
    }
    options.extend([
        format!("schema version {}", info.version()),
        format!("created {}", instant(record.created_at)),
        format!("modified {}", instant(record.updated_at)),
    ]);
    format!("{} is a {} table; {}", info.full_name(), info.kind_name(), options.join("; "))
}

/// `DESCRIBE TABLE t HISTORY`: a row for each schema version. Who made it is for those who run the database; everyone sees
/// what they did themselves.
pub(crate) fn history(engine: &Engine, session: &Session, name: &TableName) -> Result<StatementResult> {
    let info = engine.resolve(session, name)?;
    let mut versions: Vec<&TableSchema> = info.versions().iter().collect();
    versions.sort_by_key(|schema| schema.version);
    let visible = |schema: &TableSchema| {
        let may_see = session.role() >= Role::Service || *session.user() == schema.created_by;
        may_see.then(|| schema.created_by.to_string())
    };
    let times: TimestampMicrosecondArray = versions.iter().map(|schema| Some(schema.created_at)).collect();
    let batch = RecordBatch::try_from_iter([
        (
            "version",
            Arc::new(versions.iter().map(|schema| Some(schema.version.get())).collect::<UInt32Array>())
                as ArrayRef,
        ),
        (
            "change",
            Arc::new(versions.iter().map(|schema| Some(schema.change.clone())).collect::<StringArray>()),
        ),
        ("created_at", Arc::new(times.with_timezone("+00:00"))),
        ("created_by", Arc::new(versions.iter().map(|schema| visible(schema)).collect::<StringArray>())),
    ])?;
    Ok(one_batch(session, batch, None))
}

/// `SHOW CREATE TABLE t`: the statement names the table as this one does.
pub(crate) fn show_create(engine: &Engine, session: &Session, name: &TableName) -> Result<StatementResult> {
    let info = engine.resolve(session, name)?;
    let written: Vec<String> =
        name.namespace.iter().chain([&name.name]).map(|part| name_text(part)).collect();
    let statement = create_table_text(&info, &written.join("."));
    rows(session, [("table", vec![Some(info.full_name())]), ("create_table", vec![Some(statement)])])
}
