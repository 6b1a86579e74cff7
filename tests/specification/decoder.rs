//! A second reader of the log, written from log-format/SPEC.md alone: it uses nothing of the crate and no rkyv, and where an
//! event's fields stand it reads in that page's own tables. What it cannot read is `None`.

use std::collections::{BTreeMap, HashMap};

/// What one field of an event holds: its text as the golden vectors write it, and its bytes if it is bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) text: String,
    pub(crate) bytes: Vec<u8>,
}

/// An event: its name, and its fields by path.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, Leaf>,
}

#[derive(Clone, Debug)]
struct Field {
    at: usize,
    name: String,
    shape: String,
}

#[derive(Debug)]
enum Layout {
    Record(Vec<Field>),
    Tagged(Vec<(String, Vec<Field>)>),
    Words(Vec<String>),
}

/// The tables of SPEC.md.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    events: Vec<(String, String)>,
    layouts: HashMap<String, (usize, usize, Layout)>,
}

impl Spec {
    pub(crate) fn parse(page: &str) -> Self {
        let mut spec = Self::default();
        let mut open = String::new();
        let generated = page.split("<!-- generated").nth(1).unwrap();
        for line in generated.lines() {
            let names: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            if line.starts_with("- **`") {
                let words = names[1..].iter().map(ToString::to_string).collect();
                spec.layouts.insert(names[0].to_owned(), (1, 1, Layout::Words(words)));
            } else if line.starts_with("**`") {
                let numbers: Vec<usize> = line
                    .split(|letter: char| !letter.is_ascii_digit())
                    .filter_map(|it| it.parse().ok())
                    .collect();
                let layout = if line.contains("tagged") {
                    Layout::Tagged(Vec::new())
                } else {
                    Layout::Record(Vec::new())
                };
                names[0].clone_into(&mut open);
                spec.layouts.insert(open.clone(), (numbers[0], numbers[1], layout));
            } else if let Some(number) = cells.get(1).and_then(|cell| cell.parse::<usize>().ok()) {
                let name = names[0].to_owned();
                match spec.layouts.get_mut(&open).map(|(_, _, layout)| layout) {
                    None => spec.events.push((name, cells[3].trim_matches('`').to_owned())),
                    Some(Layout::Record(fields)) => {
                        fields.push(Field { at: number, name, shape: cells[3].trim_matches('`').to_owned() });
                    }
                    Some(Layout::Tagged(variants)) => variants.push((name, variant_fields(cells[3]))),
                    Some(Layout::Words(_)) => unreachable!("words are one line"),
                }
            }
        }
        spec
    }

