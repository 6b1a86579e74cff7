//! The functions KalamDB adds to SQL, and the ids they make.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use datafusion::prelude::lit;
use log_format::{Role, Value};

use crate::clock;
use crate::error::{Result, from_query};
use crate::session::Session;

/// 2024-01-01T00:00:00Z in milliseconds: where snowflake ids begin to count, so that 41 bits last until 2093.
const SNOWFLAKE_EPOCH_MS: i64 = 1_704_067_200_000;
/// Bits below the time: room for that many ids a millisecond, then the next millisecond's are taken.
const SNOWFLAKE_COUNTER_BITS: u32 = 22;

/// Makes ids that are unique in this process and rise with time.
#[derive(Debug, Default)]
pub(crate) struct Snowflakes {
    last: AtomicI64,
}

impl Snowflakes {
    /// The next id: greater than every one before, whatever the clock does.
    pub(crate) fn next(&self) -> i64 {
        let now = (clock::now_micros() / 1000 - SNOWFLAKE_EPOCH_MS) << SNOWFLAKE_COUNTER_BITS;
        let step = |last: i64| Some((last + 1).max(now));
        let previous = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        step(previous.unwrap_or_else(|last| last)).unwrap_or(now)
    }
}

/// The name of a role in SQL.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Service => "service",
        Role::Dba => "dba",
    }
}

/// A function without arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Niladic {
    SnowflakeId,
    UuidV7,
    Ulid,
    CurrentUser,
    CurrentRole,
}

impl Niladic {
    pub(crate) const ALL: [Self; 5] =
        [Self::SnowflakeId, Self::UuidV7, Self::Ulid, Self::CurrentUser, Self::CurrentRole];

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::SnowflakeId => "snowflake_id",
            Self::UuidV7 => "uuid_v7",
            Self::Ulid => "ulid",
            Self::CurrentUser => "current_user",
            Self::CurrentRole => "current_role",
        }
    }

    /// Its value for one row.
    pub(crate) fn value(&self, session: &Session, snowflakes: &Snowflakes) -> Value {
        match self {
            Self::SnowflakeId => Value::BigInt(snowflakes.next()),
            Self::UuidV7 => Value::Uuid(uuid::Uuid::now_v7().into_bytes()),
            Self::Ulid => Value::Text(ulid::Ulid::generate().to_string()),
            Self::CurrentUser => Value::Text(session.user().to_string()),
            Self::CurrentRole => Value::Text(role_name(session.role()).to_owned()),
        }
    }
}

/// Such a function in `DataFusion`'s terms, for one session.
struct NiladicFunction {
    function: Niladic,
    session: Session,
    snowflakes: Arc<Snowflakes>,
    signature: Signature,
}

impl std::fmt::Debug for NiladicFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.function.fmt(f)
    }
}

impl PartialEq for NiladicFunction {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function && self.session == other.session
    }
}

impl Eq for NiladicFunction {}

impl Hash for NiladicFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for NiladicFunction {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> QueryResult<ArrowType> {
        Ok(match self.function {
            Niladic::SnowflakeId => ArrowType::Int64,
            _ => ArrowType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let value = || self.function.value(&self.session, &self.snowflakes);
        let text = || match value() {
            Value::Uuid(bytes) => uuid::Uuid::from_bytes(bytes).to_string(),
            Value::Text(text) => text,
            _ => String::new(),
        };
        let rows = 0..args.number_rows;
        Ok(match self.function {
            Niladic::CurrentUser | Niladic::CurrentRole => {
                ColumnarValue::Scalar(ScalarValue::Utf8(Some(text())))
            }
            Niladic::SnowflakeId => {
                let ids: Int64Array = rows.map(|_| Some(self.snowflakes.next())).collect();
                ColumnarValue::Array(Arc::new(ids) as ArrayRef)
            }
            Niladic::UuidV7 | Niladic::Ulid => {
                let ids: StringArray = rows.map(|_| Some(text())).collect();
                ColumnarValue::Array(Arc::new(ids) as ArrayRef)
            }
        })
    }
}

/// The plan with who asks in the place of the functions that tell it, so that nobody else's plan is like it.
pub(crate) fn with_session(plan: LogicalPlan, session: &Session) -> Result<LogicalPlan> {
    let told = |part: Expr| match &part {
        Expr::ScalarFunction(call) if call.func.name() == Niladic::CurrentUser.name() => {
            Transformed::yes(lit(session.user().as_str()))
        }
        Expr::ScalarFunction(call) if call.func.name() == Niladic::CurrentRole.name() => {
            Transformed::yes(lit(role_name(session.role())))
        }
        _ => Transformed::no(part),
    };
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expression| {
            let name = names.save(&expression);
            let expression = expression.transform_up(|part| Ok(told(part)))?;
            Ok(expression.update_data(|expression| name.restore(expression)))
        })
    });
    Ok(rewritten.map_err(from_query)?.data)
}

/// The functions of one session.
pub(crate) fn session_functions(session: &Session, snowflakes: &Arc<Snowflakes>) -> Vec<Arc<ScalarUDF>> {
    let function = |function: Niladic| {
        let volatility = match function {
            Niladic::CurrentUser | Niladic::CurrentRole => Volatility::Stable,
            _ => Volatility::Volatile,
        };
        Arc::new(ScalarUDF::new_from_impl(NiladicFunction {
            function,
            session: session.clone(),
            snowflakes: Arc::clone(snowflakes),
            signature: Signature::new(TypeSignature::Nullary, volatility),
        }))
    };
    Niladic::ALL.into_iter().map(function).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snowflakes_rise_even_when_the_clock_does_not() {
        // The clock was once far ahead.
        let snowflakes = Snowflakes { last: AtomicI64::new(i64::MAX / 2) };
        let ids: Vec<i64> = (0..10_000).map(|_| snowflakes.next()).collect();
        assert!(ids.is_sorted_by(|left, right| left < right));
        assert!(ids[0] > i64::MAX / 2);
    }
}
