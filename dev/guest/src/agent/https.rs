//! One kept-alive HTTPS connection whose requests each leave in a single write.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use super::AgentError;
use super::http::{self, Response};

/// How long to wait for the peer's end of a closed connection, and for how many bytes.
const LEAVE_TIME: Duration = Duration::from_secs(2);
const MAX_REST: u64 = 64 * 1024;

/// A TLS 1.3 client that trusts one authority and nothing else.
pub(super) fn trusting(ca_pem: &str) -> Result<Arc<ClientConfig>, AgentError> {
    let failed = |error: &dyn std::fmt::Display| AgentError::Trust(error.to_string());
    let authority =
        CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(|error| failed(&error))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(super) struct Https {
    host: String,
    stream: TcpStream,
    tls: ClientConnection,
}

impl Https {
    pub(super) fn connect(
        address: SocketAddr,
        host: &str,
        config: &Arc<ClientConfig>,
    ) -> Result<Self, AgentError> {
        let mut stream = http::connect(address, host)?;
        let tls = shake_hands(&mut stream, host, config).map_err(|source| AgentError::Network {
            doing: "shake hands with",
            host: host.to_owned(),
            source,
        })?;
        Ok(Self {
            host: host.to_owned(),
            stream,
            tls,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends the request and waits for the whole response, so that the two sides alternate.
    pub(super) fn exchange(&mut self, request: &[u8]) -> Result<Response, AgentError> {
        let mut talk = || {
            self.tls.writer().write_all(request)?;
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.stream)?;
            }
            http::read_response(&mut Stream::new(&mut self.tls, &mut self.stream))
        };
        talk().map_err(|source| AgentError::Network {
            doing: "talk to",
            host: self.host.clone(),
            source,
        })
    }

    /// Reads on to the peer's end: data that arrives at a closed socket would be answered with
    /// a reset, and the connection would look broken.
    fn take_leave(&mut self) -> io::Result<()> {
        self.tls.write_tls(&mut self.stream)?;
        self.stream.shutdown(Shutdown::Write)?;
        self.stream.set_read_timeout(Some(LEAVE_TIME))?;
        let mut rest = (&self.stream).take(MAX_REST);
        io::copy(&mut rest, &mut io::sink()).map(drop)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.tls.send_close_notify();
        // The peer may be gone already, and then there is nobody to take leave of.
        _ = self.take_leave();
    }
}

/// Goes on until the client may send data. Its Finished message stays behind and leaves
/// together with the first request.
fn shake_hands(
    stream: &mut TcpStream,
    host: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        if tls.wants_write() {
            tls.write_tls(stream)?;
        } else if tls.read_tls(stream)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        } else if let Err(error) = tls.process_new_packets() {
            // Tells the server why, as far as it still listens.
            _ = tls.write_tls(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    Ok(tls)
}
