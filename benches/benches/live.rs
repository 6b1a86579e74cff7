//! Live queries over real sockets, of a server that is another process: how soon a change arrives, at how many, beside how many
//! others, and what those cost.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot go on is to say so and end"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use kalamdb_benches::report::{ROUNDS, Report, median, verdict};
use kalamdb_benches::sockets::{self, Arrivals, Plain};
use kalamdb_benches::{directory, is_wanted, memory_kib, session};
use kalamdb_core::clock;
use kalamdb_core::format::Role;
use kalamdb_core::log::Durability;
use kalamdb_core::{Engine, EngineOptions};
use kalamdb_server::{ServerConfig, serve};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// Where the process is the server, its directory.
const SERVE: &str = "KALAMDB_BENCH_SERVE";
/// Connections, each of a user of its own.
const CONNECTIONS: usize = 1_000;
/// Subscriptions of each, where all subscribe.
const SUBSCRIPTIONS: usize = 100;
/// Connections that come back at once.
const RECONNECTING: usize = 10_000;
/// Changes that one catches up with.
const MISSED: usize = 250_000;
/// Writes a second, and for how long.
const WRITES_PER_SECOND: u64 = 1_000;
const SECONDS: u64 = 5;
/// A query that takes a core for some seconds.
const HEAVY: &str = "SELECT count(*) FROM range(0, 300000000) WHERE value % 7 = 3";
/// About what a change takes on its way.
const CHANGE_BYTES: usize = 250;
/// Rows that are written one by one for a latency.
const SAMPLES: usize = 200;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn main() {
    drop(rlimit::increase_nofile_limit(u64::MAX));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    match std::env::var_os(SERVE) {
        Some(directory) => runtime.block_on(be_server(Path::new(&directory))),
        None => runtime.block_on(measure()),
    }
}

