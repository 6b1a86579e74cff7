//! The archived layout of every event as SPEC.md tells it: the one table that the SPEC's text is generated from, that
//! the annotations of the vectors are read with, and that is compared with what rkyv makes of the types.

use std::fmt::Write;

/// How something is laid out in an archive.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Bool,
    U8,
    U32,
    U64,
    I64,
    Text,
    Bytes,
    /// One byte, one of these names.
    Word(&'static Words),
    List(&'static Shape),
    Maybe(&'static Shape),
    Record(&'static Record),
    Tagged(&'static Tagged),
}

pub(super) struct Words {
    pub(super) name: &'static str,
    pub(super) words: &'static [&'static str],
}

pub(super) struct Field {
    pub(super) at: usize,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) note: &'static str,
}

pub(super) struct Record {
    pub(super) name: &'static str,
    pub(super) size: usize,
    pub(super) align: usize,
    pub(super) fields: &'static [Field],
}

/// One byte that says which, then that one's fields; offsets count from the tag.
pub(super) struct Tagged {
    pub(super) name: &'static str,
    pub(super) size: usize,
    pub(super) align: usize,
    pub(super) variants: &'static [(&'static str, &'static [Field])],
}

impl Shape {
    pub(super) const fn align(&self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::Word(_) => 1,
            Self::U32 | Self::Text | Self::Bytes | Self::List(_) => 4,
            Self::U64 | Self::I64 => 8,
            Self::Maybe(inner) => inner.align(),
            Self::Record(record) => record.align,
            Self::Tagged(tagged) => tagged.align,
        }
    }

    pub(super) const fn size(&self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::Word(_) => 1,
            Self::U32 => 4,
            Self::U64 | Self::I64 | Self::Text | Self::Bytes | Self::List(_) => 8,
            Self::Maybe(inner) => inner.align() + inner.size(),
            Self::Record(record) => record.size,
            Self::Tagged(tagged) => tagged.size,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Bool => "bool".to_owned(),
            Self::U8 => "u8".to_owned(),
            Self::U32 => "u32".to_owned(),
            Self::U64 => "u64".to_owned(),
            Self::I64 => "i64".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Word(words) => format!("`{}`", words.name),
            Self::List(inner) => format!("list of {}", inner.name()),
            Self::Maybe(inner) => format!("option of {}", inner.name()),
            Self::Record(record) => format!("`{}`", record.name),
            Self::Tagged(tagged) => format!("`{}`", tagged.name),
        }
    }
}

const fn field(at: usize, name: &'static str, shape: Shape, note: &'static str) -> Field {
    Field { at, name, shape, note }
}

const MAYBE_TEXT: Shape = Shape::Maybe(&Shape::Text);
const MAYBE_U64: Shape = Shape::Maybe(&Shape::U64);
const MAYBE_I64: Shape = Shape::Maybe(&Shape::I64);

pub(super) static PARTITION: Record = Record {
    name: "Partition",
    size: 24,
    align: 8,
    fields: &[
        field(0, "table", Shape::U64, "the table's id"),
        field(8, "user", MAYBE_TEXT, "the owner; none where the rows belong to nobody"),
    ],
};

pub(super) static EPOCH_STARTED: Record = Record {
    name: "EpochStarted",
    size: 8,
    align: 8,
    fields: &[field(0, "previous_end", Shape::U64, "the last seq before; 0 in a new log")],
};

pub(super) static ROW_INSERTED: Record = Record {
    name: "RowInserted",
    size: 40,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose rows"),
        field(24, "key", Shape::Bytes, "the primary key"),
        field(32, "row", Shape::Bytes, "the new row"),
    ],
};

pub(super) static ROW_UPDATED: Record = Record {
    name: "RowUpdated",
    size: 48,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose rows"),
        field(24, "key", Shape::Bytes, "the primary key, of both"),
        field(32, "old", Shape::Bytes, "the row before"),
        field(40, "new", Shape::Bytes, "the row after"),
    ],
};

pub(super) static ROW_DELETED: Record = Record {
    name: "RowDeleted",
    size: 40,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose rows"),
        field(24, "key", Shape::Bytes, "the primary key"),
        field(32, "old", Shape::Bytes, "the row before"),
    ],
};

pub(super) static STREAM_APPENDED: Record = Record {
    name: "StreamAppended",
    size: 32,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose rows"),
        field(24, "row", Shape::Bytes, "the row; its place is (commit time, seq)"),
    ],
};

