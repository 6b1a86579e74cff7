//! A text of statements as it is read: its lines, its encoding, and which line of it something stands in.
//!
//! The reader decodes UTF-8, and UTF-16 after a byte order mark. [`super::split`] finds the statements.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::split::{First, Scan};

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_LITTLE_MARK: &[u8] = b"\xff\xfe";
const UTF16_BIG_MARK: &[u8] = b"\xfe\xff";

/// A text that is read line by line.
pub(super) struct Script<'a> {
    input: Box<dyn BufRead + 'a>,
    /// For messages; none for what was typed.
    name: Option<String>,
    /// Lines that have been read.
    lines: usize,
}

impl<'a> Script<'a> {
    /// Begins to read.
    pub(super) fn new(mut input: impl BufRead + 'a, name: Option<&str>) -> anyhow::Result<Self> {
        let name = name.map(ToOwned::to_owned);
        let mut first = Vec::new();
        // As far as it may be a mark, and no further: a pipe may have no more yet.
        let may_be_mark = |bytes: &[u8]| {
            [UTF8_MARK, UTF16_LITTLE_MARK, UTF16_BIG_MARK]
                .iter()
                .any(|mark| mark.starts_with(bytes) && *mark != bytes)
        };
        while may_be_mark(&first) {
            let Some(&byte) = input.fill_buf()?.first() else { break };
            input.consume(1);
            first.push(byte);
        }
        let read_unit: Option<fn([u8; 2]) -> u16> = match first.as_slice() {
            UTF16_LITTLE_MARK => Some(u16::from_le_bytes),
            UTF16_BIG_MARK => Some(u16::from_be_bytes),
            _ => None,
        };
        let input: Box<dyn BufRead + 'a> = match read_unit {
            Some(read_unit) => {
                let mut bytes = Vec::new();
                input.read_to_end(&mut bytes)?;
                let text = from_utf16(&bytes, read_unit);
                let what = || name.clone().unwrap_or_else(|| "the input".to_owned());
                Box::new(Cursor::new(text.with_context(|| format!("{} is not UTF-16", what()))?.into_bytes()))
            }
            None if first == UTF8_MARK => Box::new(input),
            None => Box::new(Cursor::new(first).chain(input)),
        };
        Ok(Self { input, name, lines: 0 })
    }

    /// A file.
    pub(super) fn open(path: &Path) -> anyhow::Result<Script<'static>> {
        let unreadable = || format!("can't read {}", path.display());
        let file = File::open(path).with_context(unreadable)?;
        if file.metadata().is_ok_and(|it| it.is_dir()) {
            bail!("{} is a directory", path.display());
        }
        Script::new(BufReader::new(file), Some(&path.display().to_string())).with_context(unreadable)
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Appends the next line; false at the end.
    pub(super) fn read_line(&mut self, text: &mut String) -> anyhow::Result<bool> {
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        self.lines += 1;
        if self.lines == 1 && matches!(line.as_slice(), [0, _, ..] | [_, 0, ..]) {
            let name = self.name.as_deref().unwrap_or("the input");
            bail!("{name} is UTF-16 without a byte order mark: save it as UTF-8, or with one");
        }
        match std::str::from_utf8(&line) {
            Ok(line) => text.push_str(line),
            Err(error) => {
                let place =
                    self.name.as_deref().map(|name| format!("{name}:{}: ", self.lines)).unwrap_or_default();
                bail!("{place}this line is not UTF-8 from byte {} on", error.valid_up_to() + 1);
            }
        }
        Ok(true)
    }
}

fn from_utf16(bytes: &[u8], read_unit: fn([u8; 2]) -> u16) -> anyhow::Result<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    anyhow::ensure!(rest.is_empty(), "its last character is cut off");
    let units: Vec<u16> = pairs.iter().copied().map(read_unit).collect();
    Ok(String::from_utf16(&units)?)
}

