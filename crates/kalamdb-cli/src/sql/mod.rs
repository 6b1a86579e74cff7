//! `kalamdb sql`: statements from people, files and pipes.
//!
//! It owns the choice of mode (`-c`, a file, a pipe, the prompt) and the exit code: 1 as soon as a statement of a
//! script fails. It speaks to a server over HTTP alone and knows nothing of data directories.

mod completion;
mod meta;
pub(crate) mod render;
mod repl;
mod runner;
mod session;
mod split;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::account::AccountArgs;
use render::Format;
use runner::{Runner, Step};
use session::Session;

const PASSWORD_VARIABLE: &str = "KALAMDB_PASSWORD";

/// Run SQL: at a prompt, from a file, from a pipe or with -c.
#[derive(Debug, clap::Args)]
pub(crate) struct SqlArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// How results are written
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Run this and leave; may be repeated
    #[arg(long = "command", short, value_name = "STATEMENT")]
    commands: Vec<String>,
    /// Run the statements of this file and leave
    file: Option<PathBuf>,
}

/// Runs the command until its input ends.
pub(crate) fn run(args: &SqlArgs) -> anyhow::Result<ExitCode> {
    let password = args.account.password()?;
    // Connections are kept alive by a thread of their own while the prompt waits for its user.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let session = match runtime.block_on(Session::open(&args.account, password)) {
        Ok(session) => session,
        Err(error) => {
            runner::report(&error, "", "default");
            return Ok(ExitCode::FAILURE);
        }
    };
    let is_script = !args.commands.is_empty() || args.file.is_some() || !io::stdin().is_terminal();
    let mut runner = Runner::new(session, args.format, !is_script);
    let outcome = if is_script {
        runtime.block_on(run_scripts(&mut runner, args))
    } else {
        let account = &args.account;
        eprintln!(
            "kalamdb {} · {} as {} · \\? for help",
            env!("CARGO_PKG_VERSION"),
            account.url,
            account.user
        );
        repl::run(&runtime, &mut runner).map(|()| Step::Quit)
    };
    match outcome {
        Ok(Step::Failed) => Ok(ExitCode::FAILURE),
        Ok(Step::Done | Step::Quit) => Ok(ExitCode::SUCCESS),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

async fn run_scripts(runner: &mut Runner, args: &SqlArgs) -> anyhow::Result<Step> {
    for command in &args.commands {
        match runner.script(command.as_bytes()).await? {
            Step::Done => {}
            end => return Ok(end),
        }
    }
    if let Some(path) = &args.file {
        let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
        return runner.script(BufReader::new(file)).await;
    }
    if args.commands.is_empty() {
        return runner.script(io::stdin().lock()).await;
    }
    Ok(Step::Done)
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

/// Whoever read our output has left, as in `kalamdb sql … | head`: no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
