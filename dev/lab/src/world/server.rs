//! The loop that serves all sockets, and one thread for each open connection.

use std::io::{self, PipeReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Scope};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ServerConnection, StreamOwned};

use super::dns;
use super::http::{self, Requests};
use super::log::{ConnectionId, SharedLog};
use super::sites::Site;
use super::sockets::Sockets;
use super::wire::Wire;

/// More connections at once are closed as they come.
const MAX_CONNECTIONS: usize = 64;
/// Largest datagram that is looked at or echoed.
const MAX_DATAGRAM: usize = 65_535;

/// Serves until the other end of `stopped` is closed; every thread has ended by then.
pub(super) fn run(sockets: &Sockets, stopped: &PipeReader, log: &SharedLog) {
    let world = Server {
        stopped,
        log,
        open: AtomicUsize::new(0),
        served: AtomicU64::new(0),
    };
    let mut buffer = vec![0; MAX_DATAGRAM];
    thread::scope(|scope| {
        while world.wait(sockets) {
            world.resolve(&sockets.resolver, &mut buffer);
            world.echo(&sockets.echo, &mut buffer);
            for (listener, site) in &sockets.sites {
                world.accept(scope, listener, site);
            }
        }
    });
}

struct Server<'a> {
    stopped: &'a PipeReader,
    log: &'a SharedLog,
    open: AtomicUsize,
    served: AtomicU64,
}

impl Server<'_> {
    /// Waits for something to do; false where there is nothing more to come.
    fn wait(&self, sockets: &Sockets) -> bool {
        let mut waiting = vec![
            PollFd::new(self.stopped, PollFlags::IN),
            PollFd::new(&sockets.resolver, PollFlags::IN),
            PollFd::new(&sockets.echo, PollFlags::IN),
        ];
        let listeners = sockets.sites.iter().map(|(listener, _)| listener);
        waiting.extend(listeners.map(|listener| PollFd::new(listener, PollFlags::IN)));
        match poll(&mut waiting, None) {
            Ok(_) => waiting.first().is_some_and(|fd| fd.revents().is_empty()),
            Err(error) => error == rustix::io::Errno::INTR,
        }
    }

    /// Answers what waits at the socket; errors of a single datagram are the client's loss.
    fn resolve(&self, socket: &UdpSocket, buffer: &mut [u8]) {
        while let Ok((length, peer)) = socket.recv_from(buffer) {
            let query = buffer.get(..length).unwrap_or_default();
            if let Some((question, response)) = dns::respond(query) {
                self.log.question(question);
                _ = socket.send_to(&response, peer);
            }
        }
    }

    fn echo(&self, socket: &UdpSocket, buffer: &mut [u8]) {
        while let Ok((length, peer)) = socket.recv_from(buffer) {
            self.log.echo(length);
            _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
        }
    }

    fn accept<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        listener: &TcpListener,
        site: &'scope Site,
    ) {
        while let Ok((stream, peer)) = listener.accept() {
            let id = self.log.open(site.host, peer);
            if self.open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                self.open.fetch_sub(1, Ordering::Relaxed);
                self.log.close(id, 0, 0);
                continue;
            }
            scope.spawn(move || {
                let (received, sent) = self.converse(stream, site, id).unwrap_or_default();
                self.log.close(id, received, sent);
                self.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Serves one connection to its end and counts its bytes.
    fn converse(&self, stream: TcpStream, site: &Site, id: ConnectionId) -> io::Result<(u64, u64)> {
        let mut wire = Wire::new(stream, self.stopped)?;
        let Some(config) = &site.tls else {
            // An error ends the connection, and the log says how far it came.
            _ = self.requests(&mut wire, site, id, |wire| wire.received);
            return Ok((wire.received, wire.sent));
        };
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut secure = StreamOwned::new(tls, wire);
        let _ = self.requests(&mut secure, site, id, |secure| secure.sock.received);
        secure.conn.send_close_notify();
        while secure.conn.wants_write() && secure.conn.write_tls(&mut secure.sock).is_ok() {}
        Ok((secure.sock.received, secure.sock.sent))
    }

    fn requests<S: Read + Write>(
        &self,
        stream: &mut S,
        site: &Site,
        id: ConnectionId,
        received_so_far: fn(&S) -> u64,
    ) -> io::Result<()> {
        let mut requests = Requests::default();
        while let Some(mut received) = requests.next(stream)? {
            received.request.received_so_far = received_so_far(stream);
            let serial = self.served.fetch_add(1, Ordering::Relaxed) + 1;
            let answer = site.answer(&received.request, serial);
            self.log.request(id, received.request);
            let response = http::response(answer.status, &answer.body, received.keep_alive);
            stream.write_all(&response)?;
            stream.flush()?;
            if !received.keep_alive {
                break;
            }
        }
        Ok(())
    }
}
