//! Statements of other databases, and the refusals that they get here.

use crate::error::{Error, ErrorCode};
use crate::sql::parse::parse;

/// Statements, and words of what is said of them.
const REFUSED: &[(&str, &str)] = &[
    ("CREATE INDEX i ON t (a)", "primary key"),
    ("CREATE UNIQUE INDEX IF NOT EXISTS i ON t USING btree (lower(a)) WHERE b", "primary key"),
    ("DROP INDEX i", "primary key"),
    ("CREATE SCHEMA s", "CREATE NAMESPACE"),
    ("CREATE DATABASE s", "CREATE NAMESPACE"),
    ("DROP SCHEMA s CASCADE", "DROP NAMESPACE"),
    ("SHOW DATABASES", "SHOW NAMESPACES"),
    ("CREATE VIEW v AS SELECT 1", "WITH v AS"),
    ("CREATE OR REPLACE VIEW v AS SELECT 1", "WITH v AS"),
    ("CREATE MATERIALIZED VIEW v AS SELECT 1", "subscribe"),
    ("REFRESH MATERIALIZED VIEW v", "subscribe"),
    ("CREATE OR REPLACE TABLE t (id INT)", "DROP TABLE IF EXISTS"),
    ("CREATE OR REPLACE FUNCTION f() RETURNS INT AS 'x'", "live query"),
    ("CREATE TEMP TABLE t (id INT)", "WITH t AS"),
    ("CREATE TEMPORARY TABLE t AS SELECT 1", "WITH t AS"),
    ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'x'", "kalamdb import"),
    ("CREATE TRIGGER tr AFTER INSERT ON t EXECUTE FUNCTION f()", "live query"),
    ("CREATE SEQUENCE s", "SNOWFLAKE_ID"),
    ("CREATE TYPE mood AS ENUM ('a')", "JSON"),
    ("CREATE EXTENSION vector", "types"),
    ("CREATE ROLE r", "CREATE USER"),
    ("CREATE POLICY p ON t USING (true)", "USER table"),
    ("GRANT SELECT ON t TO bob", "ACCESS_LEVEL"),
    ("REVOKE ALL ON t FROM bob", "ACCESS_LEVEL"),
    ("COPY t FROM STDIN", "kalamdb import"),
    ("COPY (SELECT 1) TO 'x'", "kalamdb export"),
    ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "ON CONFLICT"),
    ("REPLACE INTO t VALUES (1)", "ON CONFLICT"),
    ("PREPARE p AS SELECT 1", "parameters"),
    ("EXECUTE p(1)", "parameters"),
    ("DECLARE c CURSOR FOR SELECT 1", "LIMIT n"),
    ("FETCH NEXT FROM c", "LIMIT n"),
    ("LISTEN c", "live query"),
    ("NOTIFY c, 'x'", "live query"),
    ("LOCK TABLE t", "BEGIN"),
    ("SAVEPOINT s", "BEGIN"),
    ("VACUUM FULL t", "STORAGE COMPACT"),
    ("ANALYZE t", "STORAGE COMPACT"),
    ("SET search_path TO a", "USE"),
    ("SHOW search_path", "SHOW TABLES"),
    ("SHOW COLUMNS FROM t", "DESCRIBE"),
    ("SHOW INDEXES FROM t", "DESCRIBE"),
    ("COMMENT ON TABLE t IS 'x'", "not kept"),
    ("KILL 5", "KILL LIVE QUERY"),
    ("CALL f()", "live query"),
    ("DO $$ BEGIN END $$", "live query"),
    ("TRUNCATE a, b", "each table"),
    ("TRUNCATE a CASCADE", "leave it out"),
    ("TRUNCATE a RESTART IDENTITY", "leave it out"),
    ("DROP TABLE a, b", "each table"),
    ("DROP TABLE IF EXISTS a CASCADE", "leave it out"),
    ("ALTER TABLE t ADD CONSTRAINT u UNIQUE (a)", "primary key"),
    ("ALTER TABLE t ADD CONSTRAINT u UNIQUE", "primary key"),
    ("ALTER TABLE t ADD UNIQUE (a)", "primary key"),
    ("ALTER TABLE t ADD PRIMARY KEY (a)", "primary key"),
    ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES s (a)", "primary key"),
    ("ALTER TABLE t ADD CHECK (a > 0)", "primary key"),
    ("ALTER TABLE t ADD INDEX i (a)", "primary key"),
    ("ALTER TABLE t DROP CONSTRAINT u", "primary key"),
    ("ALTER TABLE t OWNER TO bob", "USER table"),
    ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "USER table"),
    ("CREATE SHARED TABLE t (id INT PRIMARY KEY, a INT UNIQUE)", "primary key"),
    ("CREATE SHARED TABLE t (id INT PRIMARY KEY, a INT, UNIQUE (a))", "primary key"),
    ("CREATE SHARED TABLE t (id INT PRIMARY KEY, a INT REFERENCES s (id))", "primary key"),
    ("CREATE SHARED TABLE t (id INT PRIMARY KEY, a INT CHECK (a > 0))", "primary key"),
];

