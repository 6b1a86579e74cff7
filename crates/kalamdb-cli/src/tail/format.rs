//! The forms an event is written in: a line for people, a JSON object, or the envelope of change-data tools.
//!
//! A record's parts are JSON already, so an object is put together from them and never built in memory.

use kalamdb_core::format::Operation;
use kalamdb_core::{ChangeRecord, instant};
use serde::Serialize;

use super::pretty::Pretty;

/// What `--format` says.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// One line to read.
    Pretty,
    /// One JSON object.
    Json,
    /// One JSON object as change-data tools know it (before, after, source, op, `ts_ms`); rows only.
    Debezium,
}

/// Writes events, one after another, in one form.
#[derive(Debug)]
pub(crate) struct Formatter {
    format: Format,
    pretty: Pretty,
    /// The last commit time, and its text: the events of a commit share it.
    time: (i64, String),
}

impl Formatter {
    pub(crate) fn new(format: Format, is_coloured: bool) -> Self {
        Self { format, pretty: Pretty::new(is_coloured), time: (0, instant(0)) }
    }

    /// Appends an event's line.
    pub(crate) fn line(&mut self, out: &mut Vec<u8>, record: &ChangeRecord) {
        match self.format {
            Format::Pretty => self.pretty.line(out, record),
            Format::Json => self.json(out, record),
            Format::Debezium => debezium(out, record),
        }
    }

    fn json(&mut self, out: &mut Vec<u8>, record: &ChangeRecord) {
        if self.time.0 != record.commit_time {
            self.time = (record.commit_time, instant(record.commit_time));
        }
        // Its seq is a number: none gets near to what JSON's numbers cannot hold.
        out.extend_from_slice(b"{\"seq\":");
        value(out, &record.seq.get());
        raw(out, b",\"commit_time\":\"", self.time.1.as_bytes());
        raw(out, b"\",\"op\":\"", record.operation.as_str().as_bytes());
        raw(out, b"\",\"event\":\"", record.event.as_bytes());
        out.push(b'"');
        text(out, b",\"namespace\":", &record.namespace);
        text(out, b",\"table\":", &record.table);
        text(out, b",\"user\":", &record.user);
        if record.schema_version > 0 {
            out.extend_from_slice(b",\"schema_version\":");
            value(out, &record.schema_version);
        }
        object(out, b",\"key\":", &record.key);
        object(out, b",\"before\":", &record.before);
        object(out, b",\"after\":", &record.after);
        object(out, b",\"details\":", &record.details);
        out.extend_from_slice(b"}\n");
    }
}

/// The envelope without a schema. What is no row's change has no place in it.
fn debezium(out: &mut Vec<u8>, record: &ChangeRecord) {
    let op = match record.operation {
        Operation::Insert => b"\"c\"",
        Operation::Update => b"\"u\"",
        Operation::Delete => b"\"d\"",
        Operation::Evict | Operation::Flush | Operation::Compact | Operation::Catalog | Operation::Epoch => {
            return;
        }
    };
    let or_null = |json: &[u8]| if json.is_empty() { b"null".to_vec() } else { json.to_vec() };
    raw(out, b"{\"before\":", &or_null(&record.before));
    raw(out, b",\"after\":", &or_null(&record.after));
    raw(out, b",\"source\":{\"version\":\"", env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"connector\":\"kalamdb\",\"name\":\"kalamdb\",\"ts_ms\":");
    let millis = record.commit_time.div_euclid(1000);
    value(out, &millis);
    out.extend_from_slice(b",\"ts_us\":");
    value(out, &record.commit_time);
    out.extend_from_slice(b",\"snapshot\":\"false\",\"db\":");
    value(out, &record.namespace);
    out.extend_from_slice(b",\"table\":");
    value(out, &record.table);
    text(out, b",\"user\":", &record.user);
    out.extend_from_slice(b",\"seq\":");
    value(out, &record.seq.get());
    out.extend_from_slice(b",\"schema_version\":");
    value(out, &record.schema_version);
    raw(out, b"},\"op\":", op);
    out.extend_from_slice(b",\"ts_ms\":");
    value(out, &millis);
    out.extend_from_slice(b",\"transaction\":null}\n");
}

/// A text or number as JSON.
fn value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Both can be written, and a vector takes everything.
    let _ = serde_json::to_writer(out, value);
}

fn raw(out: &mut Vec<u8>, before: &[u8], bytes: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(bytes);
}

/// A field that is left out where it is empty.
fn text(out: &mut Vec<u8>, before: &[u8], content: &str) {
    if !content.is_empty() {
        out.extend_from_slice(before);
        value(out, content);
    }
}

fn object(out: &mut Vec<u8>, before: &[u8], json: &[u8]) {
    if !json.is_empty() {
        raw(out, before, json);
    }
}