pub(super) static STREAM_EVICTED: Record = Record {
    name: "StreamEvicted",
    size: 40,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose rows"),
        field(24, "before_time", Shape::I64, "rows of commits before this time went, …"),
        field(32, "before_seq", Shape::U64, "… or of this very time and before this seq"),
    ],
};

pub(super) static TABLE_DROPPED: Record = Record {
    name: "TableDropped",
    size: 24,
    align: 8,
    fields: &[
        field(0, "table", Shape::U64, "the table's id"),
        field(8, "namespace", Shape::Text, ""),
        field(16, "name", Shape::Text, ""),
    ],
};

static OPTION: Record = Record {
    name: "Setting",
    size: 16,
    align: 4,
    fields: &[field(0, "name", Shape::Text, ""), field(8, "value", Shape::Text, "")],
};

pub(super) static TABLE_TRUNCATED: Record = Record {
    name: "TableTruncated",
    size: 24,
    align: 8,
    fields: &[
        field(0, "table", Shape::U64, "the table's id"),
        field(8, "namespace", Shape::Text, ""),
        field(16, "name", Shape::Text, ""),
    ],
};

pub(super) static FLUSHED: Record = Record {
    name: "Flushed",
    size: 192,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose rows"),
        field(24, "from_key", Shape::Bytes, "hot rows of keys from this one on went, …"),
        field(32, "until_key", Shape::Bytes, "… up to this one, which stays (empty: to the last), …"),
        field(40, "schema_version", Shape::U32, "… if they have this schema version, …"),
        field(48, "until_seq", Shape::U64, "… and were not written after this seq"),
        field(
            56,
            "file",
            Shape::Maybe(&Shape::Record(&COLD_FILE)),
            "where they are; none where nothing had to be kept",
        ),
        field(
            160,
            "superseded",
            Shape::List(&Shape::Record(&SUPERSEDED_ROWS)),
            "rows of older files in whose place they stand",
        ),
        field(
            168,
            "live",
            Shape::Maybe(&Shape::Record(&LIVE_ROWS)),
            "the live ones of the rows that went; none where hot rows of these keys had other schema versions",
        ),
    ],
};

pub(super) static LIVE_ROWS: Record = Record {
    name: "LiveRows",
    size: 16,
    align: 8,
    fields: &[
        field(0, "rows", Shape::U64, "how many are not deleted"),
        field(8, "bytes", Shape::U64, "of them as events hold them, without keys"),
    ],
};

pub(super) static COMPACTED: Record = Record {
    name: "Compacted",
    size: 136,
    align: 8,
    fields: &[
        field(0, "partition", Shape::Record(&PARTITION), "whose files"),
        field(24, "removed", Shape::List(&Shape::U64), "the ids of those that went, rising"),
        field(
            32,
            "file",
            Shape::Maybe(&Shape::Record(&COLD_FILE)),
            "the one in their place; none where no row had to be kept",
        ),
    ],
};

pub(super) static COLD_FILE: Record = Record {
    name: "ColdFile",
    size: 96,
    align: 8,
    fields: &[
        field(0, "id", Shape::U64, "which file of its partition"),
        field(8, "path", Shape::Text, "below the directory of cold files"),
        field(16, "rows", Shape::U64, "tombstones included"),
        field(24, "bytes", Shape::U64, "its length"),
        field(32, "crc32c", Shape::U32, "of all of it"),
        field(36, "schema_version", Shape::U32, "of all its rows"),
        field(40, "first_seq", Shape::U64, "the least of its rows'"),
        field(48, "last_seq", Shape::U64, "the greatest of its rows'"),
        field(56, "first_key", Shape::Bytes, "the least of its rows'"),
        field(64, "last_key", Shape::Bytes, "the greatest of its rows'"),
        field(72, "first_updated", Shape::I64, "the least commit time of its rows', microseconds since 1970"),
        field(80, "last_updated", Shape::I64, "the greatest of its rows'"),
        field(88, "bounds", Shape::List(&Shape::Record(&COLUMN_BOUNDS)), "of columns where they are known"),
    ],
};

pub(super) static COLUMN_BOUNDS: Record = Record {
    name: "ColumnBounds",
    size: 20,
    align: 4,
    fields: &[
        field(0, "column", Shape::U32, "the column's id"),
        field(4, "least", Shape::Bytes, "no value of it is less; as a key holds it"),
        field(12, "greatest", Shape::Bytes, "no value of it is greater"),
    ],
};

