//! Backups from the outside: all that is in a namespace, as of any commit, whatever goes on meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use kalamdb_log::{Durability, Retention};
use log_format::{Job, JobStatus, Role, Seq};
use serde_json::Value as Json;

use crate::cold_tests::{cold_files, flush};
use crate::engine::Machine;
use crate::fail_points::{FailPoint, FailPoints};
use crate::testing::{Random, all_done, cells, root, session};
use crate::tests::{ok, open, refused};
use crate::{Engine, EngineOptions, ErrorCode, clock};

pub(crate) const USERS: [&str; 3] = ["ann", "bob", "root"];

pub(crate) const TABLES: &str = "CREATE NAMESPACE chat WITH OPTIONS (OWNER = 'us');
    CREATE USER TABLE chat.notes (id BIGINT PRIMARY KEY, body TEXT DEFAULT 'none', n INT) FLUSH POLICY ROWS 1000000;
    CREATE SHARED TABLE chat.rooms (name TEXT, floor SMALLINT, at TIMESTAMP, PRIMARY KEY (name, floor))
        WITH (ACCESS_LEVEL = 'public', DELETED_RETENTION = '7d');
    CREATE STREAM TABLE chat.typing (who TEXT) RETENTION '1h' MAX_BUFFER 10";

/// Waits for all jobs; the newest of this type, by when it was created.
pub(crate) async fn last_job(engine: &Engine, job_type: &str) -> Job {
    let jobs = all_done(engine).await.into_iter().filter(|job| job.job_type == job_type);
    jobs.max_by_key(|job| job.created_at).unwrap()
}

pub(crate) async fn completed(engine: &Engine, sql: &str, job_type: &str) -> Json {
    ok(engine, &root(), sql, &[]).await;
    let job = last_job(engine, job_type).await;
    assert_eq!(job.status, JobStatus::Completed, "{sql}: {job:?}");
    serde_json::from_str(job.result.as_deref().unwrap()).unwrap()
}

pub(crate) async fn back_up(engine: &Engine, namespace: &str, to: &Path) -> Json {
    let sql = format!("BACKUP DATABASE {namespace} TO '{}'", to.display());
    completed(engine, &sql, "backup_database").await
}

pub(crate) async fn restore(engine: &Engine, from: &Path, rest: &str) -> Json {
    let sql = format!("RESTORE DATABASE chat FROM '{}' {rest}", from.display());
    completed(engine, &sql, "restore_database").await
}

/// All that can be seen of a namespace, table by table and user by user: its definition, its history, its rows.
pub(crate) async fn content(engine: &Engine, namespace: &str) -> BTreeMap<String, String> {
    let tables = cells(&ok(engine, &root(), &format!("SHOW TABLES IN {namespace}"), &[]).await);
    let mut content = BTreeMap::new();
    for table in tables.into_iter().map(|row| row[1].clone()) {
        let name = format!("{namespace}.{table}");
        let history = format!("DESCRIBE TABLE {name} HISTORY");
        content.insert(format!("{table} history"), ok(engine, &root(), &history, &[]).await);
        let created = cells(&ok(engine, &root(), &format!("SHOW CREATE TABLE {name}"), &[]).await);
        let created = created.into_iter().map(|row| row[1].clone()).collect::<Vec<_>>().join(" ");
        content.insert(format!("{table} definition"), created.replace(&name, "it"));
        if table == "typing" {
            continue;
        }
        for user in USERS {
            let rows = ok(engine, &session(user, Role::User), &format!("SELECT * FROM {name}"), &[]).await;
            let mut lines: Vec<&str> = rows.lines().collect();
            lines.sort_unstable();
            content.insert(format!("{table} of {user}"), lines.join("\n"));
        }
    }
    content
}

/// [`TABLES`] with rows.
pub(crate) async fn fill(engine: &Engine) {
    fill_with(engine, 2500).await;
}

