//! One event's archive: any bytes are an event or none, and an event is encoded to the same event.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_format::{ArchivedChangeEvent, FrameBuffer, KeyReader, DataType, RowReader};

fuzz_target!(|bytes: &[u8]| {
    let mut buffer = FrameBuffer::new();
    buffer.extend_from_slice(bytes);
    let Some(archived) = ArchivedChangeEvent::access(&buffer) else { return };
    let event = archived.to_event().unwrap();
    let again = event.encode().unwrap();
    let again = ArchivedChangeEvent::access(again.as_bytes()).unwrap();
    assert_eq!(again.to_event().unwrap(), event);
    assert_eq!(again.name(), archived.name());
    assert_eq!(again.operation(), archived.operation());
    assert_eq!(again.partition().map(|it| it.to_partition()), event.partition().cloned());
    // What a reader does next.
    if let ArchivedChangeEvent::RowUpdated(event) = archived {
        let _ = RowReader::new(&event.old).and_then(|row| row.values());
        let _ = KeyReader::new(&event.key).next(DataType::Text);
    }
});
