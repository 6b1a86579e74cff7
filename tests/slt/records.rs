//! The records of a file in the dialect of `SQLite`'s sqllogictest.

/// Order of values before they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// As they come.
    None,
    /// Row by row.
    Rows,
    /// Value by value, across rows.
    Values,
}

/// A record of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A statement that succeeds, or does not.
    Statement { line: usize, sql: String, is_ok: bool },
    /// A query and its values, or their count and hash.
    Query {
        line: usize,
        sql: String,
        types: String,
        sort: Sort,
        label: Option<String>,
        expected: Vec<String>,
    },
}

impl Record {
    /// Its first line, from 1.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::Statement { line, .. } | Self::Query { line, .. } => *line,
        }
    }
}

/// The records of a text that are for this engine.
pub(crate) fn read(text: &str, engine: &str) -> Vec<Record> {
    let mut found = Vec::new();
    let mut is_wanted = true;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kind = match words.as_slice() {
            [] | ["hash-threshold", ..] => continue,
            [first, ..] if first.starts_with('#') => continue,
            ["onlyif", name, ..] => {
                is_wanted &= name.eq_ignore_ascii_case(engine);
                continue;
            }
            ["skipif", name, ..] => {
                is_wanted &= !name.eq_ignore_ascii_case(engine);
                continue;
            }
            ["halt", ..] if std::mem::replace(&mut is_wanted, true) => break,
            ["halt", ..] => continue,
            [kind, ..] => *kind,
        };
        let mut sql = Vec::new();
        let mut expected = Vec::new();
        let mut has_results = false;
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            match line {
                "----" if !has_results => has_results = true,
                line if has_results => expected.push(line.to_owned()),
                line => sql.push(line),
            }
        }
        let (line, sql) = (at + 1, sql.join("\n"));
        if !std::mem::replace(&mut is_wanted, true) {
            continue;
        }
        match kind {
            "statement" => found.push(Record::Statement { line, sql, is_ok: words.get(1) != Some(&"error") }),
            "query" => {
                let sort = match words.get(2) {
                    Some(&"rowsort") => Sort::Rows,
                    Some(&"valuesort") => Sort::Values,
                    _ => Sort::None,
                };
                let types = words.get(1).copied().unwrap_or_default().to_owned();
                let label = words.get(3).map(|label| (*label).to_owned());
                found.push(Record::Query { line, sql, types, sort, label, expected });
            }
            other => panic!("line {line}: {other} is not a record of sqllogictest"),
        }
    }
    found
}

/// Checks itself.
pub(crate) fn check() {
    let text = "# a comment\nhash-threshold 8\n\nstatement ok\nCREATE TABLE t(a INTEGER)\n\nonlyif mysql # why\nstatement ok\nx\n\n\
                skipif mysql\nquery IT rowsort label-1\nSELECT a,\n  b\n----\n1\nx\n\nstatement error\ny\n\nhalt\n\nstatement ok\nz\n";
    let query = Record::Query {
        line: 12,
        sql: "SELECT a,\n  b".to_owned(),
        types: "IT".to_owned(),
        sort: Sort::Rows,
        label: Some("label-1".to_owned()),
        expected: vec!["1".to_owned(), "x".to_owned()],
    };
    let statement = |line, sql: &str, is_ok| Record::Statement { line, sql: sql.to_owned(), is_ok };
    let expected = [statement(4, "CREATE TABLE t(a INTEGER)", true), query, statement(19, "y", false)];
    assert_eq!(read(text, "postgresql"), expected);
}
