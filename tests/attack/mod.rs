//! An attacker among users: thousands of statements by seed, and nothing of what others have comes back.
//!
//! Every row of the others carries a tag nobody can guess, in texts, keys and numbers. It happens in two worlds at once. In both, the
//! attacker has the same rows and does the same; what the others have is different: other tags, other numbers of rows. No byte the
//! attacker is sent may have a foreign tag, and what comes must be the same in both worlds, counts and errors too: it cannot
//! depend on what others have. In the end the others have what they wrote, and each user's files their own rows only.
//!
//! Some rounds in the suite; `cargo test --test attack -- --rounds 100 [--seed N]` for more.

mod statements;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use self::statements::Compared;
use crate::support::{Api, Random, Server, Socket};

/// Statements of a round; then there is a live query, and all rows are flushed.
const STATEMENTS: u64 = 60;
/// Ids from here on are for rows that end the wait for changes.
const BARRIERS: u64 = 1_000_000;
/// Columns of SHOW STATS that differ with seqs and times, as bytes of a file do.
const OF_FILES: [&str; 2] = ["cold_bytes", "last_flush"];
const NOTES: &str = "app.notes";

/// Somebody whose rows are nobody else's business.
struct Owner {
    name: &'static str,
    api: Api,
    socket: Socket,
    /// In every text of theirs.
    tag: String,
    /// What their numbers begin with.
    digits: u64,
    notes: BTreeMap<u64, String>,
    random: Random,
}

impl Owner {
    async fn begin(server: &Server, root: &Api, name: &'static str, seed: u64) -> Self {
        let api = server.user(root, name).await;
        let mut random = Random(seed);
        let (tag, digits) =
            (format!("tag{:016x}", random.next()), 100_000_000_000 + random.below(800_000_000_000));
        let mut socket = Socket::connect(server, &api.token).await;
        // The text of a live query is nobody else's business either.
        socket.snapshot("s", &format!("SELECT id FROM app.notes WHERE body = '{tag}'"), json!({})).await;
        let mut owner = Self { name, api, socket, tag, digits, notes: BTreeMap::new(), random };
        for _ in 0..10 + owner.random.below(20) {
            owner.write().await;
        }
        owner
    }

    /// A row, under a key that others have as well or under one that shows whose it is.
    async fn write(&mut self) {
        let number = self.digits * 100_000 + self.random.below(100_000);
        let id = if self.random.one_in(2) { self.random.below(30) } else { number };
        let body = format!("{} {:x}", self.tag, self.random.next());
        let upsert = "INSERT INTO app.notes (id, n, body, extra) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT DO UPDATE SET n = excluded.n, body = excluded.body";
        let params = [json!(id), json!(number), json!(body), json!({ "of": self.tag })];
        self.api.sql_with(upsert, &params).await;
        self.notes.insert(id, body);
        if self.random.one_in(3) {
            let id = *self.notes.keys().next().unwrap();
            self.api.sql_with("DELETE FROM app.notes WHERE id = $1", &[json!(id)]).await;
            self.notes.remove(&id);
        }
        let key = json!(format!("{} {number}", self.tag));
        self.api
            .sql_with(
                "INSERT INTO app.keys (name, at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                &[key.clone(), json!(number)],
            )
            .await;
        self.api.sql_with("INSERT INTO app.events (who) VALUES ($1)", &[key]).await;
    }

    /// What they have is what they wrote.
    async fn check(&mut self) {
        let rows = self.api.rows("SELECT id, body FROM app.notes ORDER BY id").await;
        let expected: Vec<Value> =
            self.notes.iter().map(|(id, body)| json!([id.to_string(), body])).collect();
        assert_eq!(rows, expected, "{} lost or got rows", self.name);
        // Nothing came that their filter leaves out.
        self.api.sql_with("INSERT INTO app.notes (id, n, body) VALUES (77, 0, $1)", &[json!(self.tag)]).await;
        assert_eq!(self.socket.change("s").await["rows"][0]["id"], "77");
        self.api.sql("DELETE FROM app.notes WHERE id = 77").await;
    }
}

