//! CSV as RFC 4180 has it, read and written with what decides between NULL and an empty text: whether a field is quoted.
//!
//! That is why no library does it: those at hand give a field without its quotes. A record is bounded, so an unclosed quote does
//! not swallow a file, and every error says in which line it is. A first line `sep=;`, by which Excel is told the delimiter of a
//! file, is obeyed and is no record.

use std::io::{self, BufRead, Cursor, Read as _};

use super::ROW_BYTES_MAX;

/// One field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CsvField {
    pub(super) text: String,
    pub(super) is_quoted: bool,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CsvError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its text.
    #[error("line {line}: {problem}")]
    Text {
        /// Where the record begins, or where in it the fault is.
        line: u64,
        problem: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the field yet.
    Start,
    Plain,
    Quoted,
    /// After a quote inside of quotes: the end, or the first half of a quote.
    Closing,
    /// After a closing quote and a carriage return.
    Ending,
}

/// Bytes in which a first line that names the delimiter has its end.
const SEPARATOR_LINE_MAX: usize = 256;

/// Reads records.
pub(super) struct CsvReader<R> {
    /// The bytes that were read in search of a line that names the delimiter, and the rest.
    input: io::Chain<Cursor<Vec<u8>>, R>,
    delimiter: u8,
    /// The line that is being read, from 1.
    line: u64,
}

/// A record as far as it has been read.
struct Record<'a> {
    fields: &'a mut Vec<CsvField>,
    state: State,
    field: Vec<u8>,
    is_quoted: bool,
    bytes: usize,
    begins: u64,
}

impl<R: BufRead> CsvReader<R> {
    /// Begins to read; the delimiter is the one that is given, or that the file names in its first line, or a comma.
    pub(super) fn new(mut input: R, delimiter: Option<u8>) -> Result<Self, CsvError> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let mut first = Vec::new();
        let limit = MARK.len() + SEPARATOR_LINE_MAX;
        // As far as it may be a line that names the delimiter, and no further: a pipe may have no more.
        while first.len() < limit && may_name_separator(first.strip_prefix(MARK).unwrap_or(&first)) {
            let Some(&byte) = input.fill_buf()?.first() else { break };
            input.consume(1);
            first.push(byte);
            if byte == b'\n' {
                break;
            }
        }
        // No text of UTF-8 begins so, and every one of UTF-16 that says what it is.
        if matches!(first.first(), Some(0xfe | 0xff)) {
            return Err(CsvError::Text { line: 1, problem: "the file is UTF-16: save it as UTF-8" });
        }
        // What some programs begin UTF-8 with.
        if first.starts_with(MARK) {
            first.drain(..MARK.len());
        }
        // What is longer is none.
        let named = if first.len() < limit { separator(&first) } else { None };
        let line = if named.is_some() {
            first.clear();
            2
        } else {
            1
        };
        if let (Some(given), Some(named)) = (delimiter, named)
            && given != named
        {
            return Err(CsvError::Text {
                line: 1,
                problem: "the line sep= names another delimiter than --delimiter",
            });
        }
        let delimiter = delimiter.or(named).unwrap_or(b',');
        Ok(Self { input: Cursor::new(first).chain(input), delimiter, line })
    }

    /// The next record and the line it begins in; none at the end.
    pub(super) fn read(&mut self, fields: &mut Vec<CsvField>) -> Result<Option<u64>, CsvError> {
        fields.clear();
        let begins = self.line;
        let mut record =
            Record { fields, state: State::Start, field: Vec::new(), is_quoted: false, bytes: 0, begins };
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return record.at_end();
            }
            let mut ended = false;
            let mut used = 0;
            for &byte in buffer {
                used += 1;
                self.line += u64::from(byte == b'\n');
                if record.take(byte, self.delimiter, self.line)? {
                    ended = true;
                    break;
                }
            }
            self.input.consume(used);
            if ended {
                return Ok(Some(begins));
            }
        }
    }
}

/// The prefix of a line that names the delimiter.
const SEPARATOR: &[u8] = b"sep=";

/// Whether a file that begins so may begin with a line that names the delimiter, or with a byte order mark.
fn may_name_separator(begin: &[u8]) -> bool {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let text = begin.strip_prefix(b"\"").unwrap_or(begin);
    let known = text.len().min(SEPARATOR.len());
    MARK.starts_with(begin)
        || text
            .get(..known)
            .is_some_and(|text| text.eq_ignore_ascii_case(SEPARATOR.get(..known).unwrap_or_default()))
}

