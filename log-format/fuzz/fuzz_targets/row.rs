//! A row: any bytes are cells or an error, and cells are written as they were read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use log_format::{RowBuilder, RowReader};

fuzz_target!(|bytes: &[u8]| {
    let Ok(row) = RowReader::new(bytes) else { return };
    let Ok(values) = row.values() else { return };
    let mut builder = RowBuilder::new(row.version());
    for value in &values {
        builder.push(value);
    }
    let Ok(again) = builder.finish() else { return };
    // Behind the last cell there may be anything.
    assert!(bytes.starts_with(&again));
});
