//! What the fuzzer's clients say: messages that are right, nearly right, and nothing at all.

use std::io::{Read, Write};
use std::sync::OnceLock;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::sql;
use crate::support::{Random, frame};

/// Bytes of a message that the server takes; a frame of four times as many it still reads.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;
const TYPES: [&str; 5] = ["authenticate", "subscribe", "next_batch", "unsubscribe", "ping"];

/// A text or binary message.
pub(super) struct Payload {
    pub(super) binary: bool,
    pub(super) bytes: Vec<u8>,
}

/// What must come of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An error that is about no subscription.
    Refused,
    /// Nobody but the server knows.
    Any,
}

/// A message of the protocol, with fields as they come.
pub(super) fn message(random: &mut Random, ids: &[String]) -> Value {
    let id = if ids.is_empty() || random.one_in(4) {
        strange_text(random)
    } else {
        ids[random.at(ids.len())].clone()
    };
    match TYPES[random.at(TYPES.len())] {
        "authenticate" => {
            json!({ "type": "authenticate", "method": random.pick(&["jwt", "jwt", "basic", ""]),
            "token": strange_text(random),
            "protocol": { "serialization": random.pick(&["json", "messagepack", "xml"]), "compression": "gzip" } })
        }
        "subscribe" => json!({ "type": "subscribe", "subscription": {
            "id": id, "sql": sql::statement(random), "options": options(random) } }),
        "next_batch" => {
            json!({ "type": "next_batch", "subscription_id": id, "last_seq_id": random.below(99) })
        }
        "unsubscribe" => json!({ "type": "unsubscribe", "subscription_id": id }),
        _ => json!({ "type": "ping" }),
    }
}

/// Options that a client may well ask for.
pub(super) fn options(random: &mut Random) -> Value {
    let mut options = json!({});
    if random.one_in(2) {
        options["batch_size"] = json!(random.below(40));
    }
    if random.one_in(3) {
        options["last_rows"] = json!(random.below(20));
    }
    if random.one_in(4) {
        options["from"] = json!([0, 1, random.below(2_000), random.below(1 << 40)][random.at(4)]);
        options["on_gap"] = json!(random.pick(&["error", "snapshot"]));
    }
    if random.one_in(4) {
        options["notify_flush"] = json!(true);
    }
    options
}

fn strange_text(random: &mut Random) -> String {
    match random.below(6) {
        0 => String::new(),
        1 => "\u{0}".repeat(1 + random.at(4)),
        2 => "x".repeat(random.at(5_000)),
        3 => "\u{202e}\u{fffd}💥\u{7f}\n".to_owned(),
        4 => "'; DROP TABLE fuzz.notes; --".to_owned(),
        _ => format!("{:x}", random.next()),
    }
}

fn strange_value(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!(i64::MIN),
        3 => json!(u64::MAX),
        4 => json!(1e300),
        5 => json!(-0.5),
        6 => json!([[], {}, null]),
        7 => json!({ "type": "ping", "id": 1 }),
        _ => json!(strange_text(random)),
    }
}

/// Puts something else in the place of some field.
fn swap_types(random: &mut Random, value: &mut Value) {
    let inner: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        _ => Vec::new(),
    };
    if inner.is_empty() || random.one_in(4) {
        *value = strange_value(random);
    } else {
        let at = random.at(inner.len());
        if let Some(inner) = inner.into_iter().nth(at) {
            swap_types(random, inner);
        }
    }
}

/// Flips, takes out, puts in, repeats and cuts off bytes.
fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.at(bytes.len() + 1);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, [0, b'"', b'{', b'}', b'[', 0x7f][random.at(6)]),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(7),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => {
                let again = bytes[at..].to_vec();
                bytes.extend(again);
            }
            _ => bytes.splice(at..at, format!("{}", random.next()).into_bytes()).for_each(drop),
        }
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// 64 MiB of blanks, in 64 KiB.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| gzip(&vec![b' '; 64 << 20]))
}

/// A message with so many bytes.
fn padded(length: usize) -> Vec<u8> {
    let mut bytes = br#"{"type":"ping"}"#.to_vec();
    bytes.resize(length, b' ');
    bytes
}

fn text(random: &mut Random, ids: &[String]) -> Vec<u8> {
    let mut value = message(random, ids);
    match random.below(12) {
        0..=2 => value.to_string().into_bytes(),
        3..=5 => {
            swap_types(random, &mut value);
            value.to_string().into_bytes()
        }
        6..=8 => {
            let mut bytes = value.to_string().into_bytes();
            spoil(random, &mut bytes);
            bytes
        }
        9 => {
            let (open, close) = [("[", "]"), ("{\"type\":", "}")][random.at(2)];
            let depth = random.at(60_000);
            format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes()
        }
        10 => {
            let number =
                random.pick(&["1e400", "-1e999999", "99999999999999999999999999", "0x10", "NaN", "1."]);
            format!(
                r#"{{"type":"subscribe","subscription":{{"id":"n","sql":"","options":{{"from":{number}}}}}}}"#
            )
            .into_bytes()
        }
        _ => padded([MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 1, 3 << 20][random.at(3)]),
    }
}