/// Statements that have been read and not been run.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) text: String,
    /// Line breaks before `text`.
    lines_before: usize,
    /// The splitter's state at the end of `text`: a further line of a long statement does not scan the earlier lines again.
    scan: Scan,
}

impl Pending {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Its first bytes.
    pub(super) fn first(&mut self) -> First<'_> {
        self.scan.first(&self.text)
    }

    /// The line, from 1, that a byte of the text stands in.
    pub(super) fn line_at(&self, at: usize) -> usize {
        1 + self.lines_before + breaks(self.text.get(..at).unwrap_or(&self.text))
    }

    /// Drops what stands before a byte.
    pub(super) fn advance(&mut self, to: usize) {
        let dropped: String = self.text.drain(..to).collect();
        self.lines_before += breaks(&dropped);
        self.scan = Scan::default();
    }

    /// Drops a command from between what is pending; lines keep their numbers.
    pub(super) fn remove(&mut self, begin: usize, end: usize) {
        let dropped = self.text.get(begin..end).unwrap_or_default();
        let left = "\n".repeat(breaks(dropped));
        self.text.replace_range(begin..end, &left);
        self.scan = Scan::default();
    }

    /// Puts a text before the rest.
    pub(super) fn insert(&mut self, text: &str) {
        self.text.insert_str(0, text);
        self.scan = Scan::default();
    }

    /// Drops what stands behind a byte.
    pub(super) fn truncate(&mut self, to: usize) {
        self.text.truncate(to);
        self.scan = Scan::default();
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.advance(self.text.len());
    }
}

fn breaks(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> anyhow::Result<String> {
        let mut script = Script::new(BufReader::with_capacity(1, bytes), Some("a.sql"))?;
        let mut text = String::new();
        while script.read_line(&mut text)? {}
        Ok(text)
    }

    fn utf16(text: &str, write: fn(u16) -> [u8; 2]) -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(write).collect()
    }

    #[test]
    fn byte_order_marks_say_how_a_text_is_written() {
        let sql = "SELECT 'ü😀';\r\nSELECT 2;\n";
        assert_eq!(read(sql.as_bytes()).unwrap(), sql);
        assert_eq!(read(format!("\u{feff}{sql}").as_bytes()).unwrap(), sql);
        assert_eq!(read(&utf16(sql, u16::to_le_bytes)).unwrap(), sql);
        assert_eq!(read(&utf16(sql, u16::to_be_bytes)).unwrap(), sql);
        for short in [b"".as_slice(), b"\xef\xbb\xbf", b"\xff\xfe"] {
            assert_eq!(read(short).unwrap(), "");
        }
    }

    #[test]
    fn what_is_no_text_is_named_with_its_line() {
        assert_eq!(
            read(b"SELECT 1;\nSELECT '\xfc';\n").unwrap_err().to_string(),
            "a.sql:2: this line is not UTF-8 from byte 9 on"
        );
        assert_eq!(read(b"\xff\xfea").unwrap_err().to_string(), "a.sql is not UTF-16");
        assert!(read(b"\xef\xbb").is_err());
        for bytes in [b"S\0E\0".as_slice(), b"\0S\0E"] {
            assert!(read(bytes).unwrap_err().to_string().starts_with("a.sql is UTF-16 without"));
        }
        assert!(Script::open(Path::new("/")).is_err());
    }

    #[test]
    fn lines_keep_their_numbers() {
        let mut pending = Pending::new("SELECT 1;\n\nSELECT\n\\d\n2;\n");
        pending.advance(9);
        assert_eq!(pending.line_at(2), 3);
        let begin = pending.text.find('\\').unwrap();
        pending.remove(begin, begin + 3);
        assert_eq!(pending.text, "\n\nSELECT\n\n2;\n");
        assert_eq!(pending.line_at(pending.text.find('2').unwrap()), 5);
        pending.clear();
        assert_eq!((pending.text.as_str(), pending.line_at(0)), ("", 6));
    }
}