/// [`TABLES`] with so many notes of each user.
pub(crate) async fn fill_with(engine: &Engine, notes: u64) {
    ok(engine, &root(), TABLES, &[]).await;
    for user in USERS {
        let user = session(user, Role::User);
        let insert = format!(
            "INSERT INTO chat.notes SELECT value, 'note ' || value, value % 7 FROM generate_series(1, {notes})"
        );
        ok(engine, &user, &insert, &[]).await;
    }
    ok(engine, &root(), "INSERT INTO chat.rooms VALUES ('blue', 1, '2026-01-01'), ('red', 2, NULL)", &[])
        .await;
    ok(engine, &root(), "INSERT INTO chat.typing VALUES ('ann')", &[]).await;
}

#[tokio::test]
async fn a_namespace_comes_back_with_all_that_was_in_it() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    fill(&engine).await;
    flush(&engine, "chat.notes").await;
    let ann = session("ann", Role::User);
    // Rows of two schema versions in both tiers, some of them changed or deleted where they are hot, cold, or were cold.
    for statement in [
        "UPDATE chat.notes SET body = 'changed' WHERE id % 10 = 1",
        "DELETE FROM chat.notes WHERE id % 10 = 2",
    ] {
        ok(&engine, &ann, statement, &[]).await;
    }
    ok(&engine, &root(), "ALTER TABLE chat.notes ADD COLUMN mood TEXT DEFAULT 'calm'", &[]).await;
    ok(&engine, &root(), "ALTER TABLE chat.notes MODIFY COLUMN n BIGINT", &[]).await;
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (9001, NULL, 5000000000, 'new')", &[]).await;
    flush(&engine, "chat.notes").await;
    ok(&engine, &ann, "UPDATE chat.notes SET mood = 'hot' WHERE id % 100 = 3", &[]).await;
    ok(&engine, &ann, "DELETE FROM chat.notes WHERE id = 3", &[]).await;
    ok(
        &engine,
        &root(),
        "CREATE SHARED TABLE chat.short (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'public'); INSERT INTO chat.short VALUES (1)",
        &[],
    )
    .await;
    ok(&engine, &root(), "TRUNCATE TABLE chat.short; INSERT INTO chat.short VALUES (2)", &[]).await;
    let before = content(&engine, "chat").await;
    let done = back_up(&engine, "chat", backup.path()).await;
    assert_eq!((&done["tables"], &done["parts"]), (&4.into(), &serde_json::json!(["full"])), "{done}");
    assert_eq!(done["row_events"], 2251 + 2 * 2500 + 2 + 1 - 1, "{done}");

    let restored = restore(&engine, backup.path(), "AS copy").await;
    assert_eq!((&restored["tables"], &restored["rows"]), (&4.into(), &done["row_events"]));
    assert_eq!(content(&engine, "copy").await, before);
    let options = "SELECT options FROM system.namespaces WHERE namespace_id = ";
    let options_of = async |name: &str| ok(&engine, &root(), &format!("{options}'{name}'"), &[]).await;
    assert_eq!(options_of("copy").await, options_of("chat").await);
    // They are two from here on, in memory, in the log, and in files.
    ok(&engine, &ann, "DELETE FROM chat.notes", &[]).await;
    ok(&engine, &ann, "INSERT INTO copy.notes (id) VALUES (9002)", &[]).await;
    let changed = content(&engine, "copy").await;
    assert_ne!(changed, before);
    flush(&engine, "copy.notes").await;
    assert_eq!(content(&engine, "copy").await, changed);
    assert!(!directory.path().join("restore").exists());
    engine.close();
    for projection in [crate::ROWS_DIRECTORY, crate::CATALOG_DIRECTORY] {
        std::fs::remove_dir_all(directory.path().join(projection)).unwrap();
    }
    let engine = open(directory.path());
    assert_eq!(content(&engine, "copy").await, changed, "the log alone tells the same");
    // What was dropped is restored under its own name.
    ok(&engine, &root(), "DROP NAMESPACE chat CASCADE", &[]).await;
    restore(&engine, backup.path(), "").await;
    assert_eq!(content(&engine, "chat").await, before);
    engine.close();
}

