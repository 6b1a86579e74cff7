use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray,
    Float64Array, Int32Array, Int64Array, LargeBinaryArray, LargeListArray, ListArray, MapBuilder, NullArray,
    StringArray, StringBuilder, StructArray, TimestampNanosecondArray,
};
use arrow::array::{Int32Builder, Int64Builder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType as ArrowType, Field, Int32Type, Int64Type, TimeUnit};
use serde_json::{Value as Json, json};

use super::tests::{parquet_of, read, values};

/// The values that a column of the JSON column and of the TEXT column gets of an array.
fn check(array: &ArrayRef, expected: &[Option<&str>]) {
    for column in ["j", "t"] {
        let (rows, bad) = read("a.parquet", &parquet_of(vec![(column, Arc::clone(array))]), &[]);
        assert_eq!(bad, None, "{column}");
        let expected: Vec<Vec<Json>> = expected.iter().map(|text| vec![json!(text)]).collect();
        assert_eq!(values(&rows), expected, "{column}");
    }
}

fn list_of(items: ArrayRef, lengths: &[usize], nulls: Option<Vec<bool>>) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    let nulls = nulls.map(NullBuffer::from);
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths.iter().copied()), items, nulls))
}

fn struct_of(columns: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let columns = columns
        .into_iter()
        .map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array));
    Arc::new(StructArray::from(columns.collect::<Vec<_>>()))
}

