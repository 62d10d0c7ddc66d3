//! Firecracker's configuration by its API socket.
//!
//! Every request is served by the VM's main loop and logged by it, so there
//! are three, on one connection.

use super::arguments::Arguments;
use super::config::{VmConfig, agent_id};
use crate::claims::{Claims, quoted};
use crate::http::{Answer, Client, HttpError, place_of};
use sandtrace_event::Layer;
use sandtrace_sys::process::Process;
use serde::Deserialize;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for all answers together.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is said of a guest that goes on from a snapshot.
const RESTORED: (&str, &str) = ("firecracker.guest", "restored");

/// Longest answer.
const MAX_BODY: usize = 1 << 20;

/// Why the API's word cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("there was no time left to ask it")]
    NoTime,
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("process {0} listens there, not the VMM")]
    OtherListener(u32),
    #[error("GET {0}: {1}")]
    Http(&'static str, HttpError),
    #[error("it has as many clients as it takes (ten)")]
    Busy,
    #[error("GET {0}: status {1}")]
    Status(&'static str, u16),
    #[error("GET {0}: the answer is malformed: {1}")]
    Json(&'static str, String),
    #[error("it answers for instance {}", quoted(.0))]
    OtherInstance(String),
}

/// `GET /`.
#[derive(Deserialize)]
struct InstanceInfo {
    id: String,
    #[serde(default)]
    state: String,
}

/// What it says, and its metadata, which may hold secrets.
pub(super) fn claims(
    process: &Process,
    arguments: &Arguments,
    socket: &Path,
    deadline: Instant,
) -> Result<(Claims, Option<Vec<u8>>), ApiError> {
    let mut client = connect(process, socket, deadline)?;
    let info = instance(&mut client, arguments)?;
    let config = get(&mut client, "/vm/config")?;
    let config = VmConfig::parse(&config.body)
        .map_err(|error| ApiError::Json("/vm/config", place_of(&error)))?;
    let restored = matches!(info.state.as_str(), "Running" | "Paused") && !config.was_booted();
    let mut claims = config.claims();
    if restored {
        let (name, value) = RESTORED;
        claims.labels.insert(name.to_owned(), value.to_owned());
    }
    let metadata = match get(&mut client, "/mmds") {
        Ok(answer) => Some(answer.body),
        // Older ones answer 400 where there is no metadata, others `{}`.
        Err(ApiError::Status(..)) => None,
        Err(error) => {
            claims.unanswered = true;
            let missing = format!("{error}; whose agent it is, is not known");
            claims.missing(Layer::Network, missing);
            None
        }
    };
    claims.agent_id = metadata.as_deref().and_then(agent_id);
    Ok((claims, metadata))
}

/// Whether the VM is paused.
pub(super) fn is_paused(
    process: &Process,
    arguments: &Arguments,
    socket: &Path,
    deadline: Instant,
) -> Result<bool, ApiError> {
    let mut client = connect(process, socket, deadline)?;
    let info = instance(&mut client, arguments)?;
    Ok(info.state == "Paused")
}

fn connect(process: &Process, socket: &Path, deadline: Instant) -> Result<Client, ApiError> {
    let patience = deadline.saturating_duration_since(Instant::now());
    if patience.is_zero() {
        return Err(ApiError::NoTime);
    }
    let (stream, listener) = process.connect(socket).map_err(ApiError::Connect)?;
    // A socket whose path was taken over by another process says nothing of this VM.
    if listener != process.pid() {
        return Err(ApiError::OtherListener(listener));
    }
    Ok(Client::new(stream, patience.min(PATIENCE), MAX_BODY))
}

fn instance(client: &mut Client, arguments: &Arguments) -> Result<InstanceInfo, ApiError> {
    let info = get(client, "/")?;
    let info: InstanceInfo = serde_json::from_slice(&info.body)
        .map_err(|error| ApiError::Json("/", place_of(&error)))?;
    if info.id == arguments.instance_id() {
        Ok(info)
    } else {
        Err(ApiError::OtherInstance(info.id))
    }
}

fn get(client: &mut Client, path: &'static str) -> Result<Answer, ApiError> {
    let answer = client
        .get(path)
        .map_err(|error| ApiError::Http(path, error))?;
    match answer.status {
        200 => Ok(answer),
        503 => Err(ApiError::Busy),
        status => Err(ApiError::Status(path, status)),
    }
}
