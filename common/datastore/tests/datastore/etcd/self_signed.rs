//! A server whose certificate signs itself and is listed as an authority: openssl's everyday
//! form, which Go's programs accept.

use weir_common::datastore::{Datastore, Error, EtcdConfiguration};
use weir_datastore::Etcd;

use super::cause;
use super::certificates::Certificates;
use super::handshake_server::HandshakeServer;
use super::server::Server;
use crate::suite::{put, value};

const NAME: &str = "subjectAltName=IP:127.0.0.1";

async fn open(url: String, certificates: &Certificates, authorities: &str) -> Etcd {
    let configuration = EtcdConfiguration {
        authorities: Some(certificates.file(authorities)),
        ..EtcdConfiguration::new(vec![url])
    };
    Etcd::open(&configuration).await.unwrap()
}

async fn refusal(store: &Etcd) -> String {
    let error = store.read(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    cause(&error)
}

#[tokio::test]
async fn it_is_accepted_where_it_is_listed() {
    let certificates = Certificates::new();
    for (name, extensions) in
        [("plain", &[NAME][..]), ("servers", &[NAME, "extendedKeyUsage=clientAuth,serverAuth"][..])]
    {
        certificates.sign_itself(name, extensions);
        let server = Server::start_showing(&certificates, name);
        // Also among others, in whatever order.
        let read = |name: &str| std::fs::read_to_string(certificates.path(name)).unwrap();
        let both = format!("{}{}", read("ca.crt"), read(&format!("{name}.crt")));
        std::fs::write(certificates.path("both.crt"), both).unwrap();
        for authorities in [format!("{name}.crt"), "both.crt".to_owned()] {
            let store = open(server.url(), &certificates, &authorities).await;
            put(&store, &[("/a", "1")]).await;
            assert_eq!(value(&store, "/a").await.as_deref(), Some("1"));
        }
    }
}

#[tokio::test]
async fn it_is_refused_where_it_is_not_listed() {
    let certificates = Certificates::new();
    certificates.sign_itself("shown", &[NAME]);
    // Of the same name, with another key.
    certificates.sign_itself("listed", &[NAME]);
    let server = Server::start_showing(&certificates, "shown");
    for authorities in ["listed.crt", "ca.crt"] {
        let told = refusal(&open(server.url(), &certificates, authorities).await).await;
        assert!(told.contains("no authority that is trusted here has signed it; "), "{told}");
    }
}

#[tokio::test]
async fn name_and_use_are_still_checked() {
    let certificates = Certificates::new();
    for (name, extensions, reason) in [
        ("elsewhere", &["subjectAltName=IP:192.0.2.1,DNS:localhost"][..], "do not have the host"),
        // Its subject is the server's address, which counts for nothing.
        ("nameless", &[][..], "do not have the host"),
        ("clients", &[NAME, "extendedKeyUsage=clientAuth"][..], "not for servers"),
    ] {
        certificates.sign_itself(name, extensions);
        let server = Server::start_showing(&certificates, name);
        let told = refusal(&open(server.url(), &certificates, &format!("{name}.crt")).await).await;
        assert!(told.contains(reason), "{name}: {told}");
    }
}

#[tokio::test]
async fn its_key_is_still_asked_for() {
    let certificates = Certificates::new();
    certificates.sign_itself("shown", &[NAME]);
    let server = HandshakeServer::pretending(&certificates, "shown");
    let told = refusal(&open(server.url(), &certificates, "shown.crt").await).await;
    assert!(told.contains("or the server does not have its key"), "{told}");
}
