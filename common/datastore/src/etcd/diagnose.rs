//! Why an endpoint that accepts connections answers nothing: what both sides expect of a
//! connection differs.
//!
//! Of a connection that its server ends, a program meets now an alert, now the end, now a
//! reset or a broken pipe. So the failure itself is not judged. The endpoint is dialled once
//! more, and asked only what tells the reasons apart.

use std::io;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error as TlsError, SignatureScheme,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::Uri;
use weir_common::datastore::EtcdConfiguration;

use super::tls;

/// What a client of HTTP/2 says first: its preface, and empty settings (RFC 9113, 3.4, 6.5).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The length of a frame's header in HTTP/2, the place of its type, and the type of
/// settings, with which a server begins (RFC 9113, 4.1).
const FRAME_HEADER: usize = 9;
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// The types of TLS's records with which a server answers a first message: an alert, or a
/// message of its own (RFC 8446, 5.1).
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

/// In what server and configuration do not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Disagreement {
    #[error(
        "the server wants a client certificate and none is configured; set etcd_cert_file and \
         etcd_key_file"
    )]
    NoCertificate,
    #[error(
        "the server refuses the client certificate; give one (etcd_cert_file, etcd_key_file) that \
         an authority of the server has signed for clients and that has not expired"
    )]
    RefusedCertificate,
    #[error("the server speaks TLS; write https:// in place of http:// in etcd_endpoints")]
    ServerSpeaksTls,
    #[error("the server does not speak TLS; write http:// in place of https:// in etcd_endpoints")]
    ServerSpeaksPlainly,
    #[error("the server's certificate is not accepted: {0}")]
    Untrusted(String),
}

/// Why a certificate is not accepted, without times and other things that change.
fn reason(error: &CertificateError) -> String {
    use CertificateError as Of;
    let reason = match error {
        Of::UnknownIssuer => {
            "no authority that is trusted here has signed it; name that one in etcd_ca_cert_file"
        }
        Of::BadSignature => {
            "no authority that is trusted here has signed it, or the server does not have its \
             key; name the authority in etcd_ca_cert_file"
        }
        Of::NotValidForName | Of::NotValidForNameContext { .. } => {
            "its subject alternative names do not have the host in etcd_endpoints; write one of \
             them, or have a certificate made for this one"
        }
        Of::Expired | Of::ExpiredContext { .. } => {
            "it has expired; renew it, and see that this node's clock is right"
        }
        Of::NotValidYet | Of::NotValidYetContext { .. } => {
            "it is not valid yet; see that this node's clock is right"
        }
        Of::InvalidPurpose | Of::InvalidPurposeContext { .. } => {
            "it is not for servers; have it made with extendedKeyUsage serverAuth"
        }
        other => return other.to_string(),
    };
    reason.to_owned()
}

/// Dials an endpoint to find out; `None` when nothing is found, within the time in which a
/// connection is made.
pub(super) async fn diagnose(url: &str, configuration: &EtcdConfiguration) -> Option<Disagreement> {
    let uri: Uri = url.parse().ok()?;
    let finding = async {
        match uri.scheme_str() {
            Some("https") => of_tls(&uri, configuration).await,
            _ => of_plain(&uri).await,
        }
    };
    timeout(configuration.connect_timeout, finding).await.ok()?
}

async fn of_plain(uri: &Uri) -> Option<Disagreement> {
    let seen = shake_hands(uri, tls::trusting_nobody()?).await?;
    seen.spoke_tls.then_some(Disagreement::ServerSpeaksTls)
}

