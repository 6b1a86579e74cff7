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
