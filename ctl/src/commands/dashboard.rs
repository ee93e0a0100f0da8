//! `weirctl dashboard`

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use weir_common::cni::is_identifier;
use weir_common::datastore::{Datastore, DatastoreConfiguration};

use crate::dashboard::{ShownCluster, follow, serve};
use crate::location::Location;
use crate::session::Failure;
use crate::signals::EndSignals;

/// Arguments of `weirctl dashboard`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The page shows and changes nothing. It has no login: whoever can connect sees \
                  names and addresses of all containers. To see it from elsewhere, forward the \
                  port: ssh -L 9092:127.0.0.1:9092 NODE. Ends on SIGTERM and SIGINT.\n\n\
                  Examples:\n  weirctl dashboard\n  weirctl dashboard --listen 127.0.0.1:8080"
)]
pub struct DashboardArgs {
    /// Where the page is served over HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9092")]
    pub listen: String,
    /// Serve it at an address that is not loopback, to everybody who can connect there
    #[arg(long)]
    pub allow_remote: bool,
    /// The node that ways are shown from at first; without it this one
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

/// Serves the page until it is ended; `own_name` is this node's name, where it has one.
///
/// # Errors
/// [`Failure`] when it cannot start. A datastore that is away is waited for.
pub async fn run(
    arguments: &DashboardArgs,
    location: &Location,
    own_name: Option<String>,
) -> Result<(), Failure> {
    let address = listen_address(arguments)?;
    if let Some(node) = arguments.node.as_ref().filter(|node| !is_identifier(node)) {
        return Err(Failure::new(format!(
            "--node {node:?} is not a valid node name; use letters, digits, '_', '.', '-'"
        )));
    }
    let configuration = &location.configuration;
    if let Some(path) = weir_datastore::missing_file(configuration) {
        return Err(Failure::new(format!(
            "there is no datastore at {} (named by {}); check the path, or make one: weirctl init \
             --datastore-type=embedded",
            path.display(),
            location.source
        )));
    }
    let datastore: Arc<dyn Datastore> = location.open().await?.into();
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!(
            "{address} cannot be listened at: {error}; choose another address with --listen"
        ))
    })?;
    let at = listener.local_addr().unwrap_or(address);
    let mut ends = EndSignals::new()?;
    let here = arguments.node.clone().or(own_name);
    let subject = Arc::new(ShownCluster::new(in_words(configuration), here));
    let following = follow(Arc::clone(&subject), datastore, configuration.clone());
    let serving = async {
        subject.is_known().await;
        // Whoever does not read it finds the page all the same.
        let _ = writeln!(std::io::stdout(), "ready at http://{at}/ (Ctrl-C ends it)");
        let _ = std::io::stdout().flush();
        serve(listener, Arc::clone(&subject), configuration.clone()).await;
    };
    tokio::select! {
        () = ends.wait() => {}
        () = async { tokio::join!(following, serving); } => {}
    }
    Ok(())
}

/// Where to listen.
fn listen_address(arguments: &DashboardArgs) -> Result<SocketAddr, Failure> {
    let text = &arguments.listen;
    let address: SocketAddr = text.parse().map_err(|_| {
        Failure::new(format!(
            "--listen {text} is not an address with a port; write for example 127.0.0.1:9092"
        ))
    })?;
    if !address.ip().is_loopback() && !arguments.allow_remote {
        return Err(Failure::new(format!(
            "--listen {text} is not a loopback address, and the page has no login; forward the port \
             instead (ssh -L 9092:127.0.0.1:9092 NODE), or add --allow-remote if everybody who can \
             connect there may see it"
        )));
    }
    Ok(address)
}

/// Which datastore it is, without secrets.
fn in_words(configuration: &DatastoreConfiguration) -> String {
    let kind = match configuration {
        DatastoreConfiguration::Embedded { .. } => "embedded",
        DatastoreConfiguration::Etcd(_) => "etcd",
    };
    format!("{kind} {}", configuration.place())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everybody_is_asked_for_twice() {
        let address = |listen: &str, allow_remote| {
            let (listen, node) = (listen.to_owned(), None);
            listen_address(&DashboardArgs { listen, allow_remote, node }).map_err(|it| it.message)
        };
        for loopback in ["127.0.0.1:9092", "127.1.2.3:0", "[::1]:9092"] {
            assert_eq!(address(loopback, false).unwrap(), loopback.parse().unwrap());
        }
        for remote in ["0.0.0.0:9092", "192.0.2.1:9092", "[::]:9092"] {
            assert!(address(remote, false).unwrap_err().contains("--allow-remote"));
            assert_eq!(address(remote, true).unwrap(), remote.parse().unwrap());
        }
        assert!(address("localhost:9092", true).unwrap_err().contains("with a port"));
    }
}
