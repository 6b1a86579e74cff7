//! `round` to a number of digits, whose type is one and the same in every step of planning.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// `DataFusion`'s `round` without a cast of the digits.
///
/// The scale of its result is that of a literal. `DataFusion` casts the literal, and so has another type for the call until the
/// cast is computed: what it is compared with is cast to a type that the call does not have.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Rounded {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl Rounded {
    /// The function that replaces `DataFusion`'s.
    pub(super) fn instead_of(inner: Arc<ScalarUDF>) -> ScalarUDF {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::new_from_impl(Self { inner, signature })
    }
}

impl ScalarUDFImpl for Rounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let field = |found: &DataType| Arc::new(Field::new("", found.clone(), true));
        let fields: Vec<FieldRef> = types.iter().map(field).collect();
        let coerced = fields_with_udf(&fields, self.inner.as_ref())?;
        let mut coerced: Vec<DataType> = coerced.iter().map(|field| field.data_type().clone()).collect();
        if let [_, digits] = coerced.as_mut_slice() {
            *digits = DataType::Int64;
        }
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(digits) = args.args.get_mut(1) {
            *digits = digits.cast_to(&DataType::Int32, None)?;
        }
        self.inner.invoke_with_args(args)
    }
}
