//! Firecracker: its arguments, and its configuration from its API or its files.

mod api;
mod arguments;
mod config;
mod http;

pub(crate) use arguments::Arguments;

use crate::claims::Claims;
use sandtrace_event::Layer;
use sandtrace_sys::process::Process;
use std::path::Path;

/// Largest configuration file or API answer that is read.
const MAX_DOCUMENT: u64 = 1 << 20;

/// What its configuration says: by its API, or with `--no-api` by the files
/// that it was started with.
pub(crate) fn claims(process: &Process, arguments: &Arguments) -> Claims {
    let result = match &arguments.api_socket {
        Some(socket) => api::claims(process, arguments, socket).map_err(|error| {
            format!(
                "the API socket {} gives no answer that can be used: {error}",
                socket.display()
            )
        }),
        None => from_files(process, arguments),
    };
    result.unwrap_or_else(|why| {
        let mut claims = Claims::default();
        claims.missing(
            Layer::Network,
            format!("{why}; whether MMDS or vsock are in use is not known"),
        );
        claims.missing(
            Layer::Filesystem,
            format!("{why}; drives that are neither block devices nor ext4 are not recognised"),
        );
        claims
    })
}

fn from_files(process: &Process, arguments: &Arguments) -> Result<Claims, String> {
    let Some(path) = &arguments.config_file else {
        return Err("started without an API and without a configuration file".to_owned());
    };
    let read = |path: &Path| {
        let bytes = process.read_file(path, MAX_DOCUMENT);
        bytes.map_err(|error| format!("read {}: {error}", path.display()))
    };
    let config = config::VmConfig::parse(&read(path)?)
        .map_err(|error| format!("configuration file {}: {error}", path.display()))?;
    let mut claims = config.claims();
    if let Some(metadata) = &arguments.metadata {
        claims.agent_id = read(metadata).ok().and_then(|json| config::agent_id(&json));
    }
    Ok(claims)
}
