//! The file of one part: frames one behind the other, packed with zstd.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use log_format::{
    EncodedEvent, FRAME_HEADER_BYTES, Frame, FrameBuffer, FrameEncoder, FrameFields, FrameHeader, Seq,
};

use super::list::{Part, put_in_place};
use crate::error::{Error, Result};

/// How thoroughly it is packed: zstd's own default.
const LEVEL: i32 = 3;
/// The epoch in a backup's frames: there is one writer.
const EPOCH: u32 = 1;

/// What a part is before it is at its place.
const WRITTEN: &str = "part.tmp";

/// Writes the file of a part.
pub(crate) struct PartWriter {
    directory: PathBuf,
    /// None once it is finished.
    file: Option<zstd::stream::write::Encoder<'static, File>>,
    encoder: FrameEncoder,
    last: Option<FrameHeader>,
    frames: u64,
    events: u64,
}

/// What was written.
pub(crate) struct WrittenPart {
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
    pub(crate) events: u64,
}

impl PartWriter {
    /// Begins a part in this directory, in the place of one that was not finished.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn begin(directory: &Path) -> Result<Self> {
        let path = directory.join(WRITTEN);
        let file = File::create(&path).and_then(|file| zstd::stream::write::Encoder::new(file, LEVEL));
        let file = file.map_err(|source| Error::BackupFile { path, source })?;
        let directory = directory.to_owned();
        Ok(Self {
            directory,
            file: Some(file),
            encoder: FrameEncoder::new(),
            last: None,
            frames: 0,
            events: 0,
        })
    }

    /// The seq behind the last one so far.
    pub(crate) fn next_seq(&self) -> Seq {
        self.last.map_or(Seq::ZERO, |last| last.last_seq()).next()
    }

    /// Adds a commit whose last event has this seq.
    ///
    /// # Errors
    /// Where it cannot be written, or does not fit into a frame.
    pub(crate) fn push(&mut self, last_seq: Seq, commit_time: i64, events: &[EncodedEvent]) -> Result<()> {
        let before = (events.len() as u64).saturating_sub(1);
        let fields = FrameFields {
            first_seq: Seq::new(last_seq.get().saturating_sub(before)),
            epoch: EPOCH,
            previous_crc: self.last.map_or(0, |last| last.crc),
            commit_time,
            durable_seq: Seq::ZERO,
        };
        self.last = Some(self.encoder.push(&fields, events)?);
        let frame = self.encoder.take();
        self.frames += 1;
        self.events += events.len() as u64;
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(&frame));
        written.map_err(|source| Error::BackupFile { path: self.directory.join(WRITTEN), source })
    }

    /// Ends the file and gives it its name, durably.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn finish(mut self, name: &str) -> Result<WrittenPart> {
        let written = self.directory.join(WRITTEN);
        let failed = |source| Error::BackupFile { path: written.clone(), source };
        let mut bytes = 0;
        if let Some(file) = self.file.take() {
            let file = file.finish().map_err(failed)?;
            file.sync_all().map_err(failed)?;
            bytes = file.metadata().map_err(failed)?.len();
        }
        put_in_place(&written, &self.directory.join(name))?;
        Ok(WrittenPart { bytes, frames: self.frames, events: self.events })
    }
}

/// What is not finished is of no use to anybody, and may be what fills the disk.
impl Drop for PartWriter {
    fn drop(&mut self) {
        // Where it was finished it has another name.
        let _ = std::fs::remove_file(self.directory.join(WRITTEN));
    }
}

/// Reads the file of a part.
pub(crate) struct PartReader {
    path: PathBuf,
    file: zstd::stream::read::Decoder<'static, BufReader<File>>,
    last: Option<FrameHeader>,
    frames_left: u64,
    /// Commits end behind this seq, …
    behind: Seq,
    /// … and not behind this one.
    until: Seq,
}

impl PartReader {
    /// Opens the file of a part.
    ///
    /// # Errors
    /// Where it is not there or not as long as it was.
    pub(crate) fn open(directory: &Path, part: &Part) -> Result<Self> {
        let path = file_of(directory, part)?;
        let failed = |source| Error::BackupFile { path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length != part.bytes {
            let reason = format!("it has {length} bytes, but was written with {}", part.bytes);
            return Err(Error::Backup { path, reason });
        }
        let file = zstd::stream::read::Decoder::new(file).map_err(failed)?;
        let (behind, until) = (Seq::new(part.from_seq), Seq::new(part.seq));
        Ok(Self { path, file, last: None, frames_left: part.frames, behind, until })
    }

    /// The next commit; none behind the last one.
    ///
    /// # Errors
    /// Where the file is damaged: every bit of a frame is checked, that each follows the one before, and that none is missing.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>> {
        let mut head = [0_u8; FRAME_HEADER_BYTES];
        let read = read_up_to(&mut self.file, &mut head).map_err(|source| self.damaged(&source))?;
        if read == 0 && self.frames_left == 0 {
            return Ok(None);
        }
        let header =
            FrameHeader::parse(head.get(..read).unwrap_or_default()).map_err(|error| self.damaged(&error))?;
        let mut buffer = FrameBuffer::with_capacity(header.length as usize);
        buffer.extend_from_slice(&head);
        buffer.resize(header.length as usize, 0);
        let rest = buffer.get_mut(FRAME_HEADER_BYTES..).unwrap_or_default();
        self.file.read_exact(rest).map_err(|source| self.damaged(&source))?;
        let frame = Frame::parse(&Bytes::from_owner(buffer)).map_err(|error| self.damaged(&error))?;
        let follows = header.fields.previous_crc == self.last.map_or(0, |last| last.crc)
            && self.last.is_none_or(|last| last.last_seq() < header.fields.first_seq)
            && (self.behind < header.last_seq() && header.last_seq() <= self.until);
        if !follows || self.frames_left == 0 {
            return Err(self.damaged(&"a frame does not follow the one before it"));
        }
        self.frames_left -= 1;
        self.last = Some(header);
        Ok(Some(frame))
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Backup { path: self.path.clone(), reason: format!("it is damaged: {reason}") }
    }
}

