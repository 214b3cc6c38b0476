//! Which command does what.

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::cli::{Command, DnsCommand, Exit, PolicyCommand, RegistryCommand};
use crate::{
    apply, bundle, crds, demo, dns, evidence, install, lint, mirror, node, registry, serve, testing, verify,
    webhook,
};

/// Runs a command to its end.
pub(crate) fn run(command: Command, runtime: &Runtime) -> Result<Exit> {
    match command {
        Command::Demo => runtime.block_on(demo::run()),
        Command::Verify(arguments) => runtime.block_on(verify::run(&arguments)),
        Command::Test(arguments) => runtime.block_on(testing::run(&arguments)),
        Command::Policy(PolicyCommand::Lint(arguments)) => lint::run(&arguments),
        Command::Apply(arguments) => runtime.block_on(apply::run(&arguments)),
        Command::Serve(arguments) => runtime.block_on(serve::run(&arguments)),
        Command::Bundle(command) => runtime.block_on(bundle::run(&command)),
        Command::Node(command) => node::run(&command),
        Command::Crds(command) => runtime.block_on(crds::run(&command)),
        Command::Dns(DnsCommand::Override(command)) => runtime.block_on(dns::run(&command)),
        Command::Webhook(command) => runtime.block_on(webhook::run(&command)),
        Command::Evidence(command) => runtime.block_on(evidence::run(&command)),
        Command::Install(command) => runtime.block_on(install::run(&command)),
        Command::Mirror(command) => runtime.block_on(mirror::run(&command)),
        Command::Registry(RegistryCommand::Serve(arguments)) => runtime.block_on(registry::run(&arguments)),
    }
}
