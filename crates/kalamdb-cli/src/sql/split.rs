//! Splits text into statements and backslash commands.
//!
//! It owns the lexical rules that decide whether a semicolon ends a statement: quotes, quoted identifiers, `E''`
//! escapes, dollar quotes (which are not parameters), nested comments. `BEGIN; … COMMIT;` counts as one piece, because
//! the server commits atomically what comes in one request. It knows no grammar beyond the first word of a statement.
//! sqlparser's tokenizer is not taken: it gives up at text that has no end yet, which is what is typed at a prompt.

/// A text taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// Each without its final semicolon, except inside a transaction.
    pub(super) statements: Vec<&'a str>,
    /// What follows the last complete statement; still incomplete unless it is blank.
    pub(super) rest: &'a str,
}

/// The first item of a text, its blanks and comments aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First<'a> {
    /// A complete statement, without its final semicolon.
    Statement {
        sql: &'a str,
        /// The offset of `sql` in the text.
        begin: usize,
        /// The offset behind it.
        end: usize,
    },
    /// A backslash command, up to the end of its line. What stands before it is a statement that is not complete yet.
    Command { line: &'a str, begin: usize, end: usize },
    /// A statement that has not ended.
    Incomplete {
        /// Whether a quote or a comment has not ended either.
        is_quoted: bool,
    },
    /// Nothing.
    Blank,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Semicolon,
    Backslash,
    Blank,
    Text,
    /// A quote or a comment without an end.
    Open,
}

/// The splitter's state after the part of a growing text that it has scanned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    /// Behind the last piece that is whole.
    at: usize,
    /// The offset of the statement, or of the transaction that it is in.
    start: usize,
    /// The offset of the statement.
    statement_start: usize,
    in_transaction: bool,
}

impl Scan {
    /// Reads the first item of `text`, which is the text of the last call and perhaps more.
    pub(super) fn first<'a>(&mut self, text: &'a str) -> First<'a> {
        let bytes = text.as_bytes();
        while self.at < bytes.len() {
            let (at, (piece, end)) = (self.at, next_piece(bytes, self.at));
            match piece {
                Piece::Semicolon => {
                    if let Some((sql, begin)) = self.ended(text, at) {
                        return First::Statement { sql, begin, end };
                    }
                    if !self.in_transaction {
                        self.start = end;
                    }
                    self.statement_start = end;
                }
                Piece::Backslash => {
                    let end = line_end(bytes, at);
                    return First::Command { line: slice(text, at, end).trim_end(), begin: at, end };
                }
                // It may end in what comes.
                Piece::Open => return First::Incomplete { is_quoted: true },
                Piece::Blank | Piece::Text => {}
            }
            self.at = end;
        }
        let is_blank = is_blank(slice(text, self.start, bytes.len()));
        if is_blank { First::Blank } else { First::Incomplete { is_quoted: false } }
    }

    /// The statement that ends before a semicolon, and where it begins.
    fn ended<'a>(&mut self, text: &'a str, at: usize) -> Option<(&'a str, usize)> {
        let word = first_word(slice(text, self.statement_start, at)).to_ascii_uppercase();
        match word.as_str() {
            "BEGIN" | "START" => self.in_transaction = true,
            "COMMIT" | "ROLLBACK" | "END" => self.in_transaction = false,
            _ => {}
        }
        let statement = slice(text, self.start, at);
        if self.in_transaction || is_blank(statement) {
            return None;
        }
        let begin = self.start + (statement.len() - statement.trim_start_matches(is_padding).len());
        Some((trimmed(statement), begin))
    }
}

/// Reads the first item of `text`.
pub(super) fn first(text: &str) -> First<'_> {
    Scan::default().first(text)
}

/// Takes `text` apart at the semicolons that end statements; what stands behind a backslash command is its rest.
pub(super) fn split(text: &str) -> Split<'_> {
    let mut statements = Vec::new();
    let mut rest = text;
    while let First::Statement { sql, end, .. } = first(rest) {
        statements.push(sql);
        rest = slice(rest, end, rest.len());
    }
    let rest = rest.trim_start_matches(|character| character == ';' || is_padding(character));
    Split { statements, rest }
}

/// Without the blanks around it. Files that were put together have byte order marks between them.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(is_padding)
}

/// Whether a character is nothing between statements.
fn is_padding(character: char) -> bool {
    character.is_whitespace() || character == BYTE_ORDER_MARK
}

/// The byte order mark, with which some programs begin a file.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether `text` holds nothing but whitespace and comments.
pub(super) fn is_blank(text: &str) -> bool {
    without_blank(text).is_empty()
}

/// The first word of a statement, comments skipped; empty if it begins with something else.
pub(super) fn first_word(text: &str) -> &str {
    let text = without_blank(text);
    let end = text.find(|c: char| !is_name_char(c)).unwrap_or(text.len());
    slice(text, 0, end)
}