/// The server: fills a new directory, then serves it until it is killed.
#[expect(clippy::print_stdout, reason = "its address")]
async fn be_server(directory: &Path) {
    let mut options = EngineOptions::new(directory);
    options.durability = Durability::Os;
    options.root_password = Some("bench".to_owned());
    let (engine, _) = Engine::open(options).expect("a new database opens");
    let root = session("root", Role::Dba);
    let mut statements = vec![
        "CREATE NAMESPACE bench".to_owned(),
        "CREATE USER TABLE bench.own (id BIGINT PRIMARY KEY, room BIGINT, body TEXT)".to_owned(),
        "CREATE TABLE bench.everyone (id BIGINT PRIMARY KEY, body TEXT) WITH (TYPE = 'SHARED', ACCESS_LEVEL = 'public')"
            .to_owned(),
    ];
    statements
        .extend((0..CONNECTIONS).map(|user| format!("CREATE USER u{user} WITH PASSWORD 'bench' ROLE user")));
    for sql in statements {
        let executed = engine.execute(&mut root.clone(), &sql, &[]).await;
        assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    println!("{}", listener.local_addr().expect("it has an address"));
    let config = ServerConfig { logins_max: 2, ..ServerConfig::default() };
    serve(listener, engine, config, std::future::pending()).await.expect("it serves");
}

/// A server, and who talks to it.
struct Bench {
    server: Child,
    address: String,
    http: reqwest::Client,
    tokens: Vec<String>,
    root: String,
    next_id: i64,
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

impl Bench {
    async fn begin(directory: &Path) -> Self {
        let mut server = Command::new(std::env::current_exe().expect("this program is a file"))
            .env(SERVE, directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut address = String::new();
        let mut lines = BufReader::new(server.stdout.take().expect("it is piped"));
        lines.read_line(&mut address).expect("the server tells its address");
        let address = address.trim().to_owned();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client is made");
        let mut bench = Self { server, address, http, tokens: Vec::new(), root: String::new(), next_id: 0 };
        bench.root = bench.login("root").await;
        for user in 0..CONNECTIONS {
            bench.tokens.push(bench.login(&format!("u{user}")).await);
        }
        bench
    }

    async fn login(&self, user: &str) -> String {
        let request = self.http.post(format!("http://{}/v1/api/auth/login", self.address));
        let answer = request.json(&json!({ "user": user, "password": "bench" })).send().await;
        let answer: Json = answer.expect("it answers").json().await.expect("JSON");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    async fn sql(&self, token: &str, sql: &str, params: &[Json]) -> Json {
        let request = self.http.post(format!("http://{}/v1/api/sql", self.address)).bearer_auth(token);
        let answer = request.json(&json!({ "sql": sql, "params": params })).send().await;
        let answer: Json = answer.expect("it answers").json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{sql}: {answer}");
        answer
    }

    fn next_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    async fn connect(&self, token: &str) -> Socket {
        connect(&self.address, token).await
    }

    /// KiB of memory that the server has.
    fn memory(&self) -> f64 {
        memory_kib(self.server.id())
    }
}

async fn connect(address: &str, token: &str) -> Socket {
    let url = format!("ws://{address}/v1/ws?compress=false");
    let mut request = url.into_client_request().expect("a request");
    let bearer = format!("Bearer {token}").parse().expect("a header");
    request.headers_mut().insert("Authorization", bearer);
    // By default it clears 128 KiB for each read.
    let config = WebSocketConfig::default().read_buffer_size(4 << 10);
    let connecting = connect_async_with_config(request, Some(config), true);
    let (mut socket, _) = connecting.await.expect("it connects");
    assert!(next(&mut socket).await.contains("auth_success"));
    socket
}

async fn next(socket: &mut Socket) -> String {
    loop {
        match socket.next().await.expect("the server is there").expect("a message") {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => socket.flush().await.expect("it takes a pong"),
            _ => {}
        }
    }
}

/// Subscribes to what comes from now on, and waits until that is so.
async fn subscribe(socket: &mut Socket, id: &str, sql: &str) {
    let subscription = json!({ "id": id, "sql": sql });
    let message = json!({ "type": "subscribe", "subscription": subscription }).to_string();
    socket.send(Message::text(message)).await.expect("it takes a message");
    let ack = next(socket).await;
    assert!(ack.contains("subscription_ack"), "{ack}");
}

/// The id of the row of a change.
fn id_of(change: &str) -> i64 {
    let at = change.find("\"id\":\"").expect("a row with an id");
    let digits = change[at + 6..].split('"').next().expect("digits");
    digits.parse().expect("a number")
}

/// Tells when which row arrived, for each message of some sockets.
fn listen(sockets: Vec<Socket>) -> (Arrivals, JoinSet<()>) {
    let (sender, arrivals) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for mut socket in sockets {
        let sender = sender.clone();
        listening.spawn(async move {
            loop {
                let change = next(&mut socket).await;
                let at = clock::instant();
                if change.contains("\"change\"") && sender.send((id_of(&change), at)).is_err() {
                    return;
                }
            }
        });
    }
    (arrivals, listening)
}

fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    sorted.get(sorted.len() * hundredths / 100).or(sorted.last()).copied().unwrap_or(f64::NAN)
}

fn say_latency(report: &mut Report, what: &str, mut millis: Vec<f64>, most: [f64; 2]) {
    millis.sort_by(f64::total_cmp);
    for (hundredths, most) in [50, 99].into_iter().zip(most) {
        let found = percentile(&millis, hundredths);
        let holds = verdict(found < most);
        let verdict = if most.is_finite() { format!("{holds}, under {most} ms") } else { String::new() };
        report.add(&format!("{what}, p{hundredths}"), &[found], |value| format!("{value:.2} ms"), verdict);
    }
}

async fn measure() {
    let directory = directory();
    let mut bench = Bench::begin(directory.path()).await;
    let mut report = Report::default();
    if is_wanted("fan-out") {
        fan_out(&mut bench, &mut report).await;
        fan_out_shared(&mut bench, &mut report).await;
    }
    if is_wanted("paced") {
        paced(&mut bench, &mut report).await;
    }
    if is_wanted("many") {
        beside_others(&mut bench, &mut report).await;
    }
    if is_wanted("catch-up") {
        catching_up(&mut bench, &mut report).await;
    }
    if is_wanted("queries") {
        beside_queries(&mut bench, &mut report).await;
    }
    if is_wanted("reconnect") {
        reconnecting(&mut bench, &mut report).await;
    }
    report.print();
}

/// One subscriber, a thousand writes a second.
async fn paced(bench: &mut Bench, report: &mut Report) {
    let token = bench.tokens.first().cloned().expect("a user");
    let mut socket = bench.connect(&token).await;
    subscribe(&mut socket, "s", "SELECT * FROM bench.own").await;
    let (mut arrivals, _listening) = listen(vec![socket]);
    let millis = paced_latencies(bench, &token, &mut arrivals).await;
    say_latency(report, "HTTP INSERT to notification, 1,000 a second", millis, [1.0, 5.0]);
}

/// The same beside two queries that take a core each.
async fn beside_queries(bench: &mut Bench, report: &mut Report) {
    let token = bench.tokens.first().cloned().expect("a user");
    let mut socket = bench.connect(&token).await;
    subscribe(&mut socket, "s", "SELECT * FROM bench.own").await;
    let (mut arrivals, _listening) = listen(vec![socket]);
    let (other, url) = (bench.root.clone(), format!("http://{}/v1/api/sql", bench.address));
    let mut querying = JoinSet::new();
    for _ in 0..2 {
        let query = bench.http.post(&url).bearer_auth(&other).json(&json!({ "sql": HEAVY }));
        querying.spawn(async move {
            loop {
                let answer = query.try_clone().expect("its body is bytes").send().await.expect("it answers");
                assert!(answer.status().is_success());
            }
        });
    }
    let millis = paced_latencies(bench, &token, &mut arrivals).await;
    assert_eq!(querying.len(), 2, "they still run");
    querying.shutdown().await;
    say_latency(report, "… beside two queries without end", millis, [f64::INFINITY; 2]);
}

/// Milliseconds from each of some writes to its notification.
async fn paced_latencies(bench: &mut Bench, token: &str, arrivals: &mut Arrivals) -> Vec<f64> {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / WRITES_PER_SECOND));
    let (mut begun, first) = (Vec::new(), bench.next_id + 1);
    for _ in 0..WRITES_PER_SECOND * SECONDS {
        ticks.tick().await;
        begun.push(clock::instant());
        let id = bench.next_id();
        bench
            .sql(token, "INSERT INTO bench.own VALUES ($1, -1, 'a row of a hundred bytes')", &[json!(id)])
            .await;
    }
    let mut millis = Vec::new();
    for _ in 0..begun.len() {
        let (id, at) = arrivals.recv().await.expect("it listens");
        let begun = usize::try_from(id - first).ok().and_then(|at| begun.get(at)).expect("one of these rows");
        millis.push(at.saturating_duration_since(*begun).as_secs_f64() * 1e3);
    }
    millis
}

/// One row to a thousand connections, and to a thousand sockets of a server that only writes.
async fn fan_out(bench: &mut Bench, report: &mut Report) {
    let mut sockets = connect_all(bench).await;
    let before = bench.memory();
    let mut more = connect_all(bench).await;
    more.extend(connect_all(bench).await);
    let idle = (bench.memory() - before) / count(more.len());
    drop(more);
    let holds = verdict(idle <= 20.0);
    report.add("KiB of an idle connection", &[idle], |it| format!("{it:.1}"), format!("{holds}, at most 20"));
    for socket in &mut sockets {
        subscribe(socket, "s", "SELECT * FROM bench.everyone").await;
    }
    let streams = sockets.into_iter().map(|socket| match socket.into_inner() {
        MaybeTlsStream::Plain(stream) => stream,
        _ => unreachable!("it is not encrypted"),
    });
    let (plain, plain_streams) = Plain::start(CONNECTIONS).await;
    let (mut arrivals, _listening) = sockets::listen(streams.collect());
    let (mut plain_arrivals, _plain_listening) = sockets::listen(plain_streams);
    let (mut millis, mut plain_millis) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        millis.push(row_to_all(bench, &mut arrivals).await);
        let begun = clock::instant();
        plain.write(bench.next_id(), CHANGE_BYTES);
        plain_millis.push(until_all(&mut plain_arrivals, begun).await);
    }
    say_latency(report, "one row to 1,000 subscribers, the last one", millis, [f64::INFINITY, 10.0]);
    say_latency(
        report,
        "… the same bytes to 1,000 sockets, by a server that only writes",
        plain_millis,
        [f64::INFINITY; 2],
    );
}