/// A statement that changes the namespace in some way.
fn any_statement(random: &mut Random) -> (&'static str, String) {
    let (user, id) = (USERS[random.index(3)], random.below(40));
    let statement = match random.below(20) {
        0..=5 => format!("INSERT INTO chat.notes (id, body) VALUES ({id}, 'b{id}') ON CONFLICT DO NOTHING"),
        6..=8 => format!("UPDATE chat.notes SET body = body || '+', n = {id} WHERE id % 5 = {}", id % 5),
        9 | 10 => format!("DELETE FROM chat.notes WHERE id % 7 = {}", id % 7),
        11 => format!(
            "BEGIN; DELETE FROM chat.notes WHERE id < {id}; INSERT INTO chat.rooms (name, floor) \
                       VALUES ('r{id}', 1) ON CONFLICT DO NOTHING; COMMIT"
        ),
        12 => format!("INSERT INTO chat.rooms (name, floor) VALUES ('x{id}', 2) ON CONFLICT DO NOTHING"),
        13 => return ("root", "STORAGE FLUSH TABLE chat.notes".to_owned()),
        14 => return ("root", "STORAGE COMPACT TABLE chat.notes".to_owned()),
        15 => {
            return (
                "root",
                format!("ALTER TABLE chat.notes ADD COLUMN c{} INT DEFAULT {id}", random.below(1 << 40)),
            );
        }
        16 => return ("root", "TRUNCATE TABLE chat.rooms".to_owned()),
        17 if random.below(3) == 0 => {
            let anew = TABLES.replace("CREATE NAMESPACE", "DROP NAMESPACE chat CASCADE; CREATE NAMESPACE");
            return ("root", anew);
        }
        17 => return ("root", "DROP TABLE IF EXISTS chat.extra".to_owned()),
        18 => {
            return ("root", "CREATE USER TABLE IF NOT EXISTS chat.extra (id BIGINT PRIMARY KEY)".to_owned());
        }
        _ => {
            "INSERT INTO chat.extra SELECT value FROM generate_series(1, 5) ON CONFLICT DO NOTHING".to_owned()
        }
    };
    (user, statement)
}

#[tokio::test]
async fn any_commit_that_was_backed_up_can_be_gone_back_to() {
    let seeds = std::env::var("KALAMDB_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = open(directory.path());
        ok(&engine, &root(), TABLES, &[]).await;
        let mut random = Random(seed * 7919);
        let mut known: Vec<(Seq, i64, BTreeMap<String, String>)> = Vec::new();
        for step in 0..80 {
            let (user, statement) = any_statement(&mut random);
            let role = if user == "root" { Role::Dba } else { Role::User };
            // One that is refused, for the table it asks for may be gone, changes nothing.
            engine.execute(&mut session(user, role), &statement, &[]).await;
            if step % 25 == 10 {
                all_done(&engine).await;
                back_up(&engine, "chat", backup.path()).await;
            }
            if step >= 10 && step % 3 == 0 {
                all_done(&engine).await;
                known.push((engine.published(), clock::now_micros(), content(&engine, "chat").await));
            }
        }
        back_up(&engine, "chat", backup.path()).await;
        let shown = cells(
            &ok(&engine, &root(), &format!("SHOW BACKUP FROM '{}'", backup.path().display()), &[]).await,
        );
        let kinds: Vec<&str> = shown.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(kinds, ["full", "changes", "changes", "changes"]);
        let first_seq: u64 = shown[0][3].parse().unwrap();
        let mut restored = 0;
        for (nth, (seq, time, expected)) in known.iter().enumerate().filter(|(nth, _)| nth % 4 == 1) {
            if seq.get() < first_seq {
                continue;
            }
            restore(&engine, backup.path(), &format!("AS at_seq_{nth} UNTIL SEQ {seq}")).await;
            assert_eq!(content(&engine, &format!("at_seq_{nth}")).await, *expected, "seed {seed}, seq {seq}");
            let text = crate::backup::text_of_time(*time);
            restore(&engine, backup.path(), &format!("AS at_time_{nth} UNTIL '{text}'")).await;
            assert_eq!(content(&engine, &format!("at_time_{nth}")).await, *expected, "seed {seed}, {text}");
            restored += 1;
        }
        assert!(restored >= 4, "{restored}");
        restore(&engine, backup.path(), "AS whole").await;
        assert_eq!(content(&engine, "whole").await, content(&engine, "chat").await, "seed {seed}");
        engine.close();
    }
}

