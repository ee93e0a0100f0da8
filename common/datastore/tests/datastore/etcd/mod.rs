//! etcd: the suite on a real one, and what a cluster asks for besides.

mod authentication;
mod certificates;
mod failover;
mod full;
mod handshake_server;
mod self_signed;
mod sentences;
mod server;
mod tls;

use async_trait::async_trait;
use weir_common::datastore::{Datastore, Error, Revision};
use weir_datastore::Etcd;

use crate::suite::{self, Place};
use server::Server;

#[async_trait]
impl Place for Server {
    async fn open(&self) -> Box<dyn Datastore> {
        Box::new(self.open().await)
    }

    async fn compact(&self, revision: Revision) {
        self.client().await.compact(revision.0, None).await.unwrap();
    }
}

async fn place() -> Server {
    Server::start()
}

suite::behaviour!(place());

/// The text of an error's causes.
fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(weir_common::error_chain).unwrap_or_default()
}

/// The error of opening what should not open.
async fn refusal(configuration: &weir_common::datastore::EtcdConfiguration) -> Error {
    match Etcd::open(configuration).await {
        Ok(_) => panic!("a wrong configuration was accepted"),
        Err(error) => error,
    }
}
