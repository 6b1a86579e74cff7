//! Functions that make much of little: refused where it is too much, as they are where it is not.

use crate::ErrorCode;
use crate::engine::Engine;
use crate::testing::{cells, root};
use crate::tests::{ok, open, refused};

async fn filled() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, body TEXT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO t VALUES (1, 'ab'), (2, NULL), (1000000000, 'abc')", &[]).await;
    (directory, engine)
}

async fn check_refused(expressions: &[&str]) {
    let (_directory, engine) = filled().await;
    for expression in expressions {
        let sql = format!("SELECT {expression}");
        let (code, text) = refused(&engine, &root(), &sql).await;
        assert_eq!(code, ErrorCode::MemoryLimit, "{sql}: {text}");
    }
    engine.close();
}

#[tokio::test]
async fn what_would_take_all_memory_is_refused_before_it_does() {
    check_refused(&[
        "length(repeat('x', 2000000000))",
        "length(repeat(body, 200000000)) FROM t",
        "length(repeat(body, id)) FROM t",
        "length(lpad('x', 2000000000))",
        "length(rpad(body, CAST(id AS INT), 'yz')) FROM t",
        "length(replace(repeat(body, 500000), 'a', repeat('b', 1000))) FROM t WHERE id = 1",
        "length(regexp_replace(repeat(body, 500000), 'a', repeat(body, 500000), 'g')) FROM t WHERE id = 1",
        "length(regexp_replace(repeat(body, 500000), '.*', repeat('\\0', 1000))) FROM t WHERE id = 1",
        "regexp_match(repeat(body, 50000000), '((((a*))))') FROM t WHERE id = 1",
        "length(to_char(TIMESTAMP '2020-01-01', repeat('%c' || left(body, 0), 10000000))) FROM t WHERE id = 1",
        "cardinality(range(0, 2000000000))",
        "cardinality(range(2000000000, 0, -1))",
        "cardinality(range(id)) FROM t",
        "cardinality(generate_series(0, 2000000000))",
        "cardinality(list_repeat(1, 2000000000))",
        "cardinality(array_repeat(body, id)) FROM t",
        "cardinality(array_resize([1], 2000000000, 0))",
        "cardinality(generate_series(TIMESTAMP '2020-01-01', TIMESTAMP '2024-01-01', INTERVAL '1' SECOND))",
        "count(*) FROM (SELECT unnest(range(0, 2000000000)))",
        "length(array_to_string(range(0, id * 1000000), repeat(body, 500000))) FROM t WHERE id = 1",
        "length(array_to_string(array_repeat(CAST(NULL AS TEXT), 1000), ',', repeat(body, 500000))) FROM t WHERE id = 1",
        "cardinality(string_to_array(repeat(body, 20000000), 'b')) FROM t WHERE id = 1",
        "cardinality(arrays_zip(range(0, id * 6000000), [1], [2], [3])) FROM t WHERE id = 1",
        "cardinality(array_replace_all(array_repeat(body, 1000000), 'ab', repeat(body, 500000))) FROM t WHERE id = 1",
        "cardinality(array_replace_n(array_repeat(body, 1000000), 'ab', repeat(body, 500000), 1000000)) FROM t WHERE id = 1",
    ])
    .await;
}

