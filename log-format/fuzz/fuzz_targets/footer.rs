//! The footer of a segment: any bytes are a footer or an error, and a footer is written as it was read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_format::{FOOTER_TAIL_BYTES, SegmentFooter};

fuzz_target!(|bytes: &[u8]| {
    let _ = SegmentFooter::parse(bytes);
    // The fuzzer does not find checksums and lengths: make them right, so that what stands behind them is reached.
    let mut bytes = bytes.to_vec();
    let Some(body) = bytes.len().checked_sub(FOOTER_TAIL_BYTES) else { return };
    let crc = crc32c::crc32c(&bytes[..body]).to_le_bytes();
    let length = u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes();
    bytes[body..body + 4].copy_from_slice(&crc);
    bytes[body + 4..body + 8].copy_from_slice(&length);
    if let Ok(footer) = SegmentFooter::parse(&bytes) {
        assert_eq!(SegmentFooter::length(&bytes[body..]), Some(bytes.len()));
        assert_eq!(SegmentFooter::parse(&footer.encode().unwrap()), Ok(footer));
    }
});