fn packed(random: &mut Random, ids: &[String]) -> Vec<u8> {
    let mut value = message(random, ids);
    if random.one_in(3) {
        swap_types(random, &mut value);
    }
    let mut bytes = rmp_serde::to_vec_named(&value).unwrap();
    match random.below(6) {
        0 | 1 => spoil(random, &mut bytes),
        2 => bytes = [vec![0x91; random.at(60_000)], vec![0x81, 0xa4]].concat(),
        // Lengths that promise four gigabytes.
        3 => bytes = [&[0xdd, 0xdf, 0xdb, 0xc6][random.at(4)..][..1], &[0xff; 4], b"type"].concat(),
        _ => {}
    }
    bytes
}

/// Something to send; text is UTF-8.
pub(super) fn payload(random: &mut Random, ids: &[String]) -> Payload {
    let (binary, bytes) = match random.below(12) {
        0..=5 => (false, String::from_utf8_lossy(&text(random, ids)).into_owned().into_bytes()),
        6 => (true, text(random, ids)),
        7 | 8 => (true, packed(random, ids)),
        9 => (true, gzip(&text(random, ids))),
        10 => {
            let mut bytes = gzip(&packed(random, ids));
            spoil(random, &mut bytes);
            (true, bytes)
        }
        _ => match random.below(4) {
            0 => (true, bomb().to_vec()),
            1 => (true, bomb().repeat(3)),
            2 => (true, gzip(&padded(MESSAGE_BYTES_MAX + random.at(2)))),
            _ => {
                let length = random.at(300);
                (true, random.bytes(length))
            }
        },
    };
    Payload { binary, bytes }
}

/// What must come of it, where `messagepack` says how binary messages are read.
pub(super) fn judge(payload: &Payload, messagepack: bool) -> Verdict {
    if payload.bytes.len() > MESSAGE_BYTES_MAX {
        return Verdict::Refused;
    }
    if !payload.binary {
        return judge_json(&payload.bytes);
    }
    let gzipped = payload.bytes.starts_with(&[0x1f, 0x8b]);
    let mut inflated = Vec::new();
    if gzipped {
        let mut decoder = MultiGzDecoder::new(&payload.bytes[..]).take(MESSAGE_BYTES_MAX as u64 + 1);
        if decoder.read_to_end(&mut inflated).is_err() || inflated.len() > MESSAGE_BYTES_MAX {
            return Verdict::Refused;
        }
    }
    match (messagepack, gzipped) {
        (false, true) => judge_json(&inflated),
        (false, false) => Verdict::Refused,
        // Maps and arrays may be messages.
        (true, _) => match if gzipped { &inflated } else { &payload.bytes }.first() {
            Some(0x80..=0x9f | 0xdc..=0xdf) => Verdict::Any,
            _ => Verdict::Refused,
        },
    }
}

fn judge_json(bytes: &[u8]) -> Verdict {
    match serde_json::from_slice::<Value>(bytes) {
        Err(_) => Verdict::Refused,
        Ok(Value::Array(_)) => Verdict::Any,
        Ok(value) => match &value["type"] {
            Value::String(known) if TYPES.contains(&known.as_str()) => Verdict::Any,
            // A type may be written as its number.
            Value::Number(_) => Verdict::Any,
            _ => Verdict::Refused,
        },
    }
}

/// A payload as frames: in one, or in several with control frames between them.
pub(super) fn frames(random: &mut Random, payload: &Payload) -> Vec<u8> {
    let opcode = if payload.binary { 2 } else { 1 };
    let mask = |random: &mut Random| u32::try_from(random.below(1 << 32)).unwrap();
    let mut cuts = vec![0, payload.bytes.len()];
    if random.one_in(3) {
        cuts.extend((0..=random.below(5)).map(|_| random.at(payload.bytes.len() + 1)));
        cuts.sort_unstable();
    }
    let (mut bytes, last) = (Vec::new(), cuts.len() - 2);
    for (at, cut) in cuts.windows(2).enumerate() {
        let fin = if at == last { 0x80 } else { 0 };
        let first = fin | if at == 0 { opcode } else { 0 };
        bytes.extend(frame(first, &payload.bytes[cut[0]..cut[1]], mask(random)));
        if at < last && random.one_in(2) {
            let length = random.at(126);
            let control = random.bytes(length);
            bytes.extend(frame([0x89, 0x8a][random.at(2)], &control, mask(random)));
        }
    }
    bytes
}