/// One row to as many subscriptions, a hundred on each connection.
async fn fan_out_shared(bench: &mut Bench, report: &mut Report) {
    let mut sockets = Vec::new();
    for token in bench.tokens.iter().take(CONNECTIONS / SUBSCRIPTIONS) {
        sockets.push(bench.connect(token).await);
    }
    for nth in 0..SUBSCRIPTIONS {
        for socket in &mut sockets {
            subscribe(socket, &format!("s{nth}"), "SELECT * FROM bench.everyone").await;
        }
    }
    let (mut arrivals, _listening) = listen(sockets);
    let mut millis = Vec::new();
    for _ in 0..SAMPLES {
        millis.push(row_to_all(bench, &mut arrivals).await);
    }
    let most = [f64::INFINITY, 10.0];
    say_latency(report, "one row to 1,000 subscribers on 10 connections, the last one", millis, most);
}

/// Milliseconds from a row that all want until the last one has it.
async fn row_to_all(bench: &mut Bench, arrivals: &mut Arrivals) -> f64 {
    let id = bench.next_id();
    let begun = clock::instant();
    let insert = "INSERT INTO bench.everyone VALUES ($1, 'one row to all of them')";
    bench.sql(&bench.root, insert, &[json!(id)]).await;
    until_all(arrivals, begun).await
}