#[test]
fn lists_are_arrays() {
    let texts: ArrayRef =
        Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("a, b"), None, Some("say \"x\"\n")]));
    let list = list_of(Arc::clone(&texts), &[2, 0, 3, 0], Some(vec![true, true, true, false]));
    check(&list, &[Some(r#"["a","b"]"#), Some("[]"), Some(r#"["a, b",null,"say \"x\"\n"]"#), None]);
    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>(vec![
        Some(vec![Some(i64::MAX), None]),
        Some(vec![Some(i64::MIN)]),
    ]);
    check(
        &(Arc::new(large) as ArrayRef),
        &[Some("[9223372036854775807,null]"), Some("[-9223372036854775808]")],
    );
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        vec![Some(vec![Some(1), Some(2)]), None],
        2,
    );
    check(&(Arc::new(fixed) as ArrayRef), &[Some("[1,2]"), None]);
    let deep = list_of(list_of(Arc::new(Int32Array::from(vec![1, 2, 3])), &[1, 0, 2], None), &[2, 1], None);
    check(&deep, &[Some("[[1],[]]"), Some("[[2,3]]")]);
    check(&list_of(Arc::new(NullArray::new(2)), &[2, 0], None), &[Some("[null,null]"), Some("[]")]);
}

#[test]
fn structs_and_maps_are_objects() {
    let plain = struct_of(vec![
        ("a", Arc::new(Int64Array::from(vec![1]))),
        ("b", Arc::new(StringArray::from(vec!["x"]))),
    ]);
    check(&plain, &[Some(r#"{"a":1,"b":"x"}"#)]);
    let structs = struct_of(vec![
        ("n", Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]))),
        ("in\"ner", list_of(Arc::new(StringArray::from(vec!["p", "q"])), &[1, 0, 1], None)),
    ]);
    let expected =
        [Some(r#"[{"n":1,"in\"ner":["p"]},{"n":null,"in\"ner":[]}]"#), Some(r#"[{"n":3,"in\"ner":["q"]}]"#)];
    check(&list_of(structs, &[2, 1], None), &expected);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("one");
    map.values().append_value(1);
    map.keys().append_value("t\"wo");
    map.values().append_null();
    map.append(true).unwrap();
    map.append(true).unwrap();
    map.append(false).unwrap();
    check(&(Arc::new(map.finish()) as ArrayRef), &[Some(r#"{"one":1,"t\"wo":null}"#), Some("{}"), None]);
    let mut numbered = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
    numbered.keys().append_value(7);
    numbered.values().append_value("seven");
    numbered.append(true).unwrap();
    check(&(Arc::new(numbered.finish()) as ArrayRef), &[Some(r#"{"7":"seven"}"#)]);
}

#[test]
fn every_digit_of_what_is_inside_is_kept() {
    let decimals =
        Decimal128Array::from(vec![12_345_678_901_234_567_890_123]).with_precision_and_scale(38, 4).unwrap();
    let instants = TimestampNanosecondArray::from(vec![1_500_000_001_001]);
    let zoned = instants.clone().with_timezone("Europe/Berlin");
    let dictionary: DictionaryArray<Int32Type> = vec![Some("x")].into_iter().collect();
    let row = struct_of(vec![
        ("m", Arc::new(decimals)),
        ("ts", Arc::new(instants)),
        ("tz", Arc::new(zoned)),
        ("d", Arc::new(dictionary)),
        ("f", Arc::new(Float64Array::from(vec![0.1]))),
        ("nan", Arc::new(Float64Array::from(vec![f64::NAN]))),
        ("y", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))),
        ("null", Arc::new(NullArray::new(1))),
    ]);
    let expected = r#"{"m":1234567890123456789.0123,"ts":"1970-01-01T00:25:00.000001001","tz":"1970-01-01T00:25:00.000001001Z","d":"x","f":0.1,"nan":"NaN","y":"AP8=","null":null}"#;
    check(&row, &[Some(expected)]);
    // What is no text is a document of its own in a JSON column.
    let instants: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![0]));
    let json = read("a.parquet", &parquet_of(vec![("j", instants)]), &[]).0;
    assert_eq!(values(&json), [[json!("\"1970-01-01T00:00:00\"")]]);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    assert_eq!(values(&read("a.parquet", &parquet_of(vec![("j", numbers)]), &[]).0), [[json!("7")]]);
}

#[test]
fn a_column_of_nulls_is_null_in_every_column() {
    let (first, nulls): (ArrayRef, ArrayRef) =
        (Arc::new(Int64Array::from(vec![1, 2])), Arc::new(NullArray::new(2)));
    for column in ["t", "m", "ts", "b", "j", "y", "u", "e"] {
        let bytes = parquet_of(vec![("id", Arc::clone(&first)), (column, Arc::clone(&nulls))]);
        let (rows, bad) = read("a.parquet", &bytes, &[]);
        assert_eq!(
            (values(&rows), bad),
            (vec![vec![json!("1"), Json::Null], vec![json!("2"), Json::Null]], None),
            "{column}"
        );
    }
}

#[test]
fn sixteen_bytes_are_a_uuid() {
    let (one, other) = ([7_u8; 16], [255_u8; 16]);
    let arrays: [ArrayRef; 3] = [
        Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                [Some(one), None, Some(other)].into_iter(),
                16,
            )
            .unwrap(),
        ),
        Arc::new(BinaryArray::from(vec![Some(&one[..]), None, Some(&other[..])])),
        Arc::new(LargeBinaryArray::from(vec![Some(&one[..]), None, Some(&other[..])])),
    ];
    for array in arrays {
        let (rows, bad) = read("a.parquet", &parquet_of(vec![("u", array)]), &[]);
        assert_eq!(bad, None);
        assert_eq!(values(&rows), [[json!("07".repeat(16))], [Json::Null], [json!("ff".repeat(16))]]);
    }
    let short: ArrayRef = Arc::new(BinaryArray::from(vec![&one[..], b"no uuid"]));
    let (rows, bad) = read("a.parquet", &parquet_of(vec![("u", short)]), &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!(bad.unwrap(), "row 2, column u: 7 bytes are no UUID, which has 16; it should be UUID");
    let spans: ArrayRef =
        list_of(Arc::new(arrow::array::DurationSecondArray::from(vec![90_000])), &[1], None);
    assert!(
        matches!(spans.data_type(), ArrowType::List(item) if *item.data_type() == ArrowType::Duration(TimeUnit::Second))
    );
    check(&spans, &[Some(r#"["P1DT1H"]"#)]);
}
