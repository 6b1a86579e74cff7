//! Integer arithmetic with overflow errors; `DataFusion`'s own wraps around.

use std::sync::Arc;

use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use crate::functions::negate_checked;

/// Replaces `+`, `-`, `*` and the negation of integers by checked functions.
///
/// This is the last step before a plan runs: the optimizer's rules match operators, and would compute the types of nested
/// functions repeatedly.
pub(crate) fn check_integers(expr: Expr, schema: &DFSchema) -> QueryResult<Transformed<Expr>> {
    // From the top, while what is below are still operators.
    expr.transform_down(|part| Ok(check(part, schema)))
}

/// Replaces one operator by a checked function.
pub(crate) fn check(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_integer = |side: &Expr| side.get_type(schema).is_ok_and(|found| width(&found).is_some());
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Checked::of(op) {
            Some(operation) if is_integer(&left) && is_integer(&right) => {
                let function = Arc::new(ScalarUDF::new_from_impl(operation));
                let args = vec![*left, *right];
                Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
            }
            _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        Expr::Negative(inner) if is_integer(&inner) => Transformed::yes(negate_checked(*inner)),
        other => Transformed::no(other),
    }
}

/// The bits of a signed integer type.
const fn width(data_type: &ArrowType) -> Option<u8> {
    match data_type {
        ArrowType::Int8 => Some(8),
        ArrowType::Int16 => Some(16),
        ArrowType::Int32 => Some(32),
        ArrowType::Int64 => Some(64),
        _ => None,
    }
}

/// A checked operator as a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Checked {
    operator: Operator,
    signature: Signature,
}

impl Checked {
    fn of(operator: Operator) -> Option<Self> {
        let is_checked = matches!(operator, Operator::Plus | Operator::Minus | Operator::Multiply);
        is_checked.then(|| Self { operator, signature: Signature::user_defined(Volatility::Immutable) })
    }

    fn written(&self, args: &[Expr], text: impl Fn(&Expr) -> String) -> String {
        // Parentheses as `DataFusion` writes them for the operator itself.
        let side = |arg: &Expr| match arg {
            Expr::BinaryExpr(_) => format!("({})", text(arg)),
            _ => text(arg),
        };
        args.iter().map(side).collect::<Vec<_>>().join(&format!(" {} ", self.operator))
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn display_name(&self, args: &[Expr]) -> QueryResult<String> {
        Ok(self.written(args, ToString::to_string))
    }

    fn schema_name(&self, args: &[Expr]) -> QueryResult<String> {
        Ok(self.written(args, |arg| arg.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[ArrowType]) -> QueryResult<Vec<ArrowType>> {
        match types.iter().max_by_key(|data_type| width(data_type)) {
            Some(widest) if types.iter().all(|data_type| width(data_type).is_some()) => {
                Ok(vec![widest.clone(); types.len()])
            }
            _ => plan_err!("{} is of integers, not of {types:?}", self.name()),
        }
    }

    fn return_type(&self, types: &[ArrowType]) -> QueryResult<ArrowType> {
        Ok(types.first().cloned().unwrap_or(ArrowType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return plan_err!("{} is of two integers", self.name());
        };
        match self.operator {
            Operator::Plus => apply(left, right, numeric::add),
            Operator::Minus => apply(left, right, numeric::sub),
            _ => apply(left, right, numeric::mul),
        }
    }
}