pub(super) static SUPERSEDED_ROWS: Record = Record {
    name: "SupersededRows",
    size: 16,
    align: 8,
    fields: &[
        field(0, "file", Shape::U64, "the file's id"),
        field(8, "positions", Shape::List(&Shape::U32), "of the rows in it, from 0, rising"),
    ],
};

pub(super) static NAMESPACE: Record = Record {
    name: "Namespace",
    size: 32,
    align: 8,
    fields: &[
        field(0, "id", Shape::Text, "its name"),
        field(8, "options", Shape::List(&Shape::Record(&OPTION)), "what WITH OPTIONS said"),
        field(16, "created_at", Shape::I64, ""),
        field(24, "updated_at", Shape::I64, ""),
    ],
};

static ACCESS: Words = Words { name: "Access", words: &["Public", "Restricted", "Private"] };
static SCOPE: Words = Words { name: "StreamScope", words: &["User", "All"] };
static ROLE: Words = Words { name: "Role", words: &["User", "Service", "Dba"] };
static STATUS: Words =
    Words { name: "JobStatus", words: &["Queued", "Running", "Completed", "Failed", "Cancelled"] };

pub(super) static STREAM_OPTIONS: Record = Record {
    name: "StreamOptions",
    size: 48,
    align: 8,
    fields: &[
        field(0, "scope", Shape::Word(&SCOPE), "who sees the rows"),
        field(8, "ttl_ms", MAYBE_U64, "milliseconds until a row goes"),
        field(24, "max_buffer", MAYBE_U64, "rows kept per partition"),
        field(40, "ephemeral", Shape::Bool, "whether rows need a listener"),
    ],
};

pub(super) static TABLE_KIND: Tagged = Tagged {
    name: "TableKind",
    size: 56,
    align: 8,
    variants: &[
        ("User", &[]),
        ("Shared", &[field(1, "access", Shape::Word(&ACCESS), "")]),
        ("Stream", &[field(8, "options", Shape::Record(&STREAM_OPTIONS), "")]),
    ],
};

pub(super) static FLUSH_POLICY: Record = Record {
    name: "FlushPolicy",
    size: 32,
    align: 8,
    fields: &[
        field(0, "rows", MAYBE_U64, "after that many rows, counted per partition"),
        field(16, "interval_ms", MAYBE_U64, "after that many milliseconds"),
    ],
};

pub(super) static TABLE: Record = Record {
    name: "Table",
    size: 184,
    align: 8,
    fields: &[
        field(0, "id", Shape::U64, "never used again"),
        field(8, "namespace", Shape::Text, ""),
        field(16, "name", Shape::Text, ""),
        field(24, "kind", Shape::Tagged(&TABLE_KIND), ""),
        field(80, "current_version", Shape::U32, "the newest schema version"),
        field(84, "location_path", MAYBE_TEXT, ""),
        field(96, "location_reference", MAYBE_TEXT, "the name of a storage location"),
        field(112, "flush_policy", Shape::Maybe(&Shape::Record(&FLUSH_POLICY)), ""),
        field(152, "deleted_retention_ms", MAYBE_U64, "milliseconds a tombstone is kept"),
        field(168, "created_at", Shape::I64, ""),
        field(176, "updated_at", Shape::I64, ""),
    ],
};

pub(super) static DATA_TYPE: Tagged = Tagged {
    name: "DataType",
    size: 8,
    align: 4,
    variants: &[
        ("Boolean", &[]),
        ("SmallInt", &[]),
        ("Int", &[]),
        ("BigInt", &[]),
        ("Float", &[]),
        ("Double", &[]),
        ("Decimal", &[field(1, "precision", Shape::U8, ""), field(2, "scale", Shape::U8, "")]),
        ("Text", &[]),
        ("Timestamp", &[]),
        ("DateTime", &[]),
        ("Date", &[]),
        ("Time", &[]),
        ("Json", &[]),
        ("Bytes", &[]),
        ("Uuid", &[]),
        ("Embedding", &[field(4, "dimension", Shape::U32, "")]),
    ],
};

pub(super) static COLUMN_DEFAULT: Tagged = Tagged {
    name: "ColumnDefault",
    size: 12,
    align: 4,
    variants: &[
        ("Constant", &[field(4, "value", Shape::Bytes, "a row of one cell")]),
        ("SnowflakeId", &[]),
        ("UuidV7", &[]),
        ("Ulid", &[]),
        ("Now", &[]),
        ("CurrentUser", &[]),
        ("CurrentRole", &[]),
    ],
};

