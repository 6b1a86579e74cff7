use proptest::prelude::*;

use super::*;

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        any::<i16>().prop_map(Value::SmallInt),
        any::<i32>().prop_map(Value::Int),
        any::<i64>().prop_map(Value::BigInt),
        any::<f32>().prop_map(Value::Float),
        any::<f64>().prop_map(Value::Double),
        any::<i128>().prop_map(Value::Decimal),
        ".*".prop_map(Value::Text),
        any::<i64>().prop_map(Value::Timestamp),
        any::<i64>().prop_map(Value::DateTime),
        any::<i32>().prop_map(Value::Date),
        any::<i64>().prop_map(Value::Time),
        ".*".prop_map(Value::Json),
        any::<Vec<u8>>().prop_map(Value::Bytes),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        prop::collection::vec(any::<f32>(), 0..9).prop_map(Value::Embedding),
    ]
}

fn encode(version: u32, values: &[Value]) -> Vec<u8> {
    let mut row = RowBuilder::new(SchemaVersion::new(version));
    for value in values {
        row.push(value);
    }
    row.finish().unwrap()
}

proptest! {
    #[test]
    fn a_row_comes_back_as_it_went_in(version: u32, values in prop::collection::vec(any_value(), 0..20)) {
        let bytes = encode(version, &values);
        let row = RowReader::new(&bytes).unwrap();
        prop_assert_eq!(row.version().get(), version);
        let cells: usize = row.cells().map(|cell| cell.unwrap().encoded_bytes()).sum();
        prop_assert_eq!(HEADER_BYTES + cells, bytes.len());
        prop_assert_eq!(row.count(), values.len());
        prop_assert_eq!(row.values().unwrap(), values);
        // What was read writes the same bytes: rows can be copied cell by cell.
        let mut copy = RowBuilder::new(row.version());
        for cell in row.cells() {
            copy.push_cell(&cell.unwrap());
        }
        prop_assert_eq!(copy.finish().unwrap(), bytes);
    }

    #[test]
    fn a_walk_finds_the_cells_that_it_is_asked_for(
        values in prop::collection::vec(any_value(), 0..20),
        wanted in prop::collection::btree_map(0..24_usize, any::<bool>(), 0..10),
        other in any_value(),
    ) {
        let bytes = encode(1, &values);
        let row = RowReader::new(&bytes).unwrap();
        let mut walk = row.walk();
        for (number, is_typed) in wanted {
            if let Some(value) = values.get(number).filter(|_| is_typed) {
                // What is not found stays ahead.
                let nothing = walk.typed(number, |cells| cells.text_bytes().and(None::<()>)).unwrap();
                prop_assert!(nothing.is_none());
                let found = walk.typed(number, |cells| typed(cells, value)).unwrap();
                prop_assert_eq!(format!("{found:?}"), format!("{:?}", Some(value)));
                prop_assert!(walk.typed(number, |cells| typed(cells, &other)).unwrap().is_none(), "it does not go back");
                continue;
            }
            let cell = walk.cell(number).unwrap().map(|cell| format!("{:?}", cell.to_value()));
            prop_assert_eq!(cell, values.get(number).map(|value| format!("{value:?}")));
            prop_assert!(walk.cell(number).unwrap().is_none(), "it does not go back");
        }
    }

    #[test]
    fn cells_of_known_types_are_those_that_were_written(
        values in prop::collection::vec(any_value(), 0..6), other in any_value(), cut: prop::sample::Index
    ) {
        let bytes = encode(1, &values);
        let mut cells = RowReader::new(&bytes).unwrap().typed();
        for value in &values {
            let mut of_other = cells.clone();
            let is_same = std::mem::discriminant(value) == std::mem::discriminant(&other);
            if !is_same && !of_one_kind(value, &other) && *value != Value::Null && other != Value::Null {
                prop_assert!(typed(&mut of_other, &other).is_none(), "{:?} is no {:?}", value, other);
            }
            let found = typed(&mut cells, value);
            prop_assert_eq!(format!("{found:?}"), format!("{:?}", Some(value)));
        }
        prop_assert!(typed(&mut cells, &other).is_none(), "there is no more");
        let end = 6 + cut.index(bytes.len() - 5);
        if end < bytes.len() {
            let mut cells = RowReader::new(&bytes[..end]).unwrap().typed();
            prop_assert!(!values.iter().all(|value| typed(&mut cells, value).is_some()));
        }
    }

    #[test]
    fn a_row_that_ends_early_is_refused(values in prop::collection::vec(any_value(), 1..6), cut: prop::sample::Index) {
        let bytes = encode(1, &values);
        let cut = cut.index(bytes.len());
        prop_assert!(RowReader::new(&bytes[..cut]).and_then(|row| row.values()).is_err());
    }

    #[test]
    fn no_bytes_make_a_row_panic(bytes: Vec<u8>, other in any_value()) {
        let _ = RowReader::new(&bytes).and_then(|row| row.walk().cell(row.count().saturating_sub(1)));
        let _ = RowReader::new(&bytes).and_then(|row| row.walk().typed(row.count() / 2, |cells| typed(cells, &other)));
        if let Ok(row) = RowReader::new(&bytes) {
            let cells = row.cells().count();
            prop_assert!(cells <= row.count());
            prop_assert_eq!(row.cells().any(|cell| cell.is_err()), row.values().is_err());
        }
    }
}