/// The delimiter that a first line `sep=;` names. Programs that take it for a record quote it, and fill it up with empty fields.
fn separator(line: &[u8]) -> Option<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = line.strip_prefix(b"\"").unwrap_or(line);
    let (name, rest) = text.split_at_checked(SEPARATOR.len())?;
    let (&delimiter, rest) = rest.split_first()?;
    let is_delimiter = delimiter.is_ascii() && !matches!(delimiter, b'"' | b'\n' | b'\r');
    let rest = if line.len() > text.len() { rest.strip_prefix(b"\"")? } else { rest };
    (name.eq_ignore_ascii_case(SEPARATOR) && is_delimiter && rest.iter().all(|byte| *byte == delimiter))
        .then_some(delimiter)
}

impl Record<'_> {
    /// Takes a byte; true where it ends the record.
    fn take(&mut self, byte: u8, delimiter: u8, line: u64) -> Result<bool, CsvError> {
        self.bytes += 1;
        if self.bytes > ROW_BYTES_MAX {
            return Err(self.fault("the row takes more than 16 MiB; is a quote not closed?"));
        }
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Closing,
            (State::Quoted, byte) => self.field.push(byte),
            (State::Start, b'"') => {
                self.state = State::Quoted;
                self.is_quoted = true;
            }
            (State::Closing, b'"') => {
                self.field.push(b'"');
                self.state = State::Quoted;
            }
            (State::Closing, b'\r') => self.state = State::Ending,
            (State::Ending | State::Closing | State::Plain | State::Start, b'\n') => {
                if self.state == State::Plain && self.field.last() == Some(&b'\r') {
                    self.field.pop();
                }
                self.end_field()?;
                return Ok(true);
            }
            (State::Closing | State::Plain | State::Start, byte) if byte == delimiter => self.end_field()?,
            (State::Closing | State::Ending, _) => {
                let problem = "something stands between a closing quote and the end of its field";
                return Err(CsvError::Text { line, problem });
            }
            (State::Start | State::Plain, byte) => {
                self.field.push(byte);
                self.state = State::Plain;
            }
        }
        Ok(false)
    }

    fn end_field(&mut self) -> Result<(), CsvError> {
        let text = String::from_utf8(std::mem::take(&mut self.field))
            .map_err(|_| self.fault("a field is not UTF-8"))?;
        self.fields.push(CsvField { text, is_quoted: std::mem::take(&mut self.is_quoted) });
        self.state = State::Start;
        Ok(())
    }

    /// The last line may end without a line break.
    fn at_end(mut self) -> Result<Option<u64>, CsvError> {
        if self.state == State::Quoted {
            return Err(self.fault("the file ends inside of quotes"));
        }
        if self.bytes == 0 {
            return Ok(None);
        }
        self.end_field()?;
        Ok(Some(self.begins))
    }

    fn fault(&self, problem: &'static str) -> CsvError {
        CsvError::Text { line: self.begins, problem }
    }
}

