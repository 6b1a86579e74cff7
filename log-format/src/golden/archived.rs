//! What rkyv makes of the types on this machine is what the table says: the features that fix endianness, pointer width
//! and alignment are on, and no type moved.

use std::mem::{align_of, offset_of, size_of};

use rkyv::boxed::ArchivedBox;
use rkyv::option::ArchivedOption;
use rkyv::primitive::{ArchivedI64, ArchivedIsize, ArchivedU32, ArchivedU64, ArchivedUsize};
use rkyv::string::ArchivedString;
use rkyv::vec::ArchivedVec;

use super::layout;
use super::layout::{Record, Tagged};
use crate::catalog::{
    ArchivedColumn, ArchivedColumnDefault, ArchivedFlushPolicy, ArchivedJob, ArchivedNamespace,
    ArchivedStorageLocation, ArchivedStreamOptions, ArchivedTable, ArchivedTableKind, ArchivedTableSchema,
    ArchivedUser,
};
use crate::cold::{
    ArchivedColdFile, ArchivedColumnBounds, ArchivedCompacted, ArchivedFlushed, ArchivedLiveRows,
    ArchivedSupersededRows,
};
use crate::event::{
    ArchivedChangeEvent, ArchivedEpochStarted, ArchivedRowDeleted, ArchivedRowInserted, ArchivedRowUpdated,
    ArchivedStreamAppended, ArchivedStreamEvicted, ArchivedTableDropped, ArchivedTableTruncated,
};
use crate::ids::ArchivedPartition;
use crate::value::ArchivedDataType;

fn check(record: &Record, size: usize, align: usize, offsets: &[(&str, usize)]) {
    assert_eq!((record.size, record.align), (size, align), "{}", record.name);
    let told: Vec<_> = record.fields.iter().map(|field| (field.name, field.at)).collect();
    assert_eq!(told, offsets, "{}", record.name);
}

macro_rules! check {
    ($record:ident, $archived:ident: $($field:ident),*) => {
        check(
            &layout::$record,
            size_of::<$archived>(),
            align_of::<$archived>(),
            &[$((stringify!($field), offset_of!($archived, $field))),*],
        );
    };
}

#[test]
fn records_are_laid_out_as_told() {
    check!(PARTITION, ArchivedPartition: table, user);
    check!(EPOCH_STARTED, ArchivedEpochStarted: previous_end);
    check!(ROW_INSERTED, ArchivedRowInserted: partition, key, row);
    check!(ROW_UPDATED, ArchivedRowUpdated: partition, key, old, new);
    check!(ROW_DELETED, ArchivedRowDeleted: partition, key, old);
    check!(STREAM_APPENDED, ArchivedStreamAppended: partition, row);
    check!(STREAM_EVICTED, ArchivedStreamEvicted: partition, before_time, before_seq);
    check!(TABLE_DROPPED, ArchivedTableDropped: table, namespace, name);
    check!(TABLE_TRUNCATED, ArchivedTableTruncated: table, namespace, name);
    check!(FLUSHED, ArchivedFlushed: partition, from_key, until_key, schema_version, until_seq, file, superseded, live);
    check!(LIVE_ROWS, ArchivedLiveRows: rows, bytes);
    check!(COMPACTED, ArchivedCompacted: partition, removed, file);
    check!(
        COLD_FILE, ArchivedColdFile: id, path, rows, bytes, crc32c, schema_version, first_seq, last_seq, first_key,
        last_key, first_updated, last_updated, bounds
    );
    check!(COLUMN_BOUNDS, ArchivedColumnBounds: column, least, greatest);
    check!(SUPERSEDED_ROWS, ArchivedSupersededRows: file, positions);
    check!(NAMESPACE, ArchivedNamespace: id, options, created_at, updated_at);
    check!(STREAM_OPTIONS, ArchivedStreamOptions: scope, ttl_ms, max_buffer, ephemeral);
    check!(FLUSH_POLICY, ArchivedFlushPolicy: rows, interval_ms);
    check!(
        TABLE, ArchivedTable: id, namespace, name, kind, current_version, location_path, location_reference,
        flush_policy, deleted_retention_ms, created_at, updated_at
    );
    check!(COLUMN, ArchivedColumn: id, name, data_type, nullable, default);
    check!(
        TABLE_SCHEMA, ArchivedTableSchema: table, version, columns, primary_key, change, created_at, created_by
    );
    check!(USER, ArchivedUser: id, role, password_hash, metadata, created_at, updated_at);
    check!(
        STORAGE_LOCATION, ArchivedStorageLocation: name, location_type, path, credentials_ref, usage_count,
        created_at, updated_at
    );
    check!(
        JOB, ArchivedJob: id, job_type, namespace, table_name, user, status, parameters, result, error_message,
        trace, memory_used, cpu_used, node, created_at, started_at, finished_at
    );
}

#[test]
fn tagged_unions_are_laid_out_as_told() {
    let told = |tagged: &Tagged| (tagged.size, tagged.align);
    assert_eq!(told(&layout::TABLE_KIND), (size_of::<ArchivedTableKind>(), align_of::<ArchivedTableKind>()));
    assert_eq!(told(&layout::DATA_TYPE), (size_of::<ArchivedDataType>(), align_of::<ArchivedDataType>()));
    let default = (size_of::<ArchivedColumnDefault>(), align_of::<ArchivedColumnDefault>());
    assert_eq!(told(&layout::COLUMN_DEFAULT), default);
    assert_eq!((size_of::<ArchivedChangeEvent>(), align_of::<ArchivedChangeEvent>()), (8, 4));
}

#[test]
fn rkyv_is_little_endian_aligned_and_points_with_32_bits() {
    let number = ArchivedU64::from_native(0x0102_0304_0506_0708);
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&0x0102_0304_0506_0708_u64).unwrap();
    assert_eq!(*bytes, [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(number.to_native(), 0x0102_0304_0506_0708);
    assert_eq!((size_of::<ArchivedU64>(), align_of::<ArchivedU64>()), (8, 8));
    assert_eq!((size_of::<ArchivedI64>(), align_of::<ArchivedI64>()), (8, 8));
    assert_eq!((size_of::<ArchivedU32>(), align_of::<ArchivedU32>()), (4, 4));
    assert_eq!((size_of::<ArchivedUsize>(), size_of::<ArchivedIsize>()), (4, 4));
    assert_eq!((size_of::<ArchivedBox<u64>>(), align_of::<ArchivedBox<u64>>()), (4, 4));
    assert_eq!((size_of::<ArchivedVec<u8>>(), align_of::<ArchivedVec<u8>>()), (8, 4));
    assert_eq!((size_of::<ArchivedString>(), align_of::<ArchivedString>()), (8, 4));
    assert_eq!(size_of::<ArchivedOption<ArchivedString>>(), 12);
    assert_eq!(size_of::<ArchivedOption<ArchivedU64>>(), 16);
}
