//! Databases that earlier releases wrote are opened and answer with every row.
//!
//! `tests/fixtures/format-N` is the log of a small database in format N, in several segments and two epochs, without its
//! projections. What a release has written stays as it is; a new format gets another directory:
//! `KALAMDB_WRITE_FIXTURE=1 cargo test --workspace --test main -- compatibility` writes that of the present format if
//! there is none yet.

use std::fs;
use std::path::{Path, PathBuf};

use kalamdb_core::format::{FORMAT_VERSION, Role, UserId};
use kalamdb_core::log::Durability;
use kalamdb_core::{Engine, EngineOptions, Session};
use serde_json::{Value, json};

use crate::support::{Api, ROOT_PASSWORD, Server, copy_directory};

/// Bytes of a segment: a small database has some.
const SEGMENT_BYTES: u64 = 6 << 10;
/// Rows of each user's `app.notes` before any is deleted.
const NOTES: u64 = 24;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// Who says what, in this order. The second half is written after a restart.
fn statements() -> [Vec<(&'static str, String)>; 2] {
    let root = |sql: &str| ("root", sql.to_owned());
    let mut first = vec![
        root("CREATE NAMESPACE app"),
        root("CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT NOT NULL, stars INT)"),
        root(
            "CREATE SHARED TABLE app.board (name TEXT, day DATE, score DOUBLE, PRIMARY KEY (name, day)) WITH (ACCESS_LEVEL = 'public')",
        ),
        root("CREATE STREAM TABLE app.seen (who TEXT) RETENTION '36500d' SCOPE 'all'"),
        root("CREATE SHARED TABLE app.gone (id INT PRIMARY KEY)"),
        root("INSERT INTO app.gone VALUES (1), (2)"),
        root("DROP TABLE app.gone"),
        root(
            "CREATE SHARED TABLE app.kinds (id INT PRIMARY KEY, a BOOLEAN, b SMALLINT, c BIGINT, d FLOAT, e DOUBLE, \
             f DECIMAL(9, 2), g TEXT, h TIMESTAMP, i DATETIME, j DATE, k TIME, l JSON, m BYTES, n UUID, o EMBEDDING(3))",
        ),
        root(
            "INSERT INTO app.kinds VALUES (1, true, -2, 9007199254740993, 1.5, -0.1, 1234.56, 'grüße', \
             '2026-09-21T14:13:20.000001', '2026-09-21T14:13:20Z', '2026-09-21', '14:13:20', '{\"a\":[1,null]}', \
             '\\x00ff', '11111111-2222-3333-4444-555555555555', '[0.5, -1.0, 0.25]')",
        ),
        root("INSERT INTO app.kinds (id) VALUES (2)"),
    ];
    for user in ["ada", "bob"] {
        first.push(root(&format!("CREATE USER {user} WITH PASSWORD 'password of {user}' ROLE user")));
        for id in 0..NOTES {
            first.push((
                user,
                format!("INSERT INTO app.notes VALUES ({id}, 'note {id} of {user}', {})", id % 5),
            ));
        }
    }
    let mut second = vec![
        root("INSERT INTO app.board VALUES ('x', '2026-01-01', 0.5), ('x', '2026-01-02', 1.5)"),
        root("INSERT INTO app.seen VALUES ('ada'), ('bob')"),
        root("CREATE USER eve WITH PASSWORD 'gone' ROLE user"),
        root("DROP USER eve"),
    ];
    for user in ["ada", "bob"] {
        second
            .push((user, "UPDATE app.notes SET stars = NULL, body = body || '!' WHERE stars = 4".to_owned()));
        second.push((user, "DELETE FROM app.notes WHERE stars = 0".to_owned()));
    }
    second.rotate_left(2);
    [first, second]
}

async fn write_fixture(dir: &Path) {
    let mut options = EngineOptions::new(dir);
    options.durability = Durability::Os;
    options.root_password = Some(ROOT_PASSWORD.to_owned());
    options.segment_bytes = SEGMENT_BYTES;
    for half in statements() {
        let (engine, _) = Engine::open(options.clone()).unwrap();
        for (user, sql) in half {
            let role = if user == "root" { Role::Dba } else { Role::User };
            let mut session = Session::new(UserId::new(user), role, None);
            let executed = engine.execute(&mut session, &sql, &[]).await;
            assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
        }
        engine.close();
    }
    fs::remove_dir_all(dir.join("rows")).unwrap();
    fs::remove_dir_all(dir.join("catalog")).unwrap();
    fs::remove_file(dir.join("log/LOCK")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_released_format_is_read_to_the_last_row() {
    let present = fixtures().join(format!("format-{FORMAT_VERSION}"));
    if !present.exists() && std::env::var_os("KALAMDB_WRITE_FIXTURE").is_some() {
        write_fixture(&present).await;
    }
    assert!(present.exists(), "the present format has no fixture; see the head of this file");
    for version in 1..=FORMAT_VERSION {
        let fixture = fixtures().join(format!("format-{version}"));
        let segments = fs::read_dir(fixture.join("log")).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "klog")
        });
        assert!(segments.count() > 2, "format {version}: a log in several segments");
        let server = Server::start_from(|dir| {
            let bytes = copy_directory(&fixture, dir);
            assert!(bytes < 100 << 10, "format {version}: {bytes} bytes");
        })
        .await;
        check_rows(&server).await;
    }
}

