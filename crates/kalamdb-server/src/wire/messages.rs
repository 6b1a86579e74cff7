//! What clients and server say to each other on a WebSocket.

use std::fmt;

use kalamdb_core::{Error as EngineError, OnGap, RowFailure};
use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::refusal::Refusal;
use crate::wire::cells::NamedRows;
use crate::wire::schema::WireSchema;
use crate::wire::unknown::UnknownFields;

/// From a client. Fields that are not known are ignored with a warning, types that are not known are refused.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ClientMessage {
    Authenticate {
        #[serde(default = "jwt")]
        method: String,
        #[serde(default)]
        token: String,
        /// None: as the URL says.
        #[serde(default)]
        protocol: Option<ProtocolRequest>,
        #[serde(flatten)]
        unknown: UnknownFields,
    },
    Subscribe {
        subscription: Box<SubscriptionRequest>,
        #[serde(flatten)]
        unknown: UnknownFields,
    },
    NextBatch {
        subscription_id: String,
        /// Sent by the SDK; a batch follows the one before it whatever it says.
        #[serde(default, rename = "last_seq_id")]
        _last_seq_id: Option<IgnoredAny>,
        #[serde(flatten)]
        unknown: UnknownFields,
    },
    Unsubscribe {
        subscription_id: String,
    },
    Ping {
        /// Given back with the answer.
        #[serde(default)]
        id: Option<serde_json::Value>,
        #[serde(flatten)]
        unknown: UnknownFields,
    },
}

impl ClientMessage {
    /// Warnings of fields that this server does not know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match self {
            Self::Authenticate { protocol, unknown, .. } => {
                unknown.warn("authenticate", &["type", "method", "token", "protocol"], &mut warnings);
                if let Some(protocol) = protocol {
                    let known = ["serialization", "compression"];
                    protocol.unknown.warn("protocol", &known, &mut warnings);
                }
            }
            Self::Subscribe { subscription, unknown } => {
                unknown.warn("subscribe", &["type", "subscription"], &mut warnings);
                let known = ["id", "sql", "params", "options"];
                subscription.unknown.warn("subscription", &known, &mut warnings);
                if let Some(options) = &subscription.options {
                    options.unknown.warn("options", &SubscriptionOptions::FIELDS, &mut warnings);
                }
            }
            Self::NextBatch { unknown, .. } => {
                unknown.warn("next_batch", &["type", "subscription_id", "last_seq_id"], &mut warnings);
            }
            Self::Ping { unknown, .. } => unknown.warn("ping", &["type", "id"], &mut warnings),
            Self::Unsubscribe { .. } => {}
        }
        warnings
    }
}

fn jwt() -> String {
    "jwt".to_owned()
}

/// What to watch. Without `options` nothing but changes is asked for, as the SDK's `without_initial_data` means it.
#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionRequest {
    pub(crate) id: String,
    pub(crate) sql: String,
    /// The values of `$1`, `$2`, … as in `POST /sql`.
    #[serde(default)]
    pub(crate) params: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    pub(crate) options: Option<SubscriptionOptions>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SubscriptionOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch_size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_rows: Option<u32>,
    #[serde(
        default,
        alias = "from_seq_id",
        deserialize_with = "seq",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_gap: Option<GapChoice>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) coalesce: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) notify_flush: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) notify_evicted: bool,
    #[serde(flatten, skip_serializing)]
    unknown: UnknownFields,
}

impl SubscriptionOptions {
    const FIELDS: [&str; 7] =
        ["batch_size", "last_rows", "from", "on_gap", "coalesce", "notify_flush", "notify_evicted"];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapChoice {
    Error,
    Snapshot,
}

impl From<GapChoice> for OnGap {
    fn from(choice: GapChoice) -> Self {
        match choice {
            GapChoice::Error => Self::Error,
            GapChoice::Snapshot => Self::Snapshot,
        }
    }
}

/// How rows and messages are written; what a client that says nothing gets is what the SDK asks for by saying nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Protocol {
    #[serde(default)]
    pub(crate) serialization: Serialization,
    #[serde(default)]
    pub(crate) compression: Compression,
}

/// A [`Protocol`], as a client asks for it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ProtocolRequest {
    #[serde(default)]
    serialization: Serialization,
    #[serde(default)]
    compression: Compression,
    #[serde(flatten)]
    unknown: UnknownFields,
}

impl ProtocolRequest {
    pub(crate) const fn protocol(&self) -> Protocol {
        Protocol { serialization: self.serialization, compression: self.compression }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Serialization {
    #[default]
    Json,
    #[serde(rename = "msgpack", alias = "messagepack", alias = "message_pack")]
    MessagePack,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    None,
    #[default]
    Gzip,
}

/// From the server; changes are spliced together in `change` instead.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ServerMessage<'a> {
    AuthSuccess {
        user: &'a str,
        role: &'a str,
        protocol: Protocol,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        warnings: &'a [String],
    },
    /// The answer to a `ping`.
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a serde_json::Value>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        warnings: &'a [String],
    },
    AuthError {
        message: &'a str,
    },
    SubscriptionAck {
        subscription_id: &'a str,
        total_rows: u32,
        batch_control: BatchControl,
        schema: WireSchema<'a>,
        snapshot_seq: u64,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        warnings: &'a [String],
    },
    InitialDataBatch {
        subscription_id: &'a str,
        rows: NamedRows<'a>,
        batch_control: BatchControl,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        warnings: &'a [String],
    },
    /// Rows moved to the cold tier: nothing of the result changes, and it is no part of the chain.
    Flush {
        subscription_id: &'a str,
        rows: u64,
        file: Option<&'a str>,
        seq: u64,
    },
    /// The table was altered: what rows have from here on.
    Schema {
        subscription_id: &'a str,
        schema: WireSchema<'a>,
        schema_version: u32,
        /// The seq of the change before it; it is itself no part of the chain.
        prev_seq: u64,
    },
    Error {
        subscription_id: &'a str,
        code: &'a str,
        message: &'a str,
        /// The seq of the change that rows fail with; then the subscription goes on.
        #[serde(skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
        /// The number of rows that fail.
        #[serde(skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
        /// With `RESYNC_REQUIRED`: the first seq that can still be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        floor: Option<u64>,
        /// With `RESYNC_REQUIRED`: the last seq there is.
        #[serde(skip_serializing_if = "Option::is_none")]
        end: Option<u64>,
        /// With `SHUTTING_DOWN`: how long to wait before connecting again, another one for each connection.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        warnings: &'a [String],
    },
}

