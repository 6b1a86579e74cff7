//! Reads bytes by SPEC.md alone, not with the code it tests, and says what each of them is.

use std::fmt::Write;

use super::layout::{EVENTS, Field, Shape};
use crate::{DataType, Value};

/// What bytes are, range after range.
#[derive(Default)]
pub(super) struct Annotations {
    lines: Vec<(usize, usize, String)>,
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Where the relative pointer at `at` points.
fn target(bytes: &[u8], at: usize) -> usize {
    let distance = i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    at.checked_add_signed(distance as isize).unwrap()
}

impl Annotations {
    pub(super) fn add(&mut self, at: usize, length: usize, text: impl Into<String>) {
        if length > 0 {
            self.lines.push((at, length, text.into()));
        }
    }

    /// The archive that is `bytes`; `base` is where it stands in what is annotated.
    pub(super) fn event(&mut self, bytes: &[u8], base: usize) {
        let mut own = Self::default();
        let root = bytes.len() - 8;
        let tag = usize::from(bytes[root]);
        let (name, payload, _) = EVENTS[tag];
        let payload_at = target(bytes, root + 4);
        own.add(root, 1, format!("root: tag {tag}, {name}"));
        own.add(root + 4, 4, format!("root: payload at {:04x}", base + payload_at));
        own.shape(&payload, bytes, payload_at, name, base);
        self.lines.extend(own.lines.into_iter().map(|(at, length, text)| (base + at, length, text)));
    }

    fn shape(&mut self, shape: &Shape, bytes: &[u8], at: usize, path: &str, base: usize) {
        match shape {
            Shape::Bool => self.add(at, 1, format!("{path} = {}", bytes[at] == 1)),
            Shape::U8 => self.add(at, 1, format!("{path} = {}", bytes[at])),
            Shape::Word(words) => {
                self.add(at, 1, format!("{path} = {}", words.words[usize::from(bytes[at])]));
            }
            Shape::U32 => self.add(at, 4, format!("{path} = {}", u32_at(bytes, at))),
            Shape::U64 => self.add(at, 8, format!("{path} = {}", u64_at(bytes, at))),
            Shape::I64 => self.add(at, 8, format!("{path} = {}", i64_at(bytes, at))),
            Shape::Text => self.text(bytes, at, path, base),
            Shape::Bytes => {
                let (start, length) = (target(bytes, at), u32_at(bytes, at + 4) as usize);
                self.add(at, 8, format!("{path}: {length} bytes at {:04x}", base + start));
                self.add(start, length, path);
            }
            Shape::List(item) => {
                let (start, count) = (target(bytes, at), u32_at(bytes, at + 4) as usize);
                self.add(at, 8, format!("{path}: {count} at {:04x}", base + start));
                for index in 0..count {
                    self.shape(item, bytes, start + index * item.size(), &format!("{path}[{index}]"), base);
                }
            }
            Shape::Maybe(_) if bytes[at] == 0 => self.add(at, 1, format!("{path}: none")),
            Shape::Maybe(inner) => {
                self.add(at, 1, format!("{path}: some"));
                self.shape(inner, bytes, at + inner.align(), path, base);
            }
            Shape::Record(record) => self.fields(record.fields, bytes, at, path, base),
            Shape::Tagged(tagged) => {
                let (name, fields) = tagged.variants[usize::from(bytes[at])];
                self.add(at, 1, format!("{path} = {name}"));
                self.fields(fields, bytes, at, path, base);
            }
        }
    }

    fn fields(&mut self, fields: &[Field], bytes: &[u8], at: usize, path: &str, base: usize) {
        for field in fields {
            self.shape(&field.shape, bytes, at + field.at, &format!("{path}.{}", field.name), base);
        }
    }

    fn text(&mut self, bytes: &[u8], at: usize, path: &str, base: usize) {
        if bytes[at] & 0xc0 != 0x80 {
            let inline = &bytes[at..at + 8];
            let length = inline.iter().position(|byte| *byte == 0xff).unwrap_or(8);
            let text = std::str::from_utf8(&inline[..length]).unwrap();
            return self.add(at, 8, format!("{path} = {text:?}"));
        }
        let mark = u32_at(bytes, at);
        let length = ((mark & 0x3f) | ((mark & !0xff) >> 2)) as usize;
        let distance = i32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        let start = at.checked_add_signed(distance as isize).unwrap();
        let text = std::str::from_utf8(&bytes[start..start + length]).unwrap();
        self.add(at, 8, format!("{path}: {length} bytes at {:04x}", base + start));
        self.add(start, length, format!("{path} = {text:?}"));
    }

    /// A whole frame.
    pub(super) fn frame(&mut self, bytes: &[u8]) {
        let count = u32_at(bytes, 16) as usize;
        self.add(0, 4, "crc32c of what follows");
        self.add(4, 4, format!("length = {}", u32_at(bytes, 4)));
        self.add(8, 8, format!("first_seq = {}", u64_at(bytes, 8)));
        self.add(16, 4, format!("count = {count}"));
        self.add(20, 4, format!("epoch = {}", u32_at(bytes, 20)));
        self.add(24, 4, "crc32c of the frame before");
        self.add(28, 4, "flags: none");
        self.add(32, 8, format!("commit_time = {}", i64_at(bytes, 32)));
        self.add(40, 8, format!("durable_seq = {}", u64_at(bytes, 40)));
        for index in 0..count {
            let entry = 48 + 8 * index;
            let (offset, length) = (u32_at(bytes, entry) as usize, u32_at(bytes, entry + 4) as usize);
            self.add(entry, 8, format!("event {index}: {length} bytes at {offset:04x}"));
            self.event(&bytes[offset..offset + length], offset);
        }
    }

