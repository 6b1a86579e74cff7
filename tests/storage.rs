//! Storage locations: cold files in an S3 server of its own process, which goes away and comes back.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::ownership::copy_parts;
use crate::support::{Answer, Api, PATIENCE, ROOT_PASSWORD, Server, in_time};

const ACCESS_KEY: &str = "AKIAKALAMDBTEST";
const SECRET_KEY: &str = "a-secret-that-nobody-may-see";

/// `tests/s3_server.rs` over a directory with one bucket.
struct S3 {
    directory: TempDir,
    child: Option<Child>,
    address: String,
}

impl S3 {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("root/bucket")).unwrap();
        let mut s3 = Self { directory, child: None, address: "127.0.0.1:0".to_owned() };
        s3.spawn().await;
        s3
    }

    async fn spawn(&mut self) {
        let binary = Path::new(env!("CARGO_BIN_EXE_kalamdb")).with_file_name("examples").join("s3_server");
        assert!(binary.exists(), "{} is built by `cargo test --workspace`", binary.display());
        let mut child = Command::new(binary)
            .arg(self.directory.path().join("root"))
            .args([&self.address, ACCESS_KEY, SECRET_KEY])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.child = Some(child);
        let line = in_time("starting an S3 server", lines.next_line()).await.unwrap().unwrap();
        line.trim_start_matches("http://").clone_into(&mut self.address);
    }

    /// Sends its process a signal: `STOP` leaves requests without an answer until `CONT`.
    async fn signal(&self, signal: &str) {
        let id = self.child.as_ref().and_then(Child::id).unwrap().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(in_time("a signal", sent).await.unwrap().success());
    }

    async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.start_kill().unwrap();
        in_time("killing the S3 server", child.wait()).await.unwrap();
    }

    /// A file with credentials and what else its client is to know.
    fn credentials(&self, name: &str, secret: &str) -> String {
        let path = self.directory.path().join(name);
        let options = serde_json::json!({
            "access_key_id": ACCESS_KEY,
            "secret_access_key": secret,
            "region": "eu-central-1",
            "endpoint": format!("http://{}", self.address),
            "allow_http": true,
        });
        std::fs::write(&path, options.to_string()).unwrap();
        format!("file:{}", path.display())
    }

    /// The Parquet files in the bucket.
    fn files(&self) -> Vec<PathBuf> {
        parquet_files(&self.directory.path().join("root/bucket"))
    }
}

fn parquet_files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    found
}

