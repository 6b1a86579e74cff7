//! The server over a disk that is full or breaks. In this process: nobody fills a real disk in a test.

use std::sync::Arc;

use kalamdb_core::log::simulation::{Fault, SimulatedDisk};
use kalamdb_core::{Engine, EngineOptions};
use kalamdb_server::ServerConfig;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Api, in_time};

/// A server whose log is on a simulated disk.
struct Fragile {
    disk: SimulatedDisk,
    engine: Engine,
    root: Api,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    _directory: TempDir,
}

impl Fragile {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = SimulatedDisk::new(1);
        let mut options = EngineOptions::new(directory.path());
        options.log_disk = Arc::new(disk.clone());
        options.root_password = Some("root".to_owned());
        let engine = tokio::task::spawn_blocking(move || Engine::open(options).unwrap().0).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = engine.clone();
        let serving = tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            kalamdb_server::serve(listener, served, ServerConfig::default(), shutdown).await.unwrap();
        });
        let root = Api::at(url).logged_in("root", "root").await;
        root.sql("CREATE SHARED TABLE default.t (id BIGINT PRIMARY KEY, body TEXT) ACCESS_LEVEL 'public'")
            .await;
        root.sql("INSERT INTO default.t VALUES (1, 'before')").await;
        Self { disk, engine, root, stop, serving, _directory: directory }
    }

    /// Writes are refused, and everybody is told why; reads go on.
    async fn is_read_only(&self, reason: &str) {
        let refused = self.root.try_sql("INSERT INTO default.t VALUES (2, 'refused')", &[]).await;
        assert_eq!(refused.code(), "READ_ONLY", "{refused:?}");
        assert!(refused.body["error"]["message"].as_str().unwrap().contains(reason), "{refused:?}");
        assert_eq!(self.root.rows("SELECT body FROM default.t").await, [json!(["before"])]);
        let ready = self.root.get("/ready").await;
        assert_eq!((ready.status, &ready.body["status"]), (503, &json!("read_only")));
        let health = self.root.get("/health").await;
        assert_eq!(health.status, 200, "it lives");
        assert!(health.body["reason"].as_str().unwrap().contains(reason), "{health:?}");
        let metrics = self.root.get("/metrics").await;
        assert!(metrics.body.as_str().unwrap().contains("kalamdb_read_only 1"), "{metrics:?}");
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        in_time("the server to end", self.serving).await.unwrap();
        tokio::task::spawn_blocking(move || self.engine.close()).await.unwrap();
    }
}

/// One after the other: the metrics of a process are one for all its engines.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_a_broken_one_refuse_writes_and_answer_reads() {
    a_full_disk_refuses_writes_until_there_is_space().await;
    a_disk_that_breaks_ends_writing_until_a_restart().await;
}

async fn a_full_disk_refuses_writes_until_there_is_space() {
    let server = Fragile::start().await;
    server.disk.set_capacity(Some(server.disk.used()));
    let big = "x".repeat(1 << 20);
    // The log has some room reserved: what does not fit into it is the first to be refused.
    let statement = format!("INSERT INTO default.t VALUES (3, '{big}'), (4, '{big}'), (5, '{big}')");
    let refused = server.root.try_sql(&statement, &[]).await;
    assert_eq!(refused.code(), "READ_ONLY", "{refused:?}");
    server.is_read_only("once there is space").await;
    server.disk.set_capacity(None);
    // By itself: nobody writes meanwhile.
    in_time("the server to take writes again", async {
        while server.root.get("/ready").await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.root.sql("INSERT INTO default.t VALUES (2, 'after')").await;
    assert_eq!(
        server.root.rows("SELECT id FROM default.t ORDER BY id").await.len(),
        2,
        "what was refused is not there"
    );
    server.stop().await;
}

async fn a_disk_that_breaks_ends_writing_until_a_restart() {
    let server = Fragile::start().await;
    // Whichever call is next: a write, or the sync after it.
    server.disk.fail_at(server.disk.calls(), Fault::InputOutput);
    let refused = server.root.try_sql("INSERT INTO default.t VALUES (3, 'lost')", &[]).await;
    assert_eq!(refused.code(), "READ_ONLY", "{refused:?}");
    server.is_read_only("start it again").await;
    server.is_read_only("start it again").await;
    server.stop().await;
}
