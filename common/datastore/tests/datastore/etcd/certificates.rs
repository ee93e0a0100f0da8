//! An authority and certificates signed by it, made by openssl for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use weir_common::datastore::{EtcdConfiguration, Pem};

/// A directory with `ca`, `server` and `client`, each as `.crt` and `.key`.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Self(directory);
        made.authority();
        made.sign_for("server", "subjectAltName=IP:127.0.0.1");
        made.sign_for("client", "extendedKeyUsage=clientAuth");
        made
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn file(&self, name: &str) -> Pem {
        self.path(name).into()
    }

    /// Makes a certificate NAME that signs itself, as openssl does when it is asked for
    /// nothing else: an authority's.
    pub fn sign_itself(&self, name: &str, extensions: &[&str]) {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        let mut arguments = vec!["req", "-x509", "-subj", "/CN=127.0.0.1"];
        arguments.extend(["-out", &certificate, "-keyout", &key]);
        arguments.extend(extensions.iter().flat_map(|it| ["-addext", it]));
        openssl(self.0.path(), &arguments);
    }

    /// Makes a certificate that signs itself one whose day is over.
    pub fn age(&self, name: &str) {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        let output = Command::new("openssl")
            .current_dir(self.0.path())
            .args(["x509", "-in", &certificate, "-signkey", &key, "-out", &certificate])
            .args(["-days", "-1"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A configuration that uses all of them.
    pub fn configuration(&self, url: String) -> EtcdConfiguration {
        EtcdConfiguration {
            authorities: Some(self.file("ca.crt")),
            client_certificate: Some((self.file("client.crt"), self.file("client.key"))),
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

    /// Makes a certificate NAME that the authority signs.
    pub fn sign_for(&self, name: &str, extension: &str) {
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
