//! `kalamdb sql`: statements from people, files and pipes.
//!
//! It owns the choice of mode (`-c`, a file, a pipe, the prompt) and the exit code: 1 as soon as a statement of a
//! script fails. It speaks to a server over HTTP alone and knows nothing of data directories.

pub(crate) mod cells;
mod completion;
mod help;
mod meta;
pub(crate) mod render;
mod repl;
mod report;
mod runner;
mod screen;
mod script;
mod session;
mod split;
mod table;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::account::AccountArgs;
use render::Format;
use report::Origin;
use runner::{OnError, Runner, Step, is_broken_pipe};
use script::Script;
use session::Session;

const PASSWORD_VARIABLE: &str = "KALAMDB_PASSWORD";

/// Run SQL: at a prompt, from files, from a pipe or with -c
///
/// At the prompt \? lists the backslash commands (\d, \x, \timing, \watch, …), which scripts may have, too. A script is UTF-8, or
/// UTF-16 with a byte order mark; its errors name the file and the line. The exit code is 1 as soon as a statement fails.
/// Results that are larger than the terminal go through $PAGER (less -S).
#[derive(Debug, clap::Args)]
pub(crate) struct SqlArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// How results are written
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Run this and leave; may be repeated, and is run before files are
    #[arg(long = "command", short, value_name = "STATEMENT")]
    commands: Vec<String>,
    /// Stop a script at its first failed statement, or continue with the next
    #[arg(long, value_enum, default_value_t = OnError::Stop)]
    on_error: OnError,
    /// Run the statements of these files, one after the other, and leave; `-` is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run the statements of this file, whose name may begin with `-`
    #[arg(long = "file", value_name = "FILE")]
    more_files: Vec<PathBuf>,
}

/// Runs the command until its input ends.
pub(crate) fn run(args: &SqlArgs) -> anyhow::Result<ExitCode> {
    let password = args.account.password()?;
    // Connections are kept alive by a thread of their own while the prompt waits for its user.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let session = match runtime.block_on(Session::open(&args.account, password)) {
        Ok(session) => session,
        Err(error) => {
            report::report(&error, "", "default", Origin::default());
            return Ok(ExitCode::FAILURE);
        }
    };
    let has_scripts = !args.commands.is_empty() || !args.files.is_empty() || !args.more_files.is_empty();
    let is_interactive = !has_scripts && io::stdin().is_terminal();
    let mut runner = Runner::new(session, args.format, args.on_error, is_interactive);
    let outcome = if is_interactive {
        eprintln!("{}", help::greeting(&args.account.url, &args.account.user));
        repl::run(&runtime, &mut runner).map(|()| Step::Quit)
    } else {
        runtime.block_on(run_scripts(&mut runner, args))
    };
    match outcome {
        Ok(Step::Failed) => Ok(ExitCode::FAILURE),
        Ok(Step::Done | Step::Quit) => Ok(ExitCode::SUCCESS),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

async fn run_scripts(runner: &mut Runner, args: &SqlArgs) -> anyhow::Result<Step> {
    let mut ended = Step::Done;
    let piped = PathBuf::from("-");
    let is_piped = args.commands.is_empty() && args.files.is_empty() && args.more_files.is_empty();
    let files = args.files.iter().chain(&args.more_files).chain(is_piped.then_some(&piped));
    let commands = args.commands.iter().map(|command| Script::new(command.as_bytes(), None));
    let files = files.map(|path| match path.to_str() {
        Some("-") => Script::new(io::stdin().lock(), Some("<stdin>")),
        _ => Script::open(path),
    });
    for script in commands.chain(files) {
        match runner.script(script?).await? {
            Step::Done => {}
            Step::Failed if runner.goes_on() => ended = Step::Failed,
            end => return Ok(end),
        }
    }
    Ok(ended)
}

/// A user's password: as given, of the variable that is named or of the usual one, or asked for at a terminal.
pub(crate) fn password(user: &str, password: Option<&str>, variable: Option<&str>) -> anyhow::Result<String> {
    if let Some(password) = password {
        return Ok(password.to_owned());
    }
    if let Some(variable) = variable {
        return std::env::var(variable).with_context(|| format!("environment variable {variable}"));
    }
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
        return Ok(password);
    }
    if io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("Password of {user}: "))
            .context("can't read the password");
    }
    anyhow::bail!("no password: set {PASSWORD_VARIABLE}, or name a variable with --password-env")
}
