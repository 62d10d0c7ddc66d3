//! A stand-in for Docker's API over containers that the lab made: answers as
//! Go's HTTP server sends them, in chunks where they are long.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::error::{LabError, doing};
use crate::lab::Lab;

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
    containers: Arc<Mutex<Vec<Container>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        let containers = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (containers, ends) = (Arc::clone(&containers), Arc::clone(&ends));
            move || serve(&listener, &containers, &ends)
        });
        Ok(Docker {
            socket,
            containers,
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

    /// Adds a container.
    pub fn add(&self, container: Container) {
        lock(&self.containers).push(container);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, containers: &Arc<Mutex<Vec<Container>>>, ends: &AtomicBool) {
    for stream in listener.incoming() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let containers = Arc::clone(containers);
        // Ends with its connection.
        std::thread::spawn(move || converse(stream, &containers));
    }
}

fn converse(mut stream: UnixStream, containers: &Mutex<Vec<Container>>) -> io::Result<()> {
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
        let answer = answer(path, &lock(containers));
        stream.write_all(&answer)?;
    }
}

fn answer(path: &str, containers: &[Container]) -> Vec<u8> {
    let body = match path {
        "/containers/json" => Some(Value::Array(containers.iter().map(listed).collect())),
        _ => path
            .strip_prefix("/containers/")
            .and_then(|rest| rest.strip_suffix("/json"))
            .and_then(|id| containers.iter().find(|it| id_of(it) == id))
            .map(inspected),
    };
    let (status, body) = match body {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", json!({"message": "No such container"})),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\n\
         Ostype: linux\r\nServer: Docker/27.3.1 (linux)\r\n"
    );
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

fn labels(container: &Container) -> Value {
    let pairs = container.labels.iter();
    pairs
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into()
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

fn lock(containers: &Mutex<Vec<Container>>) -> MutexGuard<'_, Vec<Container>> {
    containers.lock().unwrap_or_else(PoisonError::into_inner)
}
