//! Kills the real binary at random points while writers and subscribers run, again and again, and holds design §8:
//! what was acknowledged survives; what is there is a prefix of what was sent; a state rebuilt from the log alone equals the
//! live one; each subscriber sees each commit once, in order, across all the crashes. Rows are flushed into files all the while,
//! and files compacted.
//!
//! Fifty rounds in the suite; `cargo test --test crash -- --rounds 1000 [--seed N]` for more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use crate::support::{Api, Random, Server, Socket, in_time};

/// Who writes; each has a subscriber that lives through all rounds.
const WRITERS: u64 = 4;
const MODES: [&str; 3] = ["always", "interval:20", "os"];

type Rows = BTreeMap<i64, String>;

/// One change of one user's rows: several rows in one statement, all or nothing.
#[derive(Clone, Debug)]
enum Change {
    Insert(Vec<(i64, String)>),
    Update(i64, String),
    Delete(i64),
}

impl Change {
    fn apply(&self, rows: &mut Rows) {
        match self {
            Self::Insert(new) => rows.extend(new.iter().cloned()),
            Self::Update(id, body) => drop(rows.insert(*id, body.clone())),
            Self::Delete(id) => drop(rows.remove(id)),
        }
    }

    fn statement(&self) -> (String, Vec<Json>) {
        match self {
            Self::Insert(new) => {
                let places = (0..new.len()).map(|at| format!("(${}, ${})", at * 2 + 1, at * 2 + 2));
                let sql = format!("INSERT INTO crash.notes VALUES {}", places.collect::<Vec<_>>().join(", "));
                (sql, new.iter().flat_map(|(id, body)| [json!(id), json!(body)]).collect())
            }
            Self::Update(id, body) => {
                ("UPDATE crash.notes SET body = $2 WHERE id = $1".to_owned(), vec![json!(id), json!(body)])
            }
            Self::Delete(id) => ("DELETE FROM crash.notes WHERE id = $1".to_owned(), vec![json!(id)]),
        }
    }
}

/// A writer: what it knows to be there, and the one change whose fate it does not know.
struct Writer {
    user: String,
    rows: Rows,
    unknown: Option<Change>,
    next_id: i64,
    random: Random,
}

impl Writer {
    fn change(&mut self) -> Change {
        let existing = |random: &mut Random, rows: &Rows| {
            let at = usize::try_from(random.below(rows.len() as u64)).unwrap();
            *rows.keys().nth(at).unwrap()
        };
        let body = format!("{:x}", self.random.next());
        match self.random.below(10) {
            0..=5 => Change::Insert(self.new_rows(&body)),
            _ if self.rows.is_empty() => Change::Insert(self.new_rows(&body)),
            6..=8 => Change::Update(existing(&mut self.random, &self.rows), body),
            _ => Change::Delete(existing(&mut self.random, &self.rows)),
        }
    }

    fn new_rows(&mut self, body: &str) -> Vec<(i64, String)> {
        let count = 1 + self.random.below(4);
        (0..count)
            .map(|_| {
                self.next_id += 1;
                (self.next_id, format!("{}:{body}", self.user))
            })
            .collect()
    }

    /// Writes until the server goes.
    async fn write(mut self, api: Api, acknowledged: Arc<AtomicU64>, news: Arc<Notify>) -> Self {
        loop {
            let change = self.change();
            let (sql, params) = change.statement();
            let Some(answer) = api.sql_of_unknown_fate(&sql, &params).await else {
                self.unknown = Some(change);
                return self;
            };
            assert_eq!(answer.body["status"], "success", "{}: {sql}: {answer:?}", self.user);
            change.apply(&mut self.rows);
            acknowledged.fetch_add(1, Ordering::SeqCst);
            news.notify_one();
        }
    }

    /// What is there is what was acknowledged, and the change in flight wholly or not at all.
    fn check(&mut self, found: &Rows) {
        if let Some(unknown) = self.unknown.take() {
            let mut with = self.rows.clone();
            unknown.apply(&mut with);
            if *found == with {
                self.rows = with;
            }
        }
        assert_eq!(*found, self.rows, "{}: rows differ from what was acknowledged", self.user);
    }
}

/// A subscriber's view, through all its connections.
#[derive(Default)]
struct Subscriber {
    user: String,
    rows: Rows,
    /// The seq of the last frame; none before the first snapshot.
    last: Option<u64>,
    frames: u64,
}

