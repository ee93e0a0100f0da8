//! TLS: right, wrong and unreadable.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use weir_common::datastore::{Datastore, Error, EtcdConfiguration, Pem};
use weir_datastore::Etcd;

use super::certificates::Certificates;
use super::server::{Server, refusing_url};
use super::{cause, refusal};
use crate::suite::{put, value};

#[tokio::test]
async fn a_client_certificate_opens() {
    let certificates = Certificates::new();
    let server = Server::start_with_tls(&certificates);
    let store = Etcd::open(&certificates.configuration(server.url())).await.unwrap();
    put(&store, &[("/a", "1")]).await;
    assert_eq!(value(&store, "/a").await.as_deref(), Some("1"));
    assert!(store.watch(&["/".to_owned()], Default::default()).await.is_ok());
}

#[tokio::test]
async fn certificates_may_be_given_as_text() {
    let certificates = Certificates::new();
    let server = Server::start_with_tls(&certificates);
    let text = |name| Pem::Inline(std::fs::read_to_string(certificates.path(name)).unwrap());
    let configuration = EtcdConfiguration {
        authorities: Some(text("ca.crt")),
        client_certificate: Some((text("client.crt"), text("client.key"))),
        ..EtcdConfiguration::new(vec![server.url()])
    };
    let store = Etcd::open(&configuration).await.unwrap();
    put(&store, &[("/a", "1")]).await;
    let error = refusal(&EtcdConfiguration {
        client_certificate: Some((text("client.crt"), Pem::Inline("s3cret".to_owned()))),
        ..configuration
    })
    .await;
    let told = format!("{error} {error:?}");
    assert!(told.contains("etcd_key_file \"(inline)\"") && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_hung_endpoint_is_passed_over_with_certificates() {
    let certificates = Certificates::new();
    let (hung, server) =
        (Server::start_with_tls(&certificates), Server::start_with_tls(&certificates));
    hung.hang();
    let mut configuration = certificates.configuration(hung.url());
    configuration.endpoints.push(server.url());
    let store = Etcd::open(&configuration).await.unwrap();
    let started = Instant::now();
    put(&store, &[("/a", "1")]).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(value(&store, "/a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_foreign_authority_is_not_trusted() {
    let (certificates, foreign) = (Certificates::new(), Certificates::new());
    let server = Server::start_with_tls(&certificates);
    let trusting =
        |authorities| EtcdConfiguration { authorities, ..certificates.configuration(server.url()) };
    // Another authority, and those of this system.
    for authorities in [Some(foreign.file("ca.crt")), None] {
        let store = match Etcd::open(&trusting(authorities)).await {
            Ok(store) => store,
            // A system may have none at all.
            Err(Error::Misconfigured { field: "etcd_ca_cert_file", .. }) => continue,
            Err(error) => panic!("{error:?}"),
        };
        let error = store.read(&[]).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        let cause = cause(&error);
        assert!(
            cause.contains("name the authority in etcd_ca_cert_file")
                || cause.contains("name that one in etcd_ca_cert_file"),
            "{cause}"
        );
    }
}

#[tokio::test]
async fn renewed_files_are_read_when_it_connects_again() {
    let (certificates, old) = (Certificates::new(), Certificates::new());
    let server = Server::start_with_tls(&certificates);
    let store = Etcd::open(&old.configuration(server.url())).await.unwrap();
    store.read(&[]).await.unwrap_err();
    // While they are written, those of before go on being used.
    std::fs::write(old.path("client.crt"), "half").unwrap();
    let error = store.read(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    old.replace_by(&certificates);
    store.read(&[]).await.unwrap();
}

/// The endpoint refuses connections: that opening fails with these errors
/// shows that nothing was dialled.
#[tokio::test]
async fn unusable_files_are_named_before_dialling() {
    let made = Certificates::new();
    let url = refusing_url().replace("http:", "https:");
    let missing = made.path("missing");
    let text = made.path("text");
    std::fs::write(&text, "no certificate").unwrap();
    let broken = made.path("broken");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n&\n-----END CERTIFICATE-----\n").unwrap();
    let (certificate, key) = (made.path("client.crt"), made.path("client.key"));
    let other_key = made.path("server.key");
    let file = |path: &PathBuf| Pem::File(path.clone());
    let ca = |path: &PathBuf| (Some(file(path)), None);
    let pair = |certificate: &PathBuf, key: &PathBuf| {
        (Some(made.file("ca.crt")), Some((file(certificate), file(key))))
    };
    let cases = [
        (ca(&missing), "etcd_ca_cert_file", &missing, "cannot be read: No such file"),
        (ca(&text), "etcd_ca_cert_file", &text, "no certificate"),
        (ca(&broken), "etcd_ca_cert_file", &broken, "malformed"),
        (ca(&key), "etcd_ca_cert_file", &key, "no certificate"),
        (pair(&missing, &key), "etcd_cert_file", &missing, "cannot be read"),
        (pair(&text, &key), "etcd_cert_file", &text, "no certificate"),
        (pair(&certificate, &missing), "etcd_key_file", &missing, "cannot be read"),
        (pair(&certificate, &text), "etcd_key_file", &text, "no usable key"),
        (pair(&certificate, &certificate), "etcd_key_file", &certificate, "no usable key"),
        (pair(&certificate, &other_key), "etcd_cert_file", &certificate, "key that belongs"),
    ];
    for ((authorities, client_certificate), field, path, reason) in cases {
        let error = refusal(&EtcdConfiguration {
            authorities,
            client_certificate,
            ..EtcdConfiguration::new(vec![url.clone()])
        })
        .await;
        let Error::Misconfigured { field: found, value, reason: said } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((*found, value.as_str()), (field, path.to_str().unwrap()), "{error}");
        assert!(said.contains(reason), "{error}");
    }
}
