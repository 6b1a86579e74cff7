//! One client that misbehaves by seed, and knows what has to come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::messages::{self, Payload, Verdict};
use super::sql;
use crate::support::{Random, Raw, Seen, frame};

/// Every code of docs/protocol.md that an `error` may have on a WebSocket.
const CODES: [&str; 25] = [
    "TABLE_NOT_FOUND",
    "NAMESPACE_NOT_FOUND",
    "AUTH_REQUIRED",
    "UNAUTHORIZED",
    "TOKEN_EXPIRED",
    "INVALID_SUBSCRIPTION_ID",
    "SUBSCRIPTION_LIMIT_EXCEEDED",
    "NOT_FOUND",
    "INVALID_SQL",
    "UNSUPPORTED",
    "SUBSCRIPTION_FAILED",
    "CONVERSION_ERROR",
    "BATCH_FETCH_FAILED",
    "MESSAGE_TOO_LARGE",
    "RATE_LIMIT_EXCEEDED",
    "UNSUPPORTED_DATA",
    "PROTOCOL",
    "RESYNC_REQUIRED",
    "TABLE_DROPPED",
    "PERMISSION_DENIED",
    "CONSTRAINT_VIOLATION",
    "INVALID_PARAMETER",
    "TIMEOUT",
    "MEMORY_LIMIT",
    "SQL_EXECUTION_ERROR",
];
const TYPES: [&str; 8] = [
    "pong",
    "auth_success",
    "auth_error",
    "subscription_ack",
    "initial_data_batch",
    "change",
    "flush",
    "error",
];

/// What has been done, and what came of it.
#[derive(Default)]
pub(super) struct Totals(BTreeMap<String, u64>);

impl Totals {
    fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        other.0.into_iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| write!(f, "{what} {count}, "))
    }
}

/// The connection is over, as it should be.
struct Over;

type Step = Result<(), Over>;

/// A connection from its beginning to its end.
pub(super) struct Client<'a> {
    random: &'a mut Random,
    totals: &'a mut Totals,
    raw: Raw,
    token: &'a str,
    /// How binary messages are written and read.
    messagepack: bool,
    /// Names that were given to subscriptions.
    ids: Vec<String>,
    /// Subscriptions that must be answered.
    waiting: BTreeSet<String>,
    /// Errors about no subscription that must come, and that may come beside them.
    must: u64,
    may: u64,
    came: u64,
    /// What was sent since the last time all was answered.
    sent: Vec<String>,
}

impl<'a> Client<'a> {
    /// A whole session.
    pub(super) async fn session(
        random: &'a mut Random,
        totals: &'a mut Totals,
        address: &str,
        token: &'a str,
    ) {
        let (query, messagepack) =
            [("compress=false", false), ("", false), ("serialization=msgpack", true)][random.at(3)];
        let header = random.one_in(2);
        let raw = Raw::connect(address, query, if header { token } else { "" }).await.unwrap();
        totals.count("sessions");
        let (ids, waiting, sent) = (Vec::new(), BTreeSet::new(), Vec::new());
        let mut client =
            Self { random, totals, raw, token, messagepack, ids, waiting, must: 0, may: 0, came: 0, sent };
        // However it is over.
        let _ = client.run(header).await;
    }

    async fn run(&mut self, header: bool) -> Step {
        if !header {
            self.authenticate().await?;
        }
        self.until(|message| message["type"] == "auth_success").await?;
        (self.must, self.may, self.came) = (0, 0, 0);
        for _ in 0..=self.random.below(3) {
            for _ in 0..=self.random.below(12) {
                self.act().await?;
            }
            self.settle().await?;
        }
        self.leave().await
    }

    /// Says this and that before saying who it is.
    async fn authenticate(&mut self) -> Step {
        let messagepack = std::mem::replace(&mut self.messagepack, false);
        for _ in 0..self.random.below(5) {
            if self.random.one_in(12) {
                return self.violate().await;
            }
            let payload = messages::payload(self.random, &[]);
            // Whoever is not who they say is let go, which is another test's.
            if String::from_utf8_lossy(&payload.bytes).contains("authenticate")
                || payload.bytes.starts_with(&[0x1f, 0x8b])
            {
                continue;
            }
            self.send_payload(&payload).await?;
        }
        let protocol = if messagepack { "messagepack" } else { "json" };
        let protocol = json!({ "serialization": protocol, "compression": "gzip" });
        let message =
            json!({ "type": "authenticate", "method": "jwt", "token": self.token, "protocol": protocol });
        self.send_json(&message).await?;
        self.messagepack = messagepack;
        Ok(())
    }

