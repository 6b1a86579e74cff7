//! The published SDK, crate `kalam-client`, unmodified.

use kalam_client::models::{CompressionType, ProtocolOptions, SerializationType};
use kalam_client::{
    AuthProvider, ChangeEvent, ConnectionOptions, KalamLinkClient, LiveRowsEvent, LiveRowsSubscription,
    QueryParam, RowData, SeqId, SubscriptionConfig, SubscriptionManager, SubscriptionOptions,
};

use crate::support::{Server, in_time};

const TABLE: &str =
    "CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, done BOOLEAN NOT NULL DEFAULT false)";

/// A server with a table and the user alice.
async fn server_with_table() -> Server {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql(TABLE).await;
    server.user(&root, "alice").await;
    server
}

fn client(server: &Server, serialization: SerializationType) -> KalamLinkClient {
    let protocol = ProtocolOptions { serialization, compression: CompressionType::Gzip };
    let options = ConnectionOptions { protocol, ..ConnectionOptions::default() };
    KalamLinkClient::builder()
        .base_url(server.url())
        .auth(AuthProvider::basic_auth("alice".to_owned(), "password of alice".to_owned()))
        .connection_options(options)
        .build()
        .unwrap()
}

async fn sql(client: &KalamLinkClient, sql: &str, params: Vec<QueryParam>) {
    let params = (!params.is_empty()).then_some(params);
    let response = in_time("a statement", client.execute_query(sql, None, params, None)).await.unwrap();
    assert!(response.success(), "{sql}: {response:?}");
}

async fn next(events: &mut SubscriptionManager) -> ChangeEvent {
    in_time("an event", events.next()).await.expect("the stream ended").unwrap()
}

fn id(row: &RowData) -> i64 {
    row["id"].as_big_int().unwrap()
}

fn seq(row: &RowData) -> i64 {
    row["_seq"].as_big_int().unwrap()
}

