//! The TLS files of a configuration, checked before anything is dialled.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Identity, TlsOptions};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weir_common::datastore::{Error, EtcdConfiguration};

/// Calico's names of the configuration keys.
const CA_CERT_FILE: &str = "etcd_ca_cert_file";
const CERT_FILE: &str = "etcd_cert_file";
const KEY_FILE: &str = "etcd_key_file";

/// The options for endpoints with `https`. The system's authorities are
/// trusted when no file with authorities is given.
///
/// # Errors
/// [`Error::Misconfigured`] for a file that cannot be read or that does not
/// hold what it should.
pub(super) fn options(configuration: &EtcdConfiguration) -> Result<TlsOptions, Error> {
    let handshake_timeout: Duration = configuration.connect_timeout;
    let mut options = TlsOptions::new().timeout(handshake_timeout);
    options = match &configuration.ca_cert_file {
        Some(path) => {
            options.ca_certificate(Certificate::from_pem(certificates(CA_CERT_FILE, path)?))
        }
        None => options.with_native_roots(),
    };
    if let Some((certificate, key)) = &configuration.client_certificate {
        let certificate = certificates(CERT_FILE, certificate)?;
        options = options.identity(Identity::from_pem(certificate, private_key(key)?));
    }
    Ok(options)
}

/// The error for TLS files that are well-formed each, but of no use together.
pub(super) fn unusable(configuration: &EtcdConfiguration, reason: &str) -> Error {
    match (&configuration.client_certificate, &configuration.ca_cert_file) {
        (Some((certificate, _)), _) => misconfigured(
            CERT_FILE,
            certificate,
            format!("{reason}; give a client certificate and the key that belongs to it"),
        ),
        (None, Some(path)) => misconfigured(CA_CERT_FILE, path, reason.to_owned()),
        (None, None) => misconfigured(
            CA_CERT_FILE,
            Path::new(""),
            format!("{reason}; without a file, this system's own authorities are used"),
        ),
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let text = read(field, path)?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        certificate.map_err(|error| {
            misconfigured(field, path, format!("is malformed: {error}; give a PEM file"))
        })?;
        found += 1;
    }
    if found == 0 {
        let reason = "holds no certificate; give a PEM file with \"BEGIN CERTIFICATE\"";
        return Err(misconfigured(field, path, reason.to_owned()));
    }
    Ok(text)
}

fn private_key(path: &Path) -> Result<Vec<u8>, Error> {
    let text = read(KEY_FILE, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let reason = format!(
            "holds no usable key: {error}; \
             give a PEM file with \"BEGIN PRIVATE KEY\" and no passphrase"
        );
        misconfigured(KEY_FILE, path, reason)
    })?;
    Ok(text)
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        misconfigured(field, path, format!("cannot be read: {error}; check path and mode"))
    })
}

fn misconfigured(field: &'static str, path: &Path, reason: String) -> Error {
    Error::Misconfigured { field, value: path.display().to_string(), reason }
}
