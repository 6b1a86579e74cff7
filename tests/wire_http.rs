//! HTTP beside SQL, and how a connection is written on: accounts, namespaces, Arrow, origins, MessagePack, compression.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Api, ROOT_PASSWORD, Server, Socket, in_time};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_say_who_one_is_and_refresh() {
    let (server, root) = Server::with_notes("").await;
    let nobody = Api::anonymous(&server);
    let status = nobody.get("/v1/api/auth/status").await;
    assert_eq!((status.status, &status.body["needs_setup"]), (200, &json!(false)));
    root.sql("CREATE USER ann WITH PASSWORD 'password of ann' ROLE user").await;
    let credentials = json!({ "user": "ann", "password": "password of ann" });
    let login = nobody.post("/v1/api/auth/login", credentials).await;
    assert_eq!((login.status, &login.body["admin_ui_access"]), (200, &json!(false)), "{login:?}");
    let (access, refresh) =
        ["access_token", "refresh_token"].map(|name| login.body[name].as_str().unwrap()).into();
    let (ann, renewing) = (nobody.with_token(access), nobody.with_token(refresh));

    let me = ann.get("/v1/api/auth/me").await;
    assert_eq!((me.status, &me.body), (200, &login.body["user"]));
    assert_eq!((&me.body["id"], &me.body["role"]), (&json!("ann"), &json!("user")));
    assert!(me.body["created_at"].as_str().unwrap().ends_with('Z'), "{me:?}");
    let out = ann.post("/v1/api/auth/logout", json!({})).await;
    assert_eq!(out.status, 200);
    assert!(out.body["message"].as_str().unwrap().contains("logged out"), "{out:?}");

    // A refresh token is good for new tokens alone, an access token for all else.
    let renewed = renewing.post("/v1/api/auth/refresh", json!({})).await;
    assert_eq!((renewed.status, &renewed.body["user"]["id"]), (200, &json!("ann")), "{renewed:?}");
    let newer = nobody.with_token(renewed.body["access_token"].as_str().unwrap());
    assert_eq!(newer.rows("SELECT current_user()").await, [json!(["ann"])]);
    assert!(renewed.body["refresh_expires_at"].as_str() > renewed.body["expires_at"].as_str());
    for refused in [
        ann.post("/v1/api/auth/refresh", json!({})).await,
        renewing.get("/v1/api/auth/me").await,
        renewing.post("/v1/api/auth/logout", json!({})).await,
        renewing.try_sql("SELECT 1", &[]).await,
    ] {
        assert_eq!((refused.status, refused.code()), (401, "UNAUTHORIZED"), "{refused:?}");
    }
    assert_eq!(Socket::open(&server, "", refresh).await.err(), Some(401));
    for route in ["auth/refresh", "auth/logout"] {
        let refused = nobody.post(&format!("/v1/api/{route}"), json!({})).await;
        assert_eq!((refused.status, refused.code()), (401, "AUTH_REQUIRED"), "{route}: {refused:?}");
    }
    assert_eq!(nobody.get("/v1/api/auth/me").await.code(), "AUTH_REQUIRED");
    // A user who is gone has no tokens either.
    root.sql("DROP USER ann").await;
    for refused in [ann.get("/v1/api/auth/me").await, renewing.post("/v1/api/auth/refresh", json!({})).await]
    {
        assert_eq!((refused.status, refused.code()), (401, "UNAUTHORIZED"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_who_it_is_for_and_names_are_of_the_namespace_asked_for() {
    let (_server, root) = Server::with_notes("").await;
    root.sql("CREATE USER ann WITH PASSWORD 'password of ann' ROLE user").await;
    let sql = "INSERT INTO notes VALUES (1, 'x'); SELECT id FROM notes; \
               EXECUTE AS USER 'ann' (SELECT count(*) AS n FROM notes)";
    let answer = root.post("/v1/api/sql", json!({ "sql": sql, "namespace_id": "app" })).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("success")), "{answer:?}");
    assert!(answer.body["took"].as_f64().unwrap() > 0.0, "{answer:?}");
    assert!(answer.body.get("error").is_none(), "{answer:?}");
    let results = &answer.body["results"];
    assert_eq!(
        results[1],
        json!({
            "schema": [{ "name": "id", "data_type": "BigInt", "index": 0 }],
            "rows": [["1"]],
            "row_count": 1,
            "as_user": "root",
        })
    );
    assert_eq!((&results[0]["as_user"], &results[0]["row_count"]), (&json!("root"), &json!(1)));
    assert_eq!((&results[2]["as_user"], &results[2]["rows"]), (&json!("ann"), &json!([["0"]])));
    let made = root.sql("CREATE NAMESPACE other").await;
    assert!(made["message"].as_str().is_some_and(|message| !message.is_empty()), "{made}");
    for namespace in [json!("other"), Value::Null] {
        let body = json!({ "sql": "SELECT id FROM notes", "namespace_id": namespace });
        let answer = root.post("/v1/api/sql", body).await;
        assert_eq!((answer.status, answer.code()), (404, "TABLE_NOT_FOUND"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_is_sent_to_who_takes_it_among_others() {
    let (server, root) = Server::with_notes("").await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let arrow = "application/vnd.apache.arrow.stream";
    for (accept, expected) in [
        ("application/json, application/vnd.apache.arrow.stream;q=0.9", arrow),
        ("Application/Vnd.Apache.Arrow.Stream", arrow),
        ("application/json", "application/json"),
        ("application/vnd.apache.arrow.streams", "application/json"),
        ("*/*", "application/json"),
    ] {
        for (sql, is_refused) in [("SELECT 1", false), ("SELECT", true)] {
            let request = http.post(format!("{}/v1/api/sql", server.url())).bearer_auth(&root.token);
            let request = request.header(ACCEPT, accept).json(&json!({ "sql": sql }));
            let response = in_time("an answer", request.send()).await.unwrap();
            // What went wrong is said in JSON.
            let expected = if is_refused { "application/json" } else { expected };
            assert_eq!(response.status().is_success(), !is_refused, "{accept}");
            assert_eq!(response.headers()[CONTENT_TYPE], expected, "{accept}: {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_not_connect() {
    let (server, root) = Server::with_notes("[server]\nallowed_origins = [\"https://app.example\"]\n").await;
    let from = async |origin| Socket::open_from(&server, "", &root.token, origin).await.err();
    for foreign in ["https://evil.example", "http://app.example", "https://app.example.evil", "null"] {
        assert_eq!(from(Some(foreign)).await, Some(403), "{foreign}");
    }
    assert_eq!(from(Some("https://app.example")).await, None);
    assert_eq!(from(None).await, None);
    // Without a list any may.
    let (server, root) = Server::with_notes("").await;
    assert!(Socket::open_from(&server, "", &root.token, Some("https://any.example")).await.is_ok());
}

/// The next message as it came, and what is in it.
async fn next(socket: &mut Socket, packed: bool) -> (Message, Value) {
    loop {
        let message = socket.next_frame().await.unwrap().unwrap();
        let bytes = match &message {
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Text(text) => return (message.clone(), serde_json::from_str(text).unwrap()),
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        let mut plain = Vec::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
        } else {
            plain = bytes;
        }
        let value = if packed {
            rmp_serde::from_slice(&plain).unwrap()
        } else {
            serde_json::from_slice(&plain).unwrap()
        };
        return (message, value);
    }
}

fn authenticate(token: &str, protocol: &Value) -> Value {
    json!({ "type": "authenticate", "method": "jwt", "token": token, "protocol": protocol })
}

#[tokio::test(flavor = "multi_thread")]
async fn message_pack_is_spoken_under_both_of_its_names() {
    let (server, root) = Server::with_notes("").await;
    root.sql("INSERT INTO app.notes VALUES (1, 'one')").await;
    for name in ["msgpack", "messagepack"] {
        let mut socket = Socket::open(&server, "", "").await.unwrap();
        let protocol = json!({ "serialization": name, "compression": "none" });
        socket.send(authenticate(&root.token, &protocol)).await;
        // Until both have agreed all is JSON.
        let success = socket.next().await;
        assert_eq!(success["type"], "auth_success");
        assert_eq!(
            success["protocol"],
            json!({ "serialization": "msgpack", "compression": "none" }),
            "{name}"
        );
        let subscription = json!({ "id": "s", "sql": "SELECT id, body FROM app.notes", "options": {} });
        let subscribe = json!({ "type": "subscribe", "subscription": subscription });
        socket.send_frame(Message::binary(rmp_serde::to_vec_named(&subscribe).unwrap())).await;
        for kind in ["subscription_ack", "initial_data_batch"] {
            let (frame, message) = next(&mut socket, true).await;
            assert!(matches!(frame, Message::Binary(_)), "{frame:?}");
            assert_eq!((&message["type"], &message["subscription_id"]), (&json!(kind), &json!("s")));
            assert!(kind == "subscription_ack" || message["rows"][0]["body"] == "one", "{message}");
        }
        root.sql("UPDATE app.notes SET body = 'two'").await;
        let (frame, change) = next(&mut socket, true).await;
        assert!(matches!(frame, Message::Binary(_)), "{frame:?}");
        assert_eq!((&change["change_type"], &change["rows"][0]["body"]), (&json!("update"), &json!("two")));
        root.sql("UPDATE app.notes SET body = 'one'").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_compressed_where_that_is_wanted() {
    let (server, root) = Server::with_notes("").await;
    let gzip = json!({ "serialization": "json", "compression": "gzip" });
    let none = json!({ "serialization": "json", "compression": "none" });
    // What the URL says, what the message says, and whether large messages are compressed then.
    for (query, protocol, compresses) in [
        ("", Some(&gzip), true),
        ("", Some(&none), false),
        ("", None, true),
        ("compression=none", None, false),
        ("compression=gzip", None, true),
        ("compress=false", Some(&gzip), false),
    ] {
        let token = if protocol.is_some() { "" } else { &root.token };
        let mut socket = Socket::open(&server, query, token).await.unwrap();
        if let Some(protocol) = protocol {
            socket.send(authenticate(&root.token, protocol)).await;
        }
        let success = socket.next().await;
        assert_eq!(
            success["protocol"]["compression"],
            if compresses { "gzip" } else { "none" },
            "{query} {protocol:?}"
        );
        socket.subscribe("s", "SELECT id, body FROM app.notes", json!({})).await;
        let (ack, _) = next(&mut socket, false).await;
        assert!(matches!(&ack, Message::Text(text) if text.len() <= 512), "{query}: {ack:?}");
        for length in [10, 1_000] {
            let body = "x".repeat(length);
            root.sql(&format!("INSERT INTO app.notes VALUES (1, '{body}')")).await;
            let (frame, change) = next(&mut socket, false).await;
            assert_eq!(change["rows"][0]["body"], body, "{query} {protocol:?}");
            let compressed = matches!(&frame, Message::Binary(bytes) if bytes.starts_with(&[0x1f, 0x8b]));
            assert_eq!(compressed, compresses && length > 512, "{query} {protocol:?}: {frame:?}");
            assert!(compressed || matches!(frame, Message::Text(_)), "{query} {protocol:?}: {frame:?}");
            root.sql("DELETE FROM app.notes").await;
            next(&mut socket, false).await;
        }
    }
    // Who says so as a client is understood as well.
    let plain = Api::anonymous(&server).logged_in("root", ROOT_PASSWORD).await;
    assert_eq!(Socket::open(&server, "compression=zip", &plain.token).await.err(), Some(400));
}