    async fn act(&mut self) -> Step {
        match self.random.below(20) {
            0..=9 => {
                let payload = messages::payload(self.random, &self.ids);
                self.send_payload(&payload).await
            }
            10..=15 => {
                let sql = if self.random.one_in(2) {
                    sql::good(self.random).to_owned()
                } else {
                    sql::statement(self.random)
                };
                self.subscribe(&sql).await
            }
            16 if self.random.one_in(6) => {
                // More than a connection may have.
                for _ in 0..110 {
                    self.subscribe("SELECT id FROM fuzz.notes WHERE id = 1").await?;
                }
                Ok(())
            }
            16 | 17 => {
                let length = self.random.at(126);
                let control = self.random.bytes(length);
                let first = [0x89, 0x8a][self.random.at(2)];
                self.send_bytes(&frame(first, &control, 7)).await
            }
            18 if self.random.one_in(4) => self.violate().await,
            18 => self.pull().await,
            _ => self.settle().await,
        }
    }

    async fn subscribe(&mut self, sql: &str) -> Step {
        let id = format!("s{:x}", self.random.next());
        let mut subscription = json!({ "id": id, "sql": sql });
        if !self.random.one_in(5) {
            subscription["options"] = messages::options(self.random);
        }
        self.ids.push(id.clone());
        self.waiting.insert(id);
        self.send_json(&json!({ "type": "subscribe", "subscription": subscription })).await
    }

    /// Asks for batches until it is told that there are no more.
    async fn pull(&mut self) -> Step {
        self.settle().await?;
        let Some(id) = self.ids.last().cloned() else { return Ok(()) };
        loop {
            self.send_json(&json!({ "type": "next_batch", "subscription_id": id })).await?;
            let answer = self
                .until(|message| {
                    message["subscription_id"] == id.as_str()
                        && (message["type"] == "error" || message["type"] == "initial_data_batch")
                })
                .await?;
            if answer["batch_control"]["has_more"] != true {
                return Ok(());
            }
        }
    }

    /// All that must be answered is.
    async fn settle(&mut self) -> Step {
        let probe = format!("probe-{:x}", self.random.next());
        self.send_json(&json!({ "type": "unsubscribe", "subscription_id": probe })).await?;
        self.until(|message| message["type"] == "error" && message["subscription_id"] == probe.as_str())
            .await?;
        let (must, may, came) = (self.must, self.may, self.came);
        assert!(
            (must..=must + may).contains(&came),
            "{came} errors came, {must} and at the most {may} more had to; sent was {:#?}",
            self.sent
        );
        (self.must, self.may, self.came) = (0, 0, 0);
        while !self.waiting.is_empty() {
            self.next().await?;
        }
        self.sent.clear();
        Ok(())
    }

    /// Breaks the rules of frames: the connection must end with a code that says so.
    async fn violate(&mut self) -> Step {
        let length = 126 + self.random.at(300);
        let (bytes, code, close) = match self.random.below(9) {
            0 => (frame(0x83 + u8::try_from(self.random.below(5)).unwrap(), b"x", 1), "PROTOCOL", 1002),
            1 => (frame(0x81 | 0x10 << self.random.below(3), b"{}", 1), "PROTOCOL", 1002),
            2 => (frame([0x08, 0x09, 0x0a][self.random.at(3)], b"", 1), "PROTOCOL", 1002),
            3 => (frame(0x89, &self.random.bytes(length), 1), "PROTOCOL", 1002),
            4 => (frame(0x80, b"x", 1), "PROTOCOL", 1002),
            5 => (vec![0x81, 2, b'{', b'}'], "PROTOCOL", 1002),
            6 => (frame(0x81, b"{\"type\":\"\xff\"}", 9), "UNSUPPORTED_DATA", 1007),
            7 => ([frame(0x01, b"\xf0\x9f", 3), frame(0x80, b"x", 3)].concat(), "UNSUPPORTED_DATA", 1007),
            _ => (vec![0x82, 0xff, 0, 0, 0, 0xff, 0, 0, 0, 0, 1, 2, 3, 4], "MESSAGE_TOO_LARGE", 1009),
        };
        self.sent.push(format!("{bytes:x?}, which breaks the rules"));
        self.totals.count("violations");
        let _ = self.raw.send(&bytes).await;
        self.expect_close(code, &[close]).await
    }

