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
        wanted in prop::collection::btree_set(0..24_usize, 0..10),
    ) {
        let bytes = encode(1, &values);
        let row = RowReader::new(&bytes).unwrap();
        let mut walk = row.walk();
        for number in wanted {
            let cell = walk.cell(number).unwrap().map(|cell| format!("{:?}", cell.to_value()));
            prop_assert_eq!(cell, values.get(number).map(|value| format!("{value:?}")));
            prop_assert!(walk.cell(number).unwrap().is_none(), "it does not go back");
        }
    }

    #[test]
    fn a_row_that_ends_early_is_refused(values in prop::collection::vec(any_value(), 1..6), cut: prop::sample::Index) {
        let bytes = encode(1, &values);
        let cut = cut.index(bytes.len());
        prop_assert!(RowReader::new(&bytes[..cut]).and_then(|row| row.values()).is_err());
    }

    #[test]
    fn no_bytes_make_a_row_panic(bytes: Vec<u8>) {
        let _ = RowReader::new(&bytes).and_then(|row| row.walk().cell(row.count().saturating_sub(1)));
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
