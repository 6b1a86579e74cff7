//! Scans of both tiers: every type as it comes back from files, and which files are not opened at all.

use log_format::{NamespaceId, Partition, Value};

use crate::Engine;
use crate::EngineOptions;
use crate::cold_tests::{both, cold_files, flush, stats};
use crate::engine::Machine;
use crate::testing::{cells, root};
use crate::tests::{ok, open};

/// Every type, with what it can become.
const TYPES: [(&str, &str, &str); 21] = [
    ("BOOLEAN", "true", ""),
    ("SMALLINT", "-32768", "INT"),
    ("SMALLINT", "7", "BIGINT"),
    ("SMALLINT", "-32768", "FLOAT"),
    ("SMALLINT", "32767", "DOUBLE"),
    ("SMALLINT", "-32768", "DECIMAL(8, 3)"),
    ("INT", "-2147483648", "BIGINT"),
    ("INT", "2147483647", "DOUBLE"),
    ("INT", "2147483647", "DECIMAL(20, 4)"),
    ("BIGINT", "-9223372036854775808", "DECIMAL(25, 2)"),
    ("FLOAT", "1.1", "DOUBLE"),
    ("DOUBLE", "-0.1", ""),
    ("DECIMAL(10, 2)", "-12345678.91", "DECIMAL(14, 5)"),
    ("TEXT", "'a text'", ""),
    ("TIMESTAMP", "'2024-02-29 12:34:56.789012'", ""),
    ("DATETIME", "'2024-02-29T12:34:56.789012+02:00'", ""),
    ("DATE", "'1969-12-31'", "TIMESTAMP"),
    ("TIME", "'23:59:59.999999'", ""),
    ("JSON", "'{\"a\": [1, null]}'", "TEXT"),
    ("UUID", "'0192c3a4-5b6c-7d8e-9fab-0123456789ab'", "TEXT"),
    ("BYTES", "X'00ff10'", ""),
];

#[tokio::test]
async fn every_type_comes_back_from_files_as_what_its_column_has_become() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    let columns: Vec<_> = TYPES.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
    for table in ["flushed", "unmoved"] {
        let columns = columns.join(", ");
        let sql = format!(
            "CREATE SHARED TABLE app.{table} (id BIGINT PRIMARY KEY, e EMBEDDING(2), u UUID, {columns})"
        );
        ok(&engine, &root(), &sql, &[]).await;
    }
    let values: Vec<_> = TYPES.iter().map(|(_, value, _)| *value).collect();
    let uuid = "'0192c3a4-5b6c-7d8e-9fab-0123456789ac'";
    let nulls = vec!["NULL"; TYPES.len() + 2].join(", ");
    let rows = format!(
        "INSERT INTO {{t}} VALUES (1, '[1.5, -0.25]', {uuid}, {}), (2, {nulls}), (3, {nulls}), (4, NULL, NULL, {})",
        values.join(", "),
        values.join(", ")
    );
    both(&engine, &root(), &rows, 0).await;
    both(&engine, &root(), "DELETE FROM {t} WHERE id = 3", 0).await;
    flush(&engine, "app.flushed").await;
    let everything =
        ["SELECT * FROM {t}", "SELECT *, _updated IS NULL, _deleted FROM {t}", "SELECT u, e, c3 FROM {t}"];
    for query in everything {
        both(&engine, &root(), query, 1).await;
    }
    for (at, (_, _, wider)) in TYPES.iter().enumerate().filter(|(_, (.., wider))| !wider.is_empty()) {
        both(&engine, &root(), &format!("ALTER TABLE {{t}} MODIFY COLUMN c{at} {wider}"), 2).await;
    }
    both(&engine, &root(), "ALTER TABLE {t} ADD COLUMN x TEXT DEFAULT 'was not there'", 2).await;
    both(&engine, &root(), "UPDATE {t} SET x = 'now it is' WHERE id = 4", 2).await;
    for query in everything.iter().chain(&["SELECT x, id FROM {t}", "SELECT count(*) FROM {t}"]) {
        both(&engine, &root(), query, 3).await;
    }
    flush(&engine, "app.flushed").await;
    for query in everything {
        both(&engine, &root(), query, 4).await;
    }
    assert_eq!(cold_files(directory.path()), 2);
    engine.close();
}

