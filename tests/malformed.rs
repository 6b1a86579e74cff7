//! What no client should send. Each is answered with a typed error, and server and connection go on.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Api, Server, Socket, in_time};

/// A frame whose mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    crate::support::frame(first, payload, 0)
}

/// A server with the table `app.notes` and someone to use it.
async fn setup() -> (Server, Api) {
    let server = Server::start().await;
    let root = server.root().await;
    root.sql("CREATE NAMESPACE app").await;
    root.sql("CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT NOT NULL)").await;
    (server, root)
}

async fn check_alive(api: &Api) {
    assert_eq!(api.rows("SELECT 1").await, [json!(["1"])]);
}

/// Refused by the client's fault, with one of these codes.
async fn check_sql(api: &Api, sql: &str, codes: &[&str]) {
    let answer = api.try_sql(sql, &[]).await;
    let shown: String = sql.chars().take(100).collect();
    assert!((400..500).contains(&answer.status), "{shown}: {answer:?}");
    assert!(codes.contains(&answer.code()), "{shown}: {answer:?}");
    assert_eq!(answer.body["status"], "error");
    assert!(!answer.body["error"]["message"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_sql_is_refused() {
    let (_server, api) = setup().await;
    for sql in ["", "   ", ";;", "-- nothing", "/* nothing */"] {
        check_sql(&api, sql, &["EMPTY_SQL", "INVALID_SQL"]).await;
    }
    for sql in [
        "SELECT",
        "SELEC 1",
        "SELECT 'unterminated",
        "SELECT \"unterminated",
        "SELECT 1 /* unterminated",
        "SELECT $tag$ unterminated",
        "SELECT ((1)",
        "SELECT \u{0}",
        "INSERT INTO app.notes VALUES",
        "INSERT INTO app.notes (id, body, nothing) VALUES (1, 'a', 2)",
        "INSERT INTO app.notes (id, id) VALUES (1, 2)",
        "UPDATE app.notes SET nothing = 1",
        "UPDATE app.notes SET id",
        "SELECT nothing FROM app.notes",
        "SELECT nothing(1)",
        "CREATE USER TABLE app.x (id BIGINT PRIMARY KEY, id BIGINT)",
        "CREATE USER TABLE app.x (id NONSENSE PRIMARY KEY)",
    ] {
        let codes = ["INVALID_SQL", "UNSUPPORTED", "CONSTRAINT_VIOLATION"];
        check_sql(&api, sql, &codes).await;
    }
    check_sql(&api, "SELECT * FROM app.nothing", &["TABLE_NOT_FOUND"]).await;
    check_sql(&api, "SELECT * FROM nothing.nothing", &["TABLE_NOT_FOUND", "NAMESPACE_NOT_FOUND"]).await;
    check_sql(
        &api,
        "INSERT INTO app.notes (id, body) VALUES ('x', 'a')",
        &["CONSTRAINT_VIOLATION", "INVALID_SQL", "SQL_EXECUTION_ERROR"],
    )
    .await;
    check_sql(&api, "INSERT INTO app.notes (id, body) VALUES (1, NULL)", &["CONSTRAINT_VIOLATION"]).await;
    check_sql(
        &api,
        "INSERT INTO app.notes (id, body) VALUES (9223372036854775808, 'a')",
        &["CONSTRAINT_VIOLATION", "INVALID_SQL", "SQL_EXECUTION_ERROR"],
    )
    .await;
    check_sql(&api, "SELECT 1 / 0", &["SQL_EXECUTION_ERROR", "INVALID_SQL"]).await;
    for sql in [
        "SELECT body FROM app.notes; ; SELECT",
        "INSERT INTO app.notes (id, body) VALUES (1, 'a'); SELEC 2",
        "SELEC 1; SELECT 2",
        "SELECT 1; SELECT 2 3",
    ] {
        check_sql(&api, sql, &["BATCH_PARSE_ERROR"]).await;
    }
    assert_eq!(api.rows("SELECT COUNT(*) FROM app.notes").await, [json!(["0"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_before_a_failure_keep_their_results() {
    let (_server, api) = setup().await;
    let sql = "INSERT INTO app.notes (id, body) VALUES (1, 'a'); SELECT * FROM app.nothing; SELECT 2";
    let answer = api.try_sql(sql, &[]).await;
    assert_eq!((answer.status, answer.code()), (404, "TABLE_NOT_FOUND"), "{answer:?}");
    assert_eq!(answer.body["results"].as_array().unwrap().len(), 1);
    assert_eq!(api.rows("SELECT id FROM app.notes").await, [json!(["1"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_huge_sql_neither_overflows_nor_stalls() {
    let (_server, api) = setup().await;
    let deep = 20_000;
    let nested = |open: &str, inner: &str, close: &str| {
        format!("SELECT {}{inner}{}", open.repeat(deep), close.repeat(deep))
    };
    for sql in [
        nested("(", "1", ")"),
        nested("abs(", "1", ")"),
        nested("NOT ", "true", ""),
        nested("- ", "1", ""),
        nested("CASE WHEN true THEN ", "1", " END"),
        nested("(SELECT ", "1", ")"),
        format!("SELECT 1{}", " + 1".repeat(deep)),
        format!("SELECT * FROM app.notes WHERE {}", vec!["id = 1"; deep].join(" OR ")),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(2_000)),
        format!("SELECT '{}'", "x".repeat(1 << 20)),
        format!("SELECT {}", "x".repeat(1 << 20)),
        format!("SELECT [{}", "[".repeat(deep)),
        ";".repeat(100_000),
    ] {
        let answer = api.try_sql(&sql, &[]).await;
        let shown: String = sql.chars().take(40).collect();
        assert!(answer.status < 500, "{shown}: {answer:?}");
        check_alive(&api).await;
    }
    let answer = api.try_sql(&format!("SELECT {}", "[".repeat(3)), &[]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

/// Forms whose operand is repeated when they are rewritten or optimized, nested so deeply that each level doubling the statement would
/// never end.
#[tokio::test(flavor = "multi_thread")]
async fn nested_forms_that_repeat_their_operand_are_answered_or_refused() {
    let (_server, api) = setup().await;
    let nested = |levels: usize, innermost: &str, form: &str| {
        (0..levels).fold(innermost.to_owned(), |inner, _| form.replace('@', &inner))
    };
    let of_v = |expr: String| format!("SELECT {expr} FROM (VALUES (1), (2)) t(v)");
    let mut statements = vec![
        of_v(format!("v{}", " BETWEEN SYMMETRIC 0 AND 2 = true AND v".repeat(40))),
        of_v(nested(40, "true", "(@ BETWEEN SYMMETRIC false AND true)")),
        of_v(nested(15, "v", "((@ BETWEEN 0 AND 1.5)::int)")),
        of_v(nested(15, "v", "((@ IN (1.0::float8, 2))::int)")),
        of_v(nested(30, "v", "coalesce(@, 2.5, 3::float8)")),
        of_v(nested(20, "true", "((@, 1) < (true, 2))")),
        of_v(nested(20, "true", "((@, 1) IN (SELECT true, 1))")),
        of_v(nested(40, "v", "(CASE @ WHEN 1 THEN 1 ELSE 2 END")),
        of_v(nested(15, "v", "(SELECT max(x) + @ FROM (VALUES (1)) u(x) WHERE x <= v)")),
        format!(
            "SELECT a FROM {}",
            nested(20, "(SELECT 1 AS a)", "(SELECT a + a AS a FROM @ s WHERE a > 0)")
        ),
    ];
    let joins = |kind: &str| (1..30).map(|at| kind.replace('@', &at.to_string())).collect::<String>();
    statements.push(format!(
        "SELECT count(*) FROM (SELECT 1 a) t0{}",
        joins(" FULL JOIN (SELECT 1 a) t@ USING (a)")
    ));
    statements
        .push(format!("SELECT 1 FROM (SELECT 1 a) t0{}", joins(" CROSS JOIN LATERAL (SELECT t0.a) t@")));
    let columns =
        |column: &str| (0..30).map(|at| column.replace('@', &at.to_string())).collect::<Vec<_>>().join(", ");
    statements.push(of_v(columns("(SELECT max(x) + @ FROM (VALUES (1)) u(x) WHERE x < v)")));
    statements.push(format!(
        "SELECT 1 FROM (SELECT {}) t GROUP BY CUBE ({})",
        columns("1 AS c@"),
        columns("c@")
    ));
    for sql in statements {
        let answer = api.try_sql(&sql, &[]).await;
        let shown: String = sql.chars().take(100).collect();
        let is_refused = ["UNSUPPORTED", "INVALID_SQL"].contains(&answer.code());
        assert!(answer.status == 200 || is_refused, "{shown}: {answer:?}");
        check_alive(&api).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_checked() {
    let (_server, api) = setup().await;
    let insert = "INSERT INTO app.notes (id, body) VALUES ($1, $2)";
    for (sql, params) in [
        (insert, vec![json!(1)]),
        (insert, vec![json!("x"), json!("a")]),
        (insert, vec![json!(1.5), json!("a")]),
        (insert, vec![json!({ "a": 1 }), json!("a")]),
        (insert, vec![Value::Null, json!("a")]),
        ("SELECT $0", vec![json!(1)]),
        ("SELECT $99999999999999999999", vec![json!(1)]),
        ("SELECT 1; SELECT $1", vec![json!(1)]),
    ] {
        let answer = api.try_sql(sql, &params).await;
        assert!((400..500).contains(&answer.status), "{sql} {params:?}: {answer:?}");
    }
    // Text is text: nothing in a parameter is SQL.
    let hostile = "'); DELETE FROM app.notes; --";
    api.sql_with(insert, &[json!(1), json!(hostile)]).await;
    assert_eq!(api.rows("SELECT body FROM app.notes").await, [json!([hostile])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_is_refused() {
    let (server, api) = setup().await;
    for (body, code) in [
        (&b""[..], "PROTOCOL"),
        (b"{", "PROTOCOL"),
        (b"null", "PROTOCOL"),
        (b"[]", "PROTOCOL"),
        (b"{}", "PROTOCOL"),
        (b"{\"sql\": 1}", "PROTOCOL"),
        (b"{\"sql\": \"SELECT 1\", \"params\": 1}", "PROTOCOL"),
        (b"{\"sql\": \"\xff\"}", "PROTOCOL"),
        (b"\x00\x01\x02", "PROTOCOL"),
    ] {
        let answer = api.post_bytes("/v1/api/sql", body.to_vec()).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{body:?}: {answer:?}");
    }
    let nested = "[".repeat(1 << 20).into_bytes();
    assert_eq!(api.post_bytes("/v1/api/sql", nested).await.status, 400);
    let oversized = vec![b' '; 17 << 20];
    let answer = api.post_bytes("/v1/api/sql", oversized).await;
    assert_eq!((answer.status, answer.code()), (413, "MESSAGE_TOO_LARGE"), "{answer:?}");
    for (path, status) in [("/nothing", 404), ("/v1/api/nothing", 404), ("/v1/api/sql", 405), ("/v1/ws", 400)]
    {
        assert_eq!(api.get(path).await.status, status, "{path}");
    }
    let mut raw = tokio::net::TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    raw.write_all(b"NONSENSE\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    in_time("the end of a nonsensical connection", raw.read_to_end(&mut answer)).await.unwrap();
    check_alive(&api).await;
    for path in ["/health", "/healthcheck", "/v1/api/healthcheck", "/v1/api/health", "/ready"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, &answer.body["status"]), (200, &json!("healthy")), "{path}");
    }
    let metrics = api.get("/metrics").await;
    assert!(metrics.body.as_str().unwrap().contains("kalamdb_http_requests_total"), "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_and_tokens_are_refused() {
    let (server, api) = setup().await;
    let anonymous = Api::anonymous(&server);
    for (user, password) in [("root", "wrong"), ("nobody", "wrong"), ("", ""), ("root", "")] {
        let answer =
            anonymous.post("/v1/api/auth/login", json!({ "user": user, "password": password })).await;
        assert_eq!((answer.status, answer.code()), (401, "UNAUTHORIZED"), "{user}: {answer:?}");
    }
    let answer = anonymous.try_sql("SELECT 1", &[]).await;
    assert_eq!((answer.status, answer.code()), (401, "AUTH_REQUIRED"), "{answer:?}");

    let parts: Vec<&str> = api.token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    let refresh = anonymous
        .post("/v1/api/auth/login", json!({ "user": "root", "password": crate::support::ROOT_PASSWORD }))
        .await
        .body["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    for token in [
        "x".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(10_000),
        unsigned,
        format!("{header}.{claims}.{}", signature.chars().rev().collect::<String>()),
        format!("{header}.{claims}"),
        refresh,
    ] {
        let answer = anonymous.with_token(&token).try_sql("SELECT 1", &[]).await;
        assert_eq!((answer.status, answer.code()), (401, "UNAUTHORIZED"), "{token}: {answer:?}");
        assert_eq!(Socket::open(&server, "", &token).await.err(), Some(401), "{token}");
    }
    // A user that was dropped, and a new one of the same name, have nothing to do with old tokens.
    let alice = server.user(&api, "alice").await;
    check_alive(&alice).await;
    api.sql("DROP USER alice").await;
    assert_eq!(alice.try_sql("SELECT 1", &[]).await.code(), "UNAUTHORIZED");
    server.user(&api, "alice").await;
    assert_eq!(alice.try_sql("SELECT 1", &[]).await.code(), "UNAUTHORIZED");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The connection is still good for something.
async fn check_goes_on(socket: &mut Socket, id: &str) {
    let (ack, rows) = socket.snapshot(id, "SELECT * FROM app.notes", json!({})).await;
    assert_eq!((&ack["total_rows"], rows.len()), (&json!(0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_are_answered_and_the_connection_goes_on() {
    let (server, api) = setup().await;
    let text = |text: &str| Message::text(text.to_owned());
    // Made before connecting: a client that is busy for long gives no sign of life.
    let frames = [
        (text(""), "PROTOCOL"),
        (text("{"), "PROTOCOL"),
        (text("null"), "PROTOCOL"),
        (text("[]"), "PROTOCOL"),
        (text("{}"), "PROTOCOL"),
        (text(r#"{"type":"nonsense"}"#), "PROTOCOL"),
        (text(r#"{"type":"subscribe"}"#), "PROTOCOL"),
        (
            text(r#"{"type":"subscribe","subscription":{"id":"a","sql":"SELECT 1","options":{"from":-1}}}"#),
            "PROTOCOL",
        ),
        (text(&"[".repeat(100_000)), "PROTOCOL"),
        (text(&" ".repeat((1 << 20) + 1)), "MESSAGE_TOO_LARGE"),
        (Message::binary(vec![0, 1, 2]), "UNSUPPORTED_DATA"),
        (Message::binary(vec![0x1f, 0x8b, 0, 0]), "UNSUPPORTED_DATA"),
        (Message::binary(gzip(b"{")), "PROTOCOL"),
        // 100 MiB of nothing, in 100 kB.
        (Message::binary(gzip(&vec![b' '; 100 << 20])), "MESSAGE_TOO_LARGE"),
        (text(r#"{"type":"next_batch","subscription_id":"nothing"}"#), "NOT_FOUND"),
        (text(r#"{"type":"unsubscribe","subscription_id":"nothing"}"#), "NOT_FOUND"),
    ];
    let mut socket = Socket::connect(&server, &api.token).await;
    for (frame, code) in frames {
        let shown: String = format!("{frame:?}").chars().take(120).collect();
        socket.send_frame(frame).await;
        let message = socket.next().await;
        assert_eq!(message["code"], code, "{shown}: {message}");
    }
    socket.send_frame(Message::binary(gzip(br#"{"type":"ping"}"#))).await;
    assert_eq!(socket.next().await["type"], "pong");
    check_goes_on(&mut socket, "fine").await;
    // Far too large: the frame is not even read to its end.
    let mut doomed = Socket::connect(&server, &api.token).await;
    doomed.try_send_frame(Message::text(" ".repeat(5 << 20))).await;
    while let Some(message) = doomed.next_or_end().await {
        assert_eq!(message["code"], "MESSAGE_TOO_LARGE", "{message}");
    }
    check_goes_on(&mut socket, "still fine").await;
}

/// An error message with this code, then a close frame that says the same, then the end.
async fn check_end(socket: &mut Socket, shown: &str, code: &str, close: u16) {
    let mut told = false;
    loop {
        match socket.next_frame().await {
            Some(Ok(Message::Text(text))) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(message["code"], code, "{shown}: {message}");
                told = true;
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                assert!(told, "{shown}: no error came before the close");
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (close, code), "{shown}");
                return;
            }
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("{shown}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cannot_be_read_end_the_connection_with_a_code() {
    let (server, api) = setup().await;
    let cases = [
        ("a reserved opcode", frame(0x83, b""), "PROTOCOL", 1002),
        ("a reserved bit", frame(0xc1, b"{}"), "PROTOCOL", 1002),
        ("a fragmented ping", frame(0x09, b"x"), "PROTOCOL", 1002),
        ("a ping of 126 bytes", frame(0x89, &[b'x'; 126]), "PROTOCOL", 1002),
        ("a continuation of nothing", frame(0x80, b"x"), "PROTOCOL", 1002),
        ("no mask", vec![0x81, 2, b'{', b'}'], "PROTOCOL", 1002),
        ("text that is not UTF-8", frame(0x81, b"\xff\xfe"), "UNSUPPORTED_DATA", 1007),
        (
            "text cut within a character",
            [frame(0x01, b"\xce"), frame(0x80, b"a")].concat(),
            "UNSUPPORTED_DATA",
            1007,
        ),
        ("a length of five MiB", frame(0x81, &vec![b' '; 5 << 20])[..14].to_vec(), "MESSAGE_TOO_LARGE", 1009),
    ];
    for (shown, bytes, code, close) in cases {
        for token in [api.token.as_str(), ""] {
            let mut socket = Socket::open(&server, "compress=false", token).await.unwrap();
            if !token.is_empty() {
                assert_eq!(socket.next().await["type"], "auth_success");
            }
            socket.try_send_bytes(&bytes).await.unwrap();
            check_end(&mut socket, shown, code, close).await;
        }
    }
    check_alive(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_subscriptions_are_answered_by_name() {
    let (server, api) = setup().await;
    let mut socket = Socket::connect(&server, &api.token).await;
    for (sql, codes) in [
        ("", &["INVALID_SQL"][..]),
        ("SELECT", &["INVALID_SQL"]),
        ("SELECT * FROM app.nothing", &["TABLE_NOT_FOUND"]),
        ("SELECT nothing FROM app.notes", &["INVALID_SQL"]),
        ("SELECT COUNT(DISTINCT body) FROM app.notes", &["UNSUPPORTED"]),
        ("SELECT * FROM app.notes LIMIT 1", &["UNSUPPORTED"]),
        ("SELECT * FROM app.notes; SELECT * FROM app.notes", &["UNSUPPORTED", "INVALID_SQL"]),
        ("INSERT INTO app.notes VALUES (1, 'a')", &["UNSUPPORTED", "INVALID_SQL"]),
    ] {
        socket.subscribe("s", sql, json!({})).await;
        let message = socket.next().await;
        assert_eq!(
            (&message["type"], &message["subscription_id"]),
            (&json!("error"), &json!("s")),
            "{message}"
        );
        assert!(codes.contains(&message["code"].as_str().unwrap()), "{sql}: {message}");
    }
    for id in ["", "a\u{7}b", &"x".repeat(300)] {
        socket.subscribe(id, "SELECT * FROM app.notes", json!({})).await;
        socket.expect_error("INVALID_SUBSCRIPTION_ID").await;
    }
    check_goes_on(&mut socket, "s").await;
    socket.subscribe("s", "SELECT * FROM app.notes", json!({})).await;
    socket.expect_error("INVALID_SUBSCRIPTION_ID").await;
    socket.send(json!({ "type": "next_batch", "subscription_id": "s" })).await;
    let answer = socket.next().await;
    assert!(answer["warnings"][0].as_str().unwrap().contains("next_batch is ignored"), "{answer}");
    socket.subscribe("ahead", "SELECT * FROM app.notes", json!({ "from": u32::MAX })).await;
    let message = socket.expect_error("RESYNC_REQUIRED").await;
    assert!(message["floor"].is_u64() && message["end"].is_u64(), "{message}");
    let options = json!({ "from": u32::MAX, "on_gap": "snapshot" });
    socket.snapshot("ahead", "SELECT * FROM app.notes", options).await;
}
