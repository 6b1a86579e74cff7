//! CSV as RFC 4180 has it, read and written with what decides between NULL and an empty text: whether a field is quoted.
//!
//! That is why no library does it: those at hand give a field without its quotes. A record is bounded, so an unclosed quote does
//! not swallow a file, and every error says in which line it is.

use std::io::{self, BufRead};

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

/// Reads records.
pub(super) struct CsvReader<R> {
    input: R,
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
    pub(super) fn new(mut input: R, delimiter: u8) -> io::Result<Self> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        // What some programs begin UTF-8 with.
        if input.fill_buf()?.starts_with(MARK) {
            input.consume(MARK.len());
        }
        Ok(Self { input, delimiter, line: 1 })
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
        let mut reader = CsvReader::new(io::BufReader::with_capacity(5, text), b',')?;
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

    #[test]
    fn what_is_no_csv_is_refused_with_its_line() {
        let said = |text: &[u8]| read_all(text).unwrap_err().to_string();
        assert_eq!(said(b"a\nb\n\"c\nd"), "line 3: the file ends inside of quotes");
        assert!(said(b"a\n\"b\" c\n").starts_with("line 2: something stands between"));
        assert_eq!(said(b"a\nb\xff\n"), "line 2: a field is not UTF-8");
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