/// What an event is about, in short: `+1`, `~1 old>new`, `-1`.
fn brief(event: &ChangeEvent) -> String {
    let body = |row: &RowData| row["body"].as_text().unwrap().to_owned();
    match event {
        ChangeEvent::Insert { rows, .. } => {
            rows.iter().map(|row| format!("+{}", id(row))).collect::<Vec<_>>().join(" ")
        }
        ChangeEvent::Update { rows, old_rows, .. } => {
            let pairs = rows.iter().zip(old_rows);
            pairs
                .map(|(new, old)| format!("~{} {}>{}", id(new), body(old), body(new)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        ChangeEvent::Delete { old_rows, .. } => {
            old_rows.iter().map(|row| format!("-{}", id(row))).collect::<Vec<_>>().join(" ")
        }
        other => panic!("not a change: {other:?}"),
    }
}

/// The seq that an event carries.
fn seq_of(event: &ChangeEvent) -> i64 {
    match event {
        ChangeEvent::Insert { rows, .. } | ChangeEvent::Update { rows, .. } => seq(rows.last().unwrap()),
        ChangeEvent::Delete { old_rows, .. } => seq(old_rows.last().unwrap()),
        other => panic!("not a change: {other:?}"),
    }
}

async fn check_events(serialization: SerializationType) {
    let server = server_with_table().await;
    let client = client(&server, serialization);
    let login = in_time("login", client.login("alice", "password of alice")).await.unwrap();
    assert_eq!(login.user.id.to_string(), "alice");
    assert!(login.refresh_token.is_some() && !login.admin_ui_access);
    let refreshed =
        in_time("refresh", client.refresh_access_token(login.refresh_token.as_deref().unwrap())).await;
    assert_eq!(refreshed.unwrap().user.id, login.user.id);

    let long = "long enough to be compressed ".repeat(50);
    let params = vec![QueryParam::Int(1), QueryParam::Text(long.clone())];
    sql(&client, "INSERT INTO app.notes (id, body) VALUES ($1, $2)", params).await;
    let mut events = in_time("live_events", client.live_events("SELECT * FROM app.notes")).await.unwrap();
    match next(&mut events).await {
        ChangeEvent::Ack { total_rows, schema, .. } => {
            assert_eq!(total_rows, 1);
            assert!(schema.iter().any(|field| field.name == "_seq"), "{schema:?}");
        }
        other => panic!("not an acknowledgement: {other:?}"),
    }
    match next(&mut events).await {
        ChangeEvent::InitialDataBatch { rows, batch_control, .. } => {
            assert_eq!((rows.len(), id(&rows[0]), batch_control.has_more), (1, 1, false));
            assert_eq!(rows[0]["body"].as_text(), Some(long.as_str()));
            assert_eq!(rows[0]["done"].as_boolean(), Some(false));
        }
        other => panic!("not a batch: {other:?}"),
    }
    sql(&client, "INSERT INTO app.notes (id, body) VALUES ($1, $2)", vec![2.into(), "two".into()]).await;
    assert_eq!(brief(&next(&mut events).await), "+2");
    sql(&client, "UPDATE app.notes SET body = $1 WHERE id = $2", vec!["zwei".into(), 2.into()]).await;
    assert_eq!(brief(&next(&mut events).await), "~2 two>zwei");
    sql(&client, "DELETE FROM app.notes WHERE id = $1", vec![2.into()]).await;
    assert_eq!(brief(&next(&mut events).await), "-2");
    events.close().await.unwrap();
    client.disconnect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_json() {
    check_events(SerializationType::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_message_pack() {
    check_events(SerializationType::MessagePack).await;
}

/// The ids of the rows as they stand, once there are changes.
async fn next_ids(live: &mut LiveRowsSubscription) -> Vec<i64> {
    match in_time("rows", live.next()).await.expect("the stream ended").unwrap() {
        LiveRowsEvent::Rows { rows, .. } => rows.iter().map(id).collect(),
        LiveRowsEvent::Error { code, message, .. } => panic!("{code}: {message}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_keeps_the_rows() {
    let server = server_with_table().await;
    let client = client(&server, SerializationType::Json);
    let mut live =
        in_time("live", client.live("SELECT id, body FROM app.notes WHERE NOT done")).await.unwrap();
    assert_eq!(next_ids(&mut live).await, [0_i64; 0]);
    sql(&client, "INSERT INTO app.notes (id, body) VALUES (1, 'one'), (2, 'two')", vec![]).await;
    assert_eq!(next_ids(&mut live).await, [1, 2]);
    // It leaves the result without being deleted.
    sql(&client, "UPDATE app.notes SET done = true WHERE id = 1", vec![]).await;
    assert_eq!(next_ids(&mut live).await, [2]);
    sql(&client, "UPDATE app.notes SET done = false WHERE id = 1", vec![]).await;
    assert_eq!(next_ids(&mut live).await, [2, 1]);
    sql(&client, "DELETE FROM app.notes WHERE id = 2", vec![]).await;
    assert_eq!(next_ids(&mut live).await, [1]);
}

/// The SDK drops rows of a batch whose `_seq` is not greater than what it has seen: a snapshot must come in that order.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_many_batches_is_whole() {
    const ROWS: i64 = 2_500;
    let server = server_with_table().await;
    let client = client(&server, SerializationType::Json);
    let values: Vec<String> = (0..ROWS).map(|id| format!("({id}, 'row')")).collect();
    sql(&client, &format!("INSERT INTO app.notes (id, body) VALUES {}", values.join(", ")), vec![]).await;
    // The first in key order are now the last in the log.
    sql(&client, "UPDATE app.notes SET body = 'newer' WHERE id < 10", vec![]).await;
    let mut live = in_time("live", client.live("SELECT id, body FROM app.notes")).await.unwrap();
    loop {
        let mut ids = next_ids(&mut live).await;
        if ids.len() == usize::try_from(ROWS).unwrap() {
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..ROWS));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_resumes_after_a_restart_with_exactly_what_was_missed() {
    let mut server = server_with_table().await;
    let first = client(&server, SerializationType::Json);
    let mut events = in_time("live_events", first.live_events("SELECT * FROM app.notes")).await.unwrap();
    assert!(matches!(next(&mut events).await, ChangeEvent::Ack { .. }));
    sql(&first, "INSERT INTO app.notes (id, body) VALUES (1, 'one')", vec![]).await;
    let seen = next(&mut events).await;
    assert_eq!(brief(&seen), "+1");
    let last_seq = seq_of(&seen);
    events.close().await.unwrap();
    first.disconnect().await;

    // Missed: before the crash and after it.
    sql(&first, "INSERT INTO app.notes (id, body) VALUES (2, 'two')", vec![]).await;
    sql(&first, "UPDATE app.notes SET body = 'uno' WHERE id = 1", vec![]).await;
    server.kill().await;
    server.start_again().await;
    sql(&first, "DELETE FROM app.notes WHERE id = 2", vec![]).await;

    let second = client(&server, SerializationType::MessagePack);
    let mut config = SubscriptionConfig::new("resumed", "SELECT * FROM app.notes");
    config.options = Some(SubscriptionOptions::default().with_from(SeqId::from_i64(last_seq)));
    let mut events = in_time("resume", second.live_events_with_config(config)).await.unwrap();
    assert!(matches!(next(&mut events).await, ChangeEvent::Ack { total_rows: 0, .. }));
    assert_eq!(brief(&next(&mut events).await), "+2");
    assert_eq!(brief(&next(&mut events).await), "~1 one>uno");
    assert_eq!(brief(&next(&mut events).await), "-2");
    sql(&second, "INSERT INTO app.notes (id, body) VALUES (3, 'three')", vec![]).await;
    assert_eq!(brief(&next(&mut events).await), "+3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_stream_goes_on_over_a_crash() {
    let mut server = server_with_table().await;
    let client = client(&server, SerializationType::Json);
    let mut events = in_time("live_events", client.live_events("SELECT * FROM app.notes")).await.unwrap();
    assert!(matches!(next(&mut events).await, ChangeEvent::Ack { .. }));
    sql(&client, "INSERT INTO app.notes (id, body) VALUES (1, 'one')", vec![]).await;
    assert_eq!(brief(&next(&mut events).await), "+1");
    server.kill().await;
    server.start_again().await;
    sql(&client, "INSERT INTO app.notes (id, body) VALUES (2, 'two')", vec![]).await;
    // It reconnects by itself and resumes: another acknowledgement, then what came meanwhile, and nothing else.
    assert!(matches!(next(&mut events).await, ChangeEvent::Ack { total_rows: 0, .. }));
    assert_eq!(brief(&next(&mut events).await), "+2");
    sql(&client, "DELETE FROM app.notes WHERE id = 1", vec![]).await;
    assert_eq!(brief(&next(&mut events).await), "-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_goes_on_through_an_alter() {
    let server = server_with_table().await;
    let client = client(&server, SerializationType::Json);
    let mut events = in_time("live_events", client.live_events("SELECT * FROM app.notes")).await.unwrap();
    assert!(matches!(next(&mut events).await, ChangeEvent::Ack { .. }));
    sql(&client, "INSERT INTO app.notes (id, body) VALUES (1, 'one')", Vec::new()).await;
    assert_eq!(brief(&next(&mut events).await), "+1");
    server.root().await.sql("ALTER TABLE app.notes ADD COLUMN stars INT DEFAULT 3").await;
    sql(&client, "UPDATE app.notes SET body = 'eins'", Vec::new()).await;
    // It does not know the message that announces the column, and leaves it out; the rows have it.
    let update = next(&mut events).await;
    assert_eq!(brief(&update), "~1 one>eins");
    let ChangeEvent::Update { rows, .. } = update else { panic!("{update:?}") };
    assert_eq!(rows[0]["stars"].as_int(), Some(3));
    events.close().await.unwrap();
    client.disconnect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_lives_on_where_rows_fail() {
    let server = server_with_table().await;
    let client = client(&server, SerializationType::MessagePack);
    sql(&client, "INSERT INTO app.notes (id, body) VALUES (1, '10'), (2, 'two')", vec![]).await;
    let query = "SELECT id, CAST(body AS INT) AS number, body FROM app.notes";
    let mut events = in_time("live_events", client.live_events(query)).await.unwrap();
    assert!(matches!(next(&mut events).await, ChangeEvent::Ack { total_rows: 1, .. }));
    assert!(matches!(next(&mut events).await, ChangeEvent::InitialDataBatch { .. }));
    let ChangeEvent::Error { code, message, .. } = next(&mut events).await else { panic!("not an error") };
    assert!(code == "SQL_EXECUTION_ERROR" && message.contains("two"), "{code}: {message}");
    sql(&client, "UPDATE app.notes SET body = 'ten' WHERE id = 1", vec![]).await;
    assert_eq!(brief(&next(&mut events).await), "-1");
    assert!(next(&mut events).await.is_error());
    sql(&client, "UPDATE app.notes SET body = '2' WHERE id = 2", vec![]).await;
    assert_eq!(brief(&next(&mut events).await), "+2");
    // So does the SDK that keeps the rows itself.
    let mut live = in_time("live", client.live(query)).await.unwrap();
    assert_eq!(next_ids(&mut live).await, [2]);
}
