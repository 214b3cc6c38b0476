//! The command line: arguments, output, exit codes.

mod apply;
mod bundle;
mod cli;
mod commands;
mod crds;
mod demo;
mod dns;
mod endpoints;
mod evidence;
mod hosts_dir;
mod install;
mod lint;
mod mirror;
mod node;
mod policies;
mod progress;
mod registry;
mod serve;
mod site;
mod sources;
mod testing;
mod trial;
mod verify;
mod webhook;

use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "stderr is where a command line talks")]
fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            _ = error.print();
            return if error.use_stderr() { cli::Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return cli::Exit::Usage.into();
        }
    };
    let result = commands::run(arguments.command, &runtime);
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            cli::Exit::Usage.into()
        }
    }
}