async fn connect_all(bench: &Bench) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for token in &bench.tokens {
        sockets.push(bench.connect(token).await);
    }
    sockets
}

/// Milliseconds until the last of all connections has it.
async fn until_all(arrivals: &mut Arrivals, begun: std::time::Instant) -> f64 {
    let mut last = begun;
    for _ in 0..CONNECTIONS {
        last = last.max(arrivals.recv().await.expect("it listens").1);
    }
    last.saturating_duration_since(begun).as_secs_f64() * 1e3
}

/// One subscription that matches among a hundred, and among a hundred thousand.
async fn beside_others(bench: &mut Bench, report: &mut Report) {
    let token = bench.tokens.first().cloned().expect("a user");
    let mut socket = bench.connect(&token).await;
    for room in 0..SUBSCRIPTIONS {
        subscribe(&mut socket, &format!("s{room}"), &of_room(room)).await;
    }
    let (mut arrivals, listening) = listen(vec![socket]);
    let alone = latencies(bench, &token, &mut arrivals).await;
    drop((arrivals, listening));
    let mut sockets = Vec::new();
    for token in &bench.tokens {
        sockets.push(bench.connect(token).await);
    }
    // Memory that was freed before is used first.
    let first = SUBSCRIPTIONS / 4;
    let sockets = subscribe_all(sockets, 0..first).await;
    let before = bench.memory();
    let sockets = subscribe_all(sockets, first..SUBSCRIPTIONS).await;
    let each = (bench.memory() - before) / count(CONNECTIONS * (SUBSCRIPTIONS - first));
    let holds = verdict(each <= 2.0);
    report.add(
        "KiB of a further subscription",
        &[each],
        |it| format!("{it:.2}"),
        format!("{holds}, at most 2"),
    );
    let (mut arrivals, mut listening) = listen(sockets);
    let among = latencies(bench, &token, &mut arrivals).await;
    assert!(listening.try_join_next().is_none(), "a connection was lost");
    report.micros("write to notification, 100 subscriptions", &alone);
    report.micros("… 100,000 on 1,000 connections", &among);
    report.ratio("100,000 subscriptions / 100", &among, &alone, 0.0..1.2);
}

/// Subscribes on each socket to each of these rooms.
async fn subscribe_all(sockets: Vec<Socket>, rooms: std::ops::Range<usize>) -> Vec<Socket> {
    let subscribing = sockets.into_iter().map(|mut socket| {
        let rooms = rooms.clone();
        async move {
            for room in rooms {
                subscribe(&mut socket, &format!("s{room}"), &of_room(room)).await;
            }
            socket
        }
    });
    subscribing.collect::<JoinSet<_>>().join_all().await
}

fn of_room(room: usize) -> String {
    format!("SELECT * FROM bench.own WHERE room = {room}")
}

/// Microseconds from a write to the one notification of it, in rounds.
async fn latencies(bench: &mut Bench, token: &str, arrivals: &mut Arrivals) -> Vec<f64> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut micros = Vec::new();
        for sample in 0..SAMPLES {
            let id = bench.next_id();
            let begun = clock::instant();
            let params = [json!(id), json!(sample % SUBSCRIPTIONS)];
            bench.sql(token, "INSERT INTO bench.own VALUES ($1, $2, 'for one of them')", &params).await;
            let (_, at) = arrivals.recv().await.expect("it listens");
            micros.push(at.saturating_duration_since(begun).as_secs_f64() * 1e6);
        }
        rounds.push(median(&micros));
    }
    rounds
}

/// Ten thousand connections that break and come back at once, each to go on where it was, beside one who writes.
async fn reconnecting(bench: &mut Bench, report: &mut Report) {
    let token = bench.tokens.first().cloned().expect("a user");
    let from = snapshot_seq(bench, &token).await;
    let connections = come(bench, &from).await;
    // On a thread of its own: it is not to wait for what those who come do themselves.
    let (told, orders) = std::sync::mpsc::channel();
    let (address, first) = (bench.address.clone(), bench.next_id + 1);
    let writing = std::thread::spawn(move || write_until(&address, &token, first, &orders));
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(connections);
    told.send(()).expect("it writes");
    let begun = clock::instant();
    let connections = come(bench, &from).await;
    let took = begun.elapsed().as_secs_f64();
    told.send(()).expect("it writes");
    let (before, during) = writing.join().expect("it writes");
    drop(connections);
    bench.next_id = first + i64::try_from(before.len() + during.len()).expect("few enough");
    let seconds = |it: f64| format!("{it:.2} s");
    report.add("10,000 connections come back, all go on after", &[took], seconds, String::new());
    let rate = count(during.len()) / took;
    report.add("… writes meanwhile, one by one", &[rate], |it| format!("{it:.0}/s"), String::new());
    say_latency(report, "… an HTTP INSERT before", before, [f64::INFINITY; 2]);
    say_latency(report, "… an HTTP INSERT meanwhile", during, [f64::INFINITY; 2]);
}

