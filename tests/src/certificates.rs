//! Certificates for an etcd with TLS.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// The subject alternative names of the server.
const SERVER_NAMES: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:172.30.0.1";

/// An authority, and a server's and a client's certificate that it signed, as
/// PEM files in a directory that goes with this value.
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Makes them, valid for one day, for a server at 127.0.0.1, 172.30.0.1
    /// and `localhost`.
    pub fn new() -> Self {
        let certificates =
            Self { directory: tempfile::tempdir().expect("making a temporary directory") };
        certificates.openssl(&format!(
            "req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -subj /CN=authority -days 1"
        ));
        certificates.sign("server", SERVER_NAMES);
        certificates.sign("client", "extendedKeyUsage=clientAuth");
        certificates
    }

    /// A file: `ca.pem`, `server.pem`, `server.key`, `client.pem` or
    /// `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As [`Certificates::path`], as text.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn sign(&self, name: &str, extension: &str) {
        self.openssl(&format!(
            "req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name} -addext {extension}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
             -copy_extensions copy -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("openssl must be installed: run scripts/test.sh");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {error}");
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// How a key pair is made: elliptic curve, because it is quick.
const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