/// An engine whose job stops at a place until it is let go on.
pub(crate) fn stopping_at(directory: &Path, place: FailPoint) -> (Engine, Receiver<()>, Sender<()>) {
    let ((reached, at_place), (go_on, told)) = (channel(), channel());
    let (told, is_first) = (Mutex::new(told), AtomicBool::new(true));
    let hook = move |point| {
        if point == place && is_first.swap(false, Ordering::SeqCst) {
            reached.send(()).unwrap();
            // Who gave up the test lets go of it, too.
            let _ = told.lock().unwrap().recv();
        }
    };
    let mut options = EngineOptions::new(directory);
    options.durability = Durability::Os;
    options.root_password = Some("root".to_owned());
    let machine = Machine { fail_points: FailPoints::new(hook), ..Machine::default() };
    (Engine::open_on(options, machine).unwrap().0, at_place, go_on)
}

/// Waits for the place without keeping the others on the runtime from going on.
pub(crate) async fn reached(at_place: Receiver<()>) {
    let waited = tokio::task::spawn_blocking(move || at_place.recv_timeout(Duration::from_mins(1)));
    waited.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_backup_keeps_its_cut_whatever_becomes_of_rows_files_and_tables() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (engine, at_place, go_on) = stopping_at(directory.path(), FailPoint::AfterBackupCut);
    fill(&engine).await;
    for _ in 0..2 {
        flush(&engine, "chat.notes").await;
        ok(&engine, &session("ann", Role::User), "UPDATE chat.notes SET n = n + 1 WHERE id % 3 = 0", &[])
            .await;
    }
    let before = content(&engine, "chat").await;
    ok(&engine, &root(), &format!("BACKUP DATABASE chat TO '{}'", backup.path().display()), &[]).await;
    reached(at_place).await;
    // Flushes and compactions go on beside it: it holds up nobody.
    let files = cold_files(directory.path());
    ok(&engine, &root(), "STORAGE FLUSH TABLE chat.notes; STORAGE COMPACT TABLE chat.notes", &[]).await;
    let others_done = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let jobs = engine.system().scan_all_jobs().unwrap();
            if jobs.iter().all(|job| job.finished_at.is_some() || job.job_type == "backup_database") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    others_done.await.unwrap();
    assert!(cold_files(directory.path()) > files, "what was compacted is still there");
    ok(&engine, &session("bob", Role::User), "DELETE FROM chat.notes WHERE id < 2000", &[]).await;
    ok(&engine, &root(), "TRUNCATE TABLE chat.rooms; DROP TABLE chat.notes", &[]).await;
    go_on.send(()).unwrap();
    let job = last_job(&engine, "backup_database").await;
    assert_eq!(job.status, JobStatus::Completed, "{job:?}");
    restore(&engine, backup.path(), "AS copy").await;
    assert_eq!(content(&engine, "copy").await, before);
    // The next part tells what has happened since.
    back_up(&engine, "chat", backup.path()).await;
    restore(&engine, backup.path(), "AS later").await;
    assert_eq!(content(&engine, "later").await, content(&engine, "chat").await);
    engine.close();
}