    async fn leave(&mut self) -> Step {
        match self.random.below(6) {
            0 => {
                let _ = self.raw.send(&frame(0x88, b"\x03\xe8done", 5)).await;
                self.expect_close("", &[1000]).await
            }
            1 => {
                let payload: &[u8] =
                    [&b"\x03\xed"[..], b"\x00\x00", b"\x03", b"\x03\xe8\xff"][self.random.at(4)];
                let _ = self.raw.send(&frame(0x88, payload, 5)).await;
                self.expect_close("", &[1002, 1007]).await
            }
            2 => self.violate().await,
            3 => {
                // The beginning of a frame, and gone.
                let payload = messages::payload(self.random, &self.ids);
                let bytes = messages::frames(self.random, &payload);
                let length = self.random.at(bytes.len());
                let _ = self.raw.send(&bytes[..length]).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reads on until the connection is closed with one of these codes; the reason, where there is one, is the error's code.
    async fn expect_close(&mut self, code: &str, codes: &[u16]) -> Step {
        loop {
            match self.raw.next().await {
                Seen::Text(bytes) => self.take(&bytes, false),
                Seen::Binary(bytes) => self.take(&bytes, true),
                Seen::Ping | Seen::Pong => {}
                Seen::Close(found, reason) => {
                    let found = found.unwrap_or_default();
                    assert!(codes.contains(&found), "closed with {found} {reason}: {:#?}", self.sent);
                    assert!(
                        code.is_empty() || reason == code,
                        "closed because of {reason}: {:#?}",
                        self.sent
                    );
                    self.totals.count(&format!("close {found}"));
                    return Err(Over);
                }
                other => panic!("{other:?} instead of a close frame after {:#?}", self.sent),
            }
        }
    }

    async fn send_json(&mut self, message: &Value) -> Step {
        let payload = Payload { binary: false, bytes: message.to_string().into_bytes() };
        let bytes = messages::frames(self.random, &payload);
        self.sent.push(shown(&payload));
        self.send_bytes(&bytes).await
    }

    async fn send_payload(&mut self, payload: &Payload) -> Step {
        match messages::judge(payload, self.messagepack) {
            Verdict::Refused => self.must += 1,
            Verdict::Any => {
                self.may += 1;
                // It may be about a subscription that was to be answered.
                self.waiting.clear();
            }
        }
        self.totals.count("payloads");
        self.sent.push(shown(payload));
        let bytes = messages::frames(self.random, payload);
        self.send_bytes(&bytes).await
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Step {
        assert!(self.raw.send(bytes).await, "the server went away after {:#?}", self.sent);
        Ok(())
    }

    /// Reads on until this comes.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Value, Over> {
        loop {
            let message = self.next().await?;
            if wanted(&message) {
                return Ok(message);
            }
        }
    }

    async fn next(&mut self) -> Result<Value, Over> {
        loop {
            match self.raw.next().await {
                Seen::Text(bytes) => return Ok(self.understand(&bytes, false)),
                Seen::Binary(bytes) => return Ok(self.understand(&bytes, true)),
                Seen::Ping => {
                    let _ = self.raw.send(&frame(0x8a, b"", 0)).await;
                }
                Seen::Pong => {}
                other => panic!("{other:?} after {:#?}", self.sent),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], binary: bool) {
        self.understand(bytes, binary);
    }

    /// What the server says must be of the protocol.
    fn understand(&mut self, bytes: &[u8], binary: bool) -> Value {
        let mut inflated = Vec::new();
        let plain = if binary && bytes.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(bytes).read_to_end(&mut inflated).unwrap();
            &inflated
        } else {
            bytes
        };
        // Before both sides agreed on something, all is text.
        let message: Value = if self.messagepack && binary {
            rmp_serde::from_slice(plain).unwrap()
        } else {
            serde_json::from_slice(plain).unwrap()
        };
        let kind = message["type"].as_str().unwrap_or_default();
        assert!(TYPES.contains(&kind), "{message}");
        self.totals.count(kind);
        if let Some(id) = message["subscription_id"].as_str()
            && ["subscription_ack", "error"].contains(&kind)
        {
            self.waiting.remove(id);
        }
        if kind == "error" {
            let code = message["code"].as_str().unwrap();
            assert!(CODES.contains(&code), "{message} after {:#?}", self.sent);
            self.totals.count(code);
            self.came += u64::from(message["subscription_id"] == "");
        }
        assert!(!message.to_string().contains(super::SECRET), "a foreign row: {message}");
        message
    }
}

/// The beginning of a payload, to be shown.
fn shown(payload: &Payload) -> String {
    let text = String::from_utf8_lossy(&payload.bytes);
    let shown: String = text.chars().take(2_000).collect();
    format!("{} {} bytes: {shown}", if payload.binary { "binary" } else { "text" }, payload.bytes.len())
}
