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
use super::runner::{Runner, Step};
use super::split;

const HISTORY_ENTRIES_MAX: usize = 5_000;
const MENU: &str = "completion";

/// Reads and runs statements until the user leaves.
pub(super) fn run(runtime: &Runtime, runner: &mut Runner) -> anyhow::Result<()> {
    let names = Names::default();
    names.set(runtime.block_on(runner.session_mut().names()));
    let mut editor = editor(names.clone());
    loop {
        let prompt = SqlPrompt { namespace: runner.session().namespace().to_owned() };
        match editor.read_line(&prompt)? {
            Signal::Success(text) => {
                if runtime.block_on(runner.input(&text))? == Step::Quit {
                    return Ok(());
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

/// Input goes on until its last statement has ended.
struct UntilSemicolon;

impl Validator for UntilSemicolon {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.trim_start().starts_with('\\') || split::is_blank(split::split(line).rest) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
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
    fn only_ddl_refreshes_the_names() {
        assert!(changes_names("SELECT 1; create table a (b INT);"));
        assert!(!changes_names("SELECT 'CREATE';"));
    }
}
