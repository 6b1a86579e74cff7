//! `kalamdb user`: passwords and roles of a stopped database, for whoever has its directory. The way back in where nobody knows the
//! password of a dba, or where no dba is left.
//!
//! It opens the database as a server does, runs the statement, which goes through the log as any other, and closes it.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use kalamdb_core::format::{Role, UserId};
use kalamdb_core::log::Error as LogError;
use kalamdb_core::{Engine, EngineOptions, Error, LocationClaim, Session, role_name};

use crate::client::quote_literal;
use crate::tail::log_directory;

/// The variable that a new password may come from.
const PASSWORD_VARIABLE: &str = "KALAMDB_NEW_PASSWORD";
/// Bytes of a password on standard input at the most.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// The account that runs the statements, one that no database has.
const OPERATOR: &str = "kalamdb user";

/// Change accounts of a database that no server has open: the way back in after a forgotten password.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Give a user a new password: asked for on the terminal, or from --password-stdin or the variable
    /// `KALAMDB_NEW_PASSWORD`
    SetPassword {
        /// Name of the user
        name: String,
        /// Read the password from standard input, up to the end of its first line
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        at: Directory,
    },
    /// Give a user another role
    SetRole {
        /// Name of the user
        name: String,
        /// `user`, `service` or `dba`
        role: String,
        #[command(flatten)]
        at: Directory,
    },
    /// Show all users and their roles
    List {
        #[command(flatten)]
        at: Directory,
    },
}

#[derive(Debug, Args)]
struct Directory {
    /// The database's directory
    #[arg(long, value_name = "DIR", default_value = "./kalamdb-data")]
    data_dir: PathBuf,
}

pub(crate) fn run(args: &UserArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.command {
        UserCommand::SetPassword { name, password_stdin, at } => {
            log_directory(&at.data_dir)?;
            let password = new_password(name, *password_stdin)?;
            let sql = format!("ALTER USER {} SET PASSWORD {}", quote_literal(name), quote_literal(&password));
            let engine = open(&at.data_dir)?;
            execute(engine, &sql)?;
            writeln!(out, "{name} has a new password")?;
        }
        UserCommand::SetRole { name, role, at } => {
            let sql = format!("ALTER USER {} SET ROLE {}", quote_literal(name), quote_literal(role));
            let engine = open(&at.data_dir)?;
            execute(engine, &sql)?;
            writeln!(out, "{name} has the role {}", role.to_lowercase())?;
        }
        UserCommand::List { at } => {
            let engine = open(&at.data_dir)?;
            let users = engine.users();
            engine.close();
            for user in users? {
                writeln!(out, "{}\t{}", user.id, role_name(user.role))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(data_dir: &Path) -> anyhow::Result<Engine> {
    // Where there is no database none is made.
    log_directory(data_dir)?;
    let options = EngineOptions { location_claim: LocationClaim::Never, ..EngineOptions::new(data_dir) };
    match Engine::open(options) {
        Ok((engine, _)) => Ok(engine),
        Err(Error::Log(LogError::Locked { .. })) => bail!(
            "a server runs on {}: stop it first, or change accounts with ALTER USER over it",
            data_dir.display()
        ),
        Err(error) => Err(error).with_context(|| format!("can't open {}", data_dir.display())),
    }
}

/// Runs a statement as a dba whom the database need not have, and closes the database.
fn execute(engine: Engine, sql: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut session = Session::new(UserId::new(OPERATOR), Role::Dba, None);
    let executed = runtime.block_on(engine.execute(&mut session, sql, &[]));
    drop(runtime);
    engine.close();
    executed.error.map_or(Ok(()), |error| Err(error.into()))
}

fn new_password(name: &str, from_stdin: bool) -> anyhow::Result<String> {
    if from_stdin {
        let mut text = String::new();
        std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text)?;
        let password = text.lines().next().unwrap_or_default().to_owned();
        ensure!(!password.is_empty(), "there is no password on standard input");
        return Ok(password);
    }
    if let Some(password) = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()) {
        return Ok(password);
    }
    ensure!(
        std::io::stdin().is_terminal(),
        "there is no terminal to ask for a password: use --password-stdin, or the variable {PASSWORD_VARIABLE}"
    );
    let password = rpassword::prompt_password(format!("New password of {name}: "))?;
    ensure!(password == rpassword::prompt_password("The same again: ")?, "the two passwords differ");
    Ok(password)
}