impl Subscriber {
    /// Listens until the server goes, or until `until` says that everything has come.
    async fn listen(mut self, url: &str, token: &str, until: impl Fn(&Rows) -> bool) -> Self {
        // None: the server went away, which is what it is here for.
        let _ = self.follow(url, token, until).await;
        self
    }

    async fn follow(&mut self, url: &str, token: &str, until: impl Fn(&Rows) -> bool) -> Option<()> {
        let mut socket = Socket::connect_if_there(url, token).await?;
        let mut options = json!({"batch_size": 50});
        if let Some(last) = self.last {
            options["from"] = json!(last);
        }
        let subscription = json!({"id": "s", "sql": "SELECT id, body FROM crash.notes", "options": options});
        socket.send_if_there(&json!({"type": "subscribe", "subscription": subscription})).await?;
        // A snapshot counts once it is whole: a crash in the middle of it starts over.
        let (mut snapshot, mut snapshot_seq) = (Rows::new(), None);
        while !(self.last.is_some() && until(&self.rows)) {
            let message = socket.next_or_end().await?;
            match message["type"].as_str().unwrap() {
                "subscription_ack" => {
                    let begins = seq_of(&message["snapshot_seq"]);
                    match self.last {
                        Some(last) => assert_eq!(last, begins, "{}: resumed elsewhere", self.user),
                        None if message["batch_control"]["has_more"] == true => snapshot_seq = Some(begins),
                        None => self.last = Some(begins),
                    }
                }
                "initial_data_batch" => {
                    take_rows(&message["rows"], |id, body| drop(snapshot.insert(id, body)));
                    if message["batch_control"]["has_more"] == true {
                        socket.send_if_there(&json!({"type": "next_batch", "subscription_id": "s"})).await?;
                    } else {
                        self.rows = std::mem::take(&mut snapshot);
                        self.last = snapshot_seq.take();
                    }
                }
                "change" => self.take_over(&message),
                _ => panic!("{}: {message}", self.user),
            }
        }
        Some(())
    }

    fn take_over(&mut self, frame: &Json) {
        let (seq, prev_seq) = (seq_of(&frame["seq"]), seq_of(&frame["prev_seq"]));
        assert_eq!(Some(prev_seq), self.last, "{}: the chain is broken at {frame}", self.user);
        assert!(seq > prev_seq, "{}: seqs do not rise at {frame}", self.user);
        self.last = Some(seq);
        self.frames += 1;
        match frame["change_type"].as_str().unwrap() {
            "insert" => take_rows(&frame["rows"], |id, body| {
                assert!(self.rows.insert(id, body).is_none(), "{}: {id} was inserted twice", self.user);
            }),
            "update" => take_rows(&frame["rows"], |id, body| {
                assert!(self.rows.insert(id, body).is_some(), "{}: {id} was not there", self.user);
            }),
            "delete" => take_rows(&frame["old_values"], |id, _| {
                assert!(self.rows.remove(&id).is_some(), "{}: {id} was not there", self.user);
            }),
            other => panic!("{other}"),
        }
    }
}

fn seq_of(value: &Json) -> u64 {
    value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).expect("a seq")
}

fn take_rows(rows: &Json, mut take: impl FnMut(i64, String)) {
    for row in rows.as_array().unwrap() {
        take(row["id"].as_str().unwrap().parse().unwrap(), row["body"].as_str().unwrap().to_owned());
    }
}

/// The same questions to every life of the server.
async fn query(api: &Api) -> (Rows, String) {
    let rows = api.rows("SELECT id, body, _seq, _updated FROM crash.notes ORDER BY id").await;
    let pair = |row: &Json| (row[0].as_str().unwrap().parse().unwrap(), row[1].as_str().unwrap().to_owned());
    (rows.iter().map(pair).collect(), Json::from(rows.clone()).to_string())
}

struct Crash {
    server: Server,
    writers: Vec<Writer>,
    subscribers: Vec<Subscriber>,
    tokens: Vec<String>,
    random: Random,
}