/// Where the file of a part is: beside the list, whatever the list says.
pub(crate) fn file_of(directory: &Path, part: &Part) -> Result<PathBuf> {
    let name = Path::new(&part.file);
    if name.file_name() != Some(name.as_os_str()) {
        let reason = format!("{:?} is no name of a file beside it", part.file);
        return Err(Error::Backup { path: directory.to_owned(), reason });
    }
    Ok(directory.join(name))
}

/// Fills a buffer as far as there is something.
fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use log_format::{ChangeEvent, Partition, RowInserted, TableId};

    use super::*;
    use crate::backup::PartKind;

    fn event(number: u64) -> EncodedEvent {
        let partition = Partition::shared(TableId::new(7));
        let row = number.to_le_bytes().repeat(20);
        let inserted = RowInserted { partition, key: number.to_be_bytes().to_vec(), row };
        ChangeEvent::RowInserted(Box::new(inserted)).encode().unwrap()
    }

    fn written(directory: &Path, commits: u64) -> Part {
        let mut writer = PartWriter::begin(directory).unwrap();
        for commit in 0..commits {
            let events: Vec<_> = (0..=commit % 3).map(|nth| event(commit * 10 + nth)).collect();
            writer.push(Seq::new(commit * 10 + 5), 100, &events).unwrap();
        }
        let WrittenPart { bytes, frames, events } = writer.finish("part").unwrap();
        Part {
            kind: PartKind::Changes,
            file: "part".to_owned(),
            bytes,
            frames,
            events,
            row_events: events,
            from_seq: 0,
            seq: commits * 10,
            commit_time: 100,
            tables: 1,
            log_crc: 0,
        }
    }

    fn read(directory: &Path, part: &Part) -> Result<Vec<(u64, usize)>> {
        let mut reader = PartReader::open(directory, part)?;
        let mut read = Vec::new();
        while let Some(frame) = reader.next()? {
            assert!(frame.events().all(|(_, event)| event.is_ok()));
            read.push((frame.last_seq().get(), frame.count()));
        }
        Ok(read)
    }

    #[test]
    fn a_part_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let part = written(directory.path(), 50);
        let expected: Vec<_> =
            (0..50).map(|commit| (commit * 10 + 5, usize::try_from(commit % 3 + 1).unwrap())).collect();
        assert_eq!(read(directory.path(), &part).unwrap(), expected);
        let empty = written(directory.path(), 0);
        assert_eq!(read(directory.path(), &empty).unwrap(), []);
        assert!(!directory.path().join(WRITTEN).exists());
    }

    #[test]
    fn whatever_is_damaged_of_a_part_is_told_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let part = written(directory.path(), 20);
        let path = directory.path().join("part");
        let whole = std::fs::read(&path).unwrap();
        let told = |part: &Part| {
            let error = read(directory.path(), part).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        };
        let mut unseen = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).unwrap();
            match read(directory.path(), &part) {
                // Bits of the packing that say nothing about what is packed.
                Ok(frames) => {
                    assert_eq!(frames.len(), 20);
                    unseen += 1;
                }
                Err(error) => {
                    assert!(matches!(error, Error::Backup { .. } | Error::BackupFile { .. }), "{error:?}");
                }
            }
        }
        assert!(unseen * 20 < whole.len(), "{unseen} of {}", whole.len());
        for length in [0, 10, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            told(&part);
            told(&Part { bytes: length as u64, ..part.clone() });
        }
        std::fs::write(&path, &whole).unwrap();
        // Frames that were not written, and some that are missing.
        told(&Part { frames: 19, ..part.clone() });
        told(&Part { frames: 21, ..part.clone() });
        // Frames of another file, whatever their seqs.
        let frames = |first: u64| {
            let mut writer = PartWriter::begin(directory.path()).unwrap();
            for nth in 0..4 {
                writer.push(Seq::new(nth + 1), 100, &[event(first + nth)]).unwrap();
            }
            writer.finish("part").unwrap();
            zstd::decode_all(File::open(&path).unwrap()).unwrap()
        };
        let (one, other) = (frames(1), frames(1000));
        let mixed = zstd::encode_all(&[&one[..one.len() / 2], &other[other.len() / 2..]].concat()[..], LEVEL);
        let mixed = mixed.unwrap();
        std::fs::write(&path, &mixed).unwrap();
        told(&Part { frames: 4, bytes: mixed.len() as u64, ..part.clone() });
        for name in ["../part", "/etc/passwd", "", ".."] {
            let elsewhere = Part { file: name.to_owned(), ..part.clone() };
            let error = PartReader::open(directory.path(), &elsewhere).err().unwrap();
            assert!(matches!(error, Error::Backup { .. }), "{error:?}");
        }
        std::fs::remove_file(&path).unwrap();
        told(&part);
    }
}