/// What a plan says of the scan of a table after `name=`.
async fn in_plan(engine: &Engine, sql: &str, name: &str) -> u64 {
    let plan = cells(&ok(engine, &root(), sql, &[]).await).concat().join(" ");
    // Of the physical plan, the scan is the last node.
    let (_, plan) = plan.rsplit_once("TableScan: ").unwrap_or_else(|| panic!("no scan in {plan}"));
    let (_, rest) = plan.split_once(name).unwrap_or_else(|| panic!("no {name} in {plan}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name} in {plan}"))
}

async fn count(engine: &Engine, sql: &str) -> u64 {
    cells(&ok(engine, &root(), sql, &[]).await)[0][0].parse().unwrap()
}

const EVENTS: &str = "CREATE NAMESPACE app; CREATE SHARED TABLE app.events (id BIGINT PRIMARY KEY, at TIMESTAMP, day DATE, \
     n INT, price DECIMAL(9, 2), name TEXT)";

#[tokio::test]
async fn of_a_hundred_files_those_outside_of_a_range_of_time_are_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody does jobs by himself: a hundred small files would soon be a few.
    let (engine, workers, _) =
        Engine::assemble(EngineOptions::new(directory.path()), Machine::default()).unwrap();
    drop((workers.keeper, workers.flush_keeper));
    let (sequencer, jobs) = (workers.sequencer, workers.jobs);
    let sequencing = std::thread::spawn(move || sequencer.run());
    ok(&engine, &root(), EVENTS, &[]).await;
    let info = engine.catalog().find(&NamespaceId::new("app"), "events").unwrap();
    let partition = Partition::shared(info.id());
    for file in 0..100 {
        // Keys tell nothing of the time: every file has small and great ones.
        let rows: Vec<_> = (0..4)
            .map(|row| {
                let (hour, n) = (file % 24, file * 10 + row);
                let day = file / 24 + 1;
                format!(
                    "({}, '2026-03-{day:02}T{hour:02}:0{row}:00', '2026-03-{day:02}', {n}, {n}.25, 'name {n:04}')",
                    row * 1000 + file
                )
            })
            .collect();
        let insert = format!(
            "INSERT INTO app.events VALUES {}, (9{file:03}, NULL, NULL, NULL, NULL, NULL)",
            rows.join(", ")
        );
        ok(&engine, &root(), &insert, &[]).await;
        assert!(jobs.flush_once(&partition).unwrap());
    }
    for (condition, rows, files_at_most) in [
        ("at >= '2026-03-02T00:00:00' AND at < '2026-03-02T12:00:00'", 48, 12),
        ("day = '2026-03-03'", 96, 24),
        ("n BETWEEN 500 AND 599", 40, 10),
        ("price < 20", 8, 2),
        ("name > 'name 0950'", 19, 5),
        ("at > '2027-01-01T00:00:00'", 0, 0),
        ("at IS NULL", 100, 100),
    ] {
        let select = format!("SELECT count(*) FROM app.events WHERE {condition}");
        assert_eq!(count(&engine, &select).await, rows, "{condition}");
        let explain = format!("EXPLAIN {select}");
        let (files, pruned) =
            (in_plan(&engine, &explain, "files=").await, in_plan(&engine, &explain, "files_pruned=").await);
        assert!(files <= files_at_most && files + pruned == 100, "{condition}: {files} and {pruned}");
        let analyze = format!("EXPLAIN ANALYZE {select}");
        if files > 0 {
            assert_eq!(in_plan(&engine, &analyze, "files_read=").await, files, "{condition}");
        }
    }
    first_rows_are_in_few_files(&engine).await;
    let updated = "SELECT min(_updated) FROM app.events WHERE id = 50";
    let at = cells(&ok(&engine, &root(), updated, &[]).await).concat().concat();
    let later = format!("EXPLAIN SELECT id FROM app.events WHERE _updated > '{at}'");
    assert!(in_plan(&engine, &later, "files_pruned=").await >= 50);
    // A newer row outside of the range must hide one that is in it, though nothing else of its file is wanted.
    ok(&engine, &root(), "UPDATE app.events SET at = '2027-05-05T00:00:00' WHERE id = 24", &[]).await;
    let range =
        "SELECT count(*) FROM app.events WHERE at >= '2026-03-02T00:00:00' AND at < '2026-03-02T12:00:00'";
    assert_eq!(count(&engine, range).await, 47);
    assert_eq!(in_plan(&engine, &format!("EXPLAIN ANALYZE {range}"), "rows_shadowed=").await, 1);
    assert!(jobs.flush_once(&partition).unwrap());
    assert_eq!(count(&engine, range).await, 47);
    assert_eq!(in_plan(&engine, &format!("EXPLAIN {range}"), "rows_superseded=").await, 1);
    drop(jobs);
    engine.close();
    sequencing.join().unwrap();
}

