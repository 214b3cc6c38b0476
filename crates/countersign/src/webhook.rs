//! `countersign webhook`: the configurations are taken away, or may come back.

use std::time::Duration;

use anyhow::Result;
use countersign_cluster::{RemoveError, Webhooks};

use crate::cli::{Exit, Home, WebhookCommand, WebhookPlace};
use crate::serve::replica::installation;
use crate::serve::talk;
use crate::site::warn;

pub(crate) async fn run(command: &WebhookCommand) -> Result<Exit> {
    let (WebhookCommand::Remove(place) | WebhookCommand::Restore(place)) = command;
    let WebhookPlace { home: Home { cluster, namespace }, deployment, timeout } = place;
    let client = crate::crds::client(cluster).await?;
    let webhooks = Webhooks::new(&client, installation(namespace, deployment));
    let done = match command {
        WebhookCommand::Remove(_) => webhooks.remove(Duration::from_secs(*timeout)).await.map(|removed| {
            let what = match removed.configurations.as_slice() {
                [] => "there was no webhook configuration".to_owned(),
                kinds => format!("gone: {}", kinds.join(", ")),
            };
            let stays = if removed.installed {
                format!(
                    "; Deployment `{deployment}` leaves them away until `countersign webhook restore`: \
                         nothing is verified"
                )
            } else {
                format!("; there is no Deployment `{deployment}` in `{namespace}`")
            };
            talk(&format!("{what}{stays}"));
        }),
        WebhookCommand::Restore(_) => webhooks.restore().await.map(|intended| {
            talk(if intended {
                "the intent is gone: they are registered again within seconds"
            } else {
                "nobody had removed them"
            });
        }),
    };
    match done {
        Ok(()) => Ok(Exit::Good),
        Err(error) if error.is_unreachable() => {
            warn(&error.to_string());
            Ok(Exit::Unreachable)
        }
        Err(error @ (RemoveError::Unacknowledged(_) | RemoveError::Restored)) => {
            warn(&error.to_string());
            Ok(Exit::Negative)
        }
        Err(error) => Err(error.into()),
    }
}