/// Writes row by row; gives the milliseconds that each took, up to the first order and up to the second.
fn write_until(address: &str, token: &str, first: i64, orders: &Receiver<()>) -> (Vec<f64>, Vec<f64>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client is made");
        let url = format!("http://{address}/v1/api/sql");
        let (mut millis, mut ids) = ([Vec::new(), Vec::new()], first..);
        for millis in &mut millis {
            while orders.try_recv().is_err() {
                let begun = clock::instant();
                let params = [json!(ids.next())];
                let sql = "INSERT INTO bench.own VALUES ($1, -1, 'beside the others')";
                let request =
                    http.post(&url).bearer_auth(token).json(&json!({ "sql": sql, "params": params }));
                let answer = request.send().await.expect("it answers");
                assert!(answer.status().is_success());
                answer.bytes().await.expect("it is read");
                millis.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [before, during] = millis;
        (before, during)
    })
}

/// Ten thousand connections, all at once, each with a subscription that goes on after a seq. Each lives for as long as its task.
async fn come(bench: &Bench, from: &Json) -> JoinSet<()> {
    let (mut connections, come) = (JoinSet::new(), Arc::new(Semaphore::new(0)));
    for number in 0..RECONNECTING {
        let (address, token) = (bench.address.clone(), bench.tokens[number % CONNECTIONS].clone());
        let (from, come) = (from.clone(), Arc::clone(&come));
        connections.spawn(async move {
            let mut socket = connect(&address, &token).await;
            ask(&mut socket, "SELECT * FROM bench.own", &json!({ "from": from })).await;
            assert!(next(&mut socket).await.contains("subscription_ack"));
            come.add_permits(1);
            loop {
                next(&mut socket).await;
            }
        });
    }
    let all = u32::try_from(RECONNECTING).expect("few enough");
    come.acquire_many(all).await.expect("it stays open").forget();
    connections
}

/// Asks for a subscription, with options.
async fn ask(socket: &mut Socket, sql: &str, options: &Json) {
    let subscription = json!({ "id": "s", "sql": sql, "options": options });
    let message = json!({ "type": "subscribe", "subscription": subscription }).to_string();
    socket.send(Message::text(message)).await.expect("it takes a message");
}

/// The seq that a subscription begins with now.
async fn snapshot_seq(bench: &Bench, token: &str) -> Json {
    let mut socket = bench.connect(token).await;
    ask(&mut socket, "SELECT id FROM bench.own", &json!({ "last_rows": 0 })).await;
    let ack: Json = serde_json::from_str(&next(&mut socket).await).expect("JSON");
    ack["snapshot_seq"].clone()
}

/// One who was away for a quarter of a million changes, each a commit of its own.
async fn catching_up(bench: &mut Bench, report: &mut Report) {
    let token = Arc::new(bench.tokens.last().cloned().expect("a user"));
    let from = snapshot_seq(bench, &token).await;
    let bench = &*bench;
    let first = bench.next_id + 1;
    let mut writing = Vec::new();
    for writer in 0..32 {
        let token = Arc::clone(&token);
        writing.push(async move {
            for at in (writer..MISSED).step_by(32) {
                let id = json!(first + i64::try_from(at).expect("few enough"));
                bench.sql(&token, "INSERT INTO bench.own VALUES ($1, 1, 'missed')", &[id]).await;
            }
        });
    }
    futures_util::future::join_all(writing).await;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let mut socket = bench.connect(&token).await;
        let begun = clock::instant();
        ask(&mut socket, "SELECT id FROM bench.own", &json!({ "from": from })).await;
        let mut left = MISSED;
        while left > 0 {
            left -= usize::from(next(&mut socket).await.contains("\"change\""));
        }
        rates.push(count(MISSED) / begun.elapsed().as_secs_f64());
    }
    let holds = verdict(median(&rates) >= 200_000.0);
    report.add(
        "changes caught up with over one socket",
        &rates,
        |it| format!("{it:.0}/s"),
        format!("{holds}, at least 200,000/s"),
    );
}

#[expect(clippy::cast_precision_loss, reason = "a count that a figure is divided by")]
fn count(number: usize) -> f64 {
    number as f64
}
