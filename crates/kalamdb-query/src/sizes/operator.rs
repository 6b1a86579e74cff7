//! `||` of texts as a function, which can have a memory limit. It calls `DataFusion`'s operator.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::{BinaryExpr, Column};

/// `left || right`, or a longer chain of texts: NULL where one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    /// The name of the function in plans.
    pub(super) const NAME: &'static str = "||";
}

impl Default for Concatenation {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schema_name(&self, args: &[Expr]) -> QueryResult<String> {
        // Parentheses as `DataFusion` writes them for the operator itself.
        let side = |arg: &Expr| match arg {
            Expr::BinaryExpr(_) => format!("({})", arg.schema_name()),
            _ => arg.schema_name().to_string(),
        };
        Ok(args.iter().map(side).collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[ArrowType]) -> QueryResult<Vec<ArrowType>> {
        match types {
            [left, right] => {
                let (left, right) =
                    BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
                Ok(vec![left, right])
            }
            // A chain is of texts alone.
            [_, _, ..] => Ok(vec![ArrowType::Utf8; types.len()]),
            _ => plan_err!("|| is of two texts"),
        }
    }

    fn return_type(&self, types: &[ArrowType]) -> QueryResult<ArrowType> {
        match types {
            [left, right] => BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type(),
            [_, _, ..] => Ok(ArrowType::Utf8),
            _ => plan_err!("|| is of two texts"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let is_one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let mut sides = ColumnarValue::values_to_arrays(&args.args)?.into_iter();
        let Some(mut whole) = sides.next() else { return plan_err!("|| is of two texts") };
        for side in sides {
            whole = joined(whole, side)?;
        }
        if is_one {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&whole, 0)?));
        }
        Ok(ColumnarValue::Array(whole))
    }
}

fn joined(left: ArrayRef, right: ArrayRef) -> QueryResult<ArrayRef> {
    let rows = left.len();
    let field = |at: usize, side: &ArrayRef| Field::new(at.to_string(), side.data_type().clone(), true);
    let schema = Schema::new(vec![field(0, &left), field(1, &right)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![left, right])?;
    let side = |at: usize| Arc::new(Column::new(&at.to_string(), at)) as Arc<dyn PhysicalExpr>;
    BinaryExpr::new(side(0), Operator::StringConcat, side(1)).evaluate(&batch)?.into_array(rows)
}
