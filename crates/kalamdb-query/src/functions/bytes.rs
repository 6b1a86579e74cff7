//! Functions of BYTEA values: their length, their text and their parts.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::Totality::{Partial, Total};
use super::casts::{cast_array, hex_digits, written};
use super::{Function, call_shared};

/// `length` of a BYTEA value, in bytes.
pub(crate) fn bytes_length(value: Expr) -> Expr {
    call_shared!(Function::to("bytes_length", Total, DataType::Int64, evaluate_length), vec![value])
}

/// `octet_length` and `encode` by name.
pub(super) fn named() -> Vec<Function> {
    let encoded: fn(&[DataType]) -> Result<DataType> = |types| match types {
        [DataType::Binary | DataType::Utf8 | DataType::Null, DataType::Utf8 | DataType::Null] => {
            Ok(DataType::Utf8)
        }
        _ => plan_err!("encode takes a BYTEA and the name of a format"),
    };
    vec![
        Function::to("octet_length", Total, DataType::Int64, evaluate_length),
        Function::new("encode", Partial, encoded, evaluate_encode),
    ]
}

/// Evaluates the length in bytes of a BYTEA or a text.
fn evaluate_length(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [value] = args else { return exec_err!("octet_length takes one argument") };
    let value = match value.data_type() {
        DataType::Binary | DataType::Utf8 => Arc::clone(value),
        _ => written(value)?,
    };
    let bytes = cast(&value, &DataType::Binary)?;
    let lengths = bytes.as_binary::<i32>().iter();
    let lengths = lengths.map(|bytes| bytes.and_then(|bytes| i64::try_from(bytes.len()).ok()));
    Ok(Arc::new(lengths.collect::<Int64Array>()))
}

/// Bytes as text: `hex`, `base64` in lines of 76 characters, or `escape`.
fn evaluate_encode(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    let [bytes, format] = args else { return exec_err!("encode takes bytes and a format") };
    let (bytes, format) = (cast_array(bytes, &DataType::Binary)?, cast(format, &DataType::Utf8)?);
    let pairs = bytes.as_binary::<i32>().iter().zip(format.as_string::<i32>().iter());
    let texts = pairs.map(|(bytes, format)| match (bytes, format) {
        (Some(bytes), Some(format)) => encoded(bytes, format).map(Some),
        _ => Ok(None),
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

/// The text of bytes in a format.
fn encoded(bytes: &[u8], format: &str) -> Result<String> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => Ok(hex_digits(bytes)),
        "base64" => {
            const LINE: usize = 76;
            let text = BASE64.encode(bytes);
            let lines: Vec<&str> = (0..text.len())
                .step_by(LINE)
                .filter_map(|at| text.get(at..text.len().min(at + LINE)))
                .collect();
            Ok(lines.join("\n"))
        }
        "escape" => Ok(bytes
            .iter()
            .map(|byte| match byte {
                b'\\' => "\\\\".to_owned(),
                0 | 128.. => format!("\\{byte:03o}"),
                _ => char::from(*byte).to_string(),
            })
            .collect()),
        _ => exec_err!("unrecognized encoding: \"{format}\"; there are hex, base64 and escape"),
    }
}

/// `substr` and `substring` of a BYTEA, and `DataFusion`'s of a text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Substring {
    of_text: Arc<ScalarUDF>,
    aliases: Vec<String>,
    signature: Signature,
}

/// The function that replaces `DataFusion`'s `substr`.
pub(crate) fn substring() -> Arc<ScalarUDF> {
    static SUBSTRING: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let of_text = datafusion::functions::unicode::substr();
        let aliases = of_text.aliases().to_vec();
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Substring { of_text, aliases, signature }))
    });
    Arc::clone(&SUBSTRING)
}

impl ScalarUDFImpl for Substring {
    fn name(&self) -> &str {
        self.of_text.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_bytes = types.first() == Some(&DataType::Binary);
        if is_bytes && matches!(types.len(), 2 | 3) {
            let is_place = |found: &DataType| found.is_integer() || *found == DataType::Null;
            if !types.iter().skip(1).all(is_place) {
                return plan_err!("substr takes a BYTEA and one or two integers");
            }
            let places = std::iter::repeat_n(DataType::Int64, types.len() - 1);
            return Ok(std::iter::once(DataType::Binary).chain(places).collect());
        }
        let fields = |found: &DataType| Arc::new(Field::new("", found.clone(), true));
        // Integers of any size are places.
        let wide = |found: &DataType| if found.is_integer() { DataType::Int64 } else { found.clone() };
        let fields: Vec<FieldRef> = types.iter().map(|found| fields(&wide(found))).collect();
        let coerced = fields_with_udf(&fields, self.of_text.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Binary, ..] => Ok(DataType::Binary),
            types => self.of_text.return_type(types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if args.arg_fields.first().is_some_and(|field| *field.data_type() == DataType::Binary) {
            let field = Field::new(self.name(), DataType::Binary, true);
            return Ok(Arc::new(field));
        }
        self.of_text.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.first().is_some_and(|arg| arg.data_type() == DataType::Binary) {
            let arrays = ColumnarValue::values_to_arrays(&args.args)?;
            return Ok(ColumnarValue::Array(part_of_bytes(&arrays)?));
        }
        self.of_text.invoke_with_args(args)
    }
}

/// The bytes from a place on, of which the first is 1; places before it count towards the length.
fn part_of_bytes(args: &[ArrayRef]) -> Result<ArrayRef> {
    let [bytes, starts, lengths @ ..] = args else { return exec_err!("substr takes a BYTEA and a place") };
    let (bytes, starts) = (bytes.as_binary::<i32>(), starts.as_primitive::<Int64Type>());
    let lengths = lengths.first().map(AsArray::as_primitive::<Int64Type>);
    let place = |at: i64| usize::try_from(at.max(0)).unwrap_or(usize::MAX);
    let parts = bytes.iter().zip(starts.iter()).enumerate().map(|(row, pair)| {
        let (Some(bytes), Some(start)) = pair else { return Ok(None) };
        let end = match lengths {
            None => i64::MAX,
            Some(lengths) if lengths.is_null(row) => return Ok(None),
            Some(lengths) if lengths.value(row) < 0 => {
                return exec_err!("negative substring length not allowed");
            }
            Some(lengths) => start.saturating_add(lengths.value(row)),
        };
        let (from, to) = (place(start.saturating_sub(1)), place(end.saturating_sub(1)).min(bytes.len()));
        Ok(Some(bytes.get(from..to).unwrap_or_default()))
    });
    Ok(Arc::new(parts.collect::<Result<Vec<_>>>()?.into_iter().collect::<BinaryArray>()))
}
