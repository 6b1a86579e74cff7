//! Live queries that look into JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::SubscribeRequest;
use crate::testing::{Kept, arrived_frames, kinds, materialise, root};
use crate::tests::{ok, open};

#[tokio::test]
async fn a_live_query_looks_into_json() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, j JSON)", &[]).await;
    ok(&engine, &root(), r#"INSERT INTO t VALUES (1, '{"a": {"kind": "note"}}'), (2, '[]')"#, &[]).await;
    let sql = "SELECT id FROM t WHERE j -> 'a' ->> 'kind' = 'note' AND id > 0".to_owned();
    let request = SubscribeRequest { sql, ..SubscribeRequest::default() };
    let sink = Kept::with_room(100);
    let mut live = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await.unwrap();
    let mut rows = BTreeMap::new();
    materialise(&mut live, &mut rows).await;
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), [1]);
    for sql in [
        r#"UPDATE t SET j = '{"a": {"kind": "note", "more": 1}}' WHERE id = 2"#,
        r#"INSERT INTO t VALUES (3, '{"a": {"kind": "other"}}')"#,
        "UPDATE t SET j = '{}' WHERE id = 1",
    ] {
        ok(&engine, &root(), sql, &[]).await;
    }
    let told = arrived_frames(&sink, &mut live, 2).await;
    assert_eq!(kinds(&told), ["Insert", "Delete"]);
    drop(live);
    engine.close();
}
