//! A sandbox that the operator names piece by piece.

use crate::claims::{Claims, coverage};
use crate::describe::describe;
use crate::ids::is_valid_agent_id;
use crate::inspect::{HEAD, Namespaces, Place, Wanted, content_kind, disk_identity, inspect};
use crate::sighting::{Sighting, base_name, identity};
use crate::{
    DiscoverConfig, Disk, DiskFormat, FindError, ProcRoot, ProviderKind, Target, is_valid_id,
};
use sandtrace_event::{Layer, TapIdentity};
use sandtrace_sys::netdev;
use sandtrace_sys::netns::within;
use sandtrace_sys::process::FileId;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What the operator names. Whatever is given replaces what its process
/// shows; whatever is not given is taken from the process, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManualSpec {
    /// Name of the sandbox.
    pub sandbox_id: String,
    /// Name of the agent.
    pub agent_id: Option<String>,
    /// Its VMM, or any process of a container.
    pub pid: Option<u32>,
    /// Its interface on the host.
    pub tap: Option<String>,
    /// Namespace of that interface by name or path; else that of the process, else our own.
    pub netns: Option<String>,
    /// Disk images or block devices.
    pub disks: Vec<PathBuf>,
    /// How these keep the disks' bytes, where their names do not tell.
    pub format: Option<DiskFormat>,
    /// Upper dir of its overlay.
    pub overlay: Option<PathBuf>,
}

/// Checks that everything named exists and makes a target of it.
///
/// # Errors
/// When an id is malformed, nothing was named, or something that was named
/// does not exist or is another kind of thing.
pub fn manual(spec: ManualSpec) -> Result<Target, FindError> {
    manual_in(&ProcRoot::host(), spec)
}

/// As [`manual`], among the processes of `proc`.
///
/// # Errors
/// As for [`manual`].
pub fn manual_in(proc: &ProcRoot, spec: ManualSpec) -> Result<Target, FindError> {
    if !is_valid_id(&spec.sandbox_id) {
        let id = spec.sandbox_id;
        return Err(FindError::InvalidId { id });
    }
    if let Some(id) = spec.agent_id.clone().filter(|id| !is_valid_agent_id(id)) {
        return Err(FindError::InvalidAgentId { id });
    }
    let named = spec.tap.is_some() || !spec.disks.is_empty() || spec.overlay.is_some();
    if spec.pid.is_none() && !named {
        return Err(FindError::NothingGiven);
    }
    let mut target = match spec.pid {
        Some(pid) => from_process(proc, pid, &spec)?,
        None => bare(),
    };
    if let Some(tap) = &spec.tap {
        name_tap(proc, &mut target, tap, &spec)?;
    }
    if !spec.disks.is_empty() {
        let disks = spec.disks.iter().map(|path| disk(path, spec.format));
        target.disks = disks.collect::<Result<_, _>>()?;
    }
    if let Some(path) = &spec.overlay {
        target.overlays = vec![overlay(path)?];
    }
    target.sandbox_id = spec.sandbox_id;
    target.agent_id = spec.agent_id.or(target.agent_id);
    note_what_is_missing(&mut target);
    Ok(target)
}

fn bare() -> Target {
    Target {
        sandbox_id: String::new(),
        agent_id: None,
        template: None,
        labels: BTreeMap::new(),
        provider: ProviderKind::Manual,
        vmm: None,
        taps: Vec::new(),
        disks: Vec::new(),
        overlays: Vec::new(),
        coverage: Vec::new(),
        netns_path: None,
        passed_before: Vec::new(),
        unanswered: false,
    }
}

