//! What can be wrong with bytes. Every variant says where; none of them panics.

/// Bytes that are not what the format says.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Fewer bytes than the structure needs.
    #[error("{what} needs {needed} bytes, there are {available}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Bytes it takes.
        needed: usize,
        /// Bytes at hand.
        available: usize,
    },
    /// The checksum does not match.
    #[error("{what}: crc32c is {computed:08x}, the header says {stored:08x}")]
    Checksum {
        /// The structure.
        what: &'static str,
        /// The checksum in the bytes.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A segment that does not begin as one.
    #[error("not a KalamDB log segment: it begins with {found:02x?}")]
    Magic {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// A format this program cannot read.
    #[error(
        "log format {found}, readable from format {readable_from} on; this program reads up to {supported}: use a newer one"
    )]
    Version {
        /// The version it was written with.
        found: u16,
        /// The lowest version that can read it.
        readable_from: u16,
        /// The newest version this program knows.
        supported: u16,
    },
    /// Flags of a later format.
    #[error("{what}: unknown flags {flags:#010x}")]
    Flags {
        /// The structure.
        what: &'static str,
        /// The flags found.
        flags: u32,
    },
    /// A length outside what the format allows.
    #[error("{what}: length {length} is not within {min}..={max}, in steps of 16")]
    Length {
        /// The structure.
        what: &'static str,
        /// The length found.
        length: u64,
        /// The smallest legal one.
        min: u64,
        /// The greatest legal one.
        max: u64,
    },
    /// An offset table that does not fit its frame.
    #[error("frame of seq {seq}: entry {index} of the offset table does not fit the frame")]
    OffsetTable {
        /// The frame's first seq.
        seq: u64,
        /// The entry.
        index: usize,
    },
    /// An archive that fails validation.
    #[error("event {index} of the frame of seq {seq} is not a valid archive")]
    Archive {
        /// The frame's first seq.
        seq: u64,
        /// The event's index in the frame.
        index: usize,
    },
    /// The footer of a segment that is not legal.
    #[error("segment footer: {problem}")]
    Footer {
        /// What is wrong.
        problem: &'static str,
    },
    /// A stored record that fails validation.
    #[error("not a valid {what} record")]
    Record {
        /// The record's type.
        what: &'static str,
    },
    /// An event that cannot be encoded.
    #[error("the event cannot be encoded: {reason}")]
    Encode {
        /// What the encoder says.
        reason: String,
    },
    /// A cell of a row that is not legal.
    #[error("cell {index} of a row: {problem}")]
    Cell {
        /// The cell.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A key that is not legal.
    #[error("key: {problem}")]
    Key {
        /// What is wrong.
        problem: &'static str,
    },
    /// More than a structure may hold.
    #[error("{what} would take {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The structure.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The `count` bytes at `at`, or what is missing.
pub(crate) fn slice<'a>(what: &'static str, bytes: &'a [u8], at: usize, count: usize) -> Result<&'a [u8]> {
    let needed = at.saturating_add(count);
    bytes.get(at..needed).ok_or(Error::Truncated { what, needed, available: bytes.len() })
}

/// The `N` bytes at `at` as an array, or what is missing.
pub(crate) fn array<const N: usize>(what: &'static str, bytes: &[u8], at: usize) -> Result<[u8; N]> {
    slice(what, bytes, at, N)?.try_into().map_err(|_| Error::Truncated {
        what,
        needed: at.saturating_add(N),
        available: bytes.len(),
    })
}
