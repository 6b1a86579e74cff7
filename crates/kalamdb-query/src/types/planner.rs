//! Names of types, as statements write them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{self, ExactNumberInfo, ObjectName, TimezoneInfo};

use crate::functions::{TYPE_METADATA, instant_type};

/// The largest precision of a NUMERIC.
const DIGITS_MAX: u8 = 76;

/// Digits behind the point of a NUMERIC that names none.
pub(crate) const FREE_SCALE: i8 = 18;

/// A type that only a rewriting names: times in nanoseconds.
pub(crate) const NANOSECONDS: &str = "\u{1}nanoseconds";

/// Plans the types that a statement names: times in microseconds, and those that are ours.
#[derive(Debug)]
pub struct SqlTypes;

/// A field of a type, with the SQL type that Arrow does not have.
fn field(data_type: DataType, sql_type: Option<&str>) -> FieldRef {
    let field = Field::new("", data_type, true);
    Arc::new(match sql_type {
        Some(name) => field.with_metadata([(TYPE_METADATA.to_owned(), name.to_owned())].into()),
        None => field,
    })
}

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        use ast::DataType as T;
        let decimal = |info: &ExactNumberInfo| match info {
            ExactNumberInfo::None => Ok(DataType::Decimal128(38, FREE_SCALE)),
            ExactNumberInfo::Precision(precision) => decimal_type(*precision, 0),
            ExactNumberInfo::PrecisionAndScale(precision, scale) => decimal_type(*precision, *scale),
        };
        Ok(Some(match sql_type {
            T::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | T::TimestampNtz(_) => {
                field(DataType::Timestamp(TimeUnit::Microsecond, None), None)
            }
            T::Timestamp(..) | T::Datetime(_) => field(instant_type(), None),
            T::Time(..) => field(DataType::Time64(TimeUnit::Microsecond), None),
            T::Interval { .. } => field(DataType::Interval(IntervalUnit::MonthDayNano), None),
            T::Uuid => field(DataType::Utf8, Some("UUID")),
            T::JSON | T::JSONB => field(DataType::Utf8, Some("JSON")),
            T::Bytea | T::Bytes(_) | T::Blob(_) | T::Binary(_) | T::Varbinary(_) => {
                field(DataType::Binary, None)
            }
            T::Decimal(info) | T::Numeric(info) | T::Dec(info) => field(decimal(info)?, None),
            T::Custom(name, arguments) => return Ok(custom(name, arguments)),
            _ => return Ok(None),
        }))
    }
}

/// The type of a NUMERIC; an error of digits or a scale that it cannot have.
fn decimal_type(precision: u64, scale: i64) -> Result<DataType> {
    let Some(digits @ 1..=DIGITS_MAX) = u8::try_from(precision).ok() else {
        return plan_err!("NUMERIC precision {precision} must be between 1 and {DIGITS_MAX}");
    };
    let Some(scale) =
        i8::try_from(scale).ok().filter(|scale| u8::try_from(*scale).is_ok_and(|it| it <= digits))
    else {
        return plan_err!("NUMERIC scale {scale} must be between 0 and the precision {precision}");
    };
    Ok(if digits > 38 { DataType::Decimal256(digits, scale) } else { DataType::Decimal128(digits, scale) })
}

/// A type that only KalamDB has, or that has another name.
fn custom(name: &ObjectName, arguments: &[String]) -> Option<FieldRef> {
    let [part] = name.0.as_slice() else { return None };
    let name = part.as_ident()?.value.to_ascii_lowercase();
    Some(match name.as_str() {
        "embedding" => {
            let length = arguments.first()?.parse::<i32>().ok()?;
            let item = Arc::new(Field::new_list_field(DataType::Float32, true));
            field(DataType::FixedSizeList(item, length), None)
        }
        NANOSECONDS => field(DataType::Timestamp(TimeUnit::Nanosecond, None), None),
        "bytes" => field(DataType::Binary, None),
        "json" | "jsonb" => field(DataType::Utf8, Some("JSON")),
        "uuid" => field(DataType::Utf8, Some("UUID")),
        _ => return None,
    })
}
