#![doc = include_str!("../SPEC.md")]

mod catalog;
mod cold;
mod error;
mod event;
mod footer;
mod frame;
#[cfg(test)]
mod golden;
mod ids;
mod key;
mod row;
mod segment;
mod value;

pub use bytes::Bytes;

pub use crate::catalog::{
    Access, Column, ColumnDefault, FlushPolicy, Job, JobStatus, Namespace, Record, Role, StorageLocation,
    StreamOptions, StreamScope, Table, TableKind, TableSchema, User,
};
pub use crate::cold::{
    ArchivedColdFile, ArchivedCompacted, ArchivedFlushed, ColdFile, ColumnBounds, Compacted, Flushed,
    LiveRows, SupersededRows,
};
pub use crate::error::{Error, Result};
pub use crate::event::{
    ArchivedChangeEvent, ChangeEvent, EncodedEvent, EpochStarted, Operation, RowDeleted, RowInserted,
    RowUpdated, StreamAppended, StreamEvicted, TableDropped, TableTruncated,
};
pub use crate::footer::{
    FOOTER_BYTES_MAX, FOOTER_ENTRIES_MAX, FOOTER_PARTITIONS_MAX, FOOTER_TAIL_BYTES, FooterEntry,
    PartitionHash, SegmentFooter,
};
pub use crate::frame::{
    FRAME_HEADER_BYTES, FRAME_LENGTH_MAX, Frame, FrameBuffer, FrameEncoder, FrameFields, FrameHeader,
};
pub use crate::ids::{
    ArchivedPartition, ColumnId, DatabaseId, JobId, NamespaceId, Partition, SchemaVersion, Seq, TableId,
    UserId,
};
pub use crate::key::{KeyBuilder, KeyReader, escape_bytes, unescape_bytes};
pub use crate::row::{CellRef, CellWalk, ROW_BYTES_MAX, RowBuilder, RowReader, TypedCells};
pub use crate::segment::{FORMAT_VERSION, SEGMENT_HEADER_BYTES, SegmentHeader, segment_file_name};
pub use crate::value::{DataType, Value};
