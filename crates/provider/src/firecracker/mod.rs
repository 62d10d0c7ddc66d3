//! Firecracker: its arguments, and its configuration from its API or its files.

mod api;
mod arguments;
mod config;

pub(crate) use arguments::Arguments;

use crate::DiskFormat;
use crate::claims::{Claims, nameable};
use crate::http::place_of;
use sandtrace_event::Layer;
use sandtrace_sys::process::Process;
use std::path::Path;
use std::time::Instant;

/// The namespace in which firecracker-containerd keeps a VM.
const NAMESPACE: &str = "containerd.namespace";

/// Largest configuration file that is read.
const MAX_DOCUMENT: u64 = 1 << 20;

/// What its configuration says: by its API, or with `--no-api` by the files
/// that it was started with. And its metadata, which may hold secrets.
pub(crate) fn claims(
    process: &Process,
    arguments: &Arguments,
    deadline: Instant,
) -> (Claims, Option<Vec<u8>>) {
    let result = match &arguments.api_socket {
        Some(socket) => api::claims(process, arguments, socket, deadline).map_err(|error| {
            format!(
                "the API socket {} gives no answer that can be used: {error}",
                socket.display()
            )
        }),
        None => from_files(process, arguments),
    };
    let (mut claims, metadata) = result.unwrap_or_else(|why| {
        let mut claims = Claims {
            unanswered: arguments.api_socket.is_some(),
            ..Claims::default()
        };
        claims.missing(
            Layer::Network,
            format!("{why}; whether MMDS or vsock are in use is not known"),
        );
        claims.missing(
            Layer::Filesystem,
            format!("{why}; drives that are neither block devices nor ext4 are not recognised"),
        );
        (claims, None)
    });
    // Whatever the file of a disk is called.
    claims.only_format = Some(DiskFormat::Raw);
    let namespace = arguments.namespace().filter(|name| nameable(name));
    if let Some(namespace) = namespace {
        let namespace = namespace.to_owned();
        claims.labels.insert(NAMESPACE.to_owned(), namespace);
    }
    (claims, metadata)
}

/// Whether its API says that it is paused; `None` where it says nothing.
pub(crate) fn is_paused(
    process: &Process,
    arguments: &Arguments,
    deadline: Instant,
) -> Option<bool> {
    let socket = arguments.api_socket.as_deref()?;
    api::is_paused(process, arguments, socket, deadline).ok()
}

fn from_files(
    process: &Process,
    arguments: &Arguments,
) -> Result<(Claims, Option<Vec<u8>>), String> {
    let Some(path) = &arguments.config_file else {
        return Err("started without an API and without a configuration file".to_owned());
    };
    let read = |path: &Path| {
        let bytes = process.read_file(path, MAX_DOCUMENT);
        bytes.map_err(|error| format!("read {}: {error}", path.display()))
    };
    let config = config::VmConfig::parse(&read(path)?)
        .map_err(|error| place_of(&error))
        .map_err(|place| {
            format!(
                "configuration file {} is malformed: {place}",
                path.display()
            )
        })?;
    let mut claims = config.claims();
    let metadata = arguments.metadata.as_deref();
    let metadata = metadata.and_then(|path| read(path).ok());
    claims.agent_id = metadata.as_deref().and_then(config::agent_id);
    Ok((claims, metadata))
}