/// What follows the first word, blanks skipped.
pub(super) fn after_first_word(text: &str) -> &str {
    let text = without_blank(text);
    without_blank(slice(text, first_word(text).len(), text.len()))
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn slice(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

/// The rest without the blanks and comments that a text begins with.
pub(super) fn without_blank(text: &str) -> &str {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let (piece, end) = next_piece(bytes, at);
        if piece != Piece::Blank {
            break;
        }
        at = end;
    }
    slice(text, at, bytes.len())
}

/// The piece that begins at `at`, and where it ends. An unterminated quote or comment runs to the end as text, so that
/// the statement around it counts as incomplete.
fn next_piece(bytes: &[u8], at: usize) -> (Piece, usize) {
    let byte = |position: usize| bytes.get(position).copied();
    let follows_name = at.checked_sub(1).and_then(byte).is_some_and(is_name_byte);
    let until = |end: Option<usize>| match end {
        Some(end) => (Piece::Text, end),
        None => (Piece::Open, bytes.len()),
    };
    match byte(at) {
        Some(b';') => (Piece::Semicolon, at + 1),
        Some(b'\\') => (Piece::Backslash, at + 1),
        Some(b) if b.is_ascii_whitespace() => (Piece::Blank, at + 1),
        Some(0xef) if bytes.get(at..at + 3) == Some(b"\xef\xbb\xbf") => (Piece::Blank, at + 3),
        Some(b'\'') => until(quoted_end(bytes, at, b'\'', has_escape_prefix(bytes, at))),
        Some(b'"') => until(quoted_end(bytes, at, b'"', false)),
        Some(b'-') if byte(at + 1) == Some(b'-') => (Piece::Blank, line_end(bytes, at)),
        Some(b'/') if byte(at + 1) == Some(b'*') => comment_end(bytes, at),
        Some(b'$') if !follows_name => until(dollar_end(bytes, at)),
        _ => (Piece::Text, at + 1),
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether the quote at `at` is the one of `E'…'`.
fn has_escape_prefix(bytes: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|position| bytes.get(position).copied());
    matches!(before(1), Some(b'e' | b'E')) && !before(2).is_some_and(is_name_byte)
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8, escapes: bool) -> Option<usize> {
    let mut position = at + 1;
    while let Some(&byte) = bytes.get(position) {
        if escapes && byte == b'\\' {
            position += 2;
        } else if byte != quote {
            position += 1;
        } else if bytes.get(position + 1) == Some(&quote) {
            position += 2;
        } else {
            return Some(position + 1);
        }
    }
    None
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| at + length + 1)
}

fn comment_end(bytes: &[u8], at: usize) -> (Piece, usize) {
    let (mut position, mut depth) = (at, 0_usize);
    while position < bytes.len() {
        match (bytes.get(position), bytes.get(position + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                position += 2;
            }
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                position += 2;
                if depth == 0 {
                    return (Piece::Blank, position);
                }
            }
            _ => position += 1,
        }
    }
    (Piece::Open, bytes.len())
}

