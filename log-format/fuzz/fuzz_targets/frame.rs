//! Frames: any bytes are a frame or an error; every event of a frame is one or an error, and what is one can be put into
//! another frame and comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_format::{ArchivedChangeEvent, Bytes, Frame, FrameBuffer, FrameEncoder};

fn parse(bytes: &[u8]) -> Option<Frame> {
    let mut buffer = FrameBuffer::new();
    buffer.extend_from_slice(bytes);
    Frame::parse(&Bytes::from_owner(buffer)).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = parse(bytes);
    // The fuzzer does not find checksums: make it right, so that what stands behind it is reached.
    let mut bytes = bytes.to_vec();
    let Some(length) = bytes.get(4..8) else { return };
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let Some(rest) = bytes.get(4..length.max(4)) else { return };
    let crc = crc32c::crc32c(rest).to_le_bytes();
    bytes[..4].copy_from_slice(&crc);
    let Some(frame) = parse(&bytes) else { return };
    let archived: Result<Vec<&ArchivedChangeEvent>, _> = frame.events().map(|(_, event)| event).collect();
    let Ok(archived) = archived else { return };
    let events: Vec<_> = archived.iter().map(|event| event.to_event().unwrap()).collect();
    let encoded: Vec<_> = events.iter().map(|event| event.encode().unwrap()).collect();
    let mut encoder = FrameEncoder::new();
    // An archive may share what the writer would write twice: the frame may grow beyond what a frame may be.
    if encoder.push(&frame.header().fields, &encoded).is_ok() {
        let again = parse(encoder.as_bytes()).unwrap();
        let found: Vec<_> = again.events().map(|(_, event)| event.unwrap().to_event().unwrap()).collect();
        assert_eq!(found, events);
    }
});
