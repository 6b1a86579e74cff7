//! The prompt: line editing, history, completion, multi-line input.
//!
//! It owns everything about the terminal. What a complete input means is the runner's business. A history that can't
//! be read or written is kept in memory instead; the prompt works all the same.

use std::borrow::Cow;
use std::path::PathBuf;

use reedline::{
    ColumnarMenu, EditCommand, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder as _, Prompt,
    PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent, ReedlineMenu,
    Signal, ValidationResult, Validator, default_emacs_keybindings,
};
use tokio::runtime::Runtime;

use super::completion::{Names, SqlCompleter};
use super::runner::{Runner, Step, Word};
use super::script::Pending;
use super::split::{self, First};

const HISTORY_ENTRIES_MAX: usize = 5_000;
const MENU: &str = "completion";

/// Reads and runs statements until the user leaves.
pub(super) fn run(runtime: &Runtime, runner: &mut Runner) -> anyhow::Result<()> {
    // Ctrl-C ends a statement or a pager, never this program.
    runtime.spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let names = Names::default();
    names.set(runtime.block_on(runner.session_mut().names()));
    let mut editor = editor(names.clone());
    loop {
        let prompt = SqlPrompt { namespace: runner.session().namespace().to_owned() };
        match editor.read_line(&prompt)? {
            Signal::Success(text) => {
                let mut pending = Pending::new(&text);
                match runtime.block_on(runner.pending(&mut pending, None))? {
                    Step::Quit => return Ok(()),
                    // What has not ended is gone on with.
                    Step::Done if !split::is_blank(&pending.text) => {
                        editor.run_edit_commands(&[EditCommand::InsertString(pending.text)]);
                    }
                    Step::Done | Step::Failed => {}
                }
                if changes_names(&text) {
                    names.set(runtime.block_on(runner.session_mut().names()));
                }
            }
            Signal::CtrlD => return Ok(()),
            // Ctrl-C drops the line; the rest is never asked for.
            _ => {}
        }
    }
}

fn editor(names: Names) -> Reedline {
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]),
    );
    keys.add_binding(
        KeyModifiers::ALT,
        KeyCode::Enter,
        ReedlineEvent::Edit(vec![EditCommand::InsertNewline]),
    );
    let menu = ColumnarMenu::default().with_name(MENU);
    let editor = Reedline::create()
        .with_validator(Box::new(UntilSemicolon))
        .with_completer(Box::new(SqlCompleter::new(names)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_ansi_colors(std::env::var_os("NO_COLOR").is_none());
    match history() {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

fn history() -> Option<FileBackedHistory> {
    let directory = state_directory()?;
    std::fs::create_dir_all(&directory).ok()?;
    let path = directory.join("sql_history");
    restrict_to_owner(&path).ok()?;
    FileBackedHistory::with_file(HISTORY_ENTRIES_MAX, path).ok()
}

fn state_directory() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local").join("state")))?;
    Some(base.join("kalamdb"))
}

/// Statements can hold passwords: nobody else may read the history.
fn restrict_to_owner(path: &std::path::Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

/// Whether completion should ask the server again.
fn changes_names(text: &str) -> bool {
    let mut words = split::split(text).statements.into_iter().map(split::first_word);
    words.any(|word| {
        ["CREATE", "DROP", "ALTER", "RESTORE"].iter().any(|change| word.eq_ignore_ascii_case(change))
    })
}

/// Input goes on until its last statement has ended, or its last line is for this program.
struct UntilSemicolon;

impl Validator for UntilSemicolon {
    fn validate(&self, text: &str) -> ValidationResult {
        let mut rest = text;
        loop {
            match split::first(rest) {
                First::Statement { end, .. } => rest = rest.get(end..).unwrap_or_default(),
                First::Command { .. } | First::Blank => return ValidationResult::Complete,
                First::Incomplete { is_quoted: false }
                    if Word::of(rest).is_some() || Word::after(rest).is_some() =>
                {
                    return ValidationResult::Complete;
                }
                First::Incomplete { .. } => return ValidationResult::Incomplete,
            }
        }
    }
}

struct SqlPrompt {
    namespace: String,
}

impl Prompt for SqlPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.namespace)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("… ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let found = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing for ",
        };
        Cow::Owned(format!("(history: {found}{}) ", search.term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_goes_on_until_a_semicolon() {
        let complete = |line: &str| matches!(UntilSemicolon.validate(line), ValidationResult::Complete);
        assert!(complete("SELECT 1;"));
        assert!(complete(""));
        assert!(complete("\\d"));
        assert!(complete("SELECT 1; -- done"));
        assert!(!complete("SELECT 1"));
        assert!(!complete("SELECT ';"));
        assert!(!complete("BEGIN; INSERT x;"));
        assert!(complete("BEGIN; INSERT x; COMMIT;"));
    }

    #[test]
    fn a_line_for_this_program_ends_input_anywhere() {
        let complete = |line: &str| matches!(UntilSemicolon.validate(line), ValidationResult::Complete);
        for text in [
            "exit",
            "quit;",
            "help",
            "SELECT 1\nexit",
            "SELECT 1;\nhelp",
            "SELECT 1\n\\d",
            "SELECT 1 \\g",
            "BEGIN;\n\\dt",
        ] {
            assert!(complete(text), "{text}");
        }
        for text in ["SELECT '\nexit", "SELECT 1 -- exit", "SELECT '\n\\d", "SELECT exit", "/*\nhelp"] {
            assert!(!complete(text), "{text}");
        }
    }

    #[test]
    fn only_ddl_refreshes_the_names() {
        assert!(changes_names("SELECT 1; create table a (b INT);"));
        assert!(!changes_names("SELECT 'CREATE';"));
    }
}
