//! The command line: arguments, output, exit codes.

mod bundle;
mod cli;
mod crds;
mod demo;
mod dns;
mod endpoints;
mod evidence;
mod hosts_dir;
mod kept;
mod leader;
mod live;
mod metrics;
mod mirror;
mod node;
mod policies;
mod progress;
mod registry;
mod replica;
mod serve;
mod site;
mod sources;
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
    let result = match arguments.command {
        cli::Command::Demo => runtime.block_on(demo::run()),
        cli::Command::Verify(arguments) => runtime.block_on(verify::run(&arguments)),
        cli::Command::Serve(arguments) => runtime.block_on(serve::run(&arguments)),
        cli::Command::Bundle(command) => runtime.block_on(bundle::run(&command)),
        cli::Command::Node(command) => node::run(&command),
        cli::Command::Crds(command) => runtime.block_on(crds::run(&command)),
        cli::Command::Dns(cli::DnsCommand::Override(command)) => runtime.block_on(dns::run(&command)),
        cli::Command::Webhook(command) => runtime.block_on(webhook::run(&command)),
        cli::Command::Evidence(command) => runtime.block_on(evidence::run(&command)),
        cli::Command::Mirror(command) => runtime.block_on(mirror::run(&command)),
        cli::Command::Registry(cli::RegistryCommand::Serve(arguments)) => {
            runtime.block_on(registry::run(&arguments))
        }
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            cli::Exit::Usage.into()
        }
    }
}