/// Runs a statement that makes a job, and waits for its end; its record.
async fn job(root: &Api, sql: &str) -> Value {
    root.sql(sql).await;
    let newest = "SELECT status, error_message, result FROM system.jobs ORDER BY created_at DESC LIMIT 1";
    in_time("a job", async {
        loop {
            let job = root.rows(newest).await.remove(0);
            if matches!(job[0].as_str(), Some("completed" | "failed")) {
                return job;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Waits until the bucket has so many files.
async fn files(s3: &S3, count: usize) {
    let arrived = tokio::time::timeout(PATIENCE, async {
        while s3.files().len() != count {
            tokio::task::yield_now().await;
        }
    });
    assert!(arrived.await.is_ok(), "{:?} instead of {count}", s3.files());
}

async fn register(root: &Api, credentials: &str) -> Answer {
    let sql = format!(
        "INSERT INTO system.storage_locations (location_name, location_type, path, credentials_ref) \
         VALUES ('far', 's3', 's3://bucket/cold', '{credentials}')"
    );
    root.try_sql(&sql, &[]).await
}

#[tokio::test]
async fn cold_files_in_s3_are_as_good_as_local_ones_and_nothing_is_lost_while_it_is_away() {
    let (mut server, mut s3) = (Server::start().await, S3::start().await);
    let root = Api::login(&server, "root", ROOT_PASSWORD).await;
    let wrong = register(&root, &s3.credentials("wrong", "another secret")).await;
    assert_eq!(wrong.code(), "INVALID_SQL", "{:?}", wrong.body);
    let told = wrong.body.to_string();
    assert!(told.contains("s3://bucket/cold") && !told.contains("another secret"), "{told}");
    let right = register(&root, &s3.credentials("right", SECRET_KEY)).await;
    assert_eq!(right.code(), "", "{:?}", right.body);
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT) LOCATION REFERENCE 'far'").await;
    for user in ["ann", "bob"] {
        root.sql(&format!("CREATE USER {user} WITH PASSWORD 'password of {user}' ROLE user")).await;
    }
    let ann = Api::login(&server, "ann", "password of ann").await;
    let bob = Api::login(&server, "bob", "password of bob").await;
    ann.sql("INSERT INTO app.notes VALUES (1, 'of ann'), (2, 'of ann')").await;
    bob.sql("INSERT INTO app.notes VALUES (1, 'of bob')").await;
    let flushed = job(&root, "STORAGE FLUSH TABLE app.notes").await;
    assert_eq!(flushed[0], "completed", "{flushed}");
    files(&s3, 2).await;
    assert!(s3.files().iter().all(|path| path.display().to_string().contains("/cold/")));
    assert_eq!(parquet_files(&server.data_dir().join("cold")), Vec::<PathBuf>::new());
    let all = "SELECT id, body FROM app.notes ORDER BY id";
    let of_ann = [serde_json::json!([1, "of ann"]), serde_json::json!([2, "of ann"])];
    assert_eq!(ann.rows(all).await, of_ann);
    server.kill().await;
    server.start_again().await;
    assert_eq!(ann.rows(all).await, of_ann);
    assert_eq!(bob.rows(all).await.len(), 1);
    ann.sql("UPDATE app.notes SET body = 'changed' WHERE id = 2").await;

    // It is away: rows stay hot, writes go on, and who asks is told.
    s3.kill().await;
    let failed = job(&root, "STORAGE FLUSH TABLE app.notes").await;
    assert_eq!(failed[0], "failed", "{failed}");
    ann.sql("INSERT INTO app.notes VALUES (3, 'meanwhile')").await;
    assert_eq!(ann.rows("SELECT body FROM app.notes WHERE id = 3").await[0][0], "meanwhile");
    let health = ann.get("/health").await.body;
    assert!(health["status"] == "healthy" && health["storage_failures"]["far"].is_string(), "{health}");
    assert!(!health.to_string().contains(SECRET_KEY), "{health}");

    s3.spawn().await;
    let flushed = job(&root, "STORAGE FLUSH TABLE app.notes").await;
    assert_eq!(flushed[0], "completed", "{flushed}");
    assert!(ann.get("/health").await.body["storage_failures"].is_null());
    let bodies: Vec<_> = ann.rows(all).await.into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(bodies, ["of ann", "changed", "meanwhile"]);
    let compacted = job(&root, "STORAGE COMPACT TABLE app.notes").await;
    assert_eq!(compacted[0], "completed", "{compacted}");
    files(&s3, 2).await;
    let dropped = root.try_sql("DELETE FROM system.storage_locations", &[]).await;
    assert_eq!(dropped.code(), "CONSTRAINT_VIOLATION", "{:?}", dropped.body);
    let freed = job(&root, "DROP TABLE app.notes").await;
    assert_eq!(freed[0], "completed", "{freed}");
    files(&s3, 0).await;
    root.sql("DELETE FROM system.storage_locations").await;
    assert!(!server.log().contains(SECRET_KEY));
}

#[tokio::test]
async fn a_started_copy_deletes_nothing_in_the_bucket_and_takes_it_over_when_told() {
    let (mut server, s3) = (Server::start().await, S3::start().await);
    let root = Api::login(&server, "root", ROOT_PASSWORD).await;
    assert_eq!(register(&root, &s3.credentials("right", SECRET_KEY)).await.code(), "");
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.t (id INT PRIMARY KEY) LOCATION REFERENCE 'far'").await;
    root.sql("INSERT INTO app.t VALUES (1)").await;
    assert_eq!(job(&root, "STORAGE FLUSH TABLE app.t").await[0], "completed");
    let copied = tempfile::tempdir().unwrap();
    copy_parts(&server.data_dir(), copied.path(), &["log", "cold", "jwt.key", "instance.json"]);
    root.sql("INSERT INTO app.t VALUES (2)").await;
    assert_eq!(job(&root, "STORAGE FLUSH TABLE app.t").await[0], "completed");

    let parts = ["log", "cold", "jwt.key", "instance.json"];
    let mut other = Server::start_from(|to| copy_parts(copied.path(), to, &parts)).await;
    let of_copy = Api::login(&other, "root", ROOT_PASSWORD).await;
    of_copy.sql("INSERT INTO app.t VALUES (7)").await;
    let failed = job(&of_copy, "STORAGE FLUSH TABLE app.t").await;
    assert!(failed[0] == "failed" && failed[1].to_string().contains("--take-over-locations"), "{failed}");
    assert_eq!(of_copy.rows("SELECT id FROM app.t").await.len(), 2);
    files(&s3, 2).await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(root.rows("SELECT id FROM app.t").await.len(), 2);
    assert!(server.stop().await.success());

    assert!(other.stop().await.success());
    other.set_arguments(&["--take-over-locations"]);
    other.start_again().await;
    assert_eq!(job(&of_copy, "STORAGE FLUSH TABLE app.t").await[0], "completed");
    // The file of the original that the copy has never heard of stays.
    files(&s3, 3).await;
}

/// How far the newest job of a table is.
async fn status(root: &Api, table: &str) -> Value {
    let sql = format!(
        "SELECT status FROM system.jobs WHERE table_name = '{table}' ORDER BY created_at DESC LIMIT 1"
    );
    root.rows(&sql).await[0][0].clone()
}

#[tokio::test]
async fn a_storage_location_that_does_not_answer_keeps_no_other_waiting() {
    let (mut server, s3) = (Server::start().await, S3::start().await);
    let root = Api::login(&server, "root", ROOT_PASSWORD).await;
    assert_eq!(register(&root, &s3.credentials("right", SECRET_KEY)).await.code(), "");
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.away (id INT PRIMARY KEY) LOCATION REFERENCE 'far'").await;
    root.sql("CREATE SHARED TABLE app.here (id INT PRIMARY KEY)").await;
    for restarts in [false, true] {
        s3.signal("STOP").await;
        if restarts {
            // What a crash left there is looked for first, and there is no answer to that either.
            server.kill().await;
            server.start_again().await;
        }
        for table in ["away", "here"] {
            root.sql(&format!("INSERT INTO app.{table} VALUES ({})", i32::from(restarts))).await;
        }
        root.sql("STORAGE FLUSH TABLE app.away").await;
        let here = job(&root, "STORAGE FLUSH TABLE app.here").await;
        assert_eq!(here[0], "completed", "{here}");
        assert_ne!(status(&root, "away").await, "completed");
        s3.signal("CONT").await;
        in_time("a flush to a place that answers again", async {
            while status(&root, "away").await != "completed" {
                tokio::task::yield_now().await;
            }
        })
        .await;
        files(&s3, 1 + usize::from(restarts)).await;
    }
    assert_eq!(root.rows("SELECT id FROM app.away").await.len(), 2);
}

/// `kalamdb check` of a stopped server's directory: whether it found nothing, and what it said.
async fn check(data_dir: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kalamdb"));
    let checked = command.arg("check").arg("--data-dir").arg(data_dir).output();
    let checked = in_time("a check", checked).await.unwrap();
    let said = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
    (checked.status.success(), said)
}

#[tokio::test]
async fn a_check_names_every_file_that_is_missing_or_damaged_and_whose_rows_it_has() {
    let mut server = Server::start().await;
    let root = Api::login(&server, "root", ROOT_PASSWORD).await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT)").await;
    root.sql("CREATE SHARED TABLE app.places (id INT PRIMARY KEY, body TEXT)").await;
    root.sql("INSERT INTO app.notes VALUES (1, 'a'), (2, 'b'); INSERT INTO app.places VALUES (1, 'c')").await;
    for table in ["app.notes", "app.places"] {
        assert_eq!(job(&root, &format!("STORAGE FLUSH TABLE {table}")).await[0], "completed");
    }
    assert!(server.stop().await.success());
    let (is_well, said) = check(&server.data_dir()).await;
    assert!(is_well && said.contains("2 Parquet files of 2 partitions") && said.contains("3 rows"), "{said}");

    let of = |name: &str| {
        let all = parquet_files(&server.data_dir().join("cold"));
        all.into_iter().find(|path| path.display().to_string().contains(name)).unwrap()
    };
    let (notes, places) = (of("notes-"), of("places-"));
    let mut bytes = std::fs::read(&places).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&places, bytes).unwrap();
    std::fs::remove_file(&notes).unwrap();
    let (is_well, said) = check(&server.data_dir()).await;
    assert!(!is_well && said.contains("2 files are wrong"), "{said}");
    for (path, whose) in [(&notes, "(app.notes of root)"), (&places, "(app.places)")] {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(said.lines().any(|line| line.contains(name) && line.contains(whose)), "{whose}: {said}");
    }
    let nowhere = server.data_dir().join("nowhere");
    let (is_well, said) = check(&nowhere).await;
    assert!(!is_well && said.contains("nowhere"), "{said}");
    assert!(!nowhere.exists(), "a check makes no database");
}

#[tokio::test]
async fn a_check_calls_no_file_wrong_whose_location_does_not_answer() {
    let (mut server, mut s3) = (Server::start().await, S3::start().await);
    let root = Api::login(&server, "root", ROOT_PASSWORD).await;
    assert_eq!(register(&root, &s3.credentials("right", SECRET_KEY)).await.code(), "");
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE SHARED TABLE app.t (id INT PRIMARY KEY) LOCATION REFERENCE 'far'").await;
    root.sql("INSERT INTO app.t VALUES (1)").await;
    assert_eq!(job(&root, "STORAGE FLUSH TABLE app.t").await[0], "completed");
    assert!(server.stop().await.success());
    let (is_well, said) = check(&server.data_dir()).await;
    assert!(is_well, "{said}");
    s3.kill().await;
    let (is_well, said) = check(&server.data_dir()).await;
    assert!(!is_well && said.contains("1 files could not be looked at"), "{said}");
    assert!(!said.contains("wrong: bring them back"), "{said}");
}