/// Of the hundred files, with an order that one of their columns has.
async fn first_rows_are_in_few_files(engine: &Engine) {
    for (order, ids, files_at_most) in [
        ("_seq DESC", "9099 3099 2099", 1),
        ("_seq", "0 1000 2000", 2),
        ("_updated DESC, id", "99 1099 2099", 100),
        ("_updated DESC", "", 1),
        ("n", "0 1000 2000", 2),
        ("n DESC NULLS LAST", "3099 2099 1099", 2),
        // Any file may have a NULL.
        ("n DESC NULLS FIRST, id", "9000 9001 9002", 100),
        ("price + 1", "0 1000 2000", 100),
    ] {
        let select = format!("SELECT id FROM app.events ORDER BY {order} LIMIT 3");
        let found = cells(&ok(engine, &root(), &select, &[]).await).concat().join(" ");
        assert!(ids.is_empty() || found == ids, "{order}: {found}");
        let analyze = format!("EXPLAIN ANALYZE {select}");
        let read = in_plan(engine, &analyze, "files_read=").await;
        let skipped = in_plan(engine, &analyze, "files_skipped=").await;
        assert!(read <= files_at_most && read + skipped == 100, "{order}: {read} and {skipped}");
    }
    let nulls = "SELECT count(*) - count(n) FROM (SELECT n FROM app.events ORDER BY n DESC NULLS FIRST LIMIT 3) AS first";
    assert_eq!(count(engine, nulls).await, 3, "bounds tell nothing of NULLs");
}

#[tokio::test]
async fn what_a_files_bounds_say_holds_through_widenings_and_long_texts() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), EVENTS, &[]).await;
    let long = "ä".repeat(100);
    let insert = format!(
        "INSERT INTO app.events (id, day, n, name) VALUES (1, '2026-03-01', -5, '{long}a'), (2, '2026-03-02', 5, '{long}c')"
    );
    ok(&engine, &root(), &insert, &[]).await;
    flush(&engine, "app.events").await;
    assert_eq!(cold_files(directory.path()), 1);
    for round in 0..2 {
        for (condition, rows) in [
            (format!("name >= '{long}b'"), 1),
            (format!("name <= '{long}b'"), 1),
            (format!("name = '{long}c'"), 1),
            ("n = -5".to_owned(), 1),
            ("n > 5".to_owned(), 0),
            ("n >= 5".to_owned(), 1),
            ("day < '2026-03-02'".to_owned(), 1),
            ("day = '2026-03-02'".to_owned(), 1),
        ] {
            let select = format!("SELECT count(*) FROM app.events WHERE {condition}");
            assert_eq!(count(&engine, &select).await, rows, "{round}: {condition}");
        }
        if round == 0 {
            let widen = "ALTER TABLE app.events MODIFY COLUMN n BIGINT; ALTER TABLE app.events MODIFY COLUMN day TIMESTAMP";
            ok(&engine, &root(), widen, &[]).await;
        }
    }
    engine.close();
}

#[tokio::test]
async fn a_flush_of_several_steps_moves_every_row_once() {
    const ROWS: i64 = 140_000;
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let create = "CREATE NAMESPACE app; CREATE SHARED TABLE app.many (id BIGINT PRIMARY KEY, n BIGINT)";
    ok(&engine, &root(), create, &[]).await;
    for from in (0..ROWS).step_by(10_000) {
        let rows: Vec<_> =
            (from..from + 10_000).map(|id| vec![Value::BigInt(id), Value::BigInt(id % 7)]).collect();
        engine.insert_rows(&root(), "app.many", &rows).await.unwrap();
    }
    let totals = "SELECT count(*), count(DISTINCT id), sum(n), max(id) FROM app.many";
    let before = cells(&ok(&engine, &root(), totals, &[]).await);
    flush(&engine, "app.many").await;
    assert_eq!(stats(&engine, &root(), "app.many").await, ["0", "140000", "3"]);
    assert_eq!(cold_files(directory.path()), 3);
    assert_eq!(cells(&ok(&engine, &root(), totals, &[]).await), before);
    ok(&engine, &root(), "DELETE FROM app.many WHERE id % 10000 = 7", &[]).await;
    ok(&engine, &root(), "UPDATE app.many SET n = 0 WHERE id IN (0, 65535, 65536, 131072, 139999)", &[])
        .await;
    let changed = cells(&ok(&engine, &root(), totals, &[]).await);
    assert_eq!(changed[0][..2], [(ROWS - 14).to_string(), (ROWS - 14).to_string()]);
    flush(&engine, "app.many").await;
    assert_eq!(cells(&ok(&engine, &root(), totals, &[]).await), changed);
    assert_eq!(stats(&engine, &root(), "app.many").await[..2], ["0", "139986"]);
    engine.close();
    let engine = open(directory.path());
    assert_eq!(cells(&ok(&engine, &root(), totals, &[]).await), changed);
    engine.close();
}