fn refused(sql: &str) -> Error {
    match parse(sql) {
        Err(error) => error,
        Ok(_) => panic!("{sql} is taken"),
    }
}

#[test]
fn each_statement_of_other_databases_is_refused_with_a_way_out() {
    for (sql, named) in REFUSED {
        let error = refused(sql);
        assert_eq!(error.code(), ErrorCode::Unsupported, "{sql}: {error}");
        assert!(error.to_string().contains(named), "{sql}: {error}");
    }
}

#[test]
fn clauses_that_would_be_passed_over_are_refused_wherever_they_stand() {
    for sql in [
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED",
        "SELECT * FROM t FOR SHARE",
        "SELECT * FROM (SELECT * FROM t FOR UPDATE) AS s",
        "WITH a AS (SELECT * FROM t FOR UPDATE) SELECT * FROM a",
        "INSERT INTO s SELECT * FROM t FOR UPDATE",
        "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT 1 FOR UPDATE)",
        "EXPLAIN SELECT * FROM t FOR UPDATE",
        "SUBSCRIBE TO SELECT * FROM t FOR UPDATE",
        "EXECUTE AS USER 'a' (SELECT * FROM t FOR UPDATE)",
        "SELECT * FROM t TABLESAMPLE BERNOULLI (10)",
        "SELECT * FROM t TABLESAMPLE SYSTEM (10) REPEATABLE (1)",
        "SELECT * FROM a JOIN t TABLESAMPLE SYSTEM (10) ON true",
        "SELECT * INTO s FROM t",
    ] {
        let error = refused(sql);
        let Error::Unsupported { hint, .. } = &error else { panic!("{sql}: {error}") };
        assert!(hint.is_some(), "{sql}: {error}");
    }
}

#[test]
fn statements_and_columns_with_such_names_are_taken() {
    for sql in [
        "ALTER TABLE t ADD COLUMN unique_id INT",
        "ALTER TABLE t ADD key TEXT",
        "ALTER TABLE t ADD index INT NOT NULL DEFAULT 0",
        "ALTER TABLE t ADD key DECIMAL(10, 2)",
        "ALTER TABLE t ADD \"check\" BOOLEAN",
        "ALTER TABLE t DROP COLUMN index",
        "SHOW TABLES",
        "SHOW BACKUPS",
        "SHOW CREATE TABLE t",
        "EXECUTE AS USER 'a' (SELECT 1)",
        "KILL LIVE QUERY 'x'",
        "TRUNCATE TABLE a; TRUNCATE b",
        "DROP TABLE IF EXISTS a; DROP TABLE b",
        "SELECT random() FROM t ORDER BY random() LIMIT 5",
    ] {
        assert!(parse(sql).is_ok(), "{sql}: {:?}", parse(sql).err());
    }
}