#[test]
fn a_row_over_its_limits_is_refused() {
    let mut row = RowBuilder::new(SchemaVersion::FIRST);
    row.push(&Value::Bytes(vec![0; ROW_BYTES_MAX]));
    assert!(matches!(row.finish(), Err(Error::TooLarge { limit: ROW_BYTES_MAX, .. })));

    let of = |cells: u16| {
        let mut row = RowBuilder::new(SchemaVersion::FIRST);
        for _ in 0..cells {
            row.push(&Value::Null);
        }
        row.finish()
    };
    assert_eq!(RowReader::new(&of(u16::MAX - 1).unwrap()).unwrap().count(), 65_534);
    assert!(matches!(of(u16::MAX), Err(Error::TooLarge { .. })));
}

/// The next cell, a text.
fn text(cells: &mut TypedCells<'_>, value: fn(String) -> Value) -> Option<Value> {
    let Some(bytes) = cells.text_bytes()? else { return Some(Value::Null) };
    String::from_utf8(bytes.to_vec()).ok().map(value)
}

/// The next cell, read as what this value is.
fn typed(cells: &mut TypedCells<'_>, of: &Value) -> Option<Value> {
    Some(match of {
        Value::Boolean(_) => cells.boolean()?.map_or(Value::Null, Value::Boolean),
        Value::SmallInt(_) => cells.small_int()?.map_or(Value::Null, Value::SmallInt),
        Value::Null | Value::Int(_) => cells.int()?.map_or(Value::Null, Value::Int),
        Value::BigInt(_) => cells.big_int()?.map_or(Value::Null, Value::BigInt),
        Value::Float(_) => cells.float()?.map_or(Value::Null, Value::Float),
        Value::Double(_) => cells.double()?.map_or(Value::Null, Value::Double),
        Value::Decimal(_) => cells.decimal()?.map_or(Value::Null, Value::Decimal),
        Value::Text(_) => text(cells, Value::Text)?,
        Value::Json(_) => text(cells, Value::Json)?,
        Value::Timestamp(_) => cells.timestamp()?.map_or(Value::Null, Value::Timestamp),
        Value::DateTime(_) => cells.timestamp()?.map_or(Value::Null, Value::DateTime),
        Value::Date(_) => cells.date()?.map_or(Value::Null, Value::Date),
        Value::Time(_) => cells.time()?.map_or(Value::Null, Value::Time),
        Value::Bytes(_) => cells.bytes()?.map_or(Value::Null, |bytes| Value::Bytes(bytes.to_vec())),
        Value::Uuid(_) => cells.uuid()?.map_or(Value::Null, |uuid| Value::Uuid(*uuid)),
        Value::Embedding(_) => {
            cells.embedding()?.map_or(Value::Null, |bytes| CellRef::Embedding(bytes).to_value())
        }
    })
}

/// Whether cells of both are read in the same way.
fn of_one_kind(left: &Value, right: &Value) -> bool {
    let is_text = |value: &Value| matches!(value, Value::Text(_) | Value::Json(_));
    let is_time = |value: &Value| matches!(value, Value::Timestamp(_) | Value::DateTime(_));
    (is_text(left) && is_text(right)) || (is_time(left) && is_time(right))
}