#[tokio::test]
async fn the_first_and_last_rows_by_key_are_read_without_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let create = "CREATE NAMESPACE app; CREATE SHARED TABLE app.posts (room INT, at BIGINT, n INT, PRIMARY KEY (room, at)); \
                  CREATE SHARED TABLE app.floats (x DOUBLE PRIMARY KEY)";
    ok(&engine, &root(), create, &[]).await;
    for from in [0, 2000, 4000] {
        let rows: Vec<_> = (from..from + 2000)
            .map(|id: i64| vec![Value::Int(i32::from(id % 2 == 0)), Value::BigInt(id), Value::Int(7)])
            .collect();
        engine.insert_rows(&root(), "app.posts", &rows).await.unwrap();
        if from < 4000 {
            flush(&engine, "app.posts").await;
        }
    }
    // What is deleted at the end must not be counted.
    ok(&engine, &root(), "DELETE FROM app.posts WHERE at >= 5700", &[]).await;
    for (sql, first, most) in [
        ("SELECT at FROM app.posts WHERE room = 1 ORDER BY at DESC LIMIT 3", ["5698", "5696", "5694"], 1000),
        ("SELECT at FROM app.posts WHERE room = 0 AND n = 7 ORDER BY at LIMIT 3", ["1", "3", "5"], 300),
        ("SELECT at FROM app.posts ORDER BY room DESC, at DESC LIMIT 3", ["5698", "5696", "5694"], 1000),
        (
            "SELECT at FROM app.posts WHERE room = 1 AND at < 3000 ORDER BY room, at DESC LIMIT 3",
            ["2998", "2996", "2994"],
            9999,
        ),
    ] {
        let rows = cells(&ok(&engine, &root(), sql, &[]).await).concat();
        assert_eq!(rows, first, "{sql}");
        let read = in_plan(&engine, &format!("EXPLAIN ANALYZE {sql}"), "output_rows=").await;
        assert!(read <= most, "{sql}: {read} rows");
    }
    let own = "BEGIN; INSERT INTO app.posts VALUES (1, 9000, 7), (1, 9001, 7); DELETE FROM app.posts WHERE room = 1 AND at = 5698; \
               SELECT at FROM app.posts WHERE n = 7 ORDER BY room DESC, at DESC LIMIT 4; ROLLBACK";
    let executed = engine.execute(&mut root(), own, &[]).await;
    assert!(executed.error.is_none(), "{:?}", executed.error);
    let found = executed.results.iter().find(|result| result.row_count == 4).unwrap();
    let found = datafusion::arrow::util::pretty::pretty_format_batches(&found.batches).unwrap().to_string();
    assert_eq!(cells(&found).concat(), ["9001", "9000", "5696", "5694"]);
    let plan = |sql: &str| {
        let sql = format!("EXPLAIN {sql}");
        let engine = engine.clone();
        async move { cells(&ok(&engine, &root(), &sql, &[]).await).concat().join(" ") }
    };
    for (sql, is_ordered) in [
        ("SELECT n FROM app.posts ORDER BY room, at LIMIT 5", true),
        ("SELECT n + 1, at FROM app.posts WHERE n > 3 AND room = 0 ORDER BY at DESC LIMIT 5", true),
        ("SELECT n FROM app.posts ORDER BY room DESC, at LIMIT 5", false),
        ("SELECT n FROM app.posts ORDER BY at LIMIT 5", false),
        ("SELECT n FROM app.posts ORDER BY room, at", false),
        ("SELECT n FROM app.posts WHERE room > 0 ORDER BY at LIMIT 5", false),
        ("SELECT x FROM app.floats ORDER BY x LIMIT 5", false),
    ] {
        let plan = plan(sql).await;
        assert_eq!(plan.contains("order=key"), is_ordered, "{sql}: {plan}");
        assert_eq!(plan.contains("SortExec"), !is_ordered, "{sql}: {plan}");
    }
    engine.close();
}

