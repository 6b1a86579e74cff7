//! `||` of texts as a function, so that it can be measured like one. What it does is what `DataFusion`'s operator does.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::expressions::{BinaryExpr, Column};

/// `left || right`: NULL where either is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    /// What plans call it.
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
        let [left, right] = types else { return plan_err!("|| is of two texts") };
        let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[ArrowType]) -> QueryResult<ArrowType> {
        let [left, right] = types else { return plan_err!("|| is of two texts") };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let is_one = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let sides = ColumnarValue::values_to_arrays(&args.args)?;
        let field = |at: usize, data_type: &ArrowType| Field::new(at.to_string(), data_type.clone(), true);
        let fields: Vec<Field> =
            sides.iter().enumerate().map(|(at, side)| field(at, side.data_type())).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), sides)?;
        let side = |at: usize| Arc::new(Column::new(&at.to_string(), at)) as Arc<dyn PhysicalExpr>;
        let whole = BinaryExpr::new(side(0), Operator::StringConcat, side(1)).evaluate(&batch)?;
        if is_one {
            let whole = whole.into_array(1)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&whole, 0)?));
        }
        Ok(whole)
    }
}
