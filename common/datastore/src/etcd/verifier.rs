//! Whether a server's certificate is accepted.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::key_usage::may_be_a_server;

/// How webpki calls an authority's certificate that a server shows as its own
/// (`webpki::Error::CaUsedAsEndEntity`; rustls passes it on as text alone).
const AUTHORITY_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Judges as rustls does by default, except that a server may show a certificate which is
/// itself a listed authority, as Go's programs accept it: openssl's everyday self-signed one.
#[derive(Debug)]
pub(super) struct Verifier {
    by_chain: Arc<WebPkiServerVerifier>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts these authorities.
    ///
    /// # Errors
    /// None of them can be used.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let by_chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(Self { by_chain: by_chain.build()?, authorities })
    }

    /// What is left to check of an authority as a server: webpki has found it valid today.
    fn verify_authority(
        &self,
        shown: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<ServerCertVerified, Error> {
        if !self.authorities.contains(shown) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        if !may_be_a_server(shown) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.by_chain.verify_server_cert(shown, intermediates, name, ocsp_response, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(cause)))
                if cause.0.to_string() == AUTHORITY_AS_SERVER =>
            {
                self.verify_authority(shown, name)
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_chain.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_chain.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_chain.supported_verify_schemes()
    }
}
