//! Bytes that must be refused, each with the way it is wrong and the error that says so.

use super::samples;
use crate::{
    Bytes, DataType, DatabaseId, Error, FooterEntry, Frame, FrameBuffer, FrameEncoder, FrameFields,
    KeyReader, Partition, PartitionHash, RowReader, SegmentFooter, SegmentHeader, Seq, TableId, UserId,
};

/// What reads the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    Segment,
    Footer,
    Frame,
    Row,
    Key(DataType),
}

pub(super) struct Rejection {
    pub(super) name: &'static str,
    pub(super) reader: Reader,
    pub(super) why: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Whether the error is of the right kind.
    pub(super) expects: fn(&Error) -> bool,
}

/// The bytes as something that was read from a file.
pub(super) fn aligned(bytes: &[u8]) -> Bytes {
    let mut buffer = FrameBuffer::new();
    buffer.extend_from_slice(bytes);
    Bytes::from_owner(buffer)
}

/// Reads everything there is in the bytes.
pub(super) fn read(reader: Reader, bytes: &[u8]) -> Result<(), Error> {
    match reader {
        Reader::Segment => SegmentHeader::parse(bytes).map(drop),
        Reader::Footer => SegmentFooter::parse(bytes).map(drop),
        Reader::Frame => {
            let frame = Frame::parse(&aligned(bytes))?;
            frame.events().try_for_each(|(_, event)| event.map(drop))
        }
        Reader::Row => RowReader::new(bytes)?.values().map(drop),
        Reader::Key(data_type) => KeyReader::new(bytes).next(data_type).map(drop),
    }
}

