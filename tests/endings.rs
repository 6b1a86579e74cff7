//! Live queries that somebody else ends: KILL LIVE QUERY, another role, an account that goes.

use serde_json::{Value, json};

use crate::support::{Api, Server, Socket};

const SQL: &str = "SELECT id FROM app.notes";

/// A server with a table, its root, and a user of this name with two live queries on one connection.
async fn listening(name: &str) -> (Server, Api, Api, Socket) {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id INT PRIMARY KEY)").await;
    let user = server.user(&root, name).await;
    let mut socket = Socket::connect(&server, &user.token).await;
    for id in ["one", "two"] {
        socket.snapshot(id, SQL, json!({})).await;
    }
    (server, root, user, socket)
}

async fn live_id(root: &Api, query_id: &str) -> String {
    let rows = root.rows(&format!("SELECT live_id FROM system.live WHERE query_id = '{query_id}'")).await;
    rows[0][0].as_str().unwrap().to_owned()
}

async fn count(root: &Api) -> Value {
    root.rows("SELECT count(*) FROM system.live").await[0][0].clone()
}

#[tokio::test]
async fn a_killed_query_is_told_and_the_others_go_on() {
    let (server, root, ann, mut socket) = listening("ann").await;
    let bob = server.user(&root, "bob").await;
    let (one, two) = (live_id(&root, "one").await, live_id(&root, "two").await);
    assert_eq!(
        bob.try_sql(&format!("KILL LIVE QUERY '{one}'"), &[]).await.code(),
        "NOT_FOUND",
        "it is not bob's"
    );
    root.sql(&format!("KILL LIVE QUERY '{one}'")).await;
    let told = socket.expect_error("SUBSCRIPTION_FAILED").await;
    assert_eq!(told["subscription_id"], "one");
    assert!(told["message"].as_str().unwrap().contains("root"), "{told}");
    assert_eq!(
        root.try_sql(&format!("KILL LIVE QUERY '{one}'"), &[]).await.code(),
        "NOT_FOUND",
        "it is over"
    );
    ann.sql("INSERT INTO app.notes VALUES (1)").await;
    assert_eq!(socket.change("two").await["rows"][0]["id"], 1);
    ann.sql(&format!("KILL LIVE QUERY '{two}'")).await;
    assert_eq!(socket.expect_error("SUBSCRIPTION_FAILED").await["subscription_id"], "two");
    // The name is free again, and the connection as good as before.
    let (_, rows) = socket.snapshot("one", SQL, json!({})).await;
    assert_eq!(rows.len(), 1);
    ann.sql("INSERT INTO app.notes VALUES (2)").await;
    assert_eq!(socket.change("one").await["rows"][0]["id"], 2);
    assert_eq!(count(&root).await, "1");
}

#[tokio::test]
async fn another_role_ends_what_the_old_one_began() {
    for change in
        ["ALTER USER ann SET ROLE service", "UPDATE system.users SET role = 'service' WHERE username = 'ann'"]
    {
        let (_server, root, _, mut socket) = listening("ann").await;
        root.sql("ALTER USER ann SET METADATA '{}'").await;
        assert_eq!(count(&root).await, "2", "that is no other role");
        root.sql(change).await;
        let mut told = [socket.expect_error("UNAUTHORIZED").await, socket.expect_error("UNAUTHORIZED").await];
        told.sort_by_key(|it| it["subscription_id"].to_string());
        assert_eq!(
            (&told[0]["subscription_id"], &told[1]["subscription_id"]),
            (&json!("one"), &json!("two"))
        );
        assert_eq!(count(&root).await, "0");
    }
}

#[tokio::test]
async fn a_user_who_is_dropped_hears_nothing_more() {
    for drop in ["DROP USER ann", "DELETE FROM system.users WHERE username = 'ann'"] {
        let (_server, root, _, mut socket) = listening("ann").await;
        root.sql(drop).await;
        socket.expect_error("UNAUTHORIZED").await;
        socket.expect_error("UNAUTHORIZED").await;
        assert_eq!(count(&root).await, "0");
        root.sql("EXECUTE AS USER 'root' (INSERT INTO app.notes VALUES (1))").await;
    }
}