/// A server, those who own rows, and who wants to see them.
struct World {
    server: Server,
    root: Api,
    owners: Vec<Owner>,
    mallory: Api,
    /// Somebody of another role who asks for the very same at the same time.
    trent: Api,
    /// Where live queries of mallory began.
    seqs: Vec<Value>,
}

impl World {
    async fn begin(seed: u64) -> Self {
        let server =
            Server::start_with("durability = \"os\"\n[server]\nclient_timeout_ms = 86400000\n").await;
        let root = server.root().await;
        for sql in [
            "CREATE NAMESPACE app",
            "CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, n BIGINT, body TEXT, extra JSON)",
            "CREATE USER TABLE app.keys (name TEXT, at BIGINT, PRIMARY KEY (name, at))",
            "CREATE STREAM TABLE app.events (who TEXT) RETENTION '1h' MAX_BUFFER 1000",
            "CREATE SHARED TABLE app.board (id INT PRIMARY KEY, line TEXT) WITH (ACCESS_LEVEL = 'public')",
            "INSERT INTO app.board VALUES (1, 'for all'), (2, 'to see')",
        ] {
            root.sql(sql).await;
        }
        let mallory = server.user(&root, "mallory").await;
        for id in 1..=12 {
            let note = format!(
                "INSERT INTO app.notes VALUES ({id}, {id}, 'of mallory {id}', '{{\"of\": \"mallory\"}}')"
            );
            mallory.sql(&note).await;
        }
        root.sql("CREATE USER trent WITH PASSWORD 'password of trent' ROLE service").await;
        let trent = Api::login(&server, "trent", "password of trent").await;
        let mut owners = Vec::new();
        for (at, name) in (1..).zip(["alice", "bob"]) {
            owners.push(Owner::begin(&server, &root, name, seed ^ at << 48).await);
        }
        Self { server, root, owners, mallory, trent, seqs: vec![json!(0)] }
    }

    fn check_no_trace(&self, what: &str, answer: &str) {
        let (lower, plain) = (answer.to_lowercase(), answer.replace('.', ""));
        for owner in &self.owners {
            let backwards: String = owner.tag.chars().rev().collect();
            let found = lower.contains(&owner.tag)
                || lower.contains(&backwards)
                || plain.contains(&owner.digits.to_string());
            assert!(!found, "{what} shows rows of {}: {answer}", owner.name);
        }
    }

    /// What mallory is told, as far as it may be compared.
    async fn ask(&self, sql: &str, compared: Compared) -> Value {
        let answer = self.mallory.try_sql(sql, &[]).await;
        self.check_no_trace(sql, &answer.body.to_string());
        assert!(answer.status < 500, "{sql}: {answer:?}");
        if sql.starts_with("EXECUTE AS") {
            assert_eq!((answer.status, answer.code()), (403, "PERMISSION_DENIED"), "{sql}: {answer:?}");
        }
        if compared == Compared::Nothing {
            return Value::Null;
        }
        let result = |result: &Value| {
            let shown: Vec<usize> = result["schema"]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
                .filter(|(_, column)| !OF_FILES.contains(&column["name"].as_str().unwrap()))
                .map(|(at, _)| at)
                .collect();
            let row = |row: &Value| json!(shown.iter().map(|at| &row[*at]).collect::<Vec<_>>()).to_string();
            let mut rows: Vec<String> = result["rows"].as_array().unwrap().iter().map(row).collect();
            rows.sort();
            if compared == Compared::Counts {
                rows.clear();
            }
            json!([result["row_count"], rows])
        };
        let results: Vec<Value> = answer.body["results"].as_array().unwrap().iter().map(result).collect();
        json!([answer.status, answer.code(), results])
    }

    /// The same rows as an Arrow stream.
    async fn ask_for_arrow(&self, sql: &str) {
        let bytes = self.mallory.arrow(sql).await;
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        self.check_no_trace(sql, &text);
        for owner in &self.owners {
            // The number of a tag is five digits of something behind those of its owner.
            let range = owner.digits * 100_000..(owner.digits + 1) * 100_000;
            let found =
                bytes.windows(8).any(|it| range.contains(&u64::from_le_bytes(it.try_into().unwrap())));
            assert!(!found, "{sql} shows a number of {}", owner.name);
        }
    }

