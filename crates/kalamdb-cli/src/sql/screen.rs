//! The output of results: the terminal, through a pager where they are larger than it, or a file.
//!
//! The module handles text only, not results.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use unicode_width::UnicodeWidthStr as _;

/// The exit codes of a shell that could not run a program.
const NOT_RUN: [i32; 2] = [126, 127];

/// The output that results are written to.
pub(super) struct Screen {
    /// Instead of standard output.
    file: Option<(PathBuf, BufWriter<File>)>,
    /// Whether what is larger than the terminal goes through a pager.
    pub(super) has_pager: bool,
    /// Whether somebody sits at both ends.
    is_interactive: bool,
}

impl Screen {
    pub(super) fn new(is_interactive: bool) -> Self {
        Self { file: None, has_pager: true, is_interactive }
    }

    /// The width of the terminal that results are written to; none where it is none.
    pub(super) fn width(&self) -> Option<usize> {
        self.size().map(|(columns, _)| columns)
    }

    /// Columns and lines.
    fn size(&self) -> Option<(usize, usize)> {
        if self.file.is_some() || !io::stdout().is_terminal() {
            return None;
        }
        let (columns, lines) = crossterm::terminal::size().ok()?;
        (columns > 0 && lines > 0).then_some((columns.into(), lines.into()))
    }

    /// Writes results to a file from now on, or to standard output again.
    pub(super) fn redirect(&mut self, path: Option<&Path>) -> io::Result<()> {
        if let Some((_, mut file)) = self.file.take() {
            file.flush()?;
        }
        if let Some(path) = path {
            self.file = Some((path.to_owned(), BufWriter::new(File::create(path)?)));
        }
        Ok(())
    }

    /// Writes a whole text.
    pub(super) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        if let Some((path, file)) = &mut self.file {
            let written = file.write_all(text.as_bytes()).and_then(|()| file.flush());
            return written.map_err(|error| anyhow::anyhow!("can't write {}: {error}", path.display()));
        }
        let is_paged = self.has_pager && self.is_interactive;
        if is_paged && self.size().is_some_and(|size| is_larger(text, size)) && paged(text)? {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

/// Whether a text has more lines than a terminal, which needs one for the prompt.
fn is_larger(text: &str, (columns, lines): (usize, usize)) -> bool {
    let lines_of = |line: &str| line.width().div_ceil(columns).max(1);
    text.lines().map(lines_of).sum::<usize>() >= lines
}

/// Shows a text in the pager; false where there is none.
fn paged(text: &str) -> io::Result<bool> {
    let Some(mut pager) = pager()? else { return Ok(false) };
    if let Some(mut input) = pager.stdin.take() {
        // Whoever has seen enough closes it.
        match input.write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let status = pager.wait()?;
    Ok(!status.code().is_some_and(|code| NOT_RUN.contains(&code)))
}

/// `$PAGER`, else `less -S`, which shows long lines by scrolling sideways.
fn pager() -> io::Result<Option<Child>> {
    let mut command = match std::env::var("PAGER") {
        Ok(pager) if pager.trim().is_empty() => return Ok(None),
        Ok(pager) => shell(&pager),
        Err(_) => {
            let mut less = Command::new("less");
            less.arg("-S");
            less
        }
    };
    match command.stdin(Stdio::piped()).spawn() {
        Ok(pager) => Ok(Some(pager)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A command as the user would type it.
fn shell(text: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    command
}

/// Lets the user change a text in `$VISUAL`, `$EDITOR` or `vi`.
pub(super) fn edited(text: &str) -> anyhow::Result<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    let mut file = tempfile::Builder::new().prefix("kalamdb-").suffix(".sql").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    // The name is a parameter of the shell, so that no character in it means anything.
    let mut command = shell(&format!("{editor} \"$1\""));
    let status = command.arg("sh").arg(file.path()).status()?;
    anyhow::ensure!(status.success(), "the editor {editor:?} failed ({status}); EDITOR names another");
    // An editor may put another file in its place.
    Ok(std::fs::read_to_string(file.path())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_larger_once_the_prompt_has_no_line() {
        assert!(!is_larger("a\nb\n", (80, 3)));
        assert!(is_larger("a\nb\nc\n", (80, 3)));
        assert!(is_larger("a long line\n", (4, 3)), "a line that takes three");
        assert!(!is_larger("", (80, 3)));
    }

    #[test]
    fn a_file_takes_what_is_written_until_another_does() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let mut screen = Screen::new(false);
        screen.redirect(Some(&one)).unwrap();
        screen.write("a\n").unwrap();
        assert_eq!(screen.width(), None);
        screen.write("b\n").unwrap();
        screen.redirect(Some(&other)).unwrap();
        screen.write("c\n").unwrap();
        screen.redirect(None).unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(one).as_str(), read(other).as_str()), ("a\nb\n", "c\n"));
        assert!(screen.redirect(Some(directory.path())).is_err());
    }
}
