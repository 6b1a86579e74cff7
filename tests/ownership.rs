//! Owners of storage locations: copies of a running server's directory, moved directories, locations that overlap.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Api, Server, in_time};

/// Copies a directory as `cp -r` does.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &name);
        } else {
            std::fs::copy(&path, &name).unwrap();
        }
    }
}

/// Copies the parts of a directory that a backup takes.
pub(crate) fn copy_parts(from: &Path, to: &Path, parts: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    for part in parts {
        let path = from.join(part);
        if path.is_dir() {
            copy(&path, &to.join(part));
        } else if path.exists() {
            std::fs::copy(path, to.join(part)).unwrap();
        }
    }
}

async fn register(root: &Api, place: &Path) {
    let sql = "INSERT INTO system.storage_locations (location_name, location_type, path) VALUES ('far', 'filesystem', $1)";
    root.sql_with(sql, &[json!(place.display().to_string())]).await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.t (id INT PRIMARY KEY) LOCATION REFERENCE 'far'").await;
}

/// Inserts a row and flushes it; how that ended.
async fn flush(root: &Api, id: i32) -> (String, Value) {
    root.sql(&format!("INSERT INTO app.t VALUES ({id})")).await;
    root.sql("STORAGE FLUSH TABLE app.t").await;
    root.last_job("flush_table").await
}

async fn must_flush(root: &Api, id: i32) {
    assert_eq!(flush(root, id).await.0, "completed");
}

async fn ids(root: &Api) -> Vec<Value> {
    root.rows("SELECT id FROM app.t ORDER BY id").await.into_iter().map(|row| row[0].clone()).collect()
}