pub(super) static COLUMN: Record = Record {
    name: "Column",
    size: 40,
    align: 4,
    fields: &[
        field(0, "id", Shape::U32, "stays through renames"),
        field(4, "name", Shape::Text, ""),
        field(12, "data_type", Shape::Tagged(&DATA_TYPE), ""),
        field(20, "nullable", Shape::Bool, ""),
        field(24, "default", Shape::Maybe(&Shape::Tagged(&COLUMN_DEFAULT)), ""),
    ],
};

pub(super) static TABLE_SCHEMA: Record = Record {
    name: "TableSchema",
    size: 56,
    align: 8,
    fields: &[
        field(0, "table", Shape::U64, "the table's id"),
        field(8, "version", Shape::U32, "from 1"),
        field(12, "columns", Shape::List(&Shape::Record(&COLUMN)), "in the order of a row's cells"),
        field(20, "primary_key", Shape::List(&Shape::U32), "column ids, in key order"),
        field(28, "change", Shape::Text, "what this version changed, in words"),
        field(40, "created_at", Shape::I64, ""),
        field(48, "created_by", Shape::Text, "a user"),
    ],
};

pub(super) static USER: Record = Record {
    name: "User",
    size: 48,
    align: 8,
    fields: &[
        field(0, "id", Shape::Text, "the name"),
        field(8, "role", Shape::Word(&ROLE), ""),
        field(12, "password_hash", Shape::Text, "argon2id, in PHC form"),
        field(20, "metadata", MAYBE_TEXT, "JSON"),
        field(32, "created_at", Shape::I64, ""),
        field(40, "updated_at", Shape::I64, ""),
    ],
};

pub(super) static STORAGE_LOCATION: Record = Record {
    name: "StorageLocation",
    size: 64,
    align: 8,
    fields: &[
        field(0, "name", Shape::Text, ""),
        field(8, "location_type", Shape::Text, "filesystem, s3, gcs or azure"),
        field(16, "path", Shape::Text, ""),
        field(24, "credentials_ref", MAYBE_TEXT, "where credentials are found"),
        field(40, "usage_count", Shape::U64, "how many tables use it"),
        field(48, "created_at", Shape::I64, ""),
        field(56, "updated_at", Shape::I64, ""),
    ],
};

pub(super) static JOB: Record = Record {
    name: "Job",
    size: 184,
    align: 8,
    fields: &[
        field(0, "id", Shape::Text, ""),
        field(8, "job_type", Shape::Text, "such as `drop_table`"),
        field(16, "namespace", MAYBE_TEXT, ""),
        field(28, "table_name", MAYBE_TEXT, ""),
        field(40, "user", MAYBE_TEXT, ""),
        field(52, "status", Shape::Word(&STATUS), ""),
        field(56, "parameters", MAYBE_TEXT, "JSON"),
        field(68, "result", MAYBE_TEXT, "JSON"),
        field(80, "error_message", MAYBE_TEXT, ""),
        field(92, "trace", MAYBE_TEXT, ""),
        field(104, "memory_used", MAYBE_U64, "bytes"),
        field(120, "cpu_used", MAYBE_U64, "microseconds"),
        field(136, "node", Shape::Text, ""),
        field(144, "created_at", Shape::I64, ""),
        field(152, "started_at", MAYBE_I64, ""),
        field(168, "finished_at", MAYBE_I64, ""),
    ],
};

