//! Functions that make much of little: refused where it is too much, as they are where it is not.

use crate::ErrorCode;
use crate::testing::{cells, root};
use crate::tests::{ok, open, refused};

#[tokio::test]
async fn what_would_take_all_memory_is_refused_before_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, body TEXT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO t VALUES (1, 'ab'), (2, NULL), (1000000000, 'abc')", &[]).await;
    for expression in [
        "length(repeat('x', 2000000000))",
        "length(repeat(body, 200000000)) FROM t",
        "length(repeat(body, id)) FROM t",
        "length(lpad('x', 2000000000))",
        "length(rpad(body, CAST(id AS INT), 'yz')) FROM t",
        "length(replace(repeat('a', 1000000), 'a', repeat('b', 1000)))",
        "cardinality(range(0, 2000000000))",
        "cardinality(range(2000000000, 0, -1))",
        "cardinality(range(id)) FROM t",
        "cardinality(generate_series(0, 2000000000))",
        "cardinality(list_repeat(1, 2000000000))",
        "cardinality(array_repeat(body, id)) FROM t",
        "cardinality(array_resize([1], 2000000000, 0))",
        "cardinality(generate_series(TIMESTAMP '2020-01-01', TIMESTAMP '2024-01-01', INTERVAL '1' SECOND))",
        "count(*) FROM (SELECT unnest(range(0, 2000000000)))",
    ] {
        let sql = format!("SELECT {expression}");
        let (code, text) = refused(&engine, &root(), &sql).await;
        assert_eq!(code, ErrorCode::MemoryLimit, "{sql}: {text}");
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
        ("length(repeat('x', 1000000))", "1000000"),
        ("lpad('x', 3, 'yz')", "yzx"),
        ("rpad('x', 3, '-')", "x--"),
        ("replace('aXbX', 'X', '--')", "a--b--"),
        ("range(1, 4)", "[1, 2, 3]"),
        ("range(4, 1, -1)", "[4, 3, 2]"),
        ("generate_series(1, 3)", "[1, 2, 3]"),
        ("list_repeat(7, 2)", "[7, 7]"),
        ("array_resize([1, 2], 3, 0)", "[1, 2, 0]"),
        ("cardinality(range(DATE '2020-01-01', DATE '2021-01-01', INTERVAL '1' MONTH))", "12"),
        ("string_agg(repeat(body, id), '+' ORDER BY id) FROM t", "ab+abcabcabc"),
        ("count(*) FROM range(0, 100000)", "100000"),
    ] {
        let sql = format!("SELECT {expression}");
        assert_eq!(cells(&ok(&engine, &root(), &sql, &[]).await), [[expected]], "{sql}");
    }
    engine.close();
}
