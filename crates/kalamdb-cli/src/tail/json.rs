//! One JSON object per event, its fields in an order that reads well.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value as Json, json};

use super::event::{Cell, Shown};
use super::value::{instant, to_json};

/// A JSON object that keeps the order of its fields.
pub(crate) struct Object<'a>(Vec<(&'a str, Field<'a>)>);

enum Field<'a> {
    Json(Json),
    Object(Object<'a>),
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            match field {
                Field::Json(value) => map.serialize_entry(name, value)?,
                Field::Object(object) => map.serialize_entry(name, object)?,
            }
        }
        map.end()
    }
}

/// An event as an object. Its seq is a number: none gets near to what JSON's numbers cannot hold.
pub(crate) fn event(shown: &Shown) -> Object<'_> {
    let mut fields = vec![
        ("seq", Field::Json(json!(shown.seq.get()))),
        ("commit_ts", Field::Json(json!(instant(shown.commit_time)))),
        ("op", Field::Json(json!(shown.operation.as_str()))),
        ("event", Field::Json(json!(shown.name))),
    ];
    fields.extend(shown.table.as_ref().map(|table| ("table", Field::Json(json!(table)))));
    fields.extend(shown.user.as_ref().map(|user| ("user", Field::Json(json!(user)))));
    if let Some(row) = shown.row.as_ref().or(shown.old.as_ref()) {
        fields.push(("schema_version", Field::Json(json!(row.schema_version))));
    }
    if !shown.key.is_empty() {
        fields.push(("key", Field::Object(cells(&shown.key))));
    }
    fields.extend(shown.row.as_ref().map(|row| ("row", Field::Object(cells(&row.cells)))));
    fields.extend(shown.old.as_ref().map(|row| ("old", Field::Object(cells(&row.cells)))));
    if !shown.details.is_empty() {
        let details = shown.details.iter().map(|(name, value)| (*name, Field::Json(value.clone())));
        fields.push(("details", Field::Object(Object(details.collect()))));
    }
    Object(fields)
}

fn cells(cells: &[Cell]) -> Object<'_> {
    let field = |cell: &'_ Cell| Field::Json(to_json(&cell.value, cell.scale));
    Object(cells.iter().map(|cell| (cell.name.as_str(), field(cell))).collect())
}