pub(super) fn segment() -> Vec<u8> {
    let header = SegmentHeader {
        database: DatabaseId::new(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10"),
        epoch: 3,
        base_seq: Seq::new(42),
        after_hole: false,
    };
    header.encode().to_vec()
}

pub(super) fn segment_after_hole() -> Vec<u8> {
    let header = SegmentHeader::parse(&segment()).unwrap();
    SegmentHeader { after_hole: true, ..header }.encode().to_vec()
}

pub(super) fn footer() -> SegmentFooter {
    let mut partitions = vec![
        PartitionHash::CATALOG,
        PartitionHash::of(&Partition::shared(TableId::new(42))),
        PartitionHash::of(&Partition::of_user(TableId::new(7), UserId::new("ada"))),
    ];
    partitions.sort();
    let entry = |seq, commit_time, offset| FooterEntry { first_seq: Seq::new(seq), commit_time, offset };
    SegmentFooter {
        base_seq: Seq::new(42),
        last_seq: Seq::new(46),
        last_epoch: 3,
        previous_crc: 0x1122_3344,
        last_crc: 0x5566_7788,
        first_time: 1_790_000_000_000_000,
        last_time: 1_790_000_000_500_000,
        frames: 2,
        events: 5,
        end: 70_064,
        entries: vec![entry(42, 1_790_000_000_000_000, 64), entry(44, 1_790_000_000_500_000, 66_064)],
        partitions: Some(partitions),
    }
}

/// The footer with `patch` put in at `at` and its checksum made right.
fn sealed_footer(at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = patched(footer().encode().unwrap(), at, patch);
    let tail = bytes.len() - 16;
    let crc = crc32c::crc32c(&bytes[..tail]);
    bytes[tail..tail + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn frame() -> Vec<u8> {
    let events: Vec<_> = samples::events().iter().take(2).map(|event| event.encode().unwrap()).collect();
    let fields = FrameFields {
        first_seq: Seq::new(42),
        epoch: 3,
        previous_crc: 0x1122_3344,
        commit_time: 1_790_000_000_000_000,
        durable_seq: Seq::new(41),
    };
    let mut encoder = FrameEncoder::new();
    encoder.push(&fields, &events).unwrap();
    encoder.take().to_vec()
}

/// `bytes` with `patch` put in at `at`.
fn patched(mut bytes: Vec<u8>, at: usize, patch: &[u8]) -> Vec<u8> {
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

fn sealed_frame(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn sealed_segment(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn rejection(
    name: &'static str,
    reader: Reader,
    why: &'static str,
    bytes: Vec<u8>,
    expects: fn(&Error) -> bool,
) -> Rejection {
    Rejection { name, reader, why, bytes, expects }
}

fn of_segments() -> Vec<Rejection> {
    let of = |name, why, bytes, expects| rejection(name, Reader::Segment, why, bytes, expects);
    vec![
        of("segment-truncated", "one byte is missing", segment()[..63].to_vec(), |error| {
            matches!(error, Error::Truncated { needed: 64, available: 63, .. })
        }),
        of("segment-magic", "it begins with another letter", patched(segment(), 0, b"X"), |error| {
            matches!(error, Error::Magic { .. })
        }),
        of(
            "segment-checksum",
            "one bit of the base seq is flipped",
            patched(segment(), 40, &[0x2b]),
            |error| matches!(error, Error::Checksum { .. }),
        ),
        of(
            "segment-version",
            "written in version 9, readable from version 9 on",
            sealed_segment(patched(segment(), 8, &[9, 0, 9, 0])),
            |error| matches!(error, Error::Version { found: 9, readable_from: 9, supported: 1 }),
        ),
        of("segment-flags", "an unknown flag", sealed_segment(patched(segment(), 12, &[1])), |error| {
            matches!(error, Error::Flags { flags: 1, .. })
        }),
    ]
}

fn of_footers() -> Vec<Rejection> {
    let of = |name, why, bytes, expects| rejection(name, Reader::Footer, why, bytes, expects);
    let whole = footer().encode().unwrap();
    let first_hash = 96 + 2 * 24;
    vec![
        of("footer-truncated", "it is shorter than a footer can be", whole[..96].to_vec(), |error| {
            matches!(error, Error::Truncated { needed: 112, available: 96, .. })
        }),
        of("footer-magic", "it begins with another letter", sealed_footer(0, b"X"), |error| {
            matches!(error, Error::Footer { .. })
        }),
        of("footer-length", "its first 16 bytes are missing", whole[16..].to_vec(), |error| {
            matches!(error, Error::Footer { .. })
        }),
        of("footer-checksum", "one bit of the last seq is flipped", patched(whole, 24, &[0x2f]), |error| {
            matches!(error, Error::Checksum { .. })
        }),
        of("footer-flags", "an unknown flag", sealed_footer(8, &[2]), |error| {
            matches!(error, Error::Flags { flags: 2, .. })
        }),
        of("footer-counts", "one partition more than there is room for", sealed_footer(84, &[9]), |error| {
            matches!(error, Error::Footer { .. })
        }),
        of(
            "footer-entries",
            "the second entry stands before the first",
            sealed_footer(96 + 40, &[1, 0, 0]),
            |error| matches!(error, Error::Footer { .. }),
        ),
        of(
            "footer-partitions",
            "the first partition is above the second",
            sealed_footer(first_hash + 7, &[0xff]),
            |error| matches!(error, Error::Footer { .. }),
        ),
    ]
}

fn of_frames() -> Vec<Rejection> {
    let of = |name, why, bytes, expects| rejection(name, Reader::Frame, why, bytes, expects);
    let whole = frame();
    let first_event = super::annotate::u32_at(&whole, 48) as usize;
    let first_root = first_event + super::annotate::u32_at(&whole, 52) as usize - 8;
    vec![
        of("frame-truncated", "the last byte is missing", whole[..whole.len() - 1].to_vec(), |error| {
            matches!(error, Error::Truncated { .. })
        }),
        of("frame-head-truncated", "it ends within its head", whole[..47].to_vec(), |error| {
            matches!(error, Error::Truncated { needed: 48, available: 47, .. })
        }),
        of("frame-checksum", "one bit of the commit time is flipped", patched(frame(), 32, &[1]), |error| {
            matches!(error, Error::Checksum { .. })
        }),
        of(
            "frame-length",
            "longer than a frame may be; nothing is allocated for it",
            patched(frame(), 4, &0x7fff_fff0_u32.to_le_bytes()),
            |error| matches!(error, Error::Length { length: 0x7fff_fff0, .. }),
        ),
        of(
            "frame-length-step",
            "a length that is no multiple of 16",
            patched(frame(), 4, &[0x41, 0]),
            |error| matches!(error, Error::Length { length: 0x41, .. }),
        ),
        of("frame-flags", "an unknown flag", sealed_frame(patched(frame(), 28, &[2])), |error| {
            matches!(error, Error::Flags { flags: 2, .. })
        }),
        of(
            "frame-offset-table",
            "the second event begins within the first",
            sealed_frame(patched(frame(), 56, &(u32::try_from(first_event).unwrap()).to_le_bytes())),
            |error| matches!(error, Error::OffsetTable { seq: 42, index: 1 }),
        ),
        of("frame-without-events", "a count of zero", sealed_frame(patched(frame(), 16, &[0])), |error| {
            matches!(error, Error::OffsetTable { index: 0, .. })
        }),
        of(
            "frame-archive",
            "the first event has a tag that no event has",
            sealed_frame(patched(frame(), first_root, &[200])),
            |error| matches!(error, Error::Archive { seq: 42, index: 0 }),
        ),
        of(
            "frame-archive-pointer",
            "the first event's payload is said to stand outside the archive",
            sealed_frame(patched(frame(), first_root + 4, &1000_i32.to_le_bytes())),
            |error| matches!(error, Error::Archive { seq: 42, index: 0 }),
        ),
    ]
}

fn of_rows_and_keys() -> Vec<Rejection> {
    let of = |name, why, bytes: &[u8], expects| rejection(name, Reader::Row, why, bytes.to_vec(), expects);
    let key = |name, data_type, why, bytes: &[u8]| {
        rejection(name, Reader::Key(data_type), why, bytes.to_vec(), |error| {
            matches!(error, Error::Key { .. })
        })
    };
    vec![
        of("row-truncated", "a text longer than the row", b"\x01\0\0\0\x01\0\x09\x05\0\0\0abcd", |error| {
            matches!(error, Error::Truncated { .. })
        }),
        of("row-cell-tag", "a tag that no type has", b"\x01\0\0\0\x02\0\x02\x77", |error| {
            matches!(error, Error::Cell { index: 1, .. })
        }),
        of("row-cell-text", "a text that is not UTF-8", b"\x01\0\0\0\x01\0\x09\x02\0\0\0\xc3\x28", |error| {
            matches!(error, Error::Cell { index: 0, .. })
        }),
        of(
            "row-cell-embedding",
            "an embedding of five bytes",
            b"\x01\0\0\0\x01\0\x11\x05\0\0\0abcde",
            |error| matches!(error, Error::Cell { index: 0, .. }),
        ),
        key("key-end-mark", DataType::Text, "a text without its end mark", b"abc"),
        key("key-text", DataType::Text, "a text that is not UTF-8", b"\xc3\x28\x00\x01"),
        key("key-short", DataType::BigInt, "a BIGINT of seven bytes", &[0x80, 0, 0, 0, 0, 0, 1]),
        key("key-boolean", DataType::Boolean, "neither true nor false", &[2]),
        key("key-type", DataType::Json, "a type that has no order", b"{}\x00\x01"),
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Rejection> {
    let mut all = of_segments();
    all.extend(of_footers());
    all.extend(of_frames());
    all.extend(of_rows_and_keys());
    all
}
