//! What is told of a connection on which server and configuration do not agree: the same
//! sentence each time, however far the connection came.

use std::collections::BTreeSet;

use weir_common::datastore::{Datastore, Error, EtcdConfiguration};
use weir_common::error_chain;
use weir_datastore::Etcd;

use super::certificates::Certificates;
use super::handshake_server::HandshakeServer;
use super::server::Server;
use crate::suite::transaction;

/// How often each is met.
const ROUNDS: usize = 25;

/// All that is told: of readings and commits, by new processes and by one that goes on.
async fn told(configuration: &EtcdConfiguration) -> String {
    let mut told = BTreeSet::new();
    let open = async || Etcd::open(configuration).await.unwrap();
    let lasting = open().await;
    for _ in 0..ROUNDS {
        let create = transaction(|it| {
            it.create("/calico/a".to_owned(), vec![]);
        });
        told.insert(refusal(open().await.read(&[]).await));
        told.insert(refusal(open().await.commit(create).await));
        told.insert(refusal(lasting.get("/calico/a").await));
        told.insert(refusal(
            open().await.watch(&["/calico/".to_owned()], Default::default()).await,
        ));
    }
    assert_eq!(told.len(), 1, "{told:#?}");
    told.pop_first().unwrap()
}

fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("an endpoint answered that should not"),
        Err(error @ Error::Unavailable { .. }) => error_chain(&error),
        Err(error) => panic!("{error:?}"),
    }
}

fn said(url: &str, sentence: &str) -> String {
    format!(
        "datastore {url} is not available; check that it runs and can be reached from here: \
         {url}: {sentence}"
    )
}

const NO_CERTIFICATE: &str = "the server wants a client certificate and none is configured; set \
                              etcd_cert_file and etcd_key_file";

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_none() {
    let certificates = Certificates::new();
    let server = Server::start_with_tls(&certificates);
    let configuration =
        EtcdConfiguration { client_certificate: None, ..certificates.configuration(server.url()) };
    assert_eq!(told(&configuration).await, said(&server.url(), NO_CERTIFICATE));
}

#[tokio::test]
async fn a_server_refuses_the_certificate() {
    let (certificates, foreign) = (Certificates::new(), Certificates::new());
    let server = Server::start_with_tls(&certificates);
    let foreign = (foreign.file("client.crt"), foreign.file("client.key"));
    // That of a server is not for clients.
    certificates.sign_for("other", "extendedKeyUsage=serverAuth");
    let servers = (certificates.file("other.crt"), certificates.file("other.key"));
    for certificate in [foreign, servers] {
        let configuration = EtcdConfiguration {
            client_certificate: Some(certificate),
            ..certificates.configuration(server.url())
        };
        assert_eq!(
            told(&configuration).await,
            said(
                &server.url(),
                "the server refuses the client certificate; give one (etcd_cert_file, \
                 etcd_key_file) that an authority of the server has signed for clients and that \
                 has not expired"
            )
        );
    }
}

#[tokio::test]
async fn http_to_a_server_with_tls() {
    let certificates = Certificates::new();
    let server = Server::start_with_tls(&certificates);
    let url = server.url().replace("https:", "http:");
    assert_eq!(
        told(&EtcdConfiguration::new(vec![url.clone()])).await,
        said(&url, "the server speaks TLS; write https:// in place of http:// in etcd_endpoints")
    );
}

#[tokio::test]
async fn https_to_a_server_without_tls() {
    let certificates = Certificates::new();
    let server = Server::start();
    let url = server.url().replace("http:", "https:");
    assert_eq!(
        told(&certificates.configuration(url.clone())).await,
        said(
            &url,
            "the server does not speak TLS; write http:// in place of https:// in etcd_endpoints"
        )
    );
}

#[tokio::test]
async fn a_server_that_is_not_trusted() {
    let (certificates, foreign) = (Certificates::new(), Certificates::new());
    let server = Server::start_with_tls(&certificates);
    // Of the same name, with another key.
    assert_eq!(
        told(&foreign.configuration(server.url())).await,
        said(
            &server.url(),
            "the server's certificate is not accepted: no authority that is trusted here has \
             signed it, or the server does not have its key; name the authority in \
             etcd_ca_cert_file"
        )
    );
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let certificates = Certificates::new();
    certificates.sign_itself("old", &["subjectAltName=IP:127.0.0.1"]);
    certificates.age("old");
    let server = HandshakeServer::showing(&certificates, "old");
    let configuration = EtcdConfiguration {
        authorities: Some(certificates.file("old.crt")),
        ..EtcdConfiguration::new(vec![server.url()])
    };
    assert_eq!(
        told(&configuration).await,
        said(
            &server.url(),
            "the server's certificate is not accepted: it has expired; renew it, and see that \
             this node's clock is right"
        )
    );
}

/// With TLS 1.2 it refuses within the handshake, and not after it as etcd does.
#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_none_in_an_older_handshake() {
    let certificates = Certificates::new();
    let url = HandshakeServer::asking(&certificates, &rustls::version::TLS12).url();
    let configuration =
        EtcdConfiguration { client_certificate: None, ..certificates.configuration(url.clone()) };
    assert_eq!(told(&configuration).await, said(&url, NO_CERTIFICATE));
}

/// A server that hangs up without having asked for anything is told of as it is.
#[tokio::test]
async fn what_is_not_known_is_not_guessed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hangs_up = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{address}");
        let store = Etcd::open(&Certificates::new().configuration(url)).await.unwrap();
        let told = refusal(store.read(&[]).await);
        assert!(!told.contains("certificate") && !told.contains("in place of"), "{told}");
    }
    hangs_up.abort();
}
