//! A stand-in for Docker's API over containers that the lab made: answers as
//! Go's HTTP server sends them, in chunks where they are long.

mod events;

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::error::{LabError, doing};
use crate::lab::Lab;
use events::Listener;

/// From this length on Go's server does not know the length beforehand.
const CHUNKED_FROM: usize = 2048;

/// A container as Docker would tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Name, without the slash before it.
    pub name: String,
    /// Its init.
    pub pid: u32,
    /// Where overlay2 keeps its changes; containerd's image store names none.
    pub upper: Option<PathBuf>,
    /// Environment.
    pub env: Vec<String>,
    /// Labels.
    pub labels: Vec<(String, String)>,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    daemon: Arc<Mutex<Daemon>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections share.
#[derive(Debug, Default)]
struct Daemon {
    containers: Vec<Container>,
    /// Ids of which it answers with status 500.
    broken: Vec<String>,
    /// Ids that the list lacks.
    unlisted: Vec<String>,
    listeners: Vec<Listener>,
    /// The container that is the last of which it tells, and whether it has.
    last: Option<(String, bool)>,
}

impl Lab {
    /// Starts a Docker API without containers.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn docker(&self) -> Result<Docker, LabError> {
        let socket = self.dir().join("docker.sock");
        let listener = UnixListener::bind(&socket);
        let listener = listener.map_err(doing(format!("listen at {}", socket.display())))?;
        let daemon = Arc::new(Mutex::new(Daemon::default()));
        let ends = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (daemon, ends) = (Arc::clone(&daemon), Arc::clone(&ends));
            move || serve(&listener, &daemon, &ends)
        });
        Ok(Docker {
            socket,
            daemon,
            ends,
            thread: Some(thread),
        })
    }
}

impl Docker {
    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Adds a container, and tells of its start.
    pub fn add(&self, container: Container) {
        let mut daemon = lock(&self.daemon);
        for action in ["create", "start"] {
            daemon.tell(action, &container);
        }
        daemon.containers.push(container);
    }

    /// Adds a container without a word, as one that starts while nobody hears
    /// Docker's events.
    pub fn add_silently(&self, container: Container) {
        lock(&self.daemon).containers.push(container);
    }

    /// Adds a container that the list lacks: only events tell of it.
    pub fn add_unlisted(&self, container: Container) {
        lock(&self.daemon).unlisted.push(id_of(&container));
        self.add(container);
    }

    /// Tells of something that became of a container, such as `pause`.
    pub fn tell(&self, action: &str, name: &str) {
        let mut daemon = lock(&self.daemon);
        let known = daemon.containers.iter().find(|it| it.name == name);
        if let Some(container) = known.cloned() {
            daemon.tell(action, &container);
        }
    }

    /// From now on it answers for this container with an error of its own.
    pub fn break_container(&self, name: &str) {
        let mut daemon = lock(&self.daemon);
        let known = daemon.containers.iter().find(|it| it.name == name);
        let id = known.map(id_of);
        daemon.broken.extend(id);
    }

    /// Once it has told of this container it answers nothing more, with its
    /// connections open.
    pub fn fall_silent_after(&self, container: &Container) {
        lock(&self.daemon).last = Some((id_of(container), false));
    }

    /// Ends every answer about events, as when Docker is started anew.
    pub fn end_events(&self) {
        lock(&self.daemon).listeners.clear();
    }

