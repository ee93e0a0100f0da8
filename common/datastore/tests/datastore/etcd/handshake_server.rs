//! A server that shakes hands, and says nothing after that.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificates::Certificates;

/// One for the time of a test.
pub struct HandshakeServer(SocketAddr);

impl HandshakeServer {
    /// It shows `server`, and asks for a certificate of the same authority.
    pub fn asking(certificates: &Certificates, version: &'static SupportedProtocolVersion) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(certificates, "ca")).unwrap();
        let provider = Arc::new(ring::default_provider());
        let asking = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let builder = ServerConfig::builder_with_provider(provider);
        let mut configuration = builder
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(asking.build().unwrap())
            .with_single_cert(
                vec![certificate(certificates, "server")],
                key(certificates, "server"),
            )
            .unwrap();
        configuration.alpn_protocols.push(b"h2".to_vec());
        Self::start(configuration)
    }

    /// It shows a certificate, and asks for none.
    pub fn showing(certificates: &Certificates, name: &str) -> Self {
        Self::signing_with(certificates, name, name)
    }

    /// It shows a certificate whose key it does not have: it signs with that of `server`.
    pub fn pretending(certificates: &Certificates, name: &str) -> Self {
        Self::signing_with(certificates, name, "server")
    }

    fn signing_with(certificates: &Certificates, shown: &str, signing: &str) -> Self {
        let provider = ring::default_provider();
        let key = provider.key_provider.load_private_key(key(certificates, signing)).unwrap();
        let shown = CertifiedKey::new(vec![certificate(certificates, shown)], key);
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let mut configuration = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(Arc::new(shown))));
        configuration.alpn_protocols.push(b"h2".to_vec());
        Self::start(configuration)
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.0)
    }

    /// Accepts until the process of the test ends.
    fn start(configuration: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let configuration = Arc::new(configuration);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(configuration.clone()).unwrap();
                std::thread::spawn(move || serve(connection, stream));
            }
        });
        Self(address)
    }
}

fn serve(mut connection: ServerConnection, mut stream: TcpStream) {
    // Until the client or the handshake ends it.
    while connection.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn certificate(certificates: &Certificates, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(certificates.path(&format!("{name}.crt"))).unwrap()
}

fn key(certificates: &Certificates, name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(certificates.path(&format!("{name}.key"))).unwrap()
}
