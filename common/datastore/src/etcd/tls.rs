//! TLS as configured: its certificates and keys, read and checked before anything is dialled.

use std::sync::Arc;

use etcd_client::{Identity, TlsOptions};
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weir_common::datastore::{Error, EtcdConfiguration, Pem};

use super::verifier::Verifier;

/// Calico's names of the configuration keys.
const CA_CERT_FILE: &str = "etcd_ca_cert_file";
const CERT_FILE: &str = "etcd_cert_file";
const KEY_FILE: &str = "etcd_key_file";

/// What connections to endpoints with `https` need.
#[derive(Clone)]
pub(super) struct Tls {
    /// The client's certificate and the time limit.
    pub(super) options: TlsOptions,
    /// Judges the servers' certificates.
    pub(super) verifier: Arc<Verifier>,
}

impl Tls {
    /// Reads it. The system's authorities are trusted when none are given.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] for a file that cannot be read or that does not
    /// hold what it should.
    pub(super) fn new(configuration: &EtcdConfiguration) -> Result<Self, Error> {
        let mut options = TlsOptions::new().timeout(configuration.connect_timeout);
        if let Some((certificate, key)) = &configuration.client_certificate {
            let (certificate, _) = certificates(CERT_FILE, certificate)?;
            options = options.identity(Identity::from_pem(certificate, private_key(key)?.0));
        }
        let authorities = match &configuration.authorities {
            Some(pem) => certificates(CA_CERT_FILE, pem)?.1,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let verifier = Verifier::new(&provider(), authorities)
            .map_err(|error| unusable_authorities(configuration, &error.to_string()))?;
        Ok(Self { options, verifier: Arc::new(verifier) })
    }
}

/// The handshake as [`Tls`] has it, for whoever speaks TLS by hand. `client` gets what
/// answers a server that asks for the client's certificate, and may put another in its place.
/// `None` when the configuration is of no use.
pub(super) fn handshake(
    configuration: &EtcdConfiguration,
    client: impl FnOnce(Arc<dyn ResolvesClientCert>) -> Arc<dyn ResolvesClientCert>,
) -> Option<ClientConfig> {
    let builder = builder()?.dangerous();
    let builder = builder.with_custom_certificate_verifier(Tls::new(configuration).ok()?.verifier);
    let mut made = match &configuration.client_certificate {
        Some((certificate, key)) => {
            let (_, chain) = certificates(CERT_FILE, certificate).ok()?;
            builder.with_client_auth_cert(chain, private_key(key).ok()?.1).ok()?
        }
        None => builder.with_no_client_auth(),
    };
    made.client_auth_cert_resolver = client(made.client_auth_cert_resolver);
    made.alpn_protocols.push(b"h2".to_vec());
    Some(made)
}

/// A handshake that fails with every server that speaks TLS.
pub(super) fn trusting_nobody() -> Option<ClientConfig> {
    Some(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Option<ConfigBuilder<ClientConfig, WantsVerifier>> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().ok()
}

/// The cryptography that connections use too.
fn provider() -> Arc<CryptoProvider> {
    let default = CryptoProvider::get_default().cloned();
    default.unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// The error for TLS files that are well-formed each, but of no use together.
pub(super) fn unusable(configuration: &EtcdConfiguration, reason: &str) -> Error {
    match &configuration.client_certificate {
        Some((certificate, _)) => misconfigured(
            CERT_FILE,
            certificate,
            format!("{reason}; give a client certificate and the key that belongs to it"),
        ),
        None => unusable_authorities(configuration, reason),
    }
}

fn unusable_authorities(configuration: &EtcdConfiguration, reason: &str) -> Error {
    match &configuration.authorities {
        Some(pem) => misconfigured(CA_CERT_FILE, pem, reason.to_owned()),
        None => Error::Misconfigured {
            field: CA_CERT_FILE,
            value: String::new(),
            reason: format!("{reason}; without a file, this system's own authorities are used"),
        },
    }
}

/// The certificates, as written and as read.
fn certificates(
    field: &'static str,
    pem: &Pem,
) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), Error> {
    let text = read(field, pem)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = read.map_err(|error| {
        misconfigured(field, pem, format!("is malformed: {error}; give a PEM file"))
    })?;
    if certificates.is_empty() {
        let reason = "holds no certificate; give a PEM file with \"BEGIN CERTIFICATE\"";
        return Err(misconfigured(field, pem, reason.to_owned()));
    }
    Ok((text, certificates))
}

/// The key, as written and as read.
fn private_key(pem: &Pem) -> Result<(Vec<u8>, PrivateKeyDer<'static>), Error> {
    let text = read(KEY_FILE, pem)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let reason = format!(
            "holds no usable key: {error}; \
             give a PEM file with \"BEGIN PRIVATE KEY\" and no passphrase"
        );
        misconfigured(KEY_FILE, pem, reason)
    })?;
    Ok((text, key))
}

fn read(field: &'static str, pem: &Pem) -> Result<Vec<u8>, Error> {
    match pem {
        // Opening a fifo waits for its other end.
        Pem::File(path) if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) => {
            Err(misconfigured(field, pem, "is not a regular file; give a PEM file".to_owned()))
        }
        Pem::File(path) => std::fs::read(path).map_err(|error| {
            misconfigured(field, pem, format!("cannot be read: {error}; check path and mode"))
        }),
        Pem::Inline(text) => Ok(text.clone().into_bytes()),
    }
}

fn misconfigured(field: &'static str, pem: &Pem, reason: String) -> Error {
    Error::Misconfigured { field, value: pem.to_string(), reason }
}
