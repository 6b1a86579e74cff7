//! docs/protocol.md is what the server says and understands: every example and every code of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kalamdb_core::arrow::array::{Int64Array, RecordBatch};
use kalamdb_core::arrow::datatypes::{DataType, Field, Schema};
use kalamdb_core::format::Seq;
use kalamdb_core::{Error, ErrorCode, RowFailure};
use serde_json::Value;

use crate::http::status_of;
use crate::refusal::Refusal;
use crate::wire::cells::Rows;
use crate::wire::change;
use crate::wire::messages::{
    BatchControl, ClientMessage, Compression, Protocol, Serialization, ServerMessage,
};
use crate::wire::schema::WireSchema;

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

/// The examples of one kind, in order.
fn examples(kind: &str) -> Vec<Value> {
    let opening = format!("```json {kind}\n");
    let blocks = DOCUMENT.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
}

#[test]
fn every_example_of_a_client_is_understood_without_a_warning() {
    let mut types = BTreeMap::new();
    for example in examples("client") {
        let message: ClientMessage =
            serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{example}: {error}"));
        assert_eq!(message.warnings(), Vec::<String>::new(), "{example}");
        *types.entry(example["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let types: Vec<String> = types.into_keys().collect();
    assert_eq!(types, ["authenticate", "next_batch", "ping", "subscribe", "unsubscribe"]);
}

fn batch(columns: &[&str], row: &[i64]) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
    let arrays = row.iter().map(|value| Arc::new(Int64Array::from(vec![*value])) as _).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Messages of the server of the documented kinds, in the document's order.
fn said() -> Vec<Value> {
    let json = |message: ServerMessage<'_>| serde_json::to_value(message).unwrap();
    let id = "room-7";
    let protocol = Protocol { serialization: Serialization::Json, compression: Compression::None };
    let both = batch(&["id", "_seq"], &[7, 1200]);
    let rows = Rows::new(&both).unwrap();
    let only_id = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
    let with = |id, seq| batch(&["id", "_seq"], &[id, seq]);
    let refusal = |code, message: &str| Refusal::new(code, message);
    let missing = refusal("TABLE_NOT_FOUND", "there is no table chat.mesages; did you mean messages?");
    let resync = refusal("RESYNC_REQUIRED", "changes after seq 5 are not all in the log");
    let (from, floor, end) = (Seq::new(5), Seq::new(1000), Seq::new(1250));
    let gap = Error::ResyncRequired { from, floor, end };
    let (code, message) = (ErrorCode::SqlExecutionError, "division by zero".to_owned());
    let failure = RowFailure { code, message, rows: 1 };
    let warning = "options has the unknown field \"lastRows\", which is ignored; did you mean last_rows?";
    vec![
        json(ServerMessage::AuthSuccess { user: "ada", role: "user", protocol, warnings: &[] }),
        json(ServerMessage::AuthError { message: "the token has expired" }),
        json(ServerMessage::SubscriptionAck {
            subscription_id: id,
            total_rows: 2,
            batch_control: BatchControl::new(0, true, None),
            schema: WireSchema(&both.schema()),
            snapshot_seq: 1234,
            warnings: &[warning.to_owned()],
        }),
        json(ServerMessage::InitialDataBatch {
            subscription_id: id,
            rows: rows.named(),
            batch_control: BatchControl::new(0, false, Some(1234)),
            warnings: &[],
        }),
        change::example(("insert", 1234, 1240, false), Some(&with(8, 1240)), None),
        change::example(("update", 1240, 1245, true), Some(&with(8, 1245)), Some(&with(8, 1245))),
        change::example(("delete", 1245, 1246, false), None, Some(&with(7, 1246))),
        json(ServerMessage::Schema {
            subscription_id: id,
            schema: WireSchema(&only_id),
            schema_version: 2,
            prev_seq: 1246,
        }),
        json(ServerMessage::Flush {
            subscription_id: id,
            rows: 10_000,
            file: Some("chat/messages-6/ada/00000000000000001247-v1.parquet"),
            seq: 1250,
        }),
        json(ServerMessage::Pong { id: Some(&Value::from(1)), warnings: &[] }),
        json(ServerMessage::error(id, &missing)),
        json(ServerMessage::row_failure(id, &failure, 1246)),
        json(ServerMessage::engine_error(id, &resync, &gap, &[])),
        json(ServerMessage::shutting_down(id, &Refusal::shutting_down(), 740)),
    ]
}

#[test]
fn every_example_of_the_server_is_what_it_says() {
    let (examples, said) = (examples("server"), said());
    assert_eq!(examples.len(), said.len());
    for (example, said) in examples.iter().zip(&said) {
        assert_eq!(example, said);
    }
}

#[test]
fn every_code_is_listed_with_the_status_that_it_has() {
    let (_, table) = DOCUMENT.split_once("# Error codes").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeMap<&str, u16> = rows
        .map(|row| {
            let (code, rest) = row.split_once("` | ").unwrap();
            (code, rest.split_once(" | ").unwrap().0.parse().unwrap())
        })
        .collect();
    for (code, status) in &listed {
        assert_eq!(status_of(code).as_u16(), *status, "{code}");
    }
    let of_wire = [
        "AUTH_REQUIRED",
        "TOKEN_EXPIRED",
        "SUBSCRIPTION_FAILED",
        "CONVERSION_ERROR",
        "INVALID_SUBSCRIPTION_ID",
        "SUBSCRIPTION_LIMIT_EXCEEDED",
        "BATCH_FETCH_FAILED",
        "MESSAGE_TOO_LARGE",
        "PROTOCOL",
        "RATE_LIMIT_EXCEEDED",
        "UNSUPPORTED_DATA",
    ];
    let codes = ErrorCode::ALL.iter().map(|code| code.as_str()).chain(of_wire);
    for code in codes {
        assert!(listed.contains_key(code), "{code} is not in docs/protocol.md");
    }
    assert_eq!(listed.len(), ErrorCode::ALL.len() + of_wire.len());
}
