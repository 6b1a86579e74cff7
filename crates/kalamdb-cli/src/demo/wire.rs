//! The WebSocket messages that a subscriber of `chat.messages` sends and receives.
//!
//! It owns their JSON shapes, as far as the demo needs them; fields it does not know are ignored. Integers are
//! accepted as numbers and as strings, because 64-bit ones travel as strings.

use serde::{Deserialize, Deserializer, Serialize};

/// The name of the one subscription on each connection.
pub(super) const SUBSCRIPTION_ID: &str = "inbox";
/// What each subscriber watches. The text is the same for all: the server answers each with their own rows.
pub(super) const SUBSCRIPTION_SQL: &str = "SELECT id, conversation, sender, body FROM chat.messages";

/// From the client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ClientMessage {
    /// Begins the subscription, or resumes it.
    Subscribe {
        /// What to watch.
        subscription: Subscription,
    },
    /// Asks for more of the snapshot.
    NextBatch {
        /// Of which subscription.
        subscription_id: &'static str,
        /// Where the last batch ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_seq_id: Option<i64>,
    },
}

/// What to watch.
#[derive(Debug, Serialize)]
pub(super) struct Subscription {
    id: &'static str,
    sql: &'static str,
    options: Options,
}

#[derive(Debug, Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i64>,
}

impl ClientMessage {
    /// A subscription to the inbox; with `from`, to what came after that seq.
    pub(super) fn subscribe(from: Option<i64>) -> Self {
        let options = Options { from };
        ClientMessage::Subscribe {
            subscription: Subscription { id: SUBSCRIPTION_ID, sql: SUBSCRIPTION_SQL, options },
        }
    }
}

/// From the server.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ServerMessage {
    /// The token was refused; the connection ends.
    AuthError {
        /// Why.
        message: String,
    },
    /// The subscription stands.
    SubscriptionAck {
        /// The seq of the snapshot: what comes later comes as changes.
        #[serde(default)]
        snapshot_seq: Option<Integer>,
    },
    /// A part of the snapshot.
    InitialDataBatch {
        /// The rows.
        rows: Vec<Row>,
        /// Whether there is more.
        batch_control: BatchControl,
    },
    /// What one commit changed, or a part of it.
    Change {
        /// Insert, update or delete.
        change_type: ChangeType,
        /// The rows.
        #[serde(default)]
        rows: Vec<Row>,
        /// Where in the log this frame stands.
        seq: Integer,
        /// Where the frame before it stands.
        prev_seq: Integer,
    },
    /// A refusal.
    Error {
        /// Of the protocol.
        code: String,
        /// For people.
        message: String,
        /// The change that rows fail with; the subscription goes on then.
        seq: Option<Integer>,
    },
    /// Anything else is no business of the demo.
    #[serde(other)]
    Other,
}

/// Where the client is in the snapshot.
#[derive(Debug, Deserialize)]
pub(super) struct BatchControl {
    /// Whether the client has to ask for another batch.
    pub(super) has_more: bool,
    /// Where this batch ended.
    #[serde(default)]
    pub(super) last_seq_id: Option<Integer>,
}

/// What happened to the rows of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChangeType {
    /// They are new.
    Insert,
    /// They were there before.
    Update,
    /// They are gone.
    Delete,
}

/// A row of the subscription.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    /// Of the message.
    pub(super) id: Integer,
    /// Of the message.
    #[serde(default)]
    pub(super) conversation: Option<Integer>,
    /// Of the message.
    #[serde(default)]
    pub(super) sender: Option<String>,
    /// Of the message.
    #[serde(default)]
    pub(super) body: Option<String>,
}

/// A 64-bit integer, however it travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Integer(pub(super) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Integer(number)),
            Either::Text(text) => text.parse().map(Integer).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_whichever_way_its_integers_travel() {
        let text = r#"{"type":"change","subscription_id":"inbox","change_type":"insert","seq":12,"prev_seq":"9",
            "commit_ts":1,"more":false,
            "rows":[{"id":"7","conversation":3,"sender":"a","body":"b","_seq":12}]}"#;
        match serde_json::from_str(text).unwrap() {
            ServerMessage::Change {
                change_type: ChangeType::Insert,
                rows,
                seq: Integer(12),
                prev_seq: Integer(9),
            } => {
                let ids: Vec<i64> = rows.iter().map(|row| row.id.0).collect();
                assert_eq!(ids, [7]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unknown_messages_are_let_through() {
        let text = r#"{"type":"auth_success","user":"a","role":"user","protocol":{}}"#;
        assert!(matches!(serde_json::from_str(text), Ok(ServerMessage::Other)));
    }

    #[test]
    fn resuming_says_from_where() {
        let text = serde_json::to_string(&ClientMessage::subscribe(Some(5))).unwrap();
        assert!(text.contains(r#""options":{"from":5}"#), "{text}");
        let text = serde_json::to_string(&ClientMessage::subscribe(None)).unwrap();
        assert!(text.contains(r#""type":"subscribe""#) && text.contains(r#""options":{}"#), "{text}");
    }
}
