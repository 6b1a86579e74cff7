//! Runs statements and backslash commands and writes what they answer.
//!
//! It owns the output: results go to stdout, errors with their code and a hint to stderr. A script stops at its first
//! failure. It does not know where its input comes from.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::time::Duration;

use super::meta::{self, Meta};
use super::render::{self, Format};
use super::session::Session;
use super::split;
use crate::client::{ClientError, SqlAnswer};
use crate::clock;

/// How a piece of input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on with the next.
    Done,
    /// A statement failed; the error has been written.
    Failed,
    /// The user wants to leave.
    Quit,
}

/// A session with its output settings.
pub(super) struct Runner {
    session: Session,
    format: Format,
    timing: bool,
    interactive: bool,
}

impl Runner {
    /// `interactive` shows times and lets Ctrl-C abandon a statement instead of the program.
    pub(super) fn new(session: Session, format: Format, interactive: bool) -> Self {
        Runner { session, format, timing: interactive, interactive }
    }

    /// Whose statements these are.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The same, to ask something in it.
    pub(super) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Runs everything that `input` holds, line by line, so that a pipe's statements run as they come. The last one
    /// may lack its semicolon.
    pub(super) async fn script(&mut self, mut input: impl BufRead) -> anyhow::Result<Step> {
        let mut pending = String::new();
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            let step = if split::is_blank(&pending) && line.trim_start().starts_with('\\') {
                self.meta(&line).await?
            } else {
                pending.push_str(&line);
                // A statement can only end where there is a semicolon.
                if line.contains(';') { self.statements(&mut pending).await? } else { Step::Done }
            };
            if step != Step::Done {
                return Ok(step);
            }
            line.clear();
        }
        match pending.trim() {
            rest if split::is_blank(rest) => Ok(Step::Done),
            rest => self.statement(rest).await,
        }
    }

    /// Runs what the prompt read: a backslash command or complete statements.
    pub(super) async fn input(&mut self, text: &str) -> anyhow::Result<Step> {
        if text.trim_start().starts_with('\\') {
            return self.meta(text).await;
        }
        self.statements(&mut text.to_owned()).await
    }

    /// Runs the complete statements of `pending` and leaves the rest in it.
    async fn statements(&mut self, pending: &mut String) -> anyhow::Result<Step> {
        let split = split::split(pending);
        for statement in split.statements {
            let step = self.statement(statement).await?;
            if step != Step::Done {
                return Ok(step);
            }
        }
        let rest_start = pending.len() - split.rest.len();
        pending.drain(..rest_start);
        Ok(Step::Done)
    }

    async fn statement(&mut self, sql: &str) -> anyhow::Result<Step> {
        let started = clock::now();
        let answer = if self.interactive {
            tokio::select! {
                answer = self.session.run(sql) => answer,
                _ = tokio::signal::ctrl_c() => {
                    eprintln!("abandoned; the server may still finish it");
                    return Ok(Step::Failed);
                }
            }
        } else {
            self.session.run(sql).await
        };
        match answer {
            Ok(answer) => {
                self.write(&answer, started.elapsed())?;
                Ok(Step::Done)
            }
            Err(error) => {
                report(&error, sql, self.session.namespace());
                Ok(Step::Failed)
            }
        }
    }

    fn write(&self, answer: &SqlAnswer, elapsed: Duration) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for result in &answer.results {
            out.write_all(render::render(self.format, result).as_bytes())?;
            if self.format == Format::Table && !result.schema.is_empty() {
                writeln!(out, "({})", render::count_of_rows(result.row_count))?;
            }
        }
        if self.timing && self.format == Format::Table {
            let took = answer.took_ms.map(|took| format!(", {took:.1} ms in the server")).unwrap_or_default();
            writeln!(out, "Time: {:.1} ms{took}", elapsed.as_secs_f64() * 1e3)?;
        }
        out.flush()
    }

    async fn meta(&mut self, line: &str) -> anyhow::Result<Step> {
        match meta::parse(line) {
            Ok(Meta::Quit) => return Ok(Step::Quit),
            Ok(Meta::Help) => io::stdout().lock().write_all(meta::help().as_bytes())?,
            Ok(Meta::Format(format)) => self.format = format,
            Ok(Meta::Timing) => self.timing = !self.timing,
            Ok(Meta::Sql(sql)) => return self.statement(&sql).await,
            Ok(Meta::Include(path)) => match File::open(&path) {
                Ok(file) => return Box::pin(self.script(BufReader::new(file))).await,
                Err(error) => {
                    eprintln!("error: can't read {}: {error}", path.display());
                    return Ok(Step::Failed);
                }
            },
            Err(message) => {
                eprintln!("error: {message}");
                return Ok(Step::Failed);
            }
        }
        Ok(Step::Done)
    }
}

