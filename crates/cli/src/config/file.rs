//! The settings file: TOML 1.0, of which every key is known. Reference:
//! docs/configuration.md.

use super::layer::Layer;
use super::words::{Item, Size, Span, Word};
use crate::watch::{CaptureMode, SyscallMode};
use crate::witness::WitnessTarget;
use sandtrace_event::{Digest, EventType, EvidenceTier, VerdictResult};
use sandtrace_output::Target;
use sandtrace_provider::ProviderKind;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Largest settings file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// A settings file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SettingsFile {
    pub(crate) path: PathBuf,
    /// SHA-256 of its bytes.
    pub(crate) digest: Digest,
    pub(crate) layer: Layer,
}

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("read settings {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is too long.
    #[error("settings {}: longer than {MAX_BYTES} bytes", .0.display())]
    Long(PathBuf),
    /// It is not UTF-8.
    #[error("settings {}: not UTF-8 from byte {at}", .path.display())]
    Text { path: PathBuf, at: usize },
    /// It is not TOML, or has an unknown key or a wrong value.
    #[error("settings {}:{line}:{column}: {message}", .path.display())]
    Parse {
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        message: String,
    },
}

impl SettingsFile {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = bytes_of(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &bytes)
    }

    /// Checks the content of a file. `path` is for messages, and what relative
    /// paths are relative to.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, FileError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(FileError::Long(path.to_owned()));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| FileError::Text {
            path: path.to_owned(),
            at: error.valid_up_to(),
        })?;
        let document: Document =
            toml::from_str(text).map_err(|error| parse_error(path, text, &error))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            path: path.to_owned(),
            digest: Digest(Sha256::digest(bytes).into()),
            layer: document.into_layer(base),
        })
    }
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse_error(path: &Path, text: &str, error: &toml::de::Error) -> FileError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let in_line = before.get(line_start..).unwrap_or_default();
    FileError::Parse {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: in_line.chars().count() + 1,
        message: error.message().replace('\n', "; "),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    watch: Watch,
    providers: Providers,
    output: Output,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Watch {
    policy: Option<PathBuf>,
    trail: Option<PathBuf>,
    trail_dir: Option<PathBuf>,
    resolvers: Option<Vec<Item<IpAddr>>>,
    scan_interval: Option<Span>,
    scan_secrets: Option<bool>,
    capture: Option<Word<CaptureMode>>,
    call_pause: Option<Span>,
    syscalls: Option<Word<SyscallMode>>,
    syscall_interval: Option<Span>,
    state_interval: Option<Span>,
    max_sandboxes: Option<NonZeroUsize>,
    state_dir: Option<PathBuf>,
    witness: Option<Vec<Item<WitnessTarget>>>,
    segment_size: Option<Item<Size>>,
    segment_age: Option<Span>,
    evidence_pcap: Option<PathBuf>,
    max_size: Option<Item<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Providers {
    kinds: Option<Vec<Item<ProviderKind>>>,
    docker_socket: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Output {
    targets: Option<Vec<Item<Target>>>,
    filter_type: Option<Vec<Item<EventType>>>,
    filter_tier: Option<Vec<Item<EvidenceTier>>>,
    filter_verdict: Option<Vec<Item<VerdictResult>>>,
}

impl Document {
    /// Paths are relative to the file, so that they mean the same wherever
    /// the program is started.
    fn into_layer(self, base: &Path) -> Layer {
        let Self {
            watch,
            providers,
            output,
        } = self;
        let place = |path: PathBuf| base.join(path);
        Layer {
            policy: watch.policy.map(place),
            trail: watch.trail.map(place),
            trail_dir: watch.trail_dir.map(place),
            resolvers: watch.resolvers.map(items),
            scan_interval: watch.scan_interval.map(Into::into),
            scan_secrets: watch.scan_secrets,
            capture: watch.capture.map(Into::into),
            call_pause: watch.call_pause.map(Into::into),
            syscalls: watch.syscalls.map(Into::into),
            syscall_interval: watch.syscall_interval.map(Into::into),
            state_interval: watch.state_interval.map(Into::into),
            max_sandboxes: watch.max_sandboxes,
            state_dir: watch.state_dir.map(place),
            witnesses: watch.witness.map(items),
            segment_size: watch.segment_size.map(|size| size.0),
            segment_age: watch.segment_age.map(Into::into),
            evidence_pcap: watch.evidence_pcap.map(place),
            max_size: watch.max_size.map(|size| size.0),
            providers: providers.kinds.map(items),
            docker_socket: providers.docker_socket.map(place),
            outputs: output.targets.map(|targets| {
                let targets = items(targets).into_iter();
                targets.map(|target| target_at(base, target)).collect()
            }),
            filter_type: output.filter_type.map(items),
            filter_tier: output.filter_tier.map(items),
            filter_verdict: output.filter_verdict.map(items),
        }
    }
}

fn items<T>(items: Vec<Item<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.0).collect()
}

fn target_at(base: &Path, target: Target) -> Target {
    match target {
        Target::File(path) => Target::File(base.join(path)),
        other => other,
    }
}

#[cfg(test)]
mod tests;