    /// A live query, while others write and mallory does: its snapshot and its changes until the row of the barrier.
    async fn watch(&mut self, sql: &str, barrier: u64, from: Option<usize>) -> Value {
        let mut twin = Twin::begin(self, sql).await;
        let mut socket = Socket::connect(&self.server, &self.mallory.token).await;
        let options = from.map_or_else(|| json!({}), |at| json!({ "from": self.seqs[at] }));
        socket.subscribe("s", sql, options).await;
        let ack = socket.next().await;
        self.check_no_trace(sql, &ack.to_string());
        for owner in &mut self.owners {
            owner.write().await;
        }
        let insert = format!("INSERT INTO app.notes (id, n, body) VALUES ({barrier}, 1, 'barrier')");
        self.mallory.sql(&insert).await;
        self.trent.sql(&insert).await;
        twin.finish(sql, barrier).await;
        if ack["type"] == "error" {
            return ack["code"].clone();
        }
        self.seqs.push(ack["snapshot_seq"].clone());
        let barrier_id = json!(barrier.to_string());
        let mut seen = vec![json!(["ack", ack["total_rows"]])];
        loop {
            let message = socket.next().await;
            self.check_no_trace(sql, &message.to_string());
            check_names(sql, &message, "mallory", "user");
            let mut rows = Vec::new();
            for row in ["rows", "old_values"].iter().filter_map(|side| message[side].as_array()).flatten() {
                let mut row = row.clone();
                row.as_object_mut().unwrap().remove("_seq");
                rows.push(row.to_string());
            }
            rows.sort();
            let is_barrier = message["type"] == "change" && message["rows"][0]["id"] == barrier_id;
            seen.push(json!([message["type"], message["change_type"], message["code"], rows]));
            if is_barrier || message["type"] == "error" {
                return json!(seen);
            }
            if message["batch_control"]["has_more"] == true {
                socket.send(json!({ "type": "next_batch", "subscription_id": "s" })).await;
            }
        }
    }

    /// From any seq, one's own or not: nothing of others, whatever comes.
    async fn resume(&mut self, sql: &str, barrier: u64, from: u64) {
        let at = self.seqs.len();
        self.seqs.push(json!(from));
        self.watch(sql, barrier, Some(at)).await;
        self.seqs.truncate(at);
    }

    /// All rows are in files, and no job is left.
    async fn flush(&self) {
        for table in [NOTES, "app.keys"] {
            self.root.sql(&format!("STORAGE FLUSH TABLE {table}")).await;
        }
        let waiting = "SELECT count(*) FROM system.jobs WHERE status IN ('queued', 'running')";
        let done = async { while self.root.rows(waiting).await != [json!(["0"])] {} };
        crate::support::in_time("flushing", done).await;
    }

    /// A file below a user's name has that user's rows.
    fn check_files(&self) {
        let (mut files, mut with_tag) = (Vec::new(), 0);
        parquet_files(&self.server.data_dir().join("cold"), &mut files);
        for file in files {
            // One that a compaction has replaced may go at any time.
            let Ok(opened) = File::open(&file) else { continue };
            let text = text_of(opened);
            let path = file.to_string_lossy();
            let of = |owner: &&Owner| path.contains(&format!("/{}/", owner.name));
            let (own, foreign): (Vec<&Owner>, Vec<&Owner>) = self.owners.iter().partition(of);
            let of_attack = path.contains("/mallory/") || path.contains("/trent/");
            assert!(own.len() == 1 || of_attack, "{path}: whose is it?");
            with_tag += own.iter().filter(|owner| text.contains(&owner.tag)).count();
            for owner in foreign {
                let found = text.contains(&owner.tag) || text.contains(&owner.digits.to_string());
                assert!(!found, "{path} has rows of {}", owner.name);
            }
            assert!(own.is_empty() || !text.contains("of mallory"), "{path} has rows of mallory");
        }
        // Two owners with two tables each. A file of tombstones alone has no tag.
        assert!(with_tag >= 4, "only {with_tag} files had rows of their owners");
    }
}

/// A live query of the same text as mallory's, of somebody else: what is compiled for one is no good for the other.
struct Twin {
    socket: Socket,
    is_listening: bool,
}

