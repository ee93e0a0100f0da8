//! An authority and certificates signed by it, made by openssl for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use weir_common::datastore::EtcdConfiguration;

/// A directory with `ca`, `server` and `client`, each as `.crt` and `.key`.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Self(directory);
        made.authority();
        made.signed("server", "subjectAltName=IP:127.0.0.1");
        made.signed("client", "extendedKeyUsage=clientAuth");
        made
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A configuration that uses all of them.
    pub fn configuration(&self, url: String) -> EtcdConfiguration {
        EtcdConfiguration {
            ca_cert_file: Some(self.path("ca.crt")),
            client_certificate: Some((self.path("client.crt"), self.path("client.key"))),
            ..EtcdConfiguration::new(vec![url])
        }
    }

    /// Puts others' in the place of these, as who renews them does.
    pub fn replace_by(&self, others: &Self) {
        for name in ["ca.crt", "client.crt", "client.key"] {
            std::fs::copy(others.path(name), self.path(name)).unwrap();
        }
    }

    fn authority(&self) {
        openssl(
            self.0.path(),
            &["req", "-x509", "-subj", "/CN=Test authority", "-out", "ca.crt", "-keyout", "ca.key"],
        );
    }

    fn signed(&self, name: &str, extension: &str) {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        openssl(
            self.0.path(),
            &[
                "req",
                "-x509",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-subj",
                "/CN=test",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                extension,
                "-out",
                &certificate,
                "-keyout",
                &key,
            ],
        );
    }
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments)
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .output()
        .unwrap_or_else(|error| panic!("these tests need the openssl command: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