/// Writes an error for people: code, message, the place in the statement, details, and what may help.
pub(super) fn report(error: &ClientError, sql: &str, namespace: &str) {
    match error {
        ClientError::Server { code, message, details, position, .. } => {
            eprintln!("error[{code}]: {}", render::printable(message));
            if let Some(place) = position.and_then(|(line, column)| pointed_at(sql, line, column)) {
                eprintln!("{place}");
            }
            if let Some(details) = details {
                eprintln!("details: {}", render::printable(details));
            }
        }
        other => eprintln!("error: {other}"),
    }
    if let Some(hint) = hint(error, namespace) {
        eprintln!("hint: {hint}");
    }
}

/// A line of a statement with a caret under one of its characters; both count from 1.
fn pointed_at(sql: &str, line: usize, column: usize) -> Option<String> {
    /// Characters shown before and after the one pointed at.
    const AROUND: usize = 60;
    let text: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().collect();
    let at = column.checked_sub(1)?.min(text.len());
    let (from, until) = (at.saturating_sub(AROUND), text.len().min(at + AROUND));
    // A tab is one character and many columns.
    let shown = |character: &char| if character.is_control() { ' ' } else { *character };
    let excerpt: String = text.get(from..until)?.iter().map(shown).collect();
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    Some(format!("{number} | {excerpt}\n{margin} | {}^", " ".repeat(at - from)))
}

fn hint(error: &ClientError, namespace: &str) -> Option<String> {
    let text = match error.code() {
        None if error.is_outcome_unknown() => "is the server running there? `kalamdb serve` starts one",
        Some("TABLE_NOT_FOUND") => {
            return Some(format!("\\d lists the tables; a plain name means one in namespace {namespace}"));
        }
        Some("NAMESPACE_NOT_FOUND") => "\\dn lists the namespaces; CREATE NAMESPACE name; makes one",
        Some("AUTH_REQUIRED" | "UNAUTHORIZED" | "INVALID_CREDENTIALS") => "check --user and the password",
        Some("PERMISSION_DENIED") => "SELECT CURRENT_USER(), CURRENT_ROLE(); tells who you are",
        Some("CONFLICT") => {
            "run it again: at once where rows were changed meanwhile, after the job where a namespace is restored"
        }
        Some("READ_ONLY") => "a write to the disk failed; the server's log says more",
        Some("TIMEOUT" | "MEMORY_LIMIT") => "a WHERE on the key or a LIMIT makes the query smaller",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::pointed_at;

    #[test]
    fn the_caret_stands_under_the_place() {
        let sql = "SELECT *\n  FROM nowhere\n WHERE x";
        assert_eq!(pointed_at(sql, 2, 8).unwrap(), "2 |   FROM nowhere\n  |        ^");
        assert_eq!(pointed_at("SELEC 1", 1, 1).unwrap(), "1 | SELEC 1\n  | ^");
        assert_eq!(pointed_at("SELECT", 1, 40).unwrap(), "1 | SELECT\n  |       ^", "the end");
        assert_eq!(pointed_at("SELECT", 2, 1), None);
        let long = format!("{}x", "ä".repeat(500));
        let shown = pointed_at(&long, 1, 501).unwrap();
        assert!(shown.lines().all(|line| line.chars().count() < 130), "{shown}");
    }
}
