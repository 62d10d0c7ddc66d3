//! Addresses and sockets, made on a thread that is inside the namespace.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use super::WorldError;
use super::places::{self, ECHO, RESOLVER};
use super::sites::Site;

/// Everything that the world listens on; nothing of it blocks.
pub(super) struct Sockets {
    pub(super) resolver: UdpSocket,
    pub(super) echo: UdpSocket,
    pub(super) sites: Vec<(TcpListener, Site)>,
}

pub(super) fn open(sites: Vec<Site>) -> Result<Sockets, WorldError> {
    let listen = |site: Site| {
        let address = (site.address, site.port()).into();
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|source| WorldError::Listen { address, source })?;
        Ok::<_, WorldError>((listener, site))
    };
    Ok(Sockets {
        resolver: datagrams((RESOLVER, 53).into())?,
        echo: datagrams(ECHO.into())?,
        sites: sites.into_iter().map(listen).collect::<Result<_, _>>()?,
    })
}

fn datagrams(address: SocketAddr) -> Result<UdpSocket, WorldError> {
    UdpSocket::bind(address)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|source| WorldError::Listen { address, source })
}

/// Brings up the loopback interface of the namespace that the calling thread is in, with
/// every service address on it. An address that is there already stays.
pub(super) fn add_addresses(netns: &str) -> Result<(), WorldError> {
    let failed = |detail: String| WorldError::Addresses {
        netns: netns.to_owned(),
        detail,
    };
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("run ip: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where `ip` stops reading, its exit status and its words say why.
        _ = stdin.write_all(batch(places::addresses()).as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(format!("wait for ip: {error}")))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

fn batch(addresses: impl Iterator<Item = Ipv4Addr>) -> String {
    let mut lines = "link set lo up\n".to_owned();
    for address in addresses {
        // Writing to a String cannot fail.
        _ = writeln!(lines, "addr replace {address}/32 dev lo");
    }
    lines
}
