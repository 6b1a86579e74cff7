//! Texts, and the statements that they are.

use super::*;

fn one(sql: &str) -> Statement {
    parse(sql).unwrap().remove(0)
}

#[test]
fn statements_are_told_apart() {
    assert!(matches!(one("select 1"), Statement::Query(_)));
    assert!(matches!(
        one("CREATE NAMESPACE IF NOT EXISTS a"),
        Statement::CreateNamespace { if_not_exists: true, .. }
    ));
    assert!(matches!(one("create user table t (id int primary key)"), Statement::CreateTable(_)));
    assert!(matches!(
        one("CREATE USER bob WITH PASSWORD 'x' ROLE dba"),
        Statement::CreateUser { role: Role::Dba, .. }
    ));
    assert!(matches!(
        one("drop user table if exists a.b"),
        Statement::DropTable { kind: Some("user"), if_exists: true, .. }
    ));
    assert!(matches!(one("SUBSCRIBE TO SELECT * FROM t"), Statement::Subscribe(_)));
    assert!(matches!(one("show stats for table a.b"), Statement::ShowStats(_)));
    assert!(matches!(one("truncate t"), Statement::Truncate(_)));
    assert!(matches!(one("EXECUTE AS USER 'a' (INSERT INTO t VALUES (1))"), Statement::ExecuteAsUser { .. }));
    assert_eq!(parse("select 1;; select 2;").unwrap().len(), 2);
}

#[test]
fn the_current_user_is_asked_for_with_and_without_parentheses() {
    for sql in ["SELECT CURRENT_USER()", "select current_user ( ) = 'ann'", "SELECT current_user"] {
        let Statement::Query(query) = one(sql) else { panic!("{sql}") };
        assert!(query.to_string().to_lowercase().contains("current_user"), "{query}");
    }
    one("CREATE USER TABLE t (id INT PRIMARY KEY, who TEXT DEFAULT CURRENT_USER(), role TEXT)");
    assert!(parse("SELECT CURRENT_USER(").is_err());
}

#[test]
fn what_is_no_sql_is_refused_with_a_place() {
    let text = |sql: &str| parse(sql).unwrap_err().to_string();
    assert!(text("SELEC 1").contains("Line: 1, Column: 1"), "{}", text("SELEC 1"));
    assert!(matches!(parse(" ; "), Err(Error::EmptySql)));
    assert!(matches!(parse("select 'abc"), Err(Error::Syntax { .. })));
    assert!(matches!(parse("COPY t TO 'file'"), Err(Error::Unsupported { .. })));
    let deep = format!("select {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(matches!(parse(&deep), Err(Error::Syntax { .. })));
    let long = format!("select 1{}", " + 1".repeat(2000));
    assert!(matches!(parse(&long), Err(Error::Syntax { .. })));
    let rows = vec!["(-1, 'a')"; 5000].join(", ");
    assert!(parse(&format!("insert into t values {rows}")).is_ok(), "signs are no operators");
}

#[test]
fn only_statements_of_rows_run_as_another_user() {
    for sql in [
        "SELECT 1",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1)",
        "INSERT INTO t VALUES (1) RETURNING id",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
    ] {
        assert!(parse(&format!("EXECUTE AS USER 'a' ({sql})")).is_ok(), "{sql}");
    }
    for sql in [
        "ALTER USER a SET PASSWORD 'x'",
        "ALTER USER a SET ROLE dba",
        "CREATE USER b WITH PASSWORD 'x'",
        "DROP USER b",
        "CREATE NAMESPACE n",
        "CREATE USER TABLE t (id INT)",
        "ALTER TABLE t ADD c INT",
        "DROP TABLE t",
        "TRUNCATE t",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM t",
        "SHOW TABLES",
        "DESCRIBE t",
        "SHOW CREATE TABLE t",
        "SHOW STATS FOR TABLE t",
        "STORAGE FLUSH TABLE t",
        "KILL LIVE QUERY 'x'",
        "BACKUP DATABASE a TO '/x'",
        "SUBSCRIBE TO SELECT * FROM t",
        "USE a",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "EXECUTE AS USER 'b' (SELECT 1)",
    ] {
        let refused = parse(&format!("EXECUTE AS USER 'a' ({sql})")).unwrap_err();
        let Error::Unsupported { hint, .. } = &refused else { panic!("{sql}: {refused}") };
        assert!(hint.is_some(), "{sql}");
    }
}