/// The end of `$tag$ … $tag$`; of the dollar alone if no such quote begins here, as in `$1`.
fn dollar_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..).unwrap_or_default();
    let tag_length =
        rest.iter().skip(1).position(|&byte| !is_name_byte(byte)).map_or(rest.len(), |length| length + 1);
    let begins_with_digit = rest.get(1).is_some_and(u8::is_ascii_digit);
    if begins_with_digit || rest.get(tag_length) != Some(&b'$') {
        return Some(at + 1);
    }
    let tag = rest.get(..=tag_length).unwrap_or_default();
    let body = rest.get(tag.len()..).unwrap_or_default();
    body.windows(tag.len()).position(|window| window == tag).map(|found| at + found + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, statements: &[&str], rest: &str) {
        let split = split(text);
        assert_eq!(split.statements, statements, "{text}");
        assert_eq!(split.rest.trim(), rest, "{text}");
    }

    #[test]
    fn plain_statements() {
        check("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"], "");
        check("SELECT 1; SELECT", &["SELECT 1"], "SELECT");
        check(";;  ;", &[], "");
        check("SELECT 'é'; SELECT 'ü'", &["SELECT 'é'"], "SELECT 'ü'");
    }

    #[test]
    fn quotes_hide_semicolons() {
        check("SELECT 'a;b'; x", &["SELECT 'a;b'"], "x");
        check("SELECT 'it''s;'; x", &["SELECT 'it''s;'"], "x");
        check(r#"SELECT "a;""b"; x"#, &[r#"SELECT "a;""b""#], "x");
        check(r"SELECT E'\';'; x", &[r"SELECT E'\';'"], "x");
        check(r"SELECT '\'; x", &[r"SELECT '\'"], "x");
        check("SELECT 'open;", &[], "SELECT 'open;");
    }

    #[test]
    fn comments_hide_semicolons() {
        check("SELECT 1 -- a;b\n; x", &["SELECT 1 -- a;b"], "x");
        check("SELECT /* a; /* b; */ c; */ 1; x", &["SELECT /* a; /* b; */ c; */ 1"], "x");
        check("SELECT 1 /* open;", &[], "SELECT 1 /* open;");
        check("-- only a comment;\n", &[], "-- only a comment;");
        assert!(is_blank("  -- c\n /* d */ "));
        assert!(!is_blank("/* open"));
    }

    #[test]
    fn dollar_quotes_are_not_parameters() {
        check("SELECT $1; SELECT $2", &["SELECT $1"], "SELECT $2");
        check("SELECT $$a;b$$; x", &["SELECT $$a;b$$"], "x");
        check("SELECT $t$a;$$;b$t$; x", &["SELECT $t$a;$$;b$t$"], "x");
        check("SELECT a$b$ ; x", &["SELECT a$b$"], "x");
        check("SELECT $t$ open;", &[], "SELECT $t$ open;");
    }

    #[test]
    fn a_transaction_is_one_piece() {
        check(
            "SELECT 1; BEGIN; INSERT a; INSERT b; COMMIT; SELECT 2;",
            &["SELECT 1", "BEGIN; INSERT a; INSERT b; COMMIT", "SELECT 2"],
            "",
        );
        check("begin; insert", &[], "begin; insert");
        check("/* c */ begin; x; rollback;", &["/* c */ begin; x; rollback"], "");
    }

    #[test]
    fn a_backslash_outside_of_quotes_begins_a_command() {
        let command = |text: &'static str| match first(text) {
            First::Command { line, begin, end } => Some((&text[..begin], line, &text[end..])),
            _ => None,
        };
        assert_eq!(command("\\d"), Some(("", "\\d", "")));
        assert_eq!(command("SELECT 1\n\\d t\nFROM t;"), Some(("SELECT 1\n", "\\d t", "FROM t;")));
        assert_eq!(command("SELECT 1 \\g\r\n"), Some(("SELECT 1 ", "\\g", "")));
        assert_eq!(command("BEGIN; INSERT a;\n\\dt\n"), Some(("BEGIN; INSERT a;\n", "\\dt", "")));
        for quoted in
            ["SELECT '\n\\d", "SELECT \"\\d", "/* \\d", "SELECT $$\n\\d", "-- \\d", "SELECT E'\\'\\d"]
        {
            assert_eq!(command(quoted), None, "{quoted}");
        }
        check("SELECT 1; \\d", &["SELECT 1"], "\\d");
    }

    #[test]
    fn what_has_not_ended_is_told_apart() {
        let quoted = |text| first(text) == First::Incomplete { is_quoted: true };
        for text in ["SELECT '", "SELECT \"a\n", "SELECT 1 /* a", "SELECT $t$ $$", "SELECT E'\\'"] {
            assert!(quoted(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT '' -- '", "SELECT $1", "SELECT E'\\''"] {
            assert_eq!(first(text), First::Incomplete { is_quoted: false }, "{text}");
        }
        assert_eq!(first("-- nothing\n ; ;"), First::Blank);
        let found = First::Statement { sql: "SELECT 1", begin: 3, end: 12 };
        assert_eq!(first(" ;\nSELECT 1; x"), found);
    }

    /// A text that comes line by line, or letter by letter, is taken apart as it would be at once.
    #[test]
    fn a_text_that_grows_is_looked_at_once() {
        let text = "-- a; b\nINSERT INTO t VALUES\n('a;\\n'),\n(E'\\';'),\n($$;$$) /* ; */\n, \"x\n;\";";
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let mut scan = Scan::default();
            let before = scan.first(&text[..end]);
            assert!(!matches!(before, First::Statement { .. } | First::Command { .. }), "{}", &text[..end]);
            // A piece that a cut through its sign had made two is one that no line cuts.
            if text[..end].ends_with('\n') {
                assert_eq!(scan.first(text), first(text), "{}", &text[..end]);
            }
        }
    }

    #[test]
    fn byte_order_marks_between_statements_are_nothing() {
        check("\u{feff}SELECT 1;\u{feff}SELECT 2;\n\u{feff}", &["SELECT 1", "SELECT 2"], "");
        check("SELECT '\u{feff}';", &["SELECT '\u{feff}'"], "");
        assert_eq!(first_word("\u{feff}use chat"), "use");
    }

    #[test]
    fn first_words() {
        assert_eq!(first_word("  -- c\n use chat"), "use");
        assert_eq!(after_first_word("  -- c\n use /* d */ chat "), "chat ");
    }
}
