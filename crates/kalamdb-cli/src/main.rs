//! `kalamdb`, the one binary: a server, and what people and scripts need to use and look into it.
//!
//! Each subcommand is a module with its arguments and a `run`. Only `serve`, `check` and `user` open a database; `sql`, `subscribe`, `import`,
//! `export` and `demo` speak to a server over the network, `tail` and `log` read the log's files.

mod account;
mod check;
mod client;
mod clock;
mod connection;
mod demo;
mod iso;
mod log_command;
mod serve;
mod spans;
mod sql;
mod subscribe;
mod tail;
mod transfer;
mod user;

use std::process::ExitCode;

use clap::Parser;

/// A SQL database in which every write is a typed event on a durable log.
#[derive(Debug, Parser)]
#[command(name = "kalamdb", version)]
enum Command {
    Serve(serve::ServeArgs),
    Sql(sql::SqlArgs),
    Subscribe(subscribe::SubscribeArgs),
    Import(transfer::ImportArgs),
    Export(transfer::ExportArgs),
    Tail(tail::TailArgs),
    Log(log_command::LogArgs),
    Check(check::CheckArgs),
    User(user::UserArgs),
    Demo(demo::DemoArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Serve(args) => serve::run(&args),
        Command::Sql(args) => sql::run(&args),
        Command::Subscribe(args) => subscribe::run(&args),
        Command::Import(args) => transfer::import(&args),
        Command::Export(args) => transfer::export(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Log(args) => log_command::run(&args),
        Command::Check(args) => check::run(&args),
        Command::User(args) => user::run(&args),
        Command::Demo(args) => demo::run(&args),
    }
}
