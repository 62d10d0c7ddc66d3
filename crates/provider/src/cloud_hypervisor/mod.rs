//! Cloud Hypervisor: its arguments, and its configuration by `vm.info`.

mod events;
mod info;

use crate::claims::{Claims, quoted};
use crate::http::{Client, HttpError, place_of};
use info::VmInfo;
use sandtrace_event::Layer;
use sandtrace_sys::process::Process;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time for its answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest answer.
const MAX_BODY: usize = 1 << 20;

/// What the command line says (docs/api.md and `--help` of Cloud Hypervisor).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) api_socket: Option<PathBuf>,
    uuid: Option<String>,
    events: Option<PathBuf>,
}

/// Why the API's word cannot be had or used.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("there was no time left to ask it")]
    NoTime,
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("process {0} listens there, not the VMM")]
    OtherListener(u32),
    #[error("GET vm.info: {0}")]
    Http(HttpError),
    #[error("GET vm.info: status {0}; no VM was created yet, or it was deleted")]
    Status(u16),
    #[error("GET vm.info: the answer is malformed: {0}")]
    Json(String),
}

impl Arguments {
    /// Reads what follows argv\[0\].
    pub(crate) fn parse(arguments: &[Vec<u8>]) -> Self {
        let mut parsed = Self::default();
        let mut arguments = arguments.iter().map(Vec::as_slice);
        while let Some(argument) = arguments.next() {
            if let Some(value) = value_of(argument, b"--api-socket", &mut arguments) {
                parsed.api_socket = parsed.api_socket.or_else(|| path(value));
            } else if let Some(value) = value_of(argument, b"--platform", &mut arguments) {
                let text = String::from_utf8_lossy(value);
                // The older name came first and stays.
                let names = ["uuid", "system_uuid"];
                let mut options = text.split(',').filter_map(|it| it.split_once('='));
                let uuid = options.find(|(name, _)| names.contains(name));
                parsed.uuid = parsed.uuid.or(uuid.map(|(_, uuid)| uuid.to_owned()));
            } else if let Some(value) = value_of(argument, b"--event-monitor", &mut arguments) {
                parsed.events = parsed.events.or_else(|| path(value));
            }
        }
        parsed
    }

    /// Its `uuid`; else what its socket is called; for Kata, which calls all
    /// sockets the same, what the socket's directory is called.
    pub(crate) fn id(&self) -> Option<String> {
        let by_socket = || {
            let socket = self.api_socket.as_ref()?;
            let name = if socket.file_name()? == "clh-api.sock" {
                socket.parent()?.file_name()?
            } else {
                socket.file_stem()?
            };
            Some(name.to_string_lossy().into_owned())
        };
        self.uuid.clone().or_else(by_socket)
    }

    pub(crate) fn claims(&self, process: &Process, deadline: Instant) -> Claims {
        let Some(socket) = &self.api_socket else {
            return unknown("it was started without an API socket that has a path");
        };
        match ask(process, socket, deadline) {
            Ok(info) => info.claims(),
            Err(error) => {
                let socket = quoted(&socket.to_string_lossy());
                let mut claims = unknown(&format!(
                    "the API socket {socket} gives no answer that can be used: {error}"
                ));
                claims.unanswered = true;
                claims
            }
        }
    }
}

/// Whether its API says that it is paused, or else the file of its events, and
/// which of them; `None` where neither says anything.
pub(crate) fn is_paused(
    process: &Process,
    arguments: &Arguments,
    deadline: Instant,
) -> Option<(bool, &'static str)> {
    let by_api = || {
        let info = ask(process, arguments.api_socket.as_deref()?, deadline).ok()?;
        Some((info.is_paused(), "cloud_hypervisor_api"))
    };
    let by_events = || {
        let paused = events::is_paused(process, arguments.events.as_deref()?)?;
        Some((paused, "cloud_hypervisor_events"))
    };
    by_api().or_else(by_events)
}

fn ask(process: &Process, socket: &std::path::Path, deadline: Instant) -> Result<VmInfo, ApiError> {
    let patience = deadline.saturating_duration_since(Instant::now());
    if patience.is_zero() {
        return Err(ApiError::NoTime);
    }
    let (stream, listener) = process.connect(socket).map_err(ApiError::Connect)?;
    if listener != process.pid() {
        return Err(ApiError::OtherListener(listener));
    }
    let mut client = Client::new(stream, patience.min(PATIENCE), MAX_BODY);
    let answer = client.get("/api/v1/vm.info").map_err(ApiError::Http)?;
    match answer.status {
        200 => VmInfo::parse(&answer.body).map_err(|error| ApiError::Json(place_of(&error))),
        status => Err(ApiError::Status(status)),
    }
}

fn unknown(why: &str) -> Claims {
    let mut claims = Claims::default();
    claims.missing(
        Layer::Network,
        format!(
            "{why}; whether vsock, vhost-user or passed-through devices are in use is not known"
        ),
    );
    claims.missing(
        Layer::Filesystem,
        format!("{why}; drives that are neither block devices nor ext4 are not recognised, nor shared directories"),
    );
    claims
}

/// The value of an option, written `--name value` or `--name=value`.
fn value_of<'a>(
    argument: &'a [u8],
    name: &[u8],
    rest: &mut impl Iterator<Item = &'a [u8]>,
) -> Option<&'a [u8]> {
    match argument.strip_prefix(name)? {
        [] => rest.next(),
        [b'=', value @ ..] => Some(value),
        _ => None,
    }
}

/// `path=FILE`, or the bare file. `fd=N` has no path to go by.
fn path(value: &[u8]) -> Option<PathBuf> {
    let first = value.split(|&byte| byte == b',').next().unwrap_or(value);
    let path = first.strip_prefix(b"path=").unwrap_or(first);
    let has_path = !path.is_empty() && !path.starts_with(b"fd=");
    has_path.then(|| PathBuf::from(OsString::from_vec(path.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, socket: Option<&str>, id: Option<&str>) {
        let words = line.split_whitespace().map(|word| word.as_bytes().to_vec());
        let parsed = Arguments::parse(&words.collect::<Vec<_>>());
        assert_eq!(parsed.api_socket, socket.map(PathBuf::from), "{line}");
        assert_eq!(parsed.id().as_deref(), id, "{line}");
    }

    #[test]
    fn command_lines() {
        check(
            "--api-socket /run/ch/box-1.sock",
            Some("/run/ch/box-1.sock"),
            Some("box-1"),
        );
        check(
            "--api-socket path=/run/a.sock",
            Some("/run/a.sock"),
            Some("a"),
        );
        check("--api-socket=/run/a.sock", Some("/run/a.sock"), Some("a"));
        check("--api-socket fd=7", None, None);
        check(
            "--api-socket /run/vc/vm/5f3a/clh-api.sock -v",
            Some("/run/vc/vm/5f3a/clh-api.sock"),
            Some("5f3a"),
        );
        check(
            "--cpus boot=1 --platform num_pci_segments=1,uuid=8e2f-1 --api-socket /a.sock",
            Some("/a.sock"),
            Some("8e2f-1"),
        );
        check(
            "--platform system_uuid=8e2f-2,serial_number=7 --event-monitor path=/e.json --api-socket /a.sock",
            Some("/a.sock"),
            Some("8e2f-2"),
        );
        check("--api-socket", None, None);
        check("", None, None);
    }
}
