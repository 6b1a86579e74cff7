//! The head of a segment: any 64 bytes are a head or an error, and a head is written as it was read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_format::{SEGMENT_HEADER_BYTES, SegmentHeader};

fuzz_target!(|bytes: &[u8]| {
    let _ = SegmentHeader::parse(bytes);
    // The fuzzer does not find checksums: make it right, so that what stands behind it is reached.
    let Some(head) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else { return };
    let mut head = *head;
    let crc = crc32c::crc32c(&head[..60]).to_le_bytes();
    head[60..].copy_from_slice(&crc);
    if let Ok(header) = SegmentHeader::parse(&head) {
        assert_eq!(SegmentHeader::parse(&header.encode()), Ok(header));
    }
});