impl Crash {
    async fn begin(seed: u64) -> Self {
        let mut server = Server::start().await;
        let root = server.root().await;
        root.sql("CREATE NAMESPACE crash").await;
        // Few enough rows for flushes and compactions in every life.
        let create = "CREATE USER TABLE crash.notes (id BIGINT PRIMARY KEY, body TEXT) FLUSH POLICY ROWS 20";
        root.sql(create).await;
        let (mut writers, mut subscribers, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..WRITERS {
            let user = format!("writer{number}");
            tokens.push(server.user(&root, &user).await.token);
            let random = Random(seed.wrapping_add(number + 1));
            writers.push(Writer { user: user.clone(), rows: Rows::new(), unknown: None, next_id: 0, random });
            subscribers.push(Subscriber { user, ..Subscriber::default() });
        }
        server.kill().await;
        Self { server, writers, subscribers, tokens, random: Random(seed) }
    }

    /// Starts the server and checks that everybody's rows are what they should be.
    async fn start(&mut self) {
        self.server.start_again().await;
        let anonymous = Api::anonymous(&self.server);
        for (writer, token) in self.writers.iter_mut().zip(&self.tokens) {
            writer.check(&query(&anonymous.with_token(token)).await.0);
        }
    }

    /// One life of the server: everything is checked, then written to until it is killed.
    async fn round(&mut self, round: u64) {
        let mode = MODES[usize::try_from(round % 3).unwrap()];
        self.server.set_arguments(&["--durability", mode]);
        self.start().await;
        let socket_url = self.server.socket_url("compress=false");
        let listening: Vec<_> = std::mem::take(&mut self.subscribers)
            .into_iter()
            .zip(self.tokens.clone())
            .map(|(subscriber, token)| {
                let url = socket_url.clone();
                tokio::spawn(async move { subscriber.listen(&url, &token, |_| false).await })
            })
            .collect();
        let (acknowledged, news) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let anonymous = Api::anonymous(&self.server);
        let writing: Vec<_> = std::mem::take(&mut self.writers)
            .into_iter()
            .zip(&self.tokens)
            .map(|(writer, token)| {
                let api = anonymous.with_token(token);
                tokio::spawn(writer.write(api, Arc::clone(&acknowledged), Arc::clone(&news)))
            })
            .collect();
        let enough = self.random.below(150);
        while acknowledged.load(Ordering::SeqCst) < enough {
            in_time("an acknowledgement", news.notified()).await;
        }
        self.server.kill().await;
        for writer in writing {
            self.writers.push(writer.await.unwrap());
        }
        for subscriber in listening {
            self.subscribers.push(subscriber.await.unwrap());
        }
    }

    /// With both projections deleted, the log alone gives the same answers, down to each row's seq and time.
    async fn check_rebuilt(&mut self) {
        self.start().await;
        let before = self.everything().await;
        self.server.kill().await;
        for projection in ["rows", "catalog"] {
            std::fs::remove_dir_all(self.server.data_dir().join(projection)).unwrap();
        }
        self.start().await;
        assert_eq!(self.everything().await, before, "rows rebuilt from the log differ");
        self.server.kill().await;
    }

    async fn everything(&self) -> Vec<String> {
        let anonymous = Api::anonymous(&self.server);
        let mut found = Vec::new();
        for token in &self.tokens {
            found.push(query(&anonymous.with_token(token)).await.1);
        }
        found
    }

    /// Every subscriber comes to where its user's rows are.
    async fn finish(mut self) {
        self.start().await;
        let socket_url = self.server.socket_url("compress=false");
        for ((writer, subscriber), token) in self.writers.iter().zip(self.subscribers).zip(&self.tokens) {
            let rows = &writer.rows;
            let subscriber = subscriber.listen(&socket_url, token, |seen| seen == rows).await;
            assert_eq!(subscriber.rows, *rows, "{}: the subscriber missed something", subscriber.user);
            assert!(subscriber.frames > 0, "{}: the subscriber saw nothing", subscriber.user);
        }
        let root = self.server.root().await;
        let ended = "SELECT job_type, count(*) FROM system.jobs WHERE status = 'completed' GROUP BY job_type ORDER BY 1";
        let ended = root.rows(ended).await;
        println!("jobs: {}", Json::from(ended.clone()));
        assert_eq!(ended.len(), 2, "there were flushes and compactions: {ended:?}");
        let failed = root.rows("SELECT error_message FROM system.jobs WHERE status = 'failed'").await;
        assert_eq!(failed, Vec::<Json>::new());
        self.server.kill().await;
    }
}

/// Runs so many rounds. The seed decides what is written and after how many acknowledgements each kill comes.
pub(crate) async fn run(rounds: u64, seed: u64) {
    println!("crash test: {rounds} rounds, seed {seed}");
    let mut crash = Crash::begin(seed).await;
    for round in 1..=rounds {
        crash.round(round).await;
        if round % 10 == 0 {
            crash.check_rebuilt().await;
        }
    }
    crash.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_being_killed() {
    run(50, u64::from(std::process::id())).await;
}
