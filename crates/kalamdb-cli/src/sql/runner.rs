//! Runs statements and backslash commands and writes what they answer.
//!
//! It owns the settings and the order of things: what has been read and is not complete waits, whatever commands stand in the middle of
//! it. It does not know where its input comes from.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::help;
use super::meta::{self, Meta, Setting};
use super::render::{self, Expanded, Format, Style};
use super::report::{Origin, report};
use super::screen::{Screen, edited};
use super::script::{Pending, Script};
use super::session::Session;
use super::split::{self, First};
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

/// The action of a script after a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnError {
    /// The rest is not run
    Stop,
    /// The rest is run, and the exit code is 1 all the same
    Continue,
}

/// Words that stand alone on a line and are no SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Leave,
    Help,
}

impl Word {
    /// The word that a text is, if it is one, with or without a semicolon.
    pub(super) fn of(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(';').trim_end();
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        match () {
            () if is("exit") || is("quit") => Some(Self::Leave),
            () if is("help") => Some(Self::Help),
            () => None,
        }
    }

    /// The word that the last line of a statement is, where the statement has others before it.
    pub(super) fn after(text: &str) -> Option<(usize, Self)> {
        let begin = text.trim_end().rfind('\n')? + 1;
        Some((begin, Self::of(text.get(begin..)?)?))
    }
}

/// A session with its output settings.
pub(super) struct Runner {
    session: Session,
    style: Style,
    screen: Screen,
    timing: bool,
    is_interactive: bool,
    on_error: OnError,
    /// The last statement that was run.
    last: String,
}

impl Runner {
    /// An interactive one shows times, goes on after errors, and lets Ctrl-C abandon a statement instead of the program.
    pub(super) fn new(session: Session, format: Format, on_error: OnError, is_interactive: bool) -> Self {
        let (style, screen) = (Style::new(format), Screen::new(is_interactive));
        Self { session, style, screen, timing: is_interactive, is_interactive, on_error, last: String::new() }
    }