impl Twin {
    async fn begin(world: &World, sql: &str) -> Self {
        let mut socket = Socket::connect(&world.server, &world.trent.token).await;
        socket.subscribe("s", sql, json!({})).await;
        let is_listening = socket.next().await["type"] == "subscription_ack";
        Self { socket, is_listening }
    }

    /// Takes what comes until the row of the barrier.
    async fn finish(&mut self, sql: &str, barrier: u64) {
        let barrier_id = json!(barrier.to_string());
        while self.is_listening {
            let message = self.socket.next().await;
            check_names(sql, &message, "trent", "service");
            let is_barrier = message["type"] == "change" && message["rows"][0]["id"] == barrier_id;
            self.is_listening = !is_barrier && message["type"] != "error";
        }
    }
}

/// Who asks is told who they are, whoever asked the same before.
fn check_names(sql: &str, message: &Value, name: &str, role: &str) {
    let expected = match sql {
        _ if sql.contains("current_user() AS v") => name,
        _ if sql.contains("current_role() AS v") => role,
        _ => return,
    };
    for row in ["rows", "old_values"].iter().filter_map(|side| message[side].as_array()).flatten() {
        assert_eq!(row["v"], expected, "{sql}: {message}");
    }
}

fn parquet_files(under: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parquet_files(&path, found);
        } else if path.extension().is_some_and(|it| it == "parquet") {
            found.push(path);
        }
    }
}

/// Every value of a file.
fn text_of(file: File) -> String {
    let mut text = String::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        for column in batch.columns() {
            for row in 0..batch.num_rows() {
                text += &array_value_to_string(column, row).unwrap();
                text.push('\n');
            }
        }
    }
    text
}

async fn round(worlds: &mut [World; 2], random: &mut Random, round: u64) {
    for _ in 0..STATEMENTS {
        let (sql, compared) = statements::next(random);
        let (one, other) = tokio::join!(worlds[0].ask(&sql, compared), worlds[1].ask(&sql, compared));
        assert_eq!(one, other, "what others have shows in {sql}");
        if random.one_in(10) {
            for world in worlds.iter_mut() {
                let at = world.owners[0].random.at(2);
                world.owners[at].write().await;
            }
        }
    }
    let barrier = BARRIERS + round * 10;
    let sql = statements::live(random, barrier);
    let from = random.one_in(2).then(|| random.at(worlds[0].seqs.len()));
    let [one, other] = worlds;
    let (one, other) = tokio::join!(one.watch(&sql, barrier, from), other.watch(&sql, barrier, from));
    assert_eq!(one, other, "what others have shows in {sql} from {from:?}");
    let (sql, from) = (statements::live(random, barrier + 1), random.below(300));
    for world in worlds {
        world.resume(&sql, barrier + 1, from).await;
        for sql in
            ["SELECT * FROM app.notes", "SELECT n, body FROM app.notes WHERE n > 0", "SELECT * FROM app.keys"]
        {
            world.ask_for_arrow(sql).await;
        }
        for api in [&world.mallory, &world.trent] {
            api.sql(&format!("DELETE FROM app.notes WHERE id >= {BARRIERS}")).await;
        }
        if round % 2 == 1 {
            world.flush().await;
        }
    }
}

/// Runs so many rounds. The seed decides the statements, and two others what the owners have.
pub(crate) async fn run(rounds: u64, seed: u64) {
    println!("attack: {rounds} rounds, seed {seed}");
    let (one, other) = tokio::join!(World::begin(seed ^ 1 << 40), World::begin(seed ^ 2 << 40));
    let mut worlds = [one, other];
    let mut random = Random(seed);
    for number in 1..=rounds {
        Box::pin(round(&mut worlds, &mut random, number)).await;
    }
    for world in &mut worlds {
        world.flush().await;
        world.check_files();
        for owner in &mut world.owners {
            owner.check().await;
        }
        assert!(!world.server.log().contains("panicked"), "something panicked");
    }
    assert!(!Path::new("/tmp/kalamdb-attack.csv").exists(), "a user wrote a file");
    println!("{} statements in two worlds, {} live queries", rounds * STATEMENTS, rounds * 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_others_shows_whatever_a_user_tries() {
    Box::pin(run(2, u64::from(std::process::id()))).await;
}
