//! etcd's clock. It tells its time with each answer over HTTP (RFC 9110, 6.6.1, `Date`), and with
//! none over gRPC.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use weir_common::datastore::EtcdConfiguration;

use super::diagnose::{dial, host, send};
use super::tls;

/// What needs no user (etcd, `server/etcdserver/api/etcdhttp/version.go`).
const REQUEST: &[u8] = b"GET /version HTTP/1.0\r\n\r\n";

/// What ends the headers of an answer.
const END: &[u8] = b"\r\n\r\n";

/// The largest headers that are read, in bytes.
const LARGEST: usize = 1 << 14;

/// The date in the answer of an endpoint, as RFC 5322 writes dates; `None` if it tells none (one
/// for gRPC alone hangs up, `--listen-client-http-urls`).
///
/// Waits as long as the endpoint does not answer.
///
/// # Errors
/// It cannot be reached.
pub async fn server_date(
    url: &str,
    configuration: &EtcdConfiguration,
) -> io::Result<Option<String>> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let stream = dial(&uri).await?;
    let answer = match uri.scheme_str() {
        Some("https") => over_tls(stream, &uri, configuration).await,
        _ => plainly(stream).await,
    };
    let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
    let mut headers = answer.lines().filter_map(|line| line.split_once(':'));
    let date = headers.find(|(name, _)| name.eq_ignore_ascii_case("date"));
    Ok(date.map(|(_, date)| date.trim().to_owned()))
}

fn is_whole(answer: &[u8]) -> bool {
    answer.len() > LARGEST || answer.windows(END.len()).any(|window| window == END)
}

async fn plainly(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) && stream.read_buf(&mut answer).await? > 0 {}
    Ok(answer)
}

async fn over_tls(
    mut stream: TcpStream,
    uri: &Uri,
    configuration: &EtcdConfiguration,
) -> io::Result<Vec<u8>> {
    let unusable = || io::Error::other("the certificates or keys cannot be used");
    let mut ours = tls::handshake(configuration, |inner| inner).ok_or_else(unusable)?;
    ours.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = host(uri).unwrap_or_default().to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(ours), name);
    let mut connection = connection.map_err(io::Error::other)?;
    connection.writer().write_all(REQUEST)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !is_whole(&answer) {
        send(&mut connection, &mut stream).await?;
        let length = stream.read(&mut chunk).await?;
        let mut rest = &chunk[..length];
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            connection.read_tls(&mut rest)?;
            let state = connection.process_new_packets().map_err(io::Error::other)?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            connection.reader().read_exact(&mut plain)?;
            answer.append(&mut plain);
        }
    }
    Ok(answer)
}
