//! A WebSocket without an SDK: sees every frame as it is.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, ORIGIN};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Server, in_time};

/// A connection.
pub(crate) struct Socket {
    inner: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// Uncompressed JSON, authenticated by the header.
    pub(crate) async fn connect(server: &Server, token: &str) -> Self {
        let mut socket = Self::open(server, "compress=false", token).await.unwrap();
        assert_eq!(socket.next().await["type"], "auth_success");
        socket
    }

    /// Without looking at what the server says first; an error is the HTTP status of a refused upgrade.
    pub(crate) async fn open(server: &Server, query: &str, token: &str) -> Result<Self, u16> {
        Self::open_from(server, query, token, None).await
    }

    /// The same from a page of this origin.
    pub(crate) async fn open_from(
        server: &Server,
        query: &str,
        token: &str,
        origin: Option<&str>,
    ) -> Result<Self, u16> {
        let mut request = server.socket_url(query).into_client_request().unwrap();
        if !token.is_empty() {
            request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        if let Some(origin) = origin {
            request.headers_mut().insert(ORIGIN, origin.parse().unwrap());
        }
        match in_time("connecting", connect_async(request)).await {
            Ok((inner, _)) => Ok(Self { inner }),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`Self::connect`]; none where the server is not there or goes away meanwhile.
    pub(crate) async fn connect_if_there(server: &str, token: &str) -> Option<Self> {
        let mut request = server.into_client_request().unwrap();
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let (inner, _) = in_time("connecting", connect_async(request)).await.ok()?;
        let mut socket = Self { inner };
        (socket.next_or_end().await?["type"] == "auth_success").then_some(socket)
    }

    /// Sends a message, if the server is still there.
    pub(crate) async fn send_if_there(&mut self, message: &Value) -> Option<()> {
        in_time("sending", self.inner.send(Message::text(message.to_string()))).await.ok()
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.send_frame(Message::text(message.to_string())).await;
    }

    pub(crate) async fn send_frame(&mut self, frame: Message) {
        in_time("sending", self.inner.send(frame)).await.unwrap();
    }

    /// Sends what the server may not even read to its end before it closes the connection.
    pub(crate) async fn try_send_frame(&mut self, frame: Message) {
        let _ = in_time("sending", self.inner.send(frame)).await;
    }

    /// Writes bytes that may be no frame at all. What was sent before has been flushed, so nothing gets in between.
    pub(crate) async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        in_time("sending", self.inner.get_mut().write_all(bytes)).await
    }

    /// The next frame as it is; an error where the connection ends without a close.
    pub(crate) async fn next_frame(&mut self) -> Option<Result<Message, tungstenite::Error>> {
        in_time("a frame", self.inner.next()).await
    }

    /// The next message; the connection must not end.
    pub(crate) async fn next(&mut self) -> Value {
        self.next_or_end().await.expect("the connection ended")
    }

    /// The next message, or none where the server closed the connection. Pings do not make the wait for it longer.
    pub(crate) async fn next_or_end(&mut self) -> Option<Value> {
        let message = async {
            loop {
                match self.inner.next().await {
                    Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(other)) => panic!("a text frame was expected, not {other:?}"),
                }
            }
        };
        in_time("a message", message).await
    }

    /// The next message, which must be an error with this code.
    pub(crate) async fn expect_error(&mut self, code: &str) -> Value {
        let message = self.next().await;
        assert_eq!((&message["type"], &message["code"]), (&json!("error"), &json!(code)), "{message}");
        message
    }

    /// The next frame, which must be a close with this code and reason.
    pub(crate) async fn expect_close(&mut self, code: u16, reason: &str) {
        loop {
            match self.next_frame().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (code, reason));
                    return;
                }
                other => panic!("a close with {code} {reason} was expected, not {other:?}"),
            }
        }
    }

    /// Asks for a subscription.
    pub(crate) async fn subscribe(&mut self, id: &str, sql: &str, options: Value) {
        let subscription = json!({ "id": id, "sql": sql, "options": options });
        self.send(json!({ "type": "subscribe", "subscription": subscription })).await;
    }

    /// Asks for a subscription and takes its whole snapshot: the acknowledgement and the rows.
    pub(crate) async fn snapshot(&mut self, id: &str, sql: &str, options: Value) -> (Value, Vec<Value>) {
        self.subscribe(id, sql, options).await;
        let ack = self.next().await;
        assert_eq!(
            (&ack["type"], &ack["subscription_id"]),
            (&json!("subscription_ack"), &json!(id)),
            "{ack}"
        );
        let mut rows = Vec::new();
        let mut has_more = ack["batch_control"]["has_more"].as_bool().unwrap();
        while has_more {
            let batch = self.next().await;
            assert_eq!(batch["type"], "initial_data_batch", "{batch}");
            rows.extend(batch["rows"].as_array().unwrap().iter().cloned());
            has_more = batch["batch_control"]["has_more"].as_bool().unwrap();
            if has_more {
                self.send(json!({ "type": "next_batch", "subscription_id": id })).await;
            }
        }
        (ack, rows)
    }

    /// The next message, which must be a change of this subscription.
    pub(crate) async fn change(&mut self, id: &str) -> Value {
        let message = self.next().await;
        let found = (&message["type"], &message["subscription_id"]);
        assert_eq!(found, (&json!("change"), &json!(id)), "{message}");
        message
    }
}