/// A VMM that we know is described as such; of any other process, what it
/// has open is taken.
fn from_process(proc: &ProcRoot, pid: u32, spec: &ManualSpec) -> Result<Target, FindError> {
    let wanted = Wanted {
        taps: spec.tap.is_none(),
        disks: spec.disks.is_empty() && spec.overlay.is_none(),
    };
    let failed = |source| FindError::Process { pid, source };
    let process = proc.process(pid).map_err(failed)?;
    let namespaces = Namespaces::of(proc);
    if let Some(sighting) = Sighting::of(process).map_err(failed)? {
        let config = DiscoverConfig::default();
        let deadline = Instant::now() + config.patience;
        return describe(&sighting, &namespaces, wanted, &config, deadline);
    }
    let process = proc.process(pid).map_err(failed)?;
    let arguments = process.arguments().map_err(failed)?;
    let name = base_name(arguments.first().map(Vec::as_slice).unwrap_or_default());
    let seen = inspect(&namespaces, &process, &Claims::default(), wanted);
    Ok(Target {
        vmm: Some(identity(&process, name)),
        taps: seen.taps,
        disks: seen.disks,
        coverage: seen.coverage,
        netns_path: seen.netns_path,
        passed_before: Vec::new(),
        ..bare()
    })
}

fn name_tap(
    proc: &ProcRoot,
    target: &mut Target,
    interface: &str,
    spec: &ManualSpec,
) -> Result<(), FindError> {
    let place = match (&spec.netns, spec.pid) {
        (Some(netns), _) => Place {
            name: Some(netns.clone()),
            path: Some(proc.net_namespace_path(netns)),
        },
        (None, Some(pid)) => {
            let process = proc.process(pid);
            let place = process.and_then(|process| Namespaces::of(proc).place(&process));
            place.map_err(|source| FindError::Process { pid, source })?
        }
        (None, None) => Place {
            name: None,
            path: None,
        },
    };
    let index = within(place.path.as_deref(), || netdev::index(interface))?;
    let index = index.map_err(|source| FindError::Interface {
        interface: interface.to_owned(),
        source,
    })?;
    let index = index.ok_or_else(|| FindError::NoInterface {
        interface: interface.to_owned(),
        place: match &place.name {
            Some(name) => format!("network namespace {name}"),
            None => "this network namespace".to_owned(),
        },
    })?;
    target.taps = vec![TapIdentity {
        index,
        interface: interface.to_owned(),
        netns: place.name,
    }];
    target.netns_path = place.path;
    Ok(())
}

fn note_what_is_missing(target: &mut Target) {
    let has = |target: &Target, layer| target.coverage.iter().any(|it| it.layer == layer);
    if target.taps.is_empty() && !has(target, Layer::Network) {
        let why = "no interface was named";
        target.coverage.push(coverage(Layer::Network, why));
    }
    let no_files = target.disks.is_empty() && target.overlays.is_empty();
    if no_files && !has(target, Layer::Filesystem) {
        let why = "neither a disk nor an overlay was named";
        target.coverage.push(coverage(Layer::Filesystem, why));
    }
}

fn disk(path: &Path, format: Option<DiskFormat>) -> Result<Disk, FindError> {
    const WHAT: &str = "disk";
    let failed = |source| FindError::Disk {
        what: WHAT,
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(FindError::DiskKind {
            what: WHAT,
            path: path.to_owned(),
            expected: "regular file or block device",
        });
    }
    let file = File::open(path).map_err(failed)?;
    let mut head = [0; HEAD];
    let kind = match file.read_exact_at(&mut head, 0) {
        Ok(()) => content_kind(&head),
        Err(_) => "unknown",
    };
    let disk = found(path, kind).map_err(failed)?;
    Ok(Disk { format, ..disk })
}

fn overlay(path: &Path) -> Result<Disk, FindError> {
    const WHAT: &str = "overlay upper dir";
    let failed = |source| FindError::Disk {
        what: WHAT,
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(FindError::DiskKind {
            what: WHAT,
            path: path.to_owned(),
            expected: "directory",
        });
    }
    found(path, "overlay").map_err(failed)
}

fn found(path: &Path, kind: &str) -> io::Result<Disk> {
    Ok(Disk {
        identity: disk_identity(&path.to_string_lossy(), FileId::of(path)?, kind),
        open_path: path.to_owned(),
        format: None,
    })
}