async fn of_tls(uri: &Uri, configuration: &EtcdConfiguration) -> Option<Disagreement> {
    let asked = Arc::new(AtomicBool::new(false));
    let ours = tls::handshake(configuration, |inner| {
        Arc::new(Listening { asked: Arc::clone(&asked), inner })
    })?;
    // A server without TLS may wait for the end of what it takes for a request.
    let seen = match timeout(configuration.connect_timeout / 2, shake_hands(uri, ours)).await {
        Ok(seen) => seen?,
        Err(_) => Seen::default(),
    };
    if !seen.spoke_tls {
        let speaks_plainly = speaks_plainly(uri).await.unwrap_or(false);
        return speaks_plainly.then_some(Disagreement::ServerSpeaksPlainly);
    }
    if let Some(error) = &seen.untrusted {
        return Some(Disagreement::Untrusted(reason(error)));
    }
    let refused = seen.hung_up && asked.load(Ordering::Relaxed);
    refused.then_some(match configuration.client_certificate {
        Some(_) => Disagreement::RefusedCertificate,
        None => Disagreement::NoCertificate,
    })
}

/// Answers as `inner`, and notes that it was asked.
#[derive(Debug)]
struct Listening {
    /// Set when the server asks.
    asked: Arc<AtomicBool>,
    inner: Arc<dyn ResolvesClientCert>,
}

impl ResolvesClientCert for Listening {
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

/// What a server did when it was spoken to with TLS.
#[derive(Debug, Default)]
struct Seen {
    /// Its first byte was one of TLS.
    spoke_tls: bool,
    /// It ended the connection, and said nothing but TLS's own messages.
    hung_up: bool,
    /// Its certificate was not accepted.
    untrusted: Option<CertificateError>,
}

/// Speaks TLS, and HTTP/2 in it, until the server says something in it, ends the
/// connection, or is not to be trusted. `None` when it cannot be dialled.
async fn shake_hands(uri: &Uri, ours: ClientConfig) -> Option<Seen> {
    let mut stream = dial(uri).await.ok()?;
    let name = ServerName::try_from(host(uri)?.to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(ours), name).ok()?;
    connection.writer().write_all(HELLO).ok()?;
    let mut seen = Seen::default();
    let mut chunk = [0; 4096];
    loop {
        // Also when the server takes no more, what it sent before is there to be read.
        let _ = send(&mut connection, &mut stream).await;
        let length = stream.read(&mut chunk).await.unwrap_or(0);
        let mut rest = &chunk[..length];
        seen.spoke_tls |= rest.first().is_some_and(|first| TLS_RECORDS.contains(first));
        if rest.is_empty() || !seen.spoke_tls {
            return Some(Seen { hung_up: true, ..seen });
        }
        while !rest.is_empty() {
            connection.read_tls(&mut rest).ok()?;
            match connection.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => return Some(seen),
                Ok(state) if state.peer_has_closed() => {
                    return Some(Seen { hung_up: true, ..seen });
                }
                Ok(_) => {}
                Err(TlsError::AlertReceived(_)) => return Some(Seen { hung_up: true, ..seen }),
                Err(TlsError::InvalidCertificate(error)) => {
                    return Some(Seen { untrusted: Some(error), ..seen });
                }
                Err(_) => return Some(seen),
            }
        }
    }
}

pub(super) async fn send(
    connection: &mut ClientConnection,
    stream: &mut TcpStream,
) -> io::Result<()> {
    while connection.wants_write() {
        let mut records = Vec::new();
        connection.write_tls(&mut records)?;
        stream.write_all(&records).await?;
    }
    Ok(())
}

/// Whether the server answers HTTP/2 without TLS.
async fn speaks_plainly(uri: &Uri) -> io::Result<bool> {
    let mut stream = dial(uri).await?;
    stream.write_all(HELLO).await?;
    let mut header = [0; FRAME_HEADER];
    stream.read_exact(&mut header).await?;
    Ok(header[FRAME_TYPE] == SETTINGS)
}

pub(super) async fn dial(uri: &Uri) -> io::Result<TcpStream> {
    let host = host(uri).ok_or(io::ErrorKind::InvalidInput)?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    TcpStream::connect((host, port)).await
}

/// The host's name or address; that of IPv6 without its brackets.
pub(super) fn host(uri: &Uri) -> Option<&str> {
    uri.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'))
}
