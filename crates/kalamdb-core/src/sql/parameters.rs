//! Parameters: whether a statement has those that it names, and those that are written into it: lists, the bounds of LIMIT, times as
//! results have them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Array, DataType, Expr, LimitClause, Query, TimezoneInfo, Value as Literal, ValueWithSpan, VisitMut,
    VisitorMut, visit_expressions,
};
use kalamdb_query::text;
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::sql::literal::parameter_number;

/// Writes parameters that are lists, that stand in LIMIT or OFFSET, or that are times by number, into a statement. Whether there were any.
pub(crate) fn write_out(statement: &mut ast::Statement, params: &[Json]) -> Result<bool> {
    if params.is_empty() {
        return Ok(false);
    }
    let mut writer = Writer { params, has_written: false };
    match statement.visit(&mut writer) {
        ControlFlow::Continue(()) => Ok(writer.has_written),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Refuses a statement that names a parameter which is not there, and one that is given more than it names.
pub(super) fn require_params(statement: &ast::Statement, params: &[Json]) -> Result<()> {
    let mut named = Vec::new();
    let _ = visit_expressions(statement, |expression| {
        if let Expr::Value(ValueWithSpan { value: Literal::Placeholder(name), .. }) = expression {
            named.push(name.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    let given = params.len();
    let mut greatest = 0;
    for name in &named {
        let number = parameter_number(name).ok_or_else(|| Error::Parameter {
            number: 0,
            problem: format!("{name} is no parameter; write $1, $2, …"),
        })?;
        if number > given {
            let problem = format!("the query names it, and has {given} in `params`");
            return Err(Error::Parameter { number, problem });
        }
        greatest = greatest.max(number);
    }
    if given > greatest {
        let problem = format!("the query names no parameter after ${greatest}, and has {given} in `params`");
        let problem = if greatest == 0 { "the query names no parameter".to_owned() } else { problem };
        return Err(Error::Parameter { number: greatest + 1, problem });
    }
    Ok(())
}

struct Writer<'p> {
    params: &'p [Json],
    has_written: bool,
}

impl Writer<'_> {
    fn parameter(&self, expr: &Expr) -> Option<(usize, &Json)> {
        let Expr::Value(value) = expr else { return None };
        let Literal::Placeholder(name) = &value.value else { return None };
        let number = parameter_number(name)?;
        Some((number, self.params.get(number - 1)?))
    }

    fn bound(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Some((number, json)) = self.parameter(expr) else { return ControlFlow::Continue(()) };
        let count = match json {
            Json::Null => None,
            Json::String(text) => Some(text.trim().parse::<u64>().ok()),
            other => Some(other.as_u64()),
        };
        let literal = match count {
            None => Literal::Null,
            Some(Some(count)) => Literal::Number(count.to_string(), false),
            Some(None) => {
                let problem = format!("{json} is no number of rows");
                return ControlFlow::Break(Error::Parameter { number, problem });
            }
        };
        *expr = Expr::value(literal);
        self.has_written = true;
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Writer<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match &mut query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                if let Some(limit) = limit {
                    self.bound(limit)?;
                }
                if let Some(offset) = offset {
                    self.bound(&mut offset.value)?;
                }
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                self.bound(offset)?;
                self.bound(limit)?;
            }
            None => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Cast { expr: value, data_type, .. } = expr
            && let Some(text) = self.parameter(value).and_then(|(_, json)| time_text(json, data_type))
        {
            **value = Expr::value(Literal::SingleQuotedString(text));
            self.has_written = true;
        }
        let Some((number, Json::Array(items))) = self.parameter(expr) else {
            return ControlFlow::Continue(());
        };
        match items.iter().map(literal).collect::<Option<Vec<Expr>>>() {
            Some(elem) => {
                *expr = Expr::Array(Array { elem, named: true });
                self.has_written = true;
                ControlFlow::Continue(())
            }
            None => {
                let problem =
                    "a list holds numbers, texts, truth values and NULLs, or lists of those".to_owned();
                ControlFlow::Break(Error::Parameter { number, problem })
            }
        }
    }
}

/// A time as text, of its number in results: microseconds, or days of a DATE. None where it is no number, or the type none of a time.
fn time_text(json: &Json, data_type: &DataType) -> Option<String> {
    let number = match json {
        Json::Number(number) => number.as_i64()?,
        Json::String(text) => text.parse().ok()?,
        _ => return None,
    };
    match data_type {
        DataType::Timestamp(_, zone) => {
            text::write_timestamp(number, matches!(zone, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz))
        }
        DataType::TimestampNtz(_) | DataType::Datetime(_) => text::write_timestamp(number, false),
        DataType::Date => text::write_date(i32::try_from(number).ok()?),
        DataType::Time(..) => (0..=86_400_000_000).contains(&number).then(|| text::write_time(number)),
        _ => None,
    }
}

fn literal(json: &Json) -> Option<Expr> {
    let literal = match json {
        Json::Null => Literal::Null,
        Json::Bool(value) => Literal::Boolean(*value),
        Json::Number(number) => Literal::Number(number.to_string(), false),
        Json::String(text) => Literal::SingleQuotedString(text.clone()),
        Json::Array(items) => {
            let elem = items.iter().map(literal).collect::<Option<Vec<_>>>()?;
            return Some(Expr::Array(Array { elem, named: true }));
        }
        Json::Object(_) => return None,
    };
    Some(Expr::value(literal))
}