impl<'a> ServerMessage<'a> {
    /// An error about a subscription, or about none (`""`).
    pub(crate) fn error(subscription_id: &'a str, refusal: &'a Refusal) -> Self {
        Self::plain_error(subscription_id, refusal.code, &refusal.message)
    }

    const fn plain_error(subscription_id: &'a str, code: &'a str, message: &'a str) -> Self {
        Self::Error {
            subscription_id,
            code,
            message,
            seq: None,
            rows: None,
            floor: None,
            end: None,
            retry_after_ms: None,
            warnings: &[],
        }
    }

    /// Rows that a subscription's query fails for: they are out of its result, and it goes on.
    pub(crate) fn row_failure(subscription_id: &'a str, failure: &'a RowFailure, of: u64) -> Self {
        let mut error = Self::plain_error(subscription_id, failure.code.as_str(), &failure.message);
        if let Self::Error { seq, rows, .. } = &mut error {
            (*seq, *rows) = (Some(of), Some(failure.rows));
        }
        error
    }

    /// That the server goes.
    pub(crate) fn shutting_down(subscription_id: &'a str, refusal: &'a Refusal, retry_after_ms: u64) -> Self {
        let mut error = Self::error(subscription_id, refusal);
        if let Self::Error { retry_after_ms: after, .. } = &mut error {
            *after = Some(retry_after_ms);
        }
        error
    }

    /// An error of the engine; `refusal` is what [`Refusal`] makes of it.
    pub(crate) fn engine_error(
        subscription_id: &'a str,
        refusal: &'a Refusal,
        error: &EngineError,
        warnings: &'a [String],
    ) -> Self {
        let mut message = Self::error(subscription_id, refusal);
        if let Self::Error { floor: first, end: last, warnings: of_request, .. } = &mut message {
            if let EngineError::ResyncRequired { floor, end, .. } = error {
                (*first, *last) = (Some(floor.get()), Some(end.get()));
            }
            *of_request = warnings;
        }
        message
    }
}

/// Where a client is in the snapshot.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BatchControl {
    pub(crate) batch_num: u32,
    pub(crate) has_more: bool,
    pub(crate) status: BatchStatus,
    /// The greatest seq of what was sent; once the snapshot is complete, the seq of the whole of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seq_id: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BatchStatus {
    Loading,
    LoadingBatch,
    Ready,
}

impl BatchControl {
    pub(crate) const fn new(batch_num: u32, has_more: bool, last_seq_id: Option<u64>) -> Self {
        let status = match (has_more, batch_num) {
            (false, _) => BatchStatus::Ready,
            (true, 0) => BatchStatus::Loading,
            (true, _) => BatchStatus::LoadingBatch,
        };
        Self { batch_num, has_more, status, last_seq_id }
    }
}

/// A seq, as a number or as a string of digits.
fn seq<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Seq;
    impl<'de> Visitor<'de> for Seq {
        type Value = Option<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a seq, as a number or a string of digits")
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_any(self)
        }
        fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
            Ok(Some(value))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            u64::try_from(value).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
            value.parse().map(Some).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
        }
    }
    deserializer.deserialize_any(Seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<SubscriptionOptions, serde_json::Error> {
        let message =
            format!(r#"{{"type":"subscribe","subscription":{{"id":"a","sql":"b","options":{text}}}}}"#);
        match serde_json::from_str(&message)? {
            ClientMessage::Subscribe { subscription, .. } => Ok(subscription.options.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_resume_seq_is_a_number_or_a_string_under_either_name() {
        for text in [r#"{"from":7}"#, r#"{"from":"7"}"#, r#"{"from_seq_id":7}"#] {
            assert_eq!(options(text).unwrap().from, Some(7), "{text}");
        }
        assert_eq!(options(r#"{"from":null}"#).unwrap().from, None);
        for text in [r#"{"from":-1}"#, r#"{"from":"x"}"#, r#"{"from":[]}"#] {
            assert!(options(text).is_err(), "{text}");
        }
    }

    #[test]
    fn both_names_of_message_pack_are_understood() {
        for name in ["msgpack", "messagepack"] {
            let protocol: Protocol =
                serde_json::from_str(&format!(r#"{{"serialization":"{name}"}}"#)).unwrap();
            assert_eq!(
                protocol,
                Protocol { serialization: Serialization::MessagePack, compression: Compression::Gzip }
            );
        }
    }

    #[test]
    fn the_last_batch_is_ready() {
        assert_eq!(BatchControl::new(0, true, None).status, BatchStatus::Loading);
        assert_eq!(BatchControl::new(3, true, None).status, BatchStatus::LoadingBatch);
        assert_eq!(BatchControl::new(3, false, None).status, BatchStatus::Ready);
    }
}
