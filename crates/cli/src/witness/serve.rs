//! The network side of a witness: a few threads, each with one request at a time.

use super::address::{Address, Stream, Timed};
use super::http::{Answer, NoRequest, Request, read_request};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use sandtrace_audit_chain::witness::{Refusal, Witness};
use std::fs;
use std::io::{self, PipeReader};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Requests that are worked on at the same time.
const WORKERS: usize = 16;

/// Connections that wait for a worker; more are turned away.
const QUEUE: usize = 64;

/// Longest time for a request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A witness that can be reached.
pub(super) struct Server {
    listener: Listener,
    witness: Witness,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Server {
    /// Listens.
    pub(super) fn bind(address: &Address, witness: Witness) -> Result<Self, Failure> {
        let bound = match address {
            Address::Tcp { host, .. } => TcpListener::bind(host).map(Listener::Tcp),
            Address::Unix(path) => {
                UnixListener::bind(path).map(|listener| Listener::Unix(listener, path.clone()))
            }
        };
        let listener = bound
            .and_then(Listener::without_blocking)
            .with_context(|| format!("listen on {address}"))
            .or_exit(Exit::CannotCreate)?;
        Ok(Self { listener, witness })
    }

    /// Serves until `interrupted` can be read.
    pub(super) fn run(self, interrupted: &PipeReader) -> Result<Exit, Failure> {
        show::tell(&format!(
            "sandtrace: witness {} on {}, {} logs; Ctrl-C ends",
            self.witness.key().name(),
            self.listener,
            show::grouped(u64::try_from(self.witness.logs()).unwrap_or(u64::MAX))
        ));
        let (queue, waiting) = sync_channel::<Stream>(QUEUE);
        let waiting = Mutex::new(waiting);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| work(&self.witness, &waiting));
            }
            let served = self.accept_all(interrupted, |stream| match queue.try_send(stream) {
                Err(TrySendError::Full(stream)) => {
                    let mut stream = Timed::new(stream, PATIENCE);
                    // A short answer fits into the socket's buffer.
                    let _gone = Answer::text(503, "too many requests at once").write(&mut stream);
                }
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            });
            drop(queue);
            served
        })
        .context("accept connections")
        .or_exit(Exit::Io)?;
        if let Listener::Unix(_, path) = &self.listener {
            // Left behind it would only be in the way.
            let _ = fs::remove_file(path);
        }
        Ok(Exit::Success)
    }

    fn accept_all(&self, interrupted: &PipeReader, serve: impl Fn(Stream)) -> io::Result<()> {
        loop {
            let mut polled = [
                PollFd::from_borrowed_fd(interrupted.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let [signal, ready] = &polled;
            if !signal.revents().is_empty() {
                return Ok(());
            }
            if ready.revents().is_empty() {
                continue;
            }
            match self.listener.accept() {
                Ok(stream) => serve(stream),
                // Who gave up before was accepted is no fault of ours; where
                // descriptors are short, some time helps.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Listener {
    fn without_blocking(self) -> io::Result<Self> {
        match &self {
            Self::Tcp(listener) => listener.set_nonblocking(true)?,
            Self::Unix(listener, _) => listener.set_nonblocking(true)?,
        }
        Ok(self)
    }

    fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Stream::Unix(stream)
            }
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}"),
                Err(_) => f.write_str("an unknown port"),
            },
            Self::Unix(_, path) => write!(f, "unix://{}", path.display()),
        }
    }
}

fn work(witness: &Witness, waiting: &Mutex<Receiver<Stream>>) {
    loop {
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(stream) = next else {
            return;
        };
        // Its time begins here: who waited behind slow ones is served.
        let mut stream = Timed::new(stream, PATIENCE);
        let answer = match read_request(&mut stream) {
            Ok(request) => answer(witness, &request),
            Err(NoRequest::Bad(answer)) => answer,
            Err(NoRequest::Gone) => continue,
        };
        // Who does not wait for the answer does not get it.
        let _gone = answer.write(&mut stream);
    }
}

fn answer(witness: &Witness, request: &Request) -> Answer {
    let path = request.path.as_str();
    match (request.method.as_str(), path) {
        ("POST", "/add-checkpoint") => match witness.add_checkpoint(&request.body, now()) {
            Ok(line) => Answer::new(200, "text/plain; charset=utf-8", line),
            Err(refusal) => refused(&refusal),
        },
        ("POST", "/add-log") => match witness.add_log(&request.body) {
            Ok(()) => Answer::new(200, "text/plain; charset=utf-8", ""),
            Err(refusal) => refused(&refusal),
        },
        ("GET", "/") => Answer::text(200, &witness.key().to_string()),
        ("GET", _) if path.starts_with("/checkpoint/") => {
            let origin = path.strip_prefix("/checkpoint/").unwrap_or_default();
            match witness.newest(origin) {
                Ok(note) => Answer::new(200, "text/plain; charset=utf-8", note),
                Err(refusal) => refused(&refusal),
            }
        }
        (_, "/add-checkpoint" | "/add-log" | "/") => Answer::text(405, "another method, please"),
        _ => Answer::text(404, "nothing is here"),
    }
}

fn refused(refusal: &Refusal) -> Answer {
    // What only somebody with a trusted key can cause, or nobody should.
    let is_grave = matches!(
        refusal,
        Refusal::Forked { .. } | Refusal::Proof(_) | Refusal::Store(_) | Refusal::Full(_)
    );
    if is_grave {
        let cause = std::error::Error::source(refusal);
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        show::tell(&format!("sandtrace: refused: {refusal}{cause}"));
    }
    let (form, body) = refusal.body();
    Answer::new(refusal.status(), form, body)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
