//! Whether a statement has the parameters that it names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, Value, ValueWithSpan, visit_expressions};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::sql::literal::parameter_number;

/// Refuses a statement that names a parameter which is not there, and one that is given more than it names.
pub(super) fn require_params(statement: &ast::Statement, params: &[Json]) -> Result<()> {
    let mut named = Vec::new();
    let _ = visit_expressions(statement, |expression| {
        if let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) = expression {
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
