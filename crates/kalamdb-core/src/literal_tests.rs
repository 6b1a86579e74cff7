//! Values written in statements: each is what it is, whatever stands beside it and however far from now.

use log_format::Role;
use serde_json::json;

use crate::testing::{cells, root, session};
use crate::tests::{ok, open};

#[tokio::test]
async fn a_literal_means_the_same_beside_an_expression() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    let table = "CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, b BYTES, e EMBEDDING(2), \
        d DECIMAL(20, 2), n INT DEFAULT 7)";
    ok(&engine, &root(), table, &[]).await;
    let params = [json!("\\x00ff")];
    let alone = "INSERT INTO app.t VALUES (1, $1, '[1, 2]', 123456789012345678.25, DEFAULT)";
    ok(&engine, &ann, alone, &params).await;
    let beside = "INSERT INTO app.t VALUES (1 + 1, $1, '[1, 2]', 123456789012345678.25, DEFAULT), (3, $1, NULL, 0.5 + 0.25, 2 * 3)";
    ok(&engine, &ann, beside, &params).await;
    let found = cells(&ok(&engine, &ann, "SELECT b, e, d, n FROM app.t ORDER BY id", &[]).await);
    assert_eq!(found[0], ["00ff", "[1.0, 2.0]", "123456789012345678.25", "7"]);
    assert_eq!(found[1], found[0]);
    assert_eq!(found[2], ["00ff", "", "0.75", "6"]);
    engine.close();
}

#[tokio::test]
async fn times_beyond_those_of_nanoseconds_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let ann = session("ann", Role::User);
    let table =
        "CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, t TIMESTAMP, z DATETIME)";
    ok(&engine, &root(), table, &[]).await;
    let rows = "INSERT INTO app.t VALUES (1, '0001-01-01T00:00:00', '0001-01-01T00:00:00Z'), \
        (2, '2024-02-29T12:00:00', '2024-02-29T12:00:00Z'), (3, '9999-12-31T23:59:59.999999', '9999-12-31T23:59:59.999999Z')";
    ok(&engine, &ann, rows, &[]).await;
    let ids = async |condition: &str, params: &[serde_json::Value]| {
        let sql = format!("SELECT id FROM app.t WHERE {condition} ORDER BY id");
        let first = cells(&ok(&engine, &ann, &sql, params).await).concat();
        assert_eq!(cells(&ok(&engine, &ann, &sql, params).await).concat(), first, "by its kept plan: {sql}");
        first
    };
    for column in ["t", "z"] {
        assert_eq!(ids(&format!("{column} > '0001-01-01T00:00:00'"), &[]).await, ["2", "3"]);
        assert_eq!(ids(&format!("'9999-12-31 23:59:59.999999' = {column}"), &[]).await, ["3"]);
        assert_eq!(ids(&format!("{column} IN ('0001-01-01', '2024-02-29T12:00:00')"), &[]).await, ["1", "2"]);
        let between = [json!("0001-01-01T00:00:00.000001"), json!("9999-12-31T23:59:59.999998")];
        assert_eq!(ids(&format!("{column} BETWEEN $1 AND $2"), &between).await, ["2"]);
    }
    // The offset counts.
    assert_eq!(ids("z = '2024-02-29T14:00:00+02:00'", &[]).await, ["2"]);
    let returned = "UPDATE app.t SET t = t WHERE id = 1 RETURNING t < '9999-12-31T00:00:00' AS earlier";
    assert_eq!(cells(&ok(&engine, &ann, returned, &[]).await).concat(), ["true"]);
    engine.close();
}
