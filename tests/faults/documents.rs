//! Inputs in a Markdown file of faults.
//!
//! A fenced block marked `sql` is a script: statements that prepare what follows, each of which may say in a comment what it answers
//! (`-- expected 1`). A line that begins with a name such as `**F01.1**` begins an input: a fenced block with statements between
//! ` ; `, parameters after `params:`, and after `-- then:` the query that shows what came of them; before it may stand
//! ``reset: `…` ``, after it ``expected (…): `…` ``. A query between backticks in other text is an input, too.

/// Words that statements begin with, in capitals as the files have them.
const STATEMENTS: [&str; 14] = [
    "SELECT", "VALUES", "WITH", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "TRUNCATE", "TABLE",
    "BEGIN", "EXPLAIN", "SHOW",
];
/// Words that queries in a text begin with.
const QUERIES: [&str; 3] = ["SELECT ", "VALUES ", "WITH "];

/// One input of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) name: String,
    /// Statements that bring the tables back to what they were.
    pub(crate) reset: Vec<String>,
    /// Statements, the answer of the last of which is compared.
    pub(crate) statements: Vec<String>,
    /// JSON parameters of the first statement.
    pub(crate) params: Option<String>,
    /// The answer, as the file has it.
    pub(crate) expected: Option<String>,
}

impl Input {
    /// Whether all of its statements are SQL.
    pub(crate) fn is_sql(&self) -> bool {
        let is_sql = |statement: &String| {
            let word = statement.split(|it: char| !it.is_ascii_alphabetic()).find(|word| !word.is_empty());
            STATEMENTS.contains(&word.unwrap_or_default()) && !statement.contains('…')
        };
        !self.statements.is_empty() && self.statements.iter().all(is_sql)
    }
}

/// The statements of a text, without those that are empty.
pub(crate) fn statements(text: &str) -> Vec<String> {
    let (mut found, mut statement, mut quote) = (Vec::new(), String::new(), None);
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None if letter == ';' => {
                found.push(std::mem::take(&mut statement));
                continue;
            }
            _ => {}
        }
        statement.push(letter);
    }
    found.push(statement);
    found.into_iter().map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

/// Reads the inputs of a file in their order.
pub(crate) fn read(text: &str) -> Vec<Input> {
    let mut reader = Reader::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(mark) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            reader.block(mark.trim(), &block);
        } else {
            reader.line(line);
        }
    }
    reader.end_input();
    reader.found
}

#[derive(Default)]
struct Reader {
    found: Vec<Input>,
    /// The input whose lines are being read.
    input: Option<Input>,
    /// The name of the last paragraph that had one.
    paragraph: String,
    /// Inputs without a name since.
    unnamed: usize,
}

impl Reader {
    /// Ends the input whose lines were read.
    fn end_input(&mut self) {
        self.found.extend(self.input.take().filter(|input| !input.statements.is_empty()));
    }

    /// A name for an input that has none.
    fn name(&mut self) -> String {
        self.unnamed += 1;
        format!("{} ({})", self.paragraph, self.unnamed)
    }

    /// Reads a line outside of fenced blocks.
    fn line(&mut self, line: &str) {
        let bold = line.strip_prefix("**").and_then(|rest| rest.split_once("**"));
        let name = bold.map(|(name, _)| name.split(|it: char| it.is_whitespace()).next().unwrap_or_default());
        if line.starts_with('#') || name.is_some() {
            self.end_input();
            if let Some(name) = name {
                name.trim_end_matches('.').clone_into(&mut self.paragraph);
                self.unnamed = 0;
                // A number behind the point is that of an input; others are names of paragraphs.
                if self.paragraph.contains('.') {
                    self.input = Some(Input { name: self.paragraph.clone(), ..Input::default() });
                }
            }
        }
        let code = line.split('`').nth(1);
        match (&mut self.input, code) {
            (Some(input), Some(code)) if line.trim_start().starts_with("reset:") => {
                input.reset = statements(code);
            }
            (Some(input), Some(code)) if line.starts_with("expected") => {
                input.expected = Some(code.to_owned());
            }
            (None, Some(_)) => self.queries_of_text(line),
            _ => {}
        }
    }

    /// Reads the queries between backticks.
    fn queries_of_text(&mut self, line: &str) {
        for code in line.split('`').skip(1).step_by(2) {
            if QUERIES.iter().any(|word| code.starts_with(word)) {
                let input =
                    Input { name: self.name(), statements: vec![code.to_owned()], ..Input::default() };
                self.found.push(input);
            }
        }
    }

    /// Reads a fenced block with this mark.
    fn block(&mut self, mark: &str, lines: &[&str]) {
        if let Some(input) = self.input.as_mut().filter(|input| input.statements.is_empty()) {
            fill(input, lines);
        } else if mark == "sql" {
            self.end_input();
            for line in lines {
                self.script(line);
            }
        }
    }

    /// Reads a line of a script, which holds whole statements.
    fn script(&mut self, line: &str) {
        let (code, comment) = line.split_once("--").unwrap_or((line, ""));
        let expected = comment.trim().strip_prefix("expected ");
        let expected = expected.map(|text| text.split(", observed").next().unwrap_or_default().to_owned());
        let mut found: Vec<Input> = statements(code)
            .into_iter()
            .map(|statement| Input { name: self.name(), statements: vec![statement], ..Input::default() })
            .collect();
        if let Some(last) = found.last_mut() {
            last.expected = expected;
        }
        self.found.extend(found);
    }
}

/// Reads the statements of an input.
fn fill(input: &mut Input, lines: &[&str]) {
    let mut code = Vec::new();
    let mut then = None;
    for line in lines {
        if let Some(params) = line.strip_prefix("params: ") {
            input.params = Some(params.to_owned());
        } else if let Some(query) = line.strip_prefix("-- then: ") {
            then = Some(query.to_owned());
        } else {
            code.push(*line);
        }
    }
    let code = code.join("\n");
    input.statements = code.split(" ; ").map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect();
    input.statements.extend(then);
}

/// Checks itself.
pub(crate) fn check() {
    let text = "# A\n\nSee `SELECT 1`.\n```sql\nCREATE TABLE b.t (a INT); INSERT INTO b.t VALUES (';');\nSELECT a; -- expected 1, observed nothing\n```\n\
                ### F1 B\n**F1.2** — BAD\n  reset: `DELETE FROM b.t; SELECT 2`\n```\nDELETE FROM b.t ; x\nparams: [1]\n-- then: SELECT 3\n```\n\
                expected (PG15): `[(1,)]`  \nobserved: `[]`\n\n**V1. C** and `SELECT 4`\n";
    let one = |name: &str, statements: &[&str], expected: Option<&str>| Input {
        name: name.to_owned(),
        statements: statements.iter().map(|it| (*it).to_owned()).collect(),
        expected: expected.map(str::to_owned),
        ..Input::default()
    };
    let named = Input {
        reset: vec!["DELETE FROM b.t".to_owned(), "SELECT 2".to_owned()],
        params: Some("[1]".to_owned()),
        ..one("F1.2", &["DELETE FROM b.t", "x", "SELECT 3"], Some("[(1,)]"))
    };
    assert!(!named.is_sql());
    let expected = [
        one(" (1)", &["SELECT 1"], None),
        one(" (2)", &["CREATE TABLE b.t (a INT)"], None),
        one(" (3)", &["INSERT INTO b.t VALUES (';')"], None),
        one(" (4)", &["SELECT a"], Some("1")),
        named,
        one("V1 (1)", &["SELECT 4"], None),
    ];
    assert_eq!(read(text), expected);
}