async fn check_rows(server: &Server) {
    let root = server.root().await;
    let ada = Api::login(server, "ada", "password of ada").await;
    let bob = Api::login(server, "bob", "password of bob").await;
    assert_eq!(notes_of(&ada).await, expected_notes("ada"));
    assert_eq!(notes_of(&bob).await, expected_notes("bob"));
    let users = root.rows("SELECT user_id FROM system.users ORDER BY user_id").await;
    assert_eq!(users, [json!(["ada"]), json!(["bob"]), json!(["root"])]);
    let tables = root.rows("SELECT table_name, table_type FROM system.tables ORDER BY table_name").await;
    let expected = [
        json!(["board", "shared"]),
        json!(["kinds", "shared"]),
        json!(["notes", "user"]),
        json!(["seen", "stream"]),
    ];
    assert_eq!(tables, expected);
    // Dates are days on the wire.
    let board = ada.rows("SELECT name, day, score FROM app.board ORDER BY day").await;
    assert_eq!(board, [json!(["x", 20454, 0.5]), json!(["x", 20455, 1.5])]);
    assert_eq!(ada.rows("SELECT who FROM app.seen ORDER BY who").await, [json!(["ada"]), json!(["bob"])]);
    let kinds = root.rows("SELECT * FROM app.kinds ORDER BY id").await;
    let full = json!([
        1,
        true,
        -2,
        "9007199254740993",
        1.5,
        -0.1,
        "1234.56",
        "grüße",
        "1790000000000001",
        "1790000000000000",
        20717,
        "51200000000",
        "{\"a\":[1,null]}",
        "AP8=",
        "11111111-2222-3333-4444-555555555555",
        [0.5, -1.0, 0.25]
    ]);
    let mut empty = vec![Value::Null; 16];
    empty[0] = json!(2);
    assert_eq!(kinds, [full, Value::Array(empty)]);
    // It is a database like any other: what is written to it comes after.
    ada.sql("INSERT INTO app.notes VALUES (1000, 'new', 1)").await;
    assert_eq!(notes_of(&ada).await.len(), expected_notes("ada").len() + 1);
}

async fn notes_of(api: &Api) -> Vec<Value> {
    api.rows("SELECT id, body, stars FROM app.notes ORDER BY id").await
}

fn expected_notes(user: &str) -> Vec<Value> {
    let kept = (0..NOTES).filter(|id| id % 5 != 0);
    kept.map(|id| match id % 5 {
        4 => json!([id.to_string(), format!("note {id} of {user}!"), null]),
        stars => json!([id.to_string(), format!("note {id} of {user}"), stars]),
    })
    .collect()
}