#[tokio::test]
async fn a_condition_that_fails_or_is_unknown_for_a_hidden_row_concerns_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), EVENTS, &[]).await;
    let insert =
        "INSERT INTO app.events (id, n, name) VALUES (1, 0, 'a'), (2, 5, 'b'), (3, NULL, 'c'), (4, 1, 'd')";
    ok(&engine, &root(), insert, &[]).await;
    flush(&engine, "app.events").await;
    let over = "SELECT count(*) FROM app.events WHERE 10 / n > 1";
    let failed = engine.execute(&mut root(), over, &[]).await.error.unwrap().to_string();
    assert!(failed.to_lowercase().contains("divide by zero"), "{failed}");
    // The hot row hides the one that it would fail for.
    ok(&engine, &root(), "UPDATE app.events SET n = 2 WHERE id = 1", &[]).await;
    assert_eq!(count(&engine, over).await, 3);
    // The file still has one that is unknown, and one that is hidden.
    assert_eq!(count(&engine, "SELECT count(*) FROM app.events WHERE n > 1").await, 2);
    assert_eq!(count(&engine, "SELECT count(*) FROM app.events WHERE NOT n > 1").await, 1);
    assert_eq!(count(&engine, "SELECT count(*) FROM app.events WHERE (n > 1) IS NULL").await, 1);
    engine.close();
}

#[tokio::test]
async fn a_hot_row_hides_the_one_of_its_key_wherever_that_stands_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE NAMESPACE app", &[]).await;
    for table in ["flushed", "unmoved"] {
        let sql = format!("CREATE SHARED TABLE app.{table} (id BIGINT PRIMARY KEY, n BIGINT)");
        ok(&engine, &root(), &sql, &[]).await;
    }
    for from in [1, 6] {
        let rows: Vec<_> = (from..from + 5).map(|number| format!("({}, {number})", number * 10)).collect();
        both(&engine, &root(), &format!("INSERT INTO {{t}} VALUES {}", rows.join(", ")), 0).await;
        flush(&engine, "app.flushed").await;
    }
    assert_eq!(cold_files(directory.path()), 2);
    // The ends of both files and the rows beside them, before and behind all, between two rows and between the files.
    for id in [50, 45, 40, 5, 25, 10, 55, 60, 90, 95, 105, 100, 20, 30, 70, 80] {
        let changed = format!(
            "INSERT INTO {{t}} VALUES ({id}, 1000) ON CONFLICT (id) DO UPDATE SET n = excluded.n + {id}"
        );
        both(&engine, &root(), &changed, id).await;
        both(&engine, &root(), "SELECT count(*), sum(n), sum(id * n) FROM {t}", id).await;
    }
    engine.close();
}

#[tokio::test]
async fn hot_rows_are_counted_where_all_are_hot_and_where_some_are() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE h (id INT PRIMARY KEY, n INT)", &[]).await;
    ok(&engine, &root(), "INSERT INTO h SELECT value, 0 FROM range(0, 100)", &[]).await;
    for (sql, expected) in [
        ("SELECT count(*) FROM h", 100),
        ("SELECT * FROM h WHERE id < 30 AND n = 0", 30),
        ("SELECT * FROM h WHERE id = 5 AND n = 0", 1),
        ("SELECT * FROM h ORDER BY id LIMIT 200", 100),
        ("SELECT * FROM h ORDER BY id DESC LIMIT 200", 100),
    ] {
        let analyze = format!("EXPLAIN ANALYZE {sql}");
        assert_eq!(in_plan(&engine, &analyze, "hot_rows=").await, expected, "{sql}");
    }
    crate::cold_tests::flush(&engine, "h").await;
    ok(&engine, &root(), "INSERT INTO h SELECT value, 0 FROM range(200, 207)", &[]).await;
    assert_eq!(in_plan(&engine, "EXPLAIN ANALYZE SELECT count(*) FROM h", "hot_rows=").await, 7);
    // Which tier a row of both read as one is from is not known: nothing is said instead of something wrong.
    let merged = "EXPLAIN ANALYZE SELECT * FROM h ORDER BY id LIMIT 200";
    assert!(!ok(&engine, &root(), merged, &[]).await.contains("hot_rows"));
}
