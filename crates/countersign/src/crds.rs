//! `countersign crds`: the kinds of objects that a cluster has to know.

use anyhow::{Context as _, Result};
use countersign_cluster::Client;
use countersign_cluster::crds::{Applied, CrdError, apply};

use crate::cli::{Cluster, CrdsCommand, Exit};
use crate::serve::talk;
use crate::site::warn;

/// A client of the cluster that is meant.
pub(crate) async fn client(cluster: &Cluster) -> Result<Client> {
    let client = countersign_cluster::client(cluster.kubeconfig.as_deref(), cluster.context.as_deref());
    client.await.context("the cluster")
}

pub(crate) async fn run(command: &CrdsCommand) -> Result<Exit> {
    let CrdsCommand::Apply(arguments) = command;
    let client = client(&arguments.cluster).await?;
    match apply(&client, arguments.force).await {
        Ok(done) => {
            for (name, applied) in done {
                talk(&match applied {
                    Applied::Made => format!("{name} is made"),
                    Applied::Changed => format!("{name} is brought up to date"),
                    Applied::Same => format!("{name} is there"),
                    Applied::Left => {
                        format!("{name} is somebody else's, and stays as it is (--force takes it over)")
                    }
                });
            }
            Ok(Exit::Good)
        }
        Err(error) if error.is_unreachable() => {
            warn(&error.to_string());
            Ok(Exit::Unreachable)
        }
        Err(error @ CrdError::NotServed(_)) => {
            warn(&error.to_string());
            Ok(Exit::Negative)
        }
        Err(error) => Err(error.into()),
    }
}