    /// The head of a segment.
    pub(super) fn segment(&mut self, bytes: &[u8]) {
        self.add(0, 8, "magic: KALAMLOG");
        self.add(8, 2, "written in version 1");
        self.add(10, 2, "readable from version 1 on");
        self.add(12, 4, if u32_at(bytes, 12) == 0 { "flags: none" } else { "flags: follows a hole" });
        self.add(16, 16, "database id");
        self.add(32, 4, format!("epoch = {}", u32_at(bytes, 32)));
        self.add(40, 8, format!("base_seq = {}", u64_at(bytes, 40)));
        self.add(60, 4, "crc32c of what precedes");
    }

    /// The footer of a segment.
    pub(super) fn footer(&mut self, bytes: &[u8]) {
        let (entries, partitions) = (u32_at(bytes, 80) as usize, u32_at(bytes, 84) as usize);
        self.add(0, 8, "magic: KALAMFTR");
        self.add(8, 4, "flags: none");
        self.add(12, 4, format!("last_epoch = {}", u32_at(bytes, 12)));
        self.add(16, 8, format!("base_seq = {}", u64_at(bytes, 16)));
        self.add(24, 8, format!("last_seq = {}", u64_at(bytes, 24)));
        self.add(32, 8, format!("first_time = {}", i64_at(bytes, 32)));
        self.add(40, 8, format!("last_time = {}", i64_at(bytes, 40)));
        self.add(48, 8, format!("frames = {}", u64_at(bytes, 48)));
        self.add(56, 8, format!("events = {}", u64_at(bytes, 56)));
        self.add(64, 8, format!("end = {}", u64_at(bytes, 64)));
        self.add(72, 4, "crc32c of the frame before the first");
        self.add(76, 4, "crc32c of the last frame");
        self.add(80, 4, format!("entries = {entries}"));
        self.add(84, 4, format!("partitions = {partitions}"));
        for index in 0..entries {
            let at = 96 + 24 * index;
            self.add(at, 8, format!("entry {index}: first_seq = {}", u64_at(bytes, at)));
            self.add(at + 8, 8, format!("entry {index}: commit_time = {}", i64_at(bytes, at + 8)));
            self.add(at + 16, 8, format!("entry {index}: offset = {}", u64_at(bytes, at + 16)));
        }
        for index in 0..partitions {
            let at = 96 + 24 * entries + 8 * index;
            self.add(at, 8, format!("partition {index} = {:016x}", u64_at(bytes, at)));
        }
        let tail = bytes.len() - 16;
        self.add(tail, 4, "crc32c of what precedes, from the footer's beginning");
        self.add(tail + 4, 4, format!("length = {}", u32_at(bytes, tail + 4)));
        self.add(tail + 8, 8, "magic: KALAMEND");
    }

    /// A row whose cells hold these values.
    pub(super) fn row(&mut self, bytes: &[u8], values: &[Value]) {
        self.add(0, 4, format!("schema version = {}", u32_at(bytes, 0)));
        self.add(4, 2, format!("cells = {}", values.len()));
        let mut at = 6;
        for (index, value) in values.iter().enumerate() {
            let size = cell_bytes(bytes, at);
            self.add(at, size, format!("cell {index}: {value:?}"));
            at += size;
        }
        assert_eq!(at, bytes.len());
    }

    /// A key of these columns.
    pub(super) fn key(&mut self, parts: &[(DataType, Value, usize)]) {
        let mut at = 0;
        for (data_type, value, size) in parts {
            self.add(at, *size, format!("{data_type} {value:?}"));
            at += size;
        }
    }

    /// All of `bytes` with what they are. What is not annotated must be zero.
    pub(super) fn render(mut self, bytes: &[u8]) -> String {
        self.lines.sort();
        let mut out = String::new();
        let mut at = 0;
        for (start, length, text) in self.lines {
            assert!(start >= at, "{text}: overlaps what is before it");
            padding(&mut out, bytes, at, start);
            hex(&mut out, bytes, start, length, &text);
            at = start + length;
        }
        padding(&mut out, bytes, at, bytes.len());
        out
    }
}

/// Bytes of the cell at `at`, by its tag.
fn cell_bytes(bytes: &[u8], at: usize) -> usize {
    match bytes[at] {
        0x00..=0x02 => 1,
        0x03 => 3,
        0x04 | 0x06 | 0x0c => 5,
        0x05 | 0x07 | 0x0a | 0x0b | 0x0d => 9,
        0x08 | 0x10 => 17,
        _ => 5 + u32_at(bytes, at + 1) as usize,
    }
}

fn padding(out: &mut String, bytes: &[u8], from: usize, to: usize) {
    assert!(bytes[from..to].iter().all(|byte| *byte == 0), "bytes {from:04x}..{to:04x} are not explained");
    hex(out, bytes, from, to - from, "padding");
}

/// Sixteen bytes a line, the text beside the first.
pub(super) fn hex(out: &mut String, bytes: &[u8], start: usize, length: usize, text: &str) {
    for (index, line) in bytes[start..start + length].chunks(16).enumerate() {
        let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = if index == 0 { text } else { "" };
        let line = format!("{:04x}  {:47}  {text}", start + 16 * index, digits.join(" "));
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
}
