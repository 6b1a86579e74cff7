//! A change as bytes: what is the same for everyone who gets it is encoded once, what belongs to one subscription is put
//! in front.

use bytes::Bytes;
use kalamdb_core::{ChangeFrame, ChangePayload};
use serde::Serialize;

use crate::refusal::Refusal;
use crate::wire::cells::{NamedRows, Rows};
use crate::wire::messages::{Serialization, ServerMessage};

/// In front: one subscription's own.
#[derive(Serialize)]
struct Head<'a> {
    r#type: &'a str,
    subscription_id: &'a str,
    prev_seq: u64,
    more: bool,
}

/// Behind: the same for everyone.
#[derive(Serialize)]
struct Body<'a> {
    change_type: &'a str,
    seq: u64,
    commit_ts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<NamedRows<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_values: Option<NamedRows<'a>>,
}

/// The `change` message of a frame, or the `error` message of one that tells of rows that fail.
///
/// # Errors
/// `CONVERSION_ERROR` for rows that cannot be written.
pub(crate) fn encode(
    serialization: Serialization,
    subscription_id: &str,
    frame: &ChangeFrame,
) -> Result<Vec<u8>, Refusal> {
    let unwritable = || {
        let message = format!("the change with seq {} cannot be written", frame.payload.seq);
        Refusal::new("CONVERSION_ERROR", message)
    };
    if let Some(failure) = &frame.payload.failure {
        let message = ServerMessage::row_failure(subscription_id, failure, frame.payload.seq.get());
        return to_bytes(serialization, &message).ok_or_else(unwritable);
    }
    let head = Head { r#type: "change", subscription_id, prev_seq: frame.prev_seq.get(), more: frame.more };
    let head = to_bytes(serialization, &head);
    let slot = match serialization {
        Serialization::Json => 0,
        Serialization::MessagePack => 1,
    };
    // Nothing stands for a failure: a body is never empty.
    let body = frame.payload.encoded(slot, |payload| encode_body(serialization, payload).unwrap_or_default());
    let spliced = head.zip(Some(body)).and_then(|(head, body)| splice(serialization, head, &body));
    spliced.ok_or_else(unwritable)
}

fn encode_body(serialization: Serialization, payload: &ChangePayload) -> Option<Bytes> {
    let rows = payload.rows.as_ref().map(Rows::new).transpose().ok()?;
    let old_rows = payload.old_rows.as_ref().map(Rows::new).transpose().ok()?;
    let body = Body {
        change_type: payload.kind.as_str(),
        seq: payload.seq.get(),
        commit_ts: payload.commit_time,
        rows: rows.as_ref().map(Rows::named),
        old_values: old_rows.as_ref().map(Rows::named),
    };
    to_bytes(serialization, &body).map(Bytes::from)
}

fn to_bytes<T: Serialize>(serialization: Serialization, value: &T) -> Option<Vec<u8>> {
    match serialization {
        Serialization::Json => serde_json::to_vec(value).ok(),
        Serialization::MessagePack => rmp_serde::to_vec_named(value).ok(),
    }
}

/// One map of two: `{a}` and `{b}` become `{a,b}`.
fn splice(serialization: Serialization, mut head: Vec<u8>, body: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = body.split_first()?;
    match serialization {
        Serialization::Json => {
            *head.last_mut()? = b',';
        }
        Serialization::MessagePack => {
            // Both are maps of less than 16 entries: one byte that holds the count.
            const FIXMAP: u8 = 0x80;
            let count = (*head.first()? ^ FIXMAP) + (first ^ FIXMAP);
            *head.first_mut()? = (count < 16).then_some(FIXMAP | count)?;
        }
    }
    head.extend_from_slice(rest);
    Some(head)
}

/// A `change` message of these parts.
#[cfg(test)]
pub(crate) fn example(
    (change_type, prev_seq, seq, more): (&str, u64, u64, bool),
    rows: Option<&kalamdb_core::arrow::array::RecordBatch>,
    old_rows: Option<&kalamdb_core::arrow::array::RecordBatch>,
) -> serde_json::Value {
    let head = Head { r#type: "change", subscription_id: "room-7", prev_seq, more };
    let (rows, old_rows) = (rows.map(|it| Rows::new(it).unwrap()), old_rows.map(|it| Rows::new(it).unwrap()));
    let body = Body {
        change_type,
        seq,
        commit_ts: 1_790_000_000_123_456,
        rows: rows.as_ref().map(Rows::named),
        old_values: old_rows.as_ref().map(Rows::named),
    };
    let bytes = |it: Option<Vec<u8>>| it.unwrap();
    let head = to_bytes(Serialization::Json, &head);
    let body = bytes(to_bytes(Serialization::Json, &body));
    serde_json::from_slice(&splice(Serialization::Json, bytes(head), &body).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn two_maps_become_one_in_both_encodings() {
        let head = Head { r#type: "change", subscription_id: "a\"b", prev_seq: 3, more: true };
        let body = Body { change_type: "insert", seq: 4, commit_ts: 5, rows: None, old_values: None };
        let expected = json!({
            "type": "change", "subscription_id": "a\"b", "prev_seq": 3, "more": true,
            "change_type": "insert", "seq": 4, "commit_ts": 5,
        });
        for serialization in [Serialization::Json, Serialization::MessagePack] {
            let head = to_bytes(serialization, &head).unwrap();
            let body = to_bytes(serialization, &body).unwrap();
            let spliced = splice(serialization, head, &body).unwrap();
            let read: Value = match serialization {
                Serialization::Json => serde_json::from_slice(&spliced).unwrap(),
                Serialization::MessagePack => rmp_serde::from_slice(&spliced).unwrap(),
            };
            assert_eq!(read, expected);
        }
    }
}
