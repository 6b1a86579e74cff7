//! A flipped byte anywhere in a database: the same rows, or a refusal. Never another row, never a panic.
//!
//! The log's files byte by byte are `kalamdb-log`'s tests; here is the whole directory, RocksDB's files included, every
//! `KALAMDB_FLIP_EVERY`th byte (499 in the suite; 1 for all of them).

use std::fs;
use std::path::{Path, PathBuf};

use log_format::Role;

use crate::testing::{root, session};
use crate::{Engine, EngineOptions, Session};

const ROWS: &str = "SELECT id, body, _seq FROM default.t ORDER BY id";

fn options(directory: &Path) -> EngineOptions {
    let mut options = EngineOptions::new(directory);
    options.root_password = Some("root".to_owned());
    options
}

async fn rows(engine: &Engine, who: &Session) -> Result<String, String> {
    let executed = engine.execute(&mut who.clone(), ROWS, &[]).await;
    if let Some(error) = executed.error {
        return Err(error.to_string());
    }
    let batches = executed.results.first().map(|result| result.batches.as_slice()).unwrap_or_default();
    Ok(datafusion::arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

#[tokio::test]
async fn a_flipped_byte_never_makes_another_row() {
    let original = tempfile::tempdir().unwrap();
    let ann = session("ann", Role::User);
    let (engine, _) = Engine::open(options(original.path())).unwrap();
    for (who, sql) in [
        (&root(), "CREATE USER TABLE default.t (id BIGINT PRIMARY KEY, body TEXT)"),
        (&ann, "INSERT INTO default.t VALUES (1, 'one'), (2, 'two'), (3, 'three')"),
        (&ann, "UPDATE default.t SET body = 'zwei' WHERE id = 2; DELETE FROM default.t WHERE id = 3"),
    ] {
        let executed = engine.execute(&mut who.clone(), sql, &[]).await;
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    }
    let expected = rows(&engine, &ann).await.unwrap();
    engine.close();
    let every = std::env::var("KALAMDB_FLIP_EVERY").map_or(499, |text| text.parse().unwrap());
    let (mut same, mut refused, mut at) = (0, 0, 0);
    for file in files(original.path()) {
        let name = file.strip_prefix(original.path()).unwrap().to_owned();
        // RocksDB's diary for people to read.
        if name.ends_with("LOG") {
            continue;
        }
        let length = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
        while at < length {
            let damaged = tempfile::tempdir().unwrap();
            copy(original.path(), damaged.path());
            let mut bytes = fs::read(&file).unwrap();
            bytes[at] ^= 1 << (at % 8);
            fs::write(damaged.path().join(&name), bytes).unwrap();
            match Engine::open(options(damaged.path())) {
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
                Ok((engine, _)) => {
                    match rows(&engine, &ann).await {
                        Ok(found) => {
                            assert_eq!(found, expected, "byte {at} of {}", name.display());
                            same += 1;
                        }
                        Err(_) => refused += 1,
                    }
                    engine.close();
                }
            }
            at += every;
        }
        at -= length;
    }
    assert!(same > 0 && refused > 0, "{same} flips changed nothing, {refused} were refused");
}

#[tokio::test]
async fn a_repaired_log_gives_back_all_but_what_was_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let ann = session("ann", Role::User);
    let (engine, _) = Engine::open(options(directory.path())).unwrap();
    let execute = async |who: &Session, sql: &str| {
        let executed = engine.execute(&mut who.clone(), sql, &[]).await;
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    };
    execute(&root(), "CREATE USER TABLE default.t (id BIGINT PRIMARY KEY, body TEXT)").await;
    for id in 0..9 {
        execute(&ann, &format!("INSERT INTO default.t VALUES ({id}, 'the body of row {id}')")).await;
    }
    engine.close();
    // The log alone, with one letter of one row changed.
    for projection in [crate::ROWS_DIRECTORY, crate::CATALOG_DIRECTORY] {
        fs::remove_dir_all(directory.path().join(projection)).unwrap();
    }
    let log = directory.path().join(crate::LOG_DIRECTORY);
    let segment =
        files(&log).into_iter().find(|file| file.extension().is_some_and(|it| it == "klog")).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let text = b"the body of row 4";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at] ^= 0x20;
    fs::write(&segment, bytes).unwrap();

    let refused = Engine::open(options(directory.path())).unwrap_err().to_string();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(refused.contains(&name), "{refused}");
    let mended = kalamdb_log::repair(log.as_path(), 0).unwrap();
    assert_eq!(mended.len(), 1, "{mended:?}");
    assert_eq!(mended[0].lost_from, mended[0].lost_to, "one event was damaged: {mended:?}");
    let (engine, _) = Engine::open(options(directory.path())).unwrap();
    let found = rows(&engine, &ann).await.unwrap();
    for id in 0..9 {
        assert_eq!(found.contains(&format!("the body of row {id}")), id != 4, "{found}");
    }
    let written = engine.execute(&mut ann.clone(), "INSERT INTO default.t VALUES (4, 'again')", &[]).await;
    assert!(written.error.is_none(), "{:?}", written.error);
    engine.close();
}