    /// Whose statements these are.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The same, to ask something in it.
    pub(super) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Whether what follows a statement that failed is run.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_interactive && self.on_error == OnError::Continue
    }

    /// Runs everything that a script holds, line by line, so that a pipe's statements run as they come. The last one
    /// may lack its semicolon.
    pub(super) async fn script(&mut self, mut script: Script<'_>) -> anyhow::Result<Step> {
        let name = script.name().map(ToOwned::to_owned);
        let mut pending = Pending::default();
        let mut ended = Step::Done;
        loop {
            let begin = pending.text.len();
            let is_more = script.read_line(&mut pending.text)?;
            let line = pending.text.get(begin..).unwrap_or_default();
            // A statement can only end where there is a semicolon.
            let may_end = line.contains([';', '\\']) || Word::of(line).is_some();
            let step = match is_more {
                true if may_end => self.pending(&mut pending, name.as_deref()).await?,
                true => Step::Done,
                false => self.rest(&mut pending, name.as_deref()).await?,
            };
            match step {
                Step::Done => {}
                Step::Failed if self.goes_on() => ended = Step::Failed,
                end => return Ok(end),
            }
            if !is_more {
                return Ok(ended);
            }
        }
    }

    /// Runs what is left at the end of a script.
    async fn rest(&mut self, pending: &mut Pending, name: Option<&str>) -> anyhow::Result<Step> {
        let step = self.pending(pending, name).await?;
        let sql = split::trimmed(&pending.text).to_owned();
        if step != Step::Done || split::is_blank(&sql) {
            return Ok(step);
        }
        let line = pending.line_at(pending.text.find(&sql).unwrap_or_default());
        pending.clear();
        self.statement(&sql, Origin { name, line }).await
    }

    /// Runs the complete statements and the commands of what has been read, and leaves the rest in it.
    pub(super) async fn pending(
        &mut self,
        pending: &mut Pending,
        name: Option<&str>,
    ) -> anyhow::Result<Step> {
        let mut ended = Step::Done;
        loop {
            let step = match pending.first() {
                First::Statement { sql, begin, end } => {
                    let (sql, line) = (sql.to_owned(), pending.line_at(begin));
                    pending.advance(end);
                    match Word::of(&sql) {
                        Some(word) => self.word(word)?,
                        None => self.statement(&sql, Origin { name, line }).await?,
                    }
                }
                First::Command { line, begin, end } => {
                    let command = line.to_owned();
                    let origin = Origin { name, line: pending.line_at(begin) };
                    pending.remove(begin, end);
                    self.command(&command, pending, begin, origin).await?
                }
                First::Incomplete { is_quoted } => {
                    if is_quoted || !self.is_word(pending) {
                        return Ok(ended);
                    }
                    self.lone_word(pending)?
                }
                First::Blank => {
                    pending.clear();
                    return Ok(ended);
                }
            };
            match step {
                Step::Done => {}
                Step::Failed if self.goes_on() => ended = Step::Failed,
                end => return Ok(end),
            }
        }
    }

    /// Whether what is pending is a word of its own, or ends with one that was typed in the middle of a statement.
    fn is_word(&self, pending: &Pending) -> bool {
        Word::of(&pending.text).is_some() || self.is_interactive && Word::after(&pending.text).is_some()
    }

    fn lone_word(&mut self, pending: &mut Pending) -> anyhow::Result<Step> {
        if let Some(word) = Word::of(&pending.text) {
            pending.clear();
            return self.word(word);
        }
        if let Some((begin, word)) = Word::after(&pending.text) {
            pending.truncate(begin);
            let what = if word == Word::Leave { "\\q leaves" } else { "\\? shows help" };
            eprintln!("{what}; Ctrl-C drops the statement, ; ends it");
        }
        Ok(Step::Done)
    }

    fn word(&mut self, word: Word) -> anyhow::Result<Step> {
        match word {
            Word::Leave => Ok(Step::Quit),
            Word::Help => {
                self.screen.write(&help::commands())?;
                Ok(Step::Done)
            }
        }
    }

    async fn statement(&mut self, sql: &str, origin: Origin<'_>) -> anyhow::Result<Step> {
        sql.clone_into(&mut self.last);
        let started = clock::now();
        let answer = if self.is_interactive {
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
                self.write(sql, &answer, started.elapsed())?;
                Ok(Step::Done)
            }
            Err(error) => {
                report(&error, sql, self.session.namespace(), origin);
                // Where no server answers there is no use in asking it the rest.
                if matches!(error, ClientError::Transport(_)) && !self.is_interactive {
                    self.on_error = OnError::Stop;
                }
                Ok(Step::Failed)
            }
        }
    }

    fn write(&mut self, sql: &str, answer: &SqlAnswer, elapsed: Duration) -> anyhow::Result<()> {
        let mut style = self.style.clone();
        // These answer with texts that are to be read whole.
        let word = split::first_word(sql).to_ascii_uppercase();
        style.is_cut &= !matches!(word.as_str(), "EXPLAIN" | "SHOW");
        let width = self.screen.width();
        let mut text = String::new();
        for result in &answer.results {
            text.push_str(&render::render(&style, width, result));
            if style.format == Format::Table && !result.schema.is_empty() {
                // A string takes everything.
                let _ = writeln!(text, "({})", render::count_of_rows(result.row_count));
            }
        }
        self.screen.write(&text)?;
        if self.timing && style.format == Format::Table {
            let took = answer.took_ms.map(|took| format!(", {took:.1} ms in the server")).unwrap_or_default();
            say(&format!("Time: {:.1} ms{took}", elapsed.as_secs_f64() * 1e3))?;
        }
        Ok(())
    }

    /// Runs a command that stands at `at` of what is pending, from which it has been taken.
    async fn command(
        &mut self,
        line: &str,
        pending: &mut Pending,
        at: usize,
        origin: Origin<'_>,
    ) -> anyhow::Result<Step> {
        let meta = match meta::parse(line) {
            Ok(meta) => meta,
            Err(message) => return Ok(self.refused(&message, origin)),
        };
        match meta {
            Meta::Sql(sql) => {
                let last = std::mem::take(&mut self.last);
                let step = self.statement(&sql, origin).await;
                self.last = last;
                step.map(|step| self.after_command(step))
            }
            Meta::Include(path) => self.include(&path, origin).await,
            Meta::Go { .. } | Meta::Watch { .. } | Meta::Print | Meta::Reset | Meta::Edit => {
                let before = pending.text.get(..at).unwrap_or_default().trim().to_owned();
                let is_again = split::is_blank(&before);
                let sql = if is_again { self.last.clone() } else { before };
                if split::is_blank(&sql) {
                    return Ok(self.refused("there is no statement yet", origin));
                }
                // What was complete once is so again after it was changed.
                let end = if is_again && meta == Meta::Edit { ";\n" } else { "" };
                self.on_statement(meta, sql + end, pending, at, origin).await
            }
            other => match self.set(other) {
                Ok(step) => Ok(step),
                Err(error) if is_broken_pipe(&error) => Err(error),
                Err(error) => Ok(self.refused(&format!("{error:#}"), origin)),
            },
        }
    }

    /// Runs a command that is about the statement as it stands.
    async fn on_statement(
        &mut self,
        meta: Meta,
        sql: String,
        pending: &mut Pending,
        at: usize,
        origin: Origin<'_>,
    ) -> anyhow::Result<Step> {
        match meta {
            Meta::Print => {
                say(&sql)?;
                Ok(Step::Done)
            }
            Meta::Reset => {
                pending.advance(at);
                Ok(Step::Done)
            }
            Meta::Edit if !self.is_interactive => Ok(self.refused("\\e is for the prompt", origin)),
            Meta::Edit => match edited(&sql) {
                Ok(text) => {
                    pending.advance(at);
                    pending.insert(&text);
                    Ok(Step::Done)
                }
                Err(error) => Ok(self.refused(&format!("{error:#}"), origin)),
            },
            Meta::Watch { every, times } => {
                pending.advance(at);
                self.watch(&sql, every, times, origin).await
            }
            _ => {
                pending.advance(at);
                let expanded = self.style.expanded;
                if matches!(meta, Meta::Go { is_expanded: true }) {
                    self.style.expanded = Expanded::On;
                }
                let step = self.statement(&sql, origin).await;
                self.style.expanded = expanded;
                step
            }
        }
    }

    /// Runs a statement again and again, until it fails or Ctrl-C ends it.
    async fn watch(
        &mut self,
        sql: &str,
        every: Duration,
        times: Option<u64>,
        origin: Origin<'_>,
    ) -> anyhow::Result<Step> {
        let mut done = 0;
        while times.is_none_or(|times| done < times) {
            if done > 0 {
                tokio::select! {
                    () = tokio::time::sleep(every) => {}
                    _ = tokio::signal::ctrl_c() => return Ok(Step::Done),
                }
            }
            let step = self.statement(sql, origin).await?;
            if step != Step::Done {
                return Ok(step);
            }
            done += 1;
        }
        Ok(Step::Done)
    }

    async fn include(&mut self, path: &Path, origin: Origin<'_>) -> anyhow::Result<Step> {
        match Script::open(path) {
            Ok(script) => {
                let step = Box::pin(self.script(script)).await?;
                Ok(self.after_command(step))
            }
            Err(error) => Ok(self.refused(&format!("{error:#}"), origin)),
        }
    }

    /// Runs a command that only changes or shows settings.
    fn set(&mut self, meta: Meta) -> anyhow::Result<Step> {
        match meta {
            Meta::Quit => return Ok(Step::Quit),
            Meta::Help => self.screen.write(&help::commands())?,
            Meta::StatementHelp(name) => {
                let text = help::statements(&name).map_err(anyhow::Error::msg)?;
                self.screen.write(&text)?;
            }
            Meta::Settings => self.screen.write(&self.settings())?,
            Meta::Set(setting) => {
                let now = self.change(setting);
                if self.is_interactive {
                    say(&now)?;
                }
            }
            Meta::Output(path) => self.screen.redirect(path.as_deref()).map_err(|error| {
                let path = path.unwrap_or_default();
                anyhow::anyhow!("can't write {}: {error}", path.display())
            })?,
            Meta::Connection => say(&self.session.description())?,
            Meta::Echo(text) => self.screen.write(&format!("{text}\n"))?,
            // The others were run before.
            _ => {}
        }
        Ok(Step::Done)
    }

    /// Changes a setting, and says how it stands.
    fn change(&mut self, setting: Setting) -> String {
        let turned = |asked: Option<bool>, was: bool| asked.unwrap_or(!was);
        let name = match setting {
            Setting::Format(format) => {
                self.style.format = format;
                "format "
            }
            Setting::Expanded(expanded) => {
                let other = if self.style.expanded == Expanded::On { Expanded::Off } else { Expanded::On };
                self.style.expanded = expanded.unwrap_or(other);
                "expanded "
            }
            Setting::Timing(on) => {
                self.timing = turned(on, self.timing);
                "timing "
            }
            Setting::Pager(on) => {
                self.screen.has_pager = turned(on, self.screen.has_pager);
                "pager "
            }
            Setting::Cut(on) => {
                self.style.is_cut = turned(on, self.style.is_cut);
                "cut "
            }
            Setting::NullText(text) => {
                self.style.null_text = text;
                "null "
            }
        };
        let settings = self.settings();
        settings.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
    }

    fn settings(&self) -> String {
        let on = |is: bool| if is { "on" } else { "off" };
        let expanded = match self.style.expanded {
            Expanded::On => "on",
            Expanded::Off => "off",
            Expanded::Auto => "auto",
        };
        format!(
            "format {}\nexpanded {expanded}\ncut {}\nnull {:?}\npager {}\ntiming {}\n",
            format!("{:?}", self.style.format).to_lowercase(),
            on(self.style.is_cut),
            self.style.null_text,
            on(self.screen.has_pager),
            on(self.timing)
        )
    }

    /// Says why a command is not run. At a prompt what was typed before it stays.
    fn refused(&self, message: &str, origin: Origin<'_>) -> Step {
        eprintln!("{}error: {message}", origin.prefix(1));
        self.after_command(Step::Failed)
    }

    /// Turns a failed command into a completed one at a prompt, where the next line is read all the same.
    fn after_command(&self, step: Step) -> Step {
        if self.is_interactive && step == Step::Failed { Step::Done } else { step }
    }
}

/// Writes a line that is no result.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    io::Write::write_all(&mut out, format!("{text}\n").as_bytes())?;
    io::Write::flush(&mut out)
}

/// Whether whoever read our output has left, as in `kalamdb sql … | head`.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_statements() {
        for leave in ["exit", "QUIT;", " quit \n", "exit ;"] {
            assert_eq!(Word::of(leave), Some(Word::Leave), "{leave}");
        }
        assert_eq!(Word::of("Help"), Some(Word::Help));
        for other in ["", "exit now", "SELECT exit", "helpme"] {
            assert_eq!(Word::of(other), None, "{other}");
        }
        assert_eq!(Word::after("SELECT 1\n exit\n"), Some((9, Word::Leave)));
        assert_eq!(Word::after("SELECT\nhelp;"), Some((7, Word::Help)));
        assert_eq!(Word::after("exit"), None);
        assert_eq!(Word::after("SELECT 1\nFROM exit"), None);
    }
}