    pub(crate) fn event_names(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|(name, _)| name.as_str())
    }

    /// Size and alignment of a shape.
    fn size(&self, shape: &str) -> (usize, usize) {
        match shape {
            "u8" | "bool" => (1, 1),
            "u32" => (4, 4),
            "u64" | "i64" => (8, 8),
            "bytes" | "text" => (8, 4),
            _ if shape.starts_with("list of ") => (8, 4),
            _ => match shape.strip_prefix("option of ") {
                Some(inner) => {
                    let (size, align) = self.size(inner.trim_matches('`'));
                    (align + size, align)
                }
                None => (self.layouts[shape].0, self.layouts[shape].1),
            },
        }
    }

    /// An archive's event: its root is the last 8 bytes.
    pub(crate) fn event(&self, seq: u64, archive: &[u8]) -> Option<Event> {
        let root = archive.len().checked_sub(8)?;
        let (name, shape) = self.events.get(usize::from(archive[root]))?;
        let mut fields = BTreeMap::new();
        self.field(archive, pointer(archive, root + 4)?, shape, name, &mut fields)?;
        Some(Event { seq, name: name.clone(), fields })
    }

    fn field(
        &self,
        archive: &[u8],
        at: usize,
        shape: &str,
        path: &str,
        out: &mut BTreeMap<String, Leaf>,
    ) -> Option<()> {
        if let Some(inner) = shape.strip_prefix("option of ") {
            let inner = inner.trim_matches('`');
            return match archive.get(at)? {
                0 => Some(()),
                1 => self.field(archive, at + self.size(inner).1, inner, path, out),
                _ => None,
            };
        }
        if let Some(inner) = shape.strip_prefix("list of ") {
            let inner = inner.trim_matches('`');
            let first = pointer(archive, at)?;
            return (0..number::<4>(archive, at + 4)?).try_for_each(|index| {
                let item = first + usize::try_from(index).ok()? * self.size(inner).0;
                self.field(archive, item, inner, &format!("{path}[{index}]"), out)
            });
        }
        let mut bytes = Vec::new();
        let text = match shape {
            "bool" => (*archive.get(at)? == 1).to_string(),
            "u8" => archive.get(at)?.to_string(),
            "u32" => number::<4>(archive, at)?.to_string(),
            "u64" => number::<8>(archive, at)?.to_string(),
            "i64" => number::<8>(archive, at)?.cast_signed().to_string(),
            "text" => format!("{:?}", text(archive, at)?),
            "bytes" => {
                bytes = run(archive, pointer(archive, at)?, number::<4>(archive, at + 4)?)?.to_vec();
                String::new()
            }
            name => match &self.layouts.get(name)?.2 {
                Layout::Record(fields) => {
                    return fields.iter().try_for_each(|field| {
                        self.field(
                            archive,
                            at + field.at,
                            &field.shape,
                            &format!("{path}.{}", field.name),
                            out,
                        )
                    });
                }
                Layout::Words(words) => words.get(usize::from(*archive.get(at)?))?.clone(),
                Layout::Tagged(variants) => {
                    let (name, fields) = variants.get(usize::from(*archive.get(at)?))?;
                    for field in fields {
                        let path = format!("{path}.{}", field.name);
                        self.field(archive, at + field.at, &field.shape, &path, out)?;
                    }
                    name.clone()
                }
            },
        };
        out.insert(path.to_owned(), Leaf { text, bytes });
        Some(())
    }

    /// The events of the frame at the beginning of `bytes`, and the frame's length, crc, previous crc and epoch.
    pub(crate) fn frame(&self, bytes: &[u8]) -> Option<(Vec<Event>, usize, [u32; 3])> {
        let field = |at| number::<4>(bytes, at).and_then(|it| u32::try_from(it).ok());
        let length =
            usize::try_from(field(4)?).ok().filter(|it| (64..=64 << 20).contains(it) && it % 16 == 0)?;
        let frame = bytes.get(..length)?;
        let (crc, count) = (field(0)?, usize::try_from(field(16)?).ok()?);
        if crc32c(&frame[4..]) != crc || field(28)? != 0 || count == 0 {
            return None;
        }
        let mut free = (48 + count.checked_mul(8)?).next_multiple_of(16);
        let events = (0..count).map(|index| {
            let at = usize::try_from(field(48 + index * 8)?).ok()?;
            let archive =
                run(frame, at, field(52 + index * 8)?.into()).filter(|_| at >= free && at % 16 == 0)?;
            free = (at + archive.len()).next_multiple_of(16);
            self.event(number::<8>(frame, 8)? + index as u64, archive)
        });
        Some((events.collect::<Option<_>>()?, length, [crc, field(24)?, field(20)?]))
    }
}

/// A variant's fields: offset, name and shape of each.
fn variant_fields(cell: &str) -> Vec<Field> {
    let fields = cell.split("; ").filter_map(|field| {
        let (at, rest) = field.split_once(": ")?;
        let (name, shape) = rest.split_once(", ")?;
        let plain = |it: &str| it.trim_matches('`').to_owned();
        Some(Field { at: at.parse().ok()?, name: plain(name), shape: plain(shape) })
    });
    fields.collect()
}

/// The base seq that a segment's head names, and whether events are missing before it.
pub(crate) fn segment_head(bytes: &[u8]) -> Option<(u64, bool)> {
    let head = bytes.get(..64)?;
    let flags = number::<4>(head, 12)?;
    let is_known = head.starts_with(b"KALAMLOG") && number::<2>(head, 10)? <= 1 && flags & !2 == 0;
    let is_whole = u64::from(crc32c(&head[..60])) == number::<4>(head, 60)?;
    if is_known && is_whole { Some((number::<8>(head, 40)?, flags == 2)) } else { None }
}

