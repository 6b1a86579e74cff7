//! Through `kalamdb sql`, a process that reads statements from a pipe.

use std::collections::HashMap;
use std::process::Stdio;

use async_trait::async_trait;
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Output, Refused, output, password, run, server, whose};
use crate::support::in_time;

/// A shell of one user.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    count: usize,
}

impl Shell {
    fn start(url: &str, user: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kalamdb"))
            .args(["sql", "--format", "json", "--url", url, "--user", user])
            .env("KALAMDB_PASSWORD", password(user))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output, count: 0 }
    }

    /// What it writes for a statement; none where it ends instead, as it does after an error.
    async fn answer(&mut self, sql: &str) -> Option<Vec<String>> {
        self.count += 1;
        let marker = format!("that was statement {}", self.count);
        let statement = sql.trim().trim_end_matches(';');
        let text = format!("{statement};\nSELECT '{marker}' AS marker;\n");
        in_time("a statement", self.input.write_all(text.as_bytes())).await.ok()?;
        let mut lines = Vec::new();
        loop {
            let line = in_time("an answer", self.output.next_line()).await.unwrap()?;
            if line.contains(&marker) {
                // The marker stands in a list of its own.
                lines.pop();
                assert_eq!(
                    in_time("an answer", self.output.next_line()).await.unwrap().as_deref(),
                    Some("]")
                );
                return Some(lines);
            }
            lines.push(line);
        }
    }

    /// What it said before it ended.
    async fn refusal(mut self) -> Refused {
        let mut said = String::new();
        let mut errors = self.child.stderr.take().unwrap();
        in_time("an error", errors.read_to_string(&mut said)).await.unwrap();
        let status = in_time("an exit", self.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        let (code, message) = said.split_once("error[").and_then(|(_, rest)| rest.split_once("]: ")).unwrap();
        Refused { code: code.to_owned(), message: message.to_owned() }
    }
}

struct Shells {
    url: String,
    users: HashMap<String, Shell>,
}

#[async_trait]
impl AsyncDB for Shells {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Output {
        let (user, sql) = whose(sql);
        let mut shell = self.users.remove(user).unwrap_or_else(|| Shell::start(&self.url, user));
        let Some(lines) = shell.answer(sql).await else { return Err(shell.refusal().await) };
        self.users.insert(user.to_owned(), shell);
        Ok(last_result(&lines))
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "shell"
    }
}

/// What the last of the results that stand there is.
fn last_result(lines: &[String]) -> DBOutput<DefaultColumnType> {
    let last = lines.last().unwrap();
    if last == "[]" {
        return output(1, &[], 0);
    }
    if last != "]" {
        let message: Value = serde_json::from_str(last).unwrap();
        return output(0, &[], message["row_count"].as_u64().unwrap());
    }
    let begin = lines.iter().rposition(|line| line == "[").unwrap();
    let rows = lines[begin + 1..lines.len() - 1].iter().map(|line| values_of(line.trim_end_matches(',')));
    let rows: Vec<Vec<Value>> = rows.collect();
    output(rows[0].len(), &rows, rows.len() as u64)
}

/// An object's values, in the order in which they stand.
fn values_of(object: &str) -> Vec<Value> {
    struct InOrder;

    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
            let mut values = Vec::new();
            while let Some((_, value)) = map.next_entry::<String, Value>()? {
                values.push(value);
            }
            Ok(values)
        }
    }

    serde_json::Deserializer::from_str(object).deserialize_map(InOrder).unwrap()
}

/// A line of a result with dates and times as the counts that they are on the wire, as which the files have them.
#[expect(clippy::ptr_arg, reason = "the type of a normalizer")]
fn counted(line: &String) -> String {
    let words = line.split_whitespace().map(|word| {
        let instant =
            |text: &str| text.parse::<NaiveDateTime>().ok().map(|it| it.and_utc().timestamp_micros());
        let date = |text: &str| text.parse::<NaiveDate>().ok().map(|it| it.to_epoch_days().into());
        let time = |text: &str| {
            let time = text.parse::<NaiveTime>().ok()?;
            Some((time - NaiveTime::MIN).num_microseconds().unwrap())
        };
        let zoneless = word.strip_suffix('Z').unwrap_or(word);
        let count = instant(zoneless).or_else(|| date(word)).or_else(|| time(word));
        count.map_or_else(|| word.to_owned(), |count| count.to_string())
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_files_through_the_shell() {
    let server = server().await;
    let url = server.url();
    let connection = move || {
        let url = url.clone();
        async move { Ok(Shells { url, users: HashMap::new() }) }
    };
    run(connection, counted).await;
}