/// The message of the newest failed job.
async fn failure(root: &Api) -> String {
    let sql =
        "SELECT error_message FROM system.jobs WHERE status = 'failed' ORDER BY created_at DESC LIMIT 1";
    root.rows(sql).await[0][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_started_copy_deletes_none_of_the_originals_files() {
    for parts in [vec!["log", "cold", "jwt.key"], vec!["log", "cold", "jwt.key", "instance.json"]] {
        let place = tempfile::tempdir().unwrap();
        let mut server = Server::start().await;
        let root = server.root().await;
        register(&root, place.path()).await;
        must_flush(&root, 1).await;
        let from = server.data_dir();
        let copied = tempfile::tempdir().unwrap();
        copy_parts(&from, &copied.path().join("data"), &parts);
        must_flush(&root, 2).await;

        let mut other = Server::start_from(|to| copy(&copied.path().join("data"), to)).await;
        let of_copy = other.root().await;
        assert_eq!(ids(&of_copy).await, [1]);
        assert_eq!(flush(&of_copy, 7).await.0, "failed");
        let said = failure(&of_copy).await;
        assert!(said.contains("far") && said.contains("--take-over-locations"), "{said}");
        let health = of_copy.get("/health").await.body;
        assert!(health["storage_failures"]["far"].is_string(), "{health}");
        of_copy.sql("DROP TABLE app.t").await;
        assert_eq!(of_copy.last_job("drop_table").await.0, "failed");
        assert!(other.stop().await.success());
        other.start_again().await;

        must_flush(&root, 3).await;
        server.kill().await;
        server.start_again().await;
        assert_eq!(ids(&root).await, [1, 2, 3]);
        assert_eq!(root.get("/health").await.body["status"], "healthy");
        must_flush(&root, 4).await;
    }
}

#[tokio::test]
async fn a_moved_directory_starts_and_a_copy_takes_over_when_it_is_told_to() {
    let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut server = Server::start().await;
    let root = server.root().await;
    register(&root, place.path()).await;
    must_flush(&root, 1).await;
    assert!(server.stop().await.success());
    let moved = elsewhere.path().join("moved");
    std::fs::rename(server.data_dir(), &moved).unwrap();
    std::fs::rename(&moved, server.data_dir()).unwrap();
    server.start_again().await;
    must_flush(&root, 2).await;

    let data_dir = server.data_dir();
    assert!(server.stop().await.success());
    let mut other = Server::start_from(|to| copy(&data_dir, to)).await;
    let of_copy = other.root().await;
    assert_eq!(flush(&of_copy, 7).await.0, "failed");
    assert!(other.stop().await.success());
    other.set_arguments(&["--take-over-locations"]);
    other.start_again().await;
    must_flush(&of_copy, 8).await;
    // Without the flag it stays the owner, and the first one is none any more.
    assert!(other.stop().await.success());
    other.set_arguments(&[]);
    other.start_again().await;
    must_flush(&of_copy, 9).await;
    assert_eq!(ids(&of_copy).await, [1, 2, 7, 8, 9]);
    server.start_again().await;
    assert_eq!(flush(&root, 3).await.0, "failed");
    assert!(failure(&root).await.contains("--take-over-locations"));
    assert_eq!(ids(&of_copy).await, [1, 2, 7, 8, 9]);
}

#[tokio::test]
async fn a_cold_directory_that_a_copy_shares_is_not_swept_by_it() {
    let shared = tempfile::tempdir().unwrap();
    let cold = shared.path().join("cold");
    let link = |data: &Path| {
        std::fs::create_dir_all(&cold).unwrap();
        std::fs::create_dir_all(data).unwrap();
        std::os::unix::fs::symlink(&cold, data.join("cold")).unwrap();
    };
    let mut server = Server::start_from(link).await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.t (id INT PRIMARY KEY)").await;
    must_flush(&root, 1).await;
    let copied = tempfile::tempdir().unwrap();
    copy_parts(&server.data_dir(), copied.path(), &["log"]);
    must_flush(&root, 2).await;
    let other = Server::start_from(|to| {
        copy(copied.path(), to);
        link(to);
    })
    .await;
    let of_copy = other.root().await;
    assert_eq!(ids(&of_copy).await, [1]);
    assert_eq!(flush(&of_copy, 7).await.0, "failed");
    server.kill().await;
    server.start_again().await;
    assert_eq!(ids(&root).await, [1, 2]);
    must_flush(&root, 3).await;
}

#[tokio::test]
async fn a_start_deletes_nothing_but_cold_files_of_its_own() {
    let mut server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.t (id INT PRIMARY KEY)").await;
    must_flush(&root, 1).await;
    let cold = server.data_dir().join("cold");
    let name = "00000000000000000003-v1.parquet";
    let kept =
        [cold.join("notes.txt"), cold.join("app/export.parquet"), cold.join("elsewhere/app/").join(name)];
    for path in &kept {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "somebody else's").unwrap();
    }
    // A directory with a marker is another database's location.
    std::fs::write(cold.join("elsewhere/owner.json"), "{}").unwrap();
    let left = cold.join("app/shared").join(name);
    std::fs::write(&left, "what a crash left").unwrap();
    server.kill().await;
    server.start_again().await;
    assert!(!left.exists(), "it was not swept");
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    assert_eq!(ids(&root).await, [1]);
}

#[tokio::test]
async fn health_names_a_cold_file_that_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let root = server.root().await;
    register(&root, place.path()).await;
    must_flush(&root, 1).await;
    let files = root.rows("SELECT details FROM system.changes WHERE op = 'flush'").await;
    assert_eq!(files.len(), 1);
    let mut open = vec![place.path().to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == "parquet") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    let told = async {
        loop {
            let health = root.get("/health").await.body;
            if let Some(files) = health["missing_files"].as_array() {
                assert_eq!((&health["status"], files.len()), (&json!("degraded"), 1), "{health}");
                assert!(files[0].as_str().unwrap().starts_with("@far/app/shared/t-"), "{health}");
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time("a look for files", told).await;
    assert_eq!(root.get("/ready").await.status, 200);
}

#[tokio::test]
async fn a_location_that_overlaps_the_database_or_another_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let root = server.root().await;
    register(&root, &place.path().join("a")).await;
    let (data, at) = (server.data_dir(), place.path());
    std::os::unix::fs::symlink(data.join("cold"), at.join("link")).unwrap();
    std::os::unix::fs::symlink(at.join("a"), at.join("other")).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let refused = [
        shown(&data),
        shown(&data.join("cold")),
        shown(&data.join("new/one")),
        format!("{}/../data/cold/", shown(&data)),
        shown(data.parent().unwrap()),
        format!("file://{}", shown(&data)),
        shown(&at.join("link")),
        shown(&at.join("link/deeper")),
        shown(&at.join("a/")),
        shown(&at.join("a/nested")),
        shown(&at.join("x/../a")),
        shown(at),
        shown(&at.join("other/b")),
        "/".to_owned(),
    ];
    let insert = "INSERT INTO system.storage_locations (location_name, location_type, path) VALUES ('b', 'filesystem', $1)";
    for path in &refused {
        let answer = root.try_sql(insert, &[json!(path)]).await;
        assert_eq!(answer.code(), "INVALID_SQL", "{path}: {answer:?}");
        assert!(answer.body.to_string().contains("overlaps"), "{path}: {answer:?}");
    }
    root.sql_with(insert, &[json!(shown(&at.join("a2")))]).await;
    let update = "UPDATE system.storage_locations SET path = $1 WHERE location_name = 'b'";
    for path in &refused {
        let answer = root.try_sql(update, &[json!(path)]).await;
        assert!(answer.body.to_string().contains("overlaps"), "{path}: {answer:?}");
    }
    root.sql_with(update, &[json!(shown(&at.join("a3")))]).await;
    // Another database's directory.
    let other = Server::start().await;
    for inside in [other.data_dir(), other.data_dir().join("cold/deeper")] {
        let answer = root.try_sql(update, &[json!(shown(&inside))]).await;
        assert!(answer.body.to_string().contains("another database"), "{answer:?}");
    }
    // Two of one statement.
    let two = "INSERT INTO system.storage_locations (location_name, location_type, path) VALUES ('c', 'filesystem', $1), ('d', 'filesystem', $2)";
    let both = [json!(shown(&at.join("c"))), json!(shown(&at.join("c/d")))];
    let answer = root.try_sql(two, &both).await;
    assert!(answer.body.to_string().contains("overlaps"), "{answer:?}");
}