/// What a segment's footer repeats of its frames.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) last_seq: u64,
    pub(crate) events: u64,
    pub(crate) end: u64,
    pub(crate) last_crc: u64,
    /// First seq, commit time, offset.
    pub(crate) entries: Vec<[u64; 3]>,
    pub(crate) partitions: Option<Vec<u64>>,
}

/// The footer at the beginning of `bytes`, to their end.
pub(crate) fn footer(bytes: &[u8]) -> Option<Footer> {
    let tail = bytes.len().checked_sub(16)?;
    let is_whole = bytes.starts_with(b"KALAMFTR")
        && bytes.ends_with(b"KALAMEND")
        && number::<4>(bytes, tail + 4)? == bytes.len() as u64
        && number::<4>(bytes, tail)? == u64::from(crc32c(&bytes[..tail]));
    let (flags, entries, partitions) =
        (number::<4>(bytes, 8)?, number::<4>(bytes, 80)?, number::<4>(bytes, 84)?);
    let lists = usize::try_from(96 + entries * 24 + partitions * 8).ok()?.next_multiple_of(16);
    if !is_whole || flags > 1 || flags == 1 && partitions > 0 || lists != tail {
        return None;
    }
    let entry = |index| {
        let at = usize::try_from(96 + index * 24).ok()?;
        Some([number::<8>(bytes, at)?, number::<8>(bytes, at + 8)?, number::<8>(bytes, at + 16)?])
    };
    let hash = |index| number::<8>(bytes, usize::try_from(96 + entries * 24 + index * 8).ok()?);
    let (end, entries) = (number::<8>(bytes, 64)?, (0..entries).map(entry).collect::<Option<Vec<_>>>()?);
    let hashes = (0..partitions).map(hash).collect::<Option<Vec<_>>>()?;
    let in_order = entries.is_sorted_by(|one, next| one[0] < next[0] && one[2] < next[2])
        && entries.last().is_none_or(|last| last[2] < end)
        && hashes.is_sorted_by(|one, next| one < next);
    in_order.then_some(Footer {
        last_seq: number::<8>(bytes, 24)?,
        events: number::<8>(bytes, 56)?,
        end,
        last_crc: number::<4>(bytes, 76)?,
        entries,
        partitions: (flags == 0).then_some(hashes),
    })
}