#[tokio::test]
async fn a_backup_begins_anew_where_the_log_no_longer_reaches_back() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut options = EngineOptions::new(directory.path());
    options.durability = Durability::Os;
    options.segment_bytes = 64 << 10;
    options.unflushed_bytes_max = 64 << 10;
    options.retention = Retention { bytes: Some(128 << 10), ..Retention::default() };
    options.root_password = Some("root".to_owned());
    let engine = Engine::open(options).unwrap().0;
    fill(&engine).await;
    let done = back_up(&engine, "chat", backup.path()).await;
    assert_eq!(done["parts"], serde_json::json!(["full"]));
    let done = back_up(&engine, "chat", backup.path()).await;
    assert_eq!(done["parts"], serde_json::json!(["changes"]));
    let ends = Seq::new(done["seq"].as_u64().unwrap());
    let let_go = tokio::time::timeout(Duration::from_mins(1), async {
        while engine.router().log_reader().floor().unwrap() <= ends {
            ok(&engine, &session("ann", Role::User), "UPDATE chat.notes SET n = n + 1 WHERE id < 500", &[])
                .await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let_go.await.unwrap();
    let done = back_up(&engine, "chat", backup.path()).await;
    assert_eq!(done["parts"], serde_json::json!(["full"]));
    restore(&engine, backup.path(), "AS copy").await;
    assert_eq!(content(&engine, "copy").await, content(&engine, "chat").await);
    // What was between the two is told nowhere, and nothing pretends to know it.
    let between = format!(
        "RESTORE DATABASE chat FROM '{}' AS other UNTIL SEQ {}",
        backup.path().display(),
        ends.next()
    );
    assert!(refused(&engine, &root(), &between).await.1.contains("up to its next full part"));
    engine.close();
}

#[tokio::test]
async fn a_backup_begins_anew_where_it_is_not_whole_or_of_another_history() {
    let (directory, backup, older) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    fill_with(&engine, 20).await;
    let full = back_up(&engine, "chat", backup.path()).await;
    let file = backup.path().join(format!("full-{:020}.frames.zst", full["seq"].as_u64().unwrap()));
    // A part without which the others are of no use.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(back_up(&engine, "chat", backup.path()).await["parts"], serde_json::json!(["full"]));
    assert_eq!(back_up(&engine, "chat", backup.path()).await["parts"], serde_json::json!(["changes"]));
    // Without its list nobody knows whose parts these are, and they stay.
    let (parts, away) = (backup.path().join("BACKUP.json"), backup.path().join("away"));
    std::fs::rename(&parts, &away).unwrap();
    ok(&engine, &root(), &format!("BACKUP DATABASE chat TO '{}'", backup.path().display()), &[]).await;
    let job = last_job(&engine, "backup_database").await;
    assert_eq!(job.status, JobStatus::Failed);
    assert!(job.error_message.unwrap().contains("bring BACKUP.json back"));
    std::fs::rename(&away, &parts).unwrap();
    engine.close();

    // An older copy of the directory that goes on differently, and gets as far.
    let copy =
        std::process::Command::new("cp").arg("-a").arg(directory.path()).arg(older.path().join("d")).status();
    assert!(copy.unwrap().success());
    let ann = session("ann", Role::User);
    let engine = open(directory.path());
    ok(&engine, &ann, "INSERT INTO chat.notes VALUES (7001, 'of the one', 1)", &[]).await;
    assert_eq!(back_up(&engine, "chat", backup.path()).await["parts"], serde_json::json!(["changes"]));
    engine.close();
    let engine = open(&older.path().join("d"));
    for id in 8001..8040 {
        ok(&engine, &ann, &format!("INSERT INTO chat.notes VALUES ({id}, 'of the other', 1)"), &[]).await;
    }
    // Seqs of the lost history are left out, too.
    let published = engine.published();
    restore(&engine, backup.path(), "AS lost").await;
    assert!(engine.published() > published.plus(1 << 32));
    let lost = ok(&engine, &ann, "SELECT body FROM lost.notes WHERE id > 7000", &[]).await;
    assert_eq!(cells(&lost), [["of the one"]]);
    assert_eq!(back_up(&engine, "chat", backup.path()).await["parts"], serde_json::json!(["full"]));
    restore(&engine, backup.path(), "AS copy").await;
    assert_eq!(content(&engine, "copy").await, content(&engine, "chat").await);
    engine.close();
}

#[tokio::test]
async fn rows_of_any_size_are_backed_up_and_restored() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    let ann = session("ann", Role::User);
    for (id, bytes) in [(1, 10), (2, 900_000), (3, 15_000_000), (4, 10), (5, 600_000), (6, 600_000)] {
        let insert = format!("INSERT INTO chat.notes SELECT {id}, repeat('x', {bytes}), {bytes}");
        ok(&engine, &ann, &insert, &[]).await;
    }
    back_up(&engine, "chat", backup.path()).await;
    ok(&engine, &ann, "UPDATE chat.notes SET body = body || 'y' WHERE id = 3", &[]).await;
    back_up(&engine, "chat", backup.path()).await;
    restore(&engine, backup.path(), "AS copy").await;
    let sizes = async |namespace: &str| {
        let sizes = format!("SELECT id, length(body), right(body, 1) FROM {namespace}.notes ORDER BY id");
        cells(&ok(&engine, &ann, &sizes, &[]).await)
    };
    assert_eq!(sizes("copy").await, sizes("chat").await);
    assert_eq!(sizes("copy").await[2], ["3", "15000001", "y"]);
    engine.close();
}

#[tokio::test]
async fn what_cannot_be_backed_up_or_restored_is_refused_and_loses_nothing() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    fill(&engine).await;
    back_up(&engine, "chat", backup.path()).await;
    let path = backup.path().display();
    for (statement, code, said) in [
        ("BACKUP DATABASE chat TO 'here'".to_owned(), ErrorCode::InvalidSql, "absolute path"),
        (format!("BACKUP DATABASE nothing TO '{path}'"), ErrorCode::NamespaceNotFound, "nothing"),
        (
            format!("BACKUP DATABASE chat TO '{}/cold/b'", directory.path().display()),
            ErrorCode::InvalidSql,
            "own directory",
        ),
        ("BACKUP DATABASE chat TO '/dev/null/b'".to_owned(), ErrorCode::SqlExecutionError, "/dev/null/b"),
        ("BACKUP chat TO '/tmp/x'".to_owned(), ErrorCode::InvalidSql, "expected DATABASE"),
        ("BACKUP DATABASE chat TO '/tmp/no/../../etc'".to_owned(), ErrorCode::InvalidSql, "without .."),
        (
            format!("RESTORE DATABASE chat FROM '{}/restore'", directory.path().display()),
            ErrorCode::InvalidSql,
            "own directory",
        ),
        ("RESTORE DATABASE chat FROM '/nowhere/at/all'".to_owned(), ErrorCode::NotFound, "no backup"),
        (
            format!("RESTORE DATABASE other FROM '{path}'"),
            ErrorCode::InvalidSql,
            "RESTORE DATABASE chat FROM",
        ),
        (
            format!("RESTORE DATABASE chat FROM '{path}' AS system"),
            ErrorCode::InvalidSql,
            "belongs to the system",
        ),
        (
            format!("RESTORE DATABASE chat FROM '{path}' AS x UNTIL SEQ 1"),
            ErrorCode::InvalidSql,
            "goes from seq",
        ),
        (
            format!("RESTORE DATABASE chat FROM '{path}' AS x UNTIL '2999-01-01'"),
            ErrorCode::InvalidSql,
            "goes from seq",
        ),
        (
            format!("RESTORE DATABASE chat FROM '{path}' AS x UNTIL 'soon'"),
            ErrorCode::ConstraintViolation,
            "soon",
        ),
        ("SHOW BACKUP FROM '/nowhere/at/all'".to_owned(), ErrorCode::NotFound, "no backup"),
        (
            format!("BEGIN; BACKUP DATABASE chat TO '{path}'; COMMIT"),
            ErrorCode::Unsupported,
            "inside of a transaction",
        ),
    ] {
        let (found, text) = refused(&engine, &root(), &statement).await;
        assert_eq!(found, code, "{statement}: {text}");
        assert!(text.contains(said), "{statement}: {text}");
    }
    engine.close();
}