    /// How many connections hear its events.
    #[must_use]
    pub fn listeners(&self) -> usize {
        lock(&self.daemon).listeners.len()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.end_events();
        // Wakes the thread.
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Daemon {
    fn list(&self) -> Value {
        let is_listed = |it: &&Container| !self.unlisted.contains(&id_of(it));
        let listed_ones = self.containers.iter().filter(is_listed);
        Value::Array(listed_ones.map(listed).collect())
    }

    fn may_answer(&mut self, path: &str) -> bool {
        let Some((last, is_told)) = &mut self.last else {
            return true;
        };
        let is_last = path.contains(last.as_str());
        !std::mem::replace(is_told, *is_told || is_last)
    }

    fn tell(&mut self, action: &str, container: &Container) {
        let event = events::event(action, container);
        self.listeners
            .retain_mut(|listener| listener.tell(action, &event));
    }
}

fn serve(listener: &UnixListener, daemon: &Arc<Mutex<Daemon>>, ends: &AtomicBool) {
    for stream in listener.incoming() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let daemon = Arc::clone(daemon);
        // Ends with its connection.
        std::thread::spawn(move || converse(stream, &daemon));
    }
}

fn converse(mut stream: UnixStream, daemon: &Mutex<Daemon>) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = buffer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            let mut chunk = [0; 1024];
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                n => buffer.extend(chunk.iter().take(n)),
            }
            continue;
        };
        let head: Vec<u8> = buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        if let Some(query) = path.strip_prefix("/events") {
            let mut daemon = lock(daemon);
            daemon.listeners.push(Listener::begin(stream, query)?);
            return Ok(());
        }
        let answer = {
            let mut daemon = lock(daemon);
            daemon.may_answer(path).then(|| answer(path, &daemon))
        };
        stream.write_all(&answer.unwrap_or_default())?;
    }
}

/// Head of an answer, without what tells its length.
fn head(status: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\n\
         Docker-Experimental: false\r\nOstype: linux\r\nServer: Docker/27.3.1 (linux)\r\n"
    )
}

fn answer(path: &str, daemon: &Daemon) -> Vec<u8> {
    let containers = &daemon.containers;
    let one = path.strip_prefix("/containers/");
    let one = one.and_then(|rest| rest.strip_suffix("/json"));
    let is_broken = one.is_some_and(|id| daemon.broken.iter().any(|broken| broken == id));
    let body = match one {
        None => (path == "/containers/json").then(|| daemon.list()),
        Some(id) => containers.iter().find(|it| id_of(it) == id).map(inspected),
    };
    let (status, body) = match body {
        Some(_) if is_broken => (
            "500 Internal Server Error",
            json!({"message": "layer does not exist"}),
        ),
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", json!({"message": "No such container"})),
    };
    let head = head(status);
    let body = format!("{body}\n");
    let length = body.len();
    let text = if length < CHUNKED_FROM {
        format!("{head}Content-Length: {length}\r\n\r\n{body}")
    } else {
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
    };
    text.into_bytes()
}

/// 64 hexadecimal digits of its own.
fn id_of(container: &Container) -> String {
    format!("{:064x}", container.pid)
}

fn labels(container: &Container) -> serde_json::Map<String, Value> {
    let pairs = container.labels.iter();
    pairs
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect()
}

fn listed(container: &Container) -> Value {
    json!({
        "Id": id_of(container), "Names": [format!("/{}", container.name)],
        "Image": "daytonaio/sandbox:0.5.0", "State": "running", "Status": "Up 2 minutes",
        "Labels": labels(container),
        "HostConfig": {"NetworkMode": "runner-bridge"},
    })
}

fn inspected(container: &Container) -> Value {
    let data = container
        .upper
        .as_ref()
        .map(|upper| json!({"UpperDir": upper}));
    json!({
        "Id": id_of(container), "Name": format!("/{}", container.name),
        "State": {"Status": "running", "Running": true, "Paused": false, "Pid": container.pid},
        "Config": {"Hostname": container.name, "Env": container.env, "Labels": labels(container)},
        "HostConfig": {"NetworkMode": "runner-bridge", "Privileged": true},
        "GraphDriver": {"Name": if data.is_some() { "overlay2" } else { "overlayfs" }, "Data": data},
        "Mounts": [{"Type": "bind", "Source": "/opt/daytona", "Destination": "/usr/local/bin/daytona", "RW": false}],
    })
}

fn lock(daemon: &Mutex<Daemon>) -> MutexGuard<'_, Daemon> {
    daemon.lock().unwrap_or_else(PoisonError::into_inner)
}