/// The hash of a partition in a footer: FNV-1a.
pub(crate) fn partition_hash(table: u64, owner: Option<&str>) -> u64 {
    let owner = owner.map_or(vec![0], |owner| [&[1], owner.as_bytes()].concat());
    let bytes = table.to_le_bytes().into_iter().chain(owner);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A row's schema version and cells, written as the golden vectors write them.
pub(crate) fn row(bytes: &[u8]) -> Option<(u64, Vec<String>)> {
    let mut rest = bytes.get(6..)?;
    let mut cells = Vec::new();
    for _ in 0..number::<2>(bytes, 4)? {
        let tag = *take(&mut rest, 1)?.first()?;
        let length = match tag {
            0..=2 => 0,
            3 => 2,
            4 | 6 | 0x0c => 4,
            5 | 7 | 0x0a | 0x0b | 0x0d => 8,
            8 | 0x10 => 16,
            9 | 0x0e | 0x0f | 0x11 => usize::try_from(number::<4>(take(&mut rest, 4)?, 0)?).ok()?,
            _ => return None,
        };
        let payload = take(&mut rest, length)?;
        let signed = || {
            let mut wide = [if payload.last().is_some_and(|last| last >> 7 == 1) { 0xff } else { 0 }; 16];
            wide[..payload.len()].copy_from_slice(payload);
            i128::from_le_bytes(wide)
        };
        cells.push(match tag {
            0 => "Null".to_owned(),
            1 | 2 => format!("Boolean({})", tag == 2),
            6 => format!("Float({:?})", f32::from_le_bytes(payload.try_into().ok()?)),
            7 => format!("Double({:?})", f64::from_le_bytes(payload.try_into().ok()?)),
            9 | 0x0e => {
                format!(
                    "{}({:?})",
                    if tag == 9 { "Text" } else { "Json" },
                    std::str::from_utf8(payload).ok()?
                )
            }
            0x0f => format!("Bytes({payload:?})"),
            0x10 => format!("Uuid({payload:?})"),
            0x11 => {
                let (items, []) = payload.as_chunks::<4>() else { return None };
                format!(
                    "Embedding({:?})",
                    items.iter().map(|item| f32::from_le_bytes(*item)).collect::<Vec<_>>()
                )
            }
            _ => {
                let names = [
                    "SmallInt",
                    "Int",
                    "BigInt",
                    "",
                    "",
                    "Decimal",
                    "",
                    "Timestamp",
                    "DateTime",
                    "Date",
                    "Time",
                ];
                format!("{}({})", names[usize::from(tag) - 3], signed())
            }
        });
    }
    Some((number::<4>(bytes, 0)?, cells))
}

/// A key's columns of these types, written as the golden vectors write them; none may be left over.
pub(crate) fn key(mut bytes: &[u8], types: &[&str]) -> Option<Vec<String>> {
    let columns = types.iter().map(|kind| {
        let sign = |bits: u128, width: u32| (bits ^ (1 << (width - 1))) << (128 - width);
        let mut bits = |width: u32| {
            let taken = take(&mut bytes, width as usize / 8)?;
            Some(taken.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte)))
        };
        let mut signed = |width: u32| Some(sign(bits(width)?, width).cast_signed() >> (128 - width));
        Some(match *kind {
            "BOOLEAN" => match take(&mut bytes, 1)? {
                [flag @ 0..=1] => format!("Boolean({})", *flag == 1),
                _ => return None,
            },
            "SMALLINT" => format!("SmallInt({})", signed(16)?),
            "INT" => format!("Int({})", signed(32)?),
            "DATE" => format!("Date({})", signed(32)?),
            "BIGINT" => format!("BigInt({})", signed(64)?),
            "TIMESTAMP" => format!("Timestamp({})", signed(64)?),
            "DATETIME" => format!("DateTime({})", signed(64)?),
            "TIME" => format!("Time({})", signed(64)?),
            "DECIMAL" => format!("Decimal({})", signed(128)?),
            "FLOAT" => {
                let bits = u32::try_from(bits(32)?).ok()?;
                format!("Float({:?})", f32::from_bits(if bits >> 31 == 1 { bits ^ 1 << 31 } else { !bits }))
            }
            "DOUBLE" => {
                let bits = u64::try_from(bits(64)?).ok()?;
                format!("Double({:?})", f64::from_bits(if bits >> 63 == 1 { bits ^ 1 << 63 } else { !bits }))
            }
            "TEXT" => format!("Text({:?})", String::from_utf8(unescape(&mut bytes)?).ok()?),
            "BYTES" => format!("Bytes({:?})", unescape(&mut bytes)?),
            "UUID" => format!("Uuid({:?})", take(&mut bytes, 16)?),
            _ => return None,
        })
    });
    let columns = columns.collect::<Option<Vec<_>>>()?;
    bytes.is_empty().then_some(columns)
}

fn unescape(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        match take(bytes, 1)? {
            [0] => match take(bytes, 1)? {
                [0xff] => out.push(0),
                [1] => return Some(out),
                _ => return None,
            },
            byte => out.extend_from_slice(byte),
        }
    }
}

fn text(archive: &[u8], at: usize) -> Option<&str> {
    let place = run(archive, at, 8)?;
    let text = if place[0] & 0xc0 == 0x80 {
        let mark = number::<4>(place, 0)?;
        let distance = isize::try_from(number::<4>(place, 4)?.cast_signed() << 32 >> 32).ok()?;
        run(archive, at.checked_add_signed(distance)?, mark & 0x3f | (mark & !0xff) >> 2)?
    } else {
        place.split(|byte| *byte == 0xff).next()?
    };
    std::str::from_utf8(text).ok()
}

fn pointer(archive: &[u8], at: usize) -> Option<usize> {
    let distance = number::<4>(archive, at)?.cast_signed() << 32 >> 32;
    at.checked_add_signed(isize::try_from(distance).ok()?)
}

fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = run(bytes, at, BYTES as u64)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn run(bytes: &[u8], at: usize, length: u64) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(usize::try_from(length).ok()?)?)
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// CRC-32C: Castagnoli's polynomial, reflected.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}