#[tokio::test]
async fn backups_are_a_dbas() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    ok(&engine, &root(), TABLES, &[]).await;
    back_up(&engine, "chat", backup.path()).await;
    let path = backup.path().display();
    for role in [Role::User, Role::Service] {
        for statement in [
            format!("BACKUP DATABASE chat TO '{path}'"),
            format!("RESTORE DATABASE chat FROM '{path}' AS x"),
            format!("SHOW BACKUP FROM '{path}'"),
            "SHOW BACKUPS".to_owned(),
        ] {
            let (code, text) = refused(&engine, &session("ann", role), &statement).await;
            assert_eq!(code, ErrorCode::PermissionDenied, "{statement}: {text}");
        }
    }
    let shown = ok(&engine, &root(), "SHOW BACKUPS", &[]).await;
    assert!(shown.contains(&path.to_string()) && cells(&shown).len() == 1, "{shown}");

    engine.close();
}

#[tokio::test]
async fn a_restore_that_fails_takes_away_what_it_made_and_nothing_else() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = open(directory.path());
    fill(&engine).await;
    back_up(&engine, "chat", backup.path()).await;
    let path = backup.path().display();
    let before = content(&engine, "chat").await;
    let shown = cells(&ok(&engine, &root(), &format!("SHOW BACKUP FROM '{path}'"), &[]).await);
    let (file, state) = (backup.path().join(&shown[0][8]), &shown[0][9]);
    assert_eq!(state, "there");
    let whole = std::fs::read(&file).unwrap();
    for at in [whole.len() / 3, whole.len() - 10] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&file, bytes).unwrap();
        ok(&engine, &root(), &format!("RESTORE DATABASE chat FROM '{path}' AS copy"), &[]).await;
        let job = last_job(&engine, "restore_database").await;
        assert_eq!(job.status, JobStatus::Failed, "{job:?}");
        assert!(job.error_message.unwrap().contains(file.to_str().unwrap()));
        assert_eq!(refused(&engine, &root(), "SHOW TABLES IN copy").await.0, ErrorCode::NamespaceNotFound);
        assert_eq!(content(&engine, "chat").await, before);
    }
    std::fs::remove_file(&file).unwrap();
    let shown = ok(&engine, &root(), &format!("SHOW BACKUP FROM '{path}'"), &[]).await;
    assert!(shown.contains("No such file"), "{shown}");
    std::fs::write(&file, whole).unwrap();
    restore(&engine, backup.path(), "AS copy").await;
    assert_eq!(content(&engine, "copy").await, before);

    // One that was there stays, and can be used again.
    ok(&engine, &root(), "CREATE NAMESPACE empty WITH OPTIONS (A = 'b')", &[]).await;
    std::fs::remove_file(&file).unwrap();
    ok(&engine, &root(), &format!("RESTORE DATABASE chat FROM '{path}' AS empty"), &[]).await;
    assert_eq!(last_job(&engine, "restore_database").await.status, JobStatus::Failed);
    ok(&engine, &root(), "CREATE USER TABLE empty.t (id INT PRIMARY KEY)", &[]).await;
    let options = "SELECT options FROM system.namespaces WHERE namespace_id = 'empty'";
    let options = ok(&engine, &root(), options, &[]).await;
    assert!(options.contains('b') && !options.contains("restoring"), "{options}");
    engine.close();
}