/// Each makes no more than all that it is given, but that is given more than once.
#[tokio::test]
async fn what_is_put_together_is_bounded_too() {
    let mut expressions: Vec<String> = [
        "length(concat(x, x, x))",
        "length(concat_ws('-', x, x, x))",
        "length(x || x || x)",
        "length(overlay(x || x PLACING x FROM 1 FOR 0))",
        "cardinality(make_array(x, x, x))",
        "cardinality([x, x, x])",
        "cardinality(array_append([x, x], x))",
        "cardinality(array_prepend(x, [x, x]))",
        "cardinality(array_union([x, x], [x]))",
        "cardinality(array_replace([x, x, 'a'], 'a', x))",
        "cardinality(array_concat([x], [x, x]))",
        "cardinality([x] || [x, x])",
        "struct(x, x, x) IS NULL",
        "named_struct('a', x, 'b', x, 'c', x) IS NULL",
        "cardinality(map(['a', 'b', 'c'], [x, x, x]))",
    ]
    .map(|expression| {
        format!("{expression} FROM (SELECT repeat(body, 25000000) AS x FROM t WHERE id = 1) AS s")
    })
    .into();
    expressions.push("cardinality(array_concat(x, x, x)) FROM (SELECT range(0, id * 6000000) AS x FROM t WHERE id = 1) AS s".to_owned());
    // Twice as much again and again.
    for operation in ["x || x", "concat(x, x)", "overlay(x PLACING x FROM 1 FOR 0)", "replace(x, 'a', 'aa')"]
    {
        let mut from = "(SELECT repeat(body, 4000000) AS x0 FROM t WHERE id = 1)".to_owned();
        for depth in 0..6 {
            let twice = operation.replace('x', &format!("x{depth}"));
            from = format!("(SELECT {twice} AS x{} FROM {from})", depth + 1);
        }
        expressions.push(format!("length(x6) FROM {from}"));
    }
    check_refused(&expressions.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_step_both_ways_is_refused_since_it_may_lead_nowhere() {
    let (_directory, engine) = filled().await;
    for arguments in [
        "DATE '2023-01-29', DATE '2023-01-01', INTERVAL '1 month -30 days'",
        "DATE '2023-01-01', DATE '2023-01-29', INTERVAL '-1 month 31 days'",
        "TIMESTAMP '2023-01-01', TIMESTAMP '2024-01-01', INTERVAL '1 month -30 days'",
        "TIMESTAMP '2023-01-01', TIMESTAMP '2024-01-01', INTERVAL '1 day -24 hours'",
        "TIMESTAMP '2023-01-01', TIMESTAMP '2024-01-01', CASE WHEN id = 1 THEN INTERVAL '1 month -30 days' END",
    ] {
        for function in ["generate_series", "range"] {
            let sql = format!("SELECT cardinality({function}({arguments})) FROM t");
            let (code, text) = refused(&engine, &root(), &sql).await;
            assert_eq!(code, ErrorCode::MemoryLimit, "{sql}: {text}");
            assert!(text.contains("different signs"), "{text}");
        }
    }
    engine.close();
}

#[tokio::test]
async fn what_is_not_too_much_is_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, body TEXT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO t VALUES (1, 'ab'), (2, NULL), (3, 'abc')", &[]).await;
    for (expression, expected) in [
        ("repeat('x', 3)", "xxx"),
        ("repeat('x', -3) || 'y'", "y"),
        ("'x' || NULL || 'y' IS NULL", "true"),
        ("1 || 'a' || 2.5", "1a2.5"),
        ("string_agg(body || id, ' ' ORDER BY id) FROM t", "ab1 abc3"),
        ("length(repeat('x', 1000000))", "1000000"),
        ("lpad('x', 3, 'yz')", "yzx"),
        ("rpad('x', 3, '-')", "x--"),
        ("replace('aXbX', 'X', '--')", "a--b--"),
        ("regexp_replace('foobar', 'o(.)', '<\\1>', 'g')", "f<o>bar"),
        ("regexp_match('foobar', '(o+)(b)')", "[oo, b]"),
        ("concat('a', NULL, 1)", "a1"),
        ("concat_ws('-', 'a', NULL, 'b')", "a-b"),
        ("overlay('abcdef' PLACING 'X' FROM 2 FOR 3)", "aXef"),
        ("to_char(TIMESTAMP '2020-01-02', 'YYYY/MM')", "2020/01"),
        ("range(1, 4)", "[1, 2, 3]"),
        ("range(4, 1, -1)", "[4, 3, 2]"),
        ("cardinality(generate_series(1, 3))", "3"),
        ("list_repeat(7, 2)", "[7, 7]"),
        ("array_resize([1, 2], 3, 0)", "[1, 2, 0]"),
        ("[1, 2] || [3] || 4", "[1, 2, 3, 4]"),
        ("array_prepend(0, array_append([1], 2))", "[0, 1, 2]"),
        ("array_sort(array_union([1], [1, 2]))", "[1, 2]"),
        ("array_replace([1, 1], 1, 2)", "[2, 1]"),
        ("array_replace_n([1, 1, 1], 1, 2, 2)", "[2, 2, 1]"),
        ("array_replace_all([1, 1], 1, 2)", "[2, 2]"),
        ("cardinality(arrays_zip([1, 2, 3], ['a']))", "3"),
        ("array_to_string([1.5, NULL, 2], ',', '?')", "1.5,?,2.0"),
        ("string_to_array('a,b', ',')", "[a, b]"),
        ("map(['a'], [1])['a']", "1"),
        ("cardinality(range(DATE '2020-01-01', DATE '2021-01-01', INTERVAL '1' MONTH))", "12"),
        ("cardinality(range(DATE '2021-01-01', DATE '2020-01-01', INTERVAL '-1 month -1 day'))", "11"),
        ("string_agg(repeat(body, id), '+' ORDER BY id) FROM t", "ab+abcabcabc"),
        ("count(*) FROM range(0, 100000)", "100000"),
    ] {
        let sql = format!("SELECT {expression}");
        assert_eq!(cells(&ok(&engine, &root(), &sql, &[]).await), [[expected]], "{sql}");
    }
    // A column is called what was written.
    let table = ok(&engine, &root(), "SELECT body || 'x', concat(body, 'x') FROM t WHERE id = 1", &[]).await;
    assert!(
        table.contains("t.body || Utf8(\"x\")") && table.contains("concat(t.body,Utf8(\"x\"))"),
        "{table}"
    );
    engine.close();
}

/// Rows that are large together, and whose worst would be too much together, are done some after the others.
#[tokio::test]
async fn many_rows_are_not_too_much_because_they_are_many() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, body TEXT, at EMBEDDING(64))", &[])
        .await;
    let vector = vec!["1.5"; 64].join(", ");
    let insert =
        format!("INSERT INTO t SELECT value, repeat('abcdefghi ', 100), [{vector}] FROM range(0, 10000)");
    ok(&engine, &root(), &insert, &[]).await;
    for (expression, expected) in [
        ("sum(length(replace(body, 'abc', repeat('x', 103))))", "110000000"),
        ("sum(length(regexp_replace(body, 'abc', repeat('x', 103), 'g')))", "110000000"),
        ("sum(length(regexp_replace(body, '^(a)', '\\1\\1')))", "10010000"),
        ("sum(cardinality(regexp_match(body, '(a)(b)(c)(.*)')))", "40000"),
        ("sum(length(body || id || body))", "20038890"),
        ("sum(length(concat(body, ' ', body)))", "20010000"),
        ("sum(length(concat_ws(' ', body, id)))", "10048890"),
        ("sum(length(rpad(body, 1001, '-')))", "10010000"),
        ("sum(length(repeat(body, 3)))", "30000000"),
        ("sum(length(overlay(body PLACING body FROM 1 FOR 0)))", "20000000"),
        ("sum(cardinality(array_repeat(at, 3)))", "1920000"),
        ("sum(cardinality(array_concat(at, at)))", "1280000"),
        ("sum(cardinality(array_append(at, 1)))", "650000"),
        ("sum(cardinality(array_resize(string_to_array(body, ' '), 200)))", "2000000"),
        ("sum(cardinality(array_replace_all(at, 1.5, 2)))", "640000"),
        ("sum(cardinality(arrays_zip(at, range(0, 100))))", "1000000"),
        ("sum(cardinality([body, body]))", "20000"),
        ("sum(length(array_to_string(at, ', ')))", "3180000"),
        ("sum(cardinality(string_to_array(body, ' ')))", "1010000"),
        ("sum(cardinality(range(0, id % 10)))", "45000"),
        ("sum(length(to_char(TIMESTAMP '2020-01-01', 'YYYY')))", "4"),
    ] {
        let from = if expression.contains("to_char") { "" } else { " FROM t" };
        let sql = format!("SELECT {expression}{from}");
        assert_eq!(cells(&ok(&engine, &root(), &sql, &[]).await), [[expected]], "{sql}");
    }
    // One row of many.
    let sql = "SELECT cardinality(array_repeat(at, 10000)) FROM t WHERE id = 9999";
    assert_eq!(cells(&ok(&engine, &root(), sql, &[]).await), [["640000"]]);
    // What one row would make is measured by that row, not by all of them.
    for expression in [
        "array_repeat(CASE WHEN id = 7 THEN range(0, 100000) ELSE [1] END, CASE WHEN id = 7 THEN 1000 ELSE 0 END)",
        "repeat(body, 1000)",
    ] {
        let sql = format!("SELECT count({expression}) FROM t");
        assert_eq!(refused(&engine, &root(), &sql).await.0, ErrorCode::MemoryLimit, "{sql}");
    }
    engine.close();
}