/// Every event in the order of its tag: name, payload, what happened.
pub(super) static EVENTS: [(&str, Shape, &str); 25] = [
    ("EpochStarted", Shape::Record(&EPOCH_STARTED), "the log was opened for writing, or seqs were left out"),
    ("RowInserted", Shape::Record(&ROW_INSERTED), "a row came to be"),
    ("RowUpdated", Shape::Record(&ROW_UPDATED), "a row changed; its key never does"),
    ("RowDeleted", Shape::Record(&ROW_DELETED), "a row was deleted; its tombstone stays"),
    ("StreamAppended", Shape::Record(&STREAM_APPENDED), "a stream row arrived"),
    ("StreamEvicted", Shape::Record(&STREAM_EVICTED), "the oldest rows of a stream partition went"),
    ("NamespaceCreated", Shape::Record(&NAMESPACE), "a namespace was created"),
    ("NamespaceAltered", Shape::Record(&NAMESPACE), "a namespace's options changed"),
    ("NamespaceDropped", Shape::Text, "the namespace of this name was dropped, empty"),
    ("TableCreated", Shape::Record(&TABLE), "a table was created; a `SchemaVersionAdded` comes with it"),
    ("TableAltered", Shape::Record(&TABLE), "a table's options or current schema version changed"),
    ("TableDropped", Shape::Record(&TABLE_DROPPED), "a table went, with its rows and schema versions"),
    ("SchemaVersionAdded", Shape::Record(&TABLE_SCHEMA), "a schema version was added"),
    ("UserCreated", Shape::Record(&USER), "an account was created"),
    ("UserAltered", Shape::Record(&USER), "an account changed"),
    ("UserDropped", Shape::Text, "the account of this name was dropped"),
    ("StorageLocationCreated", Shape::Record(&STORAGE_LOCATION), "a place for cold files was registered"),
    ("StorageLocationAltered", Shape::Record(&STORAGE_LOCATION), "a place for cold files changed"),
    ("StorageLocationDropped", Shape::Text, "the place of this name was dropped"),
    ("JobCreated", Shape::Record(&JOB), "a job was queued or started"),
    ("JobUpdated", Shape::Record(&JOB), "a job went on or ended"),
    (
        "TableTruncated",
        Shape::Record(&TABLE_TRUNCATED),
        "a table lost all its rows, of every owner, and stays",
    ),
    ("JobDropped", Shape::Text, "the job of this id, which had ended, is remembered no longer"),
    ("Flushed", Shape::Record(&FLUSHED), "rows of a partition moved from the hot tier into a cold file"),
    ("Compacted", Shape::Record(&COMPACTED), "cold files of a partition became one"),
];

static RECORDS: [&Record; 25] = [
    &PARTITION,
    &EPOCH_STARTED,
    &ROW_INSERTED,
    &ROW_UPDATED,
    &ROW_DELETED,
    &STREAM_APPENDED,
    &STREAM_EVICTED,
    &TABLE_DROPPED,
    &TABLE_TRUNCATED,
    &FLUSHED,
    &LIVE_ROWS,
    &COMPACTED,
    &COLD_FILE,
    &COLUMN_BOUNDS,
    &SUPERSEDED_ROWS,
    &NAMESPACE,
    &OPTION,
    &TABLE,
    &STREAM_OPTIONS,
    &FLUSH_POLICY,
    &TABLE_SCHEMA,
    &COLUMN,
    &USER,
    &STORAGE_LOCATION,
    &JOB,
];
static TAGGED: [&Tagged; 3] = [&TABLE_KIND, &DATA_TYPE, &COLUMN_DEFAULT];
static WORDS: [&Words; 4] = [&ACCESS, &SCOPE, &ROLE, &STATUS];

/// The part of SPEC.md that tells all this.
pub(super) fn spec_text() -> String {
    let mut out = String::new();
    out.push_str("| tag | event | payload | what happened |\n|---|---|---|---|\n");
    for (tag, (name, payload, meaning)) in EVENTS.iter().enumerate() {
        writeln!(out, "| {tag} | `{name}` | {} | {meaning} |", payload.name()).unwrap();
    }
    for record in RECORDS {
        writeln!(out, "\n**`{}`**, {} bytes, aligned to {}\n", record.name, record.size, record.align)
            .unwrap();
        out.push_str("| at | field | shape | |\n|---|---|---|---|\n");
        record.fields.iter().for_each(|field| row(&mut out, field));
    }
    for tagged in TAGGED {
        writeln!(
            out,
            "\n**`{}`**, tagged, {} bytes, aligned to {}\n",
            tagged.name, tagged.size, tagged.align
        )
        .unwrap();
        out.push_str("| tag | variant | fields, by offset from the tag |\n|---|---|---|\n");
        for (tag, (name, fields)) in tagged.variants.iter().enumerate() {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| format!("{}: `{}`, {}", field.at, field.name, field.shape.name()))
                .collect();
            writeln!(out, "| {tag} | `{name}` | {} |", fields.join("; ")).unwrap();
        }
    }
    out.push('\n');
    for words in WORDS {
        let words_text: Vec<_> =
            words.words.iter().enumerate().map(|(tag, word)| format!("{tag} `{word}`")).collect();
        writeln!(out, "- **`{}`**, one byte: {}", words.name, words_text.join(", ")).unwrap();
    }
    out
}

fn row(out: &mut String, field: &Field) {
    writeln!(out, "| {} | `{}` | {} | {} |", field.at, field.name, field.shape.name(), field.note).unwrap();
}