/// Appends a field; one that is `null_text` or empty is quoted, so that it is not taken for NULL.
pub(super) fn write_field(out: &mut Vec<u8>, text: &str, delimiter: u8, null_text: &str) {
    let is_special = |byte: u8| byte == delimiter || matches!(byte, b'"' | b'\n' | b'\r');
    if text.is_empty() || text == null_text || text.bytes().any(is_special) {
        out.push(b'"');
        out.extend(text.replace('"', "\"\"").into_bytes());
        out.push(b'"');
    } else {
        out.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str, is_quoted: bool) -> CsvField {
        CsvField { text: text.to_owned(), is_quoted }
    }

    /// The records of a text, read through a buffer of a few bytes; lines with them.
    fn read_all(text: &[u8]) -> Result<Vec<(u64, Vec<CsvField>)>, CsvError> {
        let mut reader = CsvReader::new(io::BufReader::with_capacity(5, text), None)?;
        let (mut records, mut fields) = (Vec::new(), Vec::new());
        while let Some(line) = reader.read(&mut fields)? {
            records.push((line, fields.clone()));
        }
        Ok(records)
    }

    #[test]
    fn quotes_line_breaks_and_ends_are_told_apart() {
        let text = b"\xef\xbb\xbfa,b\r\n\"x, \"\"y\"\"\n\",\r\n,\"\"\n\nlast,say \"hi\"";
        let expected = vec![
            (1, vec![field("a", false), field("b", false)]),
            (2, vec![field("x, \"y\"\n", true), field("", false)]),
            (4, vec![field("", false), field("", true)]),
            (5, vec![field("", false)]),
            (6, vec![field("last", false), field("say \"hi\"", false)]),
        ];
        assert_eq!(read_all(text).unwrap(), expected);
        assert_eq!(read_all(b"").unwrap(), vec![]);
        assert_eq!(read_all(b"\"a\"").unwrap(), vec![(1, vec![field("a", true)])]);
        assert_eq!(read_all(b"a,").unwrap(), vec![(1, vec![field("a", false), field("", false)])]);
    }

    /// The delimiter that a text is read with, and its first record with its line.
    fn first_of(text: &[u8], delimiter: Option<u8>) -> Result<(u8, u64, Vec<String>), CsvError> {
        let mut reader = CsvReader::new(io::BufReader::with_capacity(1, text), delimiter)?;
        let mut fields = Vec::new();
        let line = reader.read(&mut fields)?.unwrap();
        Ok((reader.delimiter, line, fields.into_iter().map(|field| field.text).collect()))
    }

    #[test]
    fn the_line_of_excel_names_the_delimiter() {
        for (text, delimiter) in [
            (b"sep=,\r\na,b\n".as_slice(), b','),
            (b"sep=;\na;b", b';'),
            (b"\xef\xbb\xbfsep=;\r\na;b\r\n", b';'),
            (b"SEP=\t\na\tb\n", b'\t'),
            (b"\"sep=|\"\na|b\n", b'|'),
            (b"\xef\xbb\xbf\"sep=;\"\r\na;b\n", b';'),
            (b"sep=,,,\na,b\n", b','),
            (b"\"sep=;\";;\na;b\n", b';'),
        ] {
            let expected = (delimiter, 2, vec!["a".to_owned(), "b".to_owned()]);
            assert_eq!(first_of(text, None).unwrap(), expected);
            assert_eq!(first_of(text, Some(delimiter)).unwrap(), expected);
            assert!(first_of(text, Some(b'#')).is_err());
        }
        for (text, first) in [
            (b"sep\n1\n".as_slice(), "sep"),
            (b"sep=\n", "sep="),
            (b"separator,b\n", "separator"),
            (b"s\n", "s"),
            (b"\"sep=;\n\"\n", "sep=;\n"),
            (b"\xef\xbb\xbfa\n", "a"),
            (b"sep=x is it\n", "sep=x is it"),
        ] {
            let (delimiter, line, fields) = first_of(text, None).unwrap();
            assert_eq!((delimiter, line, fields[0].as_str()), (b',', 1, first));
        }
        let long = [b"sep=".as_slice(), &[b';'; 5000], b"\n"].concat();
        assert_eq!(first_of(&long, None).unwrap().1, 1);
    }

    #[test]
    fn what_is_no_csv_is_refused_with_its_line() {
        let said = |text: &[u8]| read_all(text).unwrap_err().to_string();
        assert_eq!(said(b"a\nb\n\"c\nd"), "line 3: the file ends inside of quotes");
        assert!(said(b"a\n\"b\" c\n").starts_with("line 2: something stands between"));
        assert_eq!(said(b"a\nb\xff\n"), "line 2: a field is not UTF-8");
        assert_eq!(said(b"\xff\xfea\0"), "line 1: the file is UTF-16: save it as UTF-8");
        let endless = [b"a\n\"".as_slice(), &vec![b'x'; ROW_BYTES_MAX + 1]].concat();
        assert!(said(&endless).starts_with("line 2: the row takes more than 16 MiB"));
    }

    /// Any texts come back as they went, whatever is in them.
    #[test]
    fn what_is_written_is_read() {
        let pieces = ["", "\"", ",", "\n", "\r", "\r\n", "a", "ü", "NULL", " ", "\\", ";"];
        for (one, other) in pieces.iter().flat_map(|one| pieces.iter().map(move |other| (one, other))) {
            let texts = [format!("{one}{other}"), (*one).to_owned(), format!("{other}{one}{other}")];
            let mut out = Vec::new();
            for (at, text) in texts.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_field(&mut out, text, b',', "NULL");
            }
            out.push(b'\n');
            let records = read_all(&out).unwrap();
            assert_eq!(records.len(), 1, "{texts:?}");
            for (field, text) in records[0].1.iter().zip(&texts) {
                assert_eq!(field.text, *text, "{texts:?}");
                let is_null = !field.is_quoted && (field.text.is_empty() || field.text == "NULL");
                assert!(!is_null, "{texts:?}");
            }
        }
    }
}
