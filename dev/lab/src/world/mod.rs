//! The outside world of a lab: a DNS resolver, TLS and plain HTTP servers and a UDP echo.
//!
//! It lives on loopback addresses of the lab's own network namespace, so nothing of it can be
//! reached from elsewhere, and a sandbox reaches it by its default route. Every server tells a
//! [`Log`] what it really received, so that tests can hold a trail against the truth.

mod authority;
mod dns;
mod http;
mod log;
mod places;
mod server;
mod sites;
mod sockets;
mod wire;

use std::io::{self, PipeWriter};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::{self, JoinHandle};

use sandtrace_sys::netns::{self, NetnsError};

use authority::Authority;
use log::SharedLog;

pub use log::{Connection, Log, Question, Request};
pub use places::{API_ADDRESS, DROP_ADDRESS, ECHO, FILES_ADDRESS, RESOLVER, UPDATES_ADDRESS};

/// Why the outside world could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The lab's namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The service addresses could not be put on the loopback interface.
    #[error("add service addresses to lo in namespace {netns}: {detail}")]
    Addresses {
        /// The namespace.
        netns: String,
        /// What `ip` said.
        detail: String,
    },
    /// A server's socket.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The authority or a server's certificate.
    #[error("make the certificate of {name}: {detail}")]
    Certificate {
        /// Whose.
        name: String,
        /// The cause.
        detail: String,
    },
    /// The thread that serves, or the pipe that stops it.
    #[error("start the world's thread: {0}")]
    Thread(#[source] io::Error),
}

/// The running servers. Dropping it closes every socket and ends every thread.
#[derive(Debug)]
pub struct World {
    ca_pem: String,
    log: SharedLog,
    /// Its end makes every wait in every thread return.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    /// Starts the servers inside a network namespace, given by name or path. Its loopback
    /// interface is brought up and gets the service addresses.
    ///
    /// # Errors
    /// When the namespace cannot be entered, `ip` (iproute2) is missing or fails, or a socket
    /// cannot be bound.
    pub fn start(netns: &str) -> Result<Self, WorldError> {
        let authority = Authority::new()?;
        let sites = sites::all(&authority)?;
        let namespace = netns::path_of(netns);
        let sockets = netns::within(Some(Path::new(&namespace)), || {
            sockets::add_addresses(netns)?;
            sockets::open(sites)
        })??;
        let log = SharedLog::default();
        let (stopped, stop) = io::pipe().map_err(WorldError::Thread)?;
        let thread = {
            let log = log.clone();
            thread::Builder::new()
                .name("lab-world".to_owned())
                .spawn(move || server::run(&sockets, &stopped, &log))
                .map_err(WorldError::Thread)?
        };
        Ok(Self {
            ca_pem: authority.pem(),
            log,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The authority that signed the servers' certificates, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The resolver's address; it listens on UDP port 53.
    #[must_use]
    pub fn resolver(&self) -> Ipv4Addr {
        RESOLVER
    }

    /// What the servers received up to now.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.snapshot()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed when it happened.
            _ = thread.join();
        }
    }
}
