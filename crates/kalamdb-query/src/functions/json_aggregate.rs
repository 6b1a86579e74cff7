//! `json_agg`: the values of a group as one array.

use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, exec_err, resources_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::ReversedUDAF;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use serde_json::Value as Json;

use super::TYPE_METADATA;
use super::json::documents;

/// Bytes of one array's text at the most.
const BYTES_MAX: usize = 64 << 20;

/// `json_agg` and `jsonb_agg`.
pub(super) fn named() -> Vec<AggregateUDF> {
    ["json_agg", "jsonb_agg"]
        .map(|name| {
            AggregateUDF::new_from_impl(JsonAgg { name, signature: Signature::any(1, Volatility::Immutable) })
        })
        .into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonAgg {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for JsonAgg {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field(&self, _: &[FieldRef]) -> Result<FieldRef> {
        let metadata = [(TYPE_METADATA.to_owned(), "JSON".to_owned())].into();
        Ok(Arc::new(Field::new(self.name, DataType::Utf8, true).with_metadata(metadata)))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let is_document = args.expr_fields.first().is_some_and(|field| {
            field.metadata().get(TYPE_METADATA).is_some_and(|name| name == "JSON")
        });
        Ok(Box::new(Items { texts: Vec::new(), bytes: 0, is_document }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
        Ok(vec![Arc::new(Field::new(format!("{}[items]", args.name), DataType::List(item), true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::HardRequirement
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }
}

/// The items so far, each as its text.
#[derive(Debug)]
struct Items {
    texts: Vec<String>,
    bytes: usize,
    is_document: bool,
}

impl Items {
    fn push(&mut self, text: String) -> Result<()> {
        self.bytes += text.len() + 1;
        if self.bytes > BYTES_MAX {
            return resources_err!("an array of json_agg would have more than 64 MiB");
        }
        self.texts.push(text);
        Ok(())
    }
}

impl Accumulator for Items {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return exec_err!("json_agg takes one value") };
        if self.is_document {
            for text in values.as_string::<i32>() {
                self.push(text.unwrap_or("null").to_owned())?;
            }
            return Ok(());
        }
        documents(values)?.into_iter().map(|json: Json| json.to_string()).try_for_each(|text| self.push(text))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let text = (!self.texts.is_empty()).then(|| format!("[{}]", self.texts.join(", ")));
        Ok(ScalarValue::Utf8(text))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes + self.texts.capacity() * size_of::<String>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let texts: Vec<ScalarValue> =
            self.texts.iter().map(|text| ScalarValue::Utf8(Some(text.clone()))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states.first() else { return exec_err!("json_agg has one state") };
        for items in lists.as_list::<i32>().iter().flatten() {
            let items: &StringArray = items.as_string();
            for text in items.iter().flatten() {
                self.push(text.to_owned())?;
            }
        }
        Ok(())
    }
}
