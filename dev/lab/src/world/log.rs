//! What the servers really received.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Everything up to the moment of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// TCP connections in the order of their arrival.
    pub connections: Vec<Connection>,
    /// Questions to the resolver.
    pub questions: Vec<Question>,
    /// Payload bytes of each datagram that was echoed.
    pub echoed: Vec<usize>,
}

/// One TCP connection as a server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The host whose server it is.
    pub host: &'static str,
    /// The client.
    pub peer: SocketAddr,
    /// TCP payload bytes received, TLS records and all.
    pub received: u64,
    /// TCP payload bytes sent.
    pub sent: u64,
    /// Whether the connection has ended and the byte counts are final.
    pub closed: bool,
    /// The HTTP requests that were whole.
    pub requests: Vec<Request>,
}

/// One HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Host header.
    pub host: String,
    /// Method.
    pub method: String,
    /// Request target.
    pub path: String,
    /// Body, decrypted.
    pub body: Vec<u8>,
    /// TCP payload bytes that the connection had received when this request was whole.
    pub received_so_far: u64,
}

/// One DNS question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name as asked, without the trailing dot.
    pub name: String,
    /// The type's number: 1 is A, 28 is AAAA.
    pub qtype: u16,
}

impl Log {
    /// The requests to one host with their bodies, over all connections.
    pub fn requests<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Request> {
        self.connections
            .iter()
            .filter(move |connection| connection.host == host)
            .flat_map(|connection| &connection.requests)
    }
}

/// Most entries of one kind; a lab that runs for days must not fill the memory.
const MAX_ENTRIES: usize = 4096;
/// Most bytes of all bodies together; a request that would exceed them is left out.
const MAX_BODIES: usize = 64 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct SharedLog(Arc<Mutex<Bounded>>);

#[derive(Debug, Default)]
struct Bounded {
    log: Log,
    bodies: usize,
}

/// Where a connection's facts go; nowhere once the log is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionId(Option<usize>);

impl ConnectionId {
    fn find(self, log: &mut Log) -> Option<&mut Connection> {
        log.connections.get_mut(self.0?)
    }
}

impl SharedLog {
    pub(super) fn snapshot(&self) -> Log {
        self.with(|bounded| bounded.log.clone())
    }

    pub(super) fn question(&self, question: Question) {
        self.with(|bounded| push(&mut bounded.log.questions, question));
    }

    pub(super) fn echo(&self, length: usize) {
        self.with(|bounded| push(&mut bounded.log.echoed, length));
    }

    pub(super) fn open(&self, host: &'static str, peer: SocketAddr) -> ConnectionId {
        self.with(|bounded| {
            let connection = Connection {
                host,
                peer,
                received: 0,
                sent: 0,
                closed: false,
                requests: Vec::new(),
            };
            ConnectionId(push(&mut bounded.log.connections, connection))
        })
    }

    pub(super) fn request(&self, of: ConnectionId, request: Request) {
        self.with(|bounded| {
            let bodies = bounded.bodies + request.body.len();
            if let Some(connection) = of.find(&mut bounded.log)
                && bodies <= MAX_BODIES
            {
                connection.received = request.received_so_far;
                push(&mut connection.requests, request);
                bounded.bodies = bodies;
            }
        });
    }

    pub(super) fn close(&self, id: ConnectionId, received: u64, sent: u64) {
        self.with(|bounded| {
            if let Some(connection) = id.find(&mut bounded.log) {
                connection.received = received;
                connection.sent = sent;
                connection.closed = true;
            }
        });
    }

    /// A thread that panicked while it held the lock has only left an entry out.
    fn with<T>(&self, work: impl FnOnce(&mut Bounded) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn push<T>(entries: &mut Vec<T>, entry: T) -> Option<usize> {
    let index = entries.len();
    (index < MAX_ENTRIES).then(|| {
        entries.push(entry);
        index
    })
}
