//! What a session begins with: its collectors and its first two records.

use super::evidence::left_open;
use super::files::FileSource;
use super::judge::Judge;
use super::moment::{control, now};
use super::settings::Settings;
use crate::digest::digest_of;
use crate::exit::{Exit, Failure};
use sandtrace_capture::Observer as _;
use sandtrace_capture::filesystem::overlay::{OverlayMount, mount_for_upper, mounts_for_upper};
use sandtrace_capture::filesystem::{FsConfig, ImageFormat, Source};
use sandtrace_capture::network::{NetworkCollector, NetworkError, NetworkTarget};
use sandtrace_event::{BackendInForce, Coverage, Digest, Layer, Passed, TapIdentity, TrailStart};
use sandtrace_provider::{Disk, DiskFormat, Target};
use sandtrace_sys::bpf::BpfFramesError;
use sandtrace_sys::netns::NetnsError;
use sandtrace_sys::ring::RingError;
use sandtrace_wire::{FlowConfig, Numbering};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;

/// Opens a ring on each of the sandbox's interfaces.
pub(super) fn attach_networks(settings: &Settings) -> Result<Vec<NetworkCollector>, Failure> {
    let taps = &settings.target.taps;
    let attach = |(index, tap)| attach_network(settings, tap, Numbering::of(index, taps.len()));
    taps.iter().enumerate().map(attach).collect()
}

/// Opens a ring on one of them.
pub(super) fn attach_network(
    settings: &Settings,
    tap: &TapIdentity,
    numbering: Numbering,
) -> Result<NetworkCollector, Failure> {
    NetworkCollector::attach(NetworkTarget {
        interface: tap.interface.clone(),
        netns: settings.target.netns_path.clone(),
        tier: settings.target.tier(),
        backend: settings.capture.into(),
        flows: FlowConfig {
            numbering,
            ..settings.flows()
        },
        ring: settings.ring,
        evidence: settings.evidence.clone(),
        hub: settings.hub.clone(),
    })
    .map_err(network_failure)
}

pub(super) fn network_failure(error: NetworkError) -> Failure {
    let exit = match &error {
        NetworkError::Ring(RingError::NotPermitted { .. }) => Exit::NoPermission,
        NetworkError::Ebpf(BpfFramesError::NotPermitted) => Exit::NoPermission,
        NetworkError::EvidenceNeedsRing => Exit::Usage,
        NetworkError::Evidence { .. } => Exit::CannotCreate,
        NetworkError::Netns(NetnsError::Enter { source, .. })
        | NetworkError::Ring(RingError::Netns(NetnsError::Enter { source, .. }))
        | NetworkError::Ebpf(BpfFramesError::Netns(NetnsError::Enter { source, .. }))
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            return Failure::not_permitted(&error, "CAP_SYS_ADMIN");
        }
        _ => Exit::Unavailable,
    };
    Failure {
        exit,
        error: error.into(),
    }
}

/// What had crossed these interfaces before.
pub(super) fn passed_before(networks: &[NetworkCollector]) -> Vec<Passed> {
    let passed = networks.iter().filter_map(NetworkCollector::passed);
    passed.cloned().collect()
}

/// Reports what was the sandbox's own of that as a gap, unless an earlier session
/// may have recorded it.
pub(super) fn report_passed(networks: &[NetworkCollector], is_first: bool, judge: &mut Judge) {
    for network in networks.iter().filter(|_| is_first) {
        network.report_passed(judge);
    }
}

/// Reports what earlier sessions kept of frames and nobody vouches for.
pub(super) fn report_left_open(settings: &Settings, is_first: bool, judge: &mut Judge) {
    if let Some(evidence) = settings.evidence.as_ref().filter(|_| !is_first) {
        let at = now();
        if let Some(gap) = left_open(evidence, &settings.identity.sandbox_id, at) {
            judge.observe(control(at, gap.into()));
        }
    }
}

/// The sandbox's disks and overlay.
pub(super) fn file_sources(settings: &Settings) -> Vec<FileSource> {
    let target = &settings.target;
    let images = target.disks.iter().map(|disk| disk_source(settings, disk));
    let overlays = target.overlays.iter();
    let overlays = overlays.map(|overlay| overlay_source(settings, overlay));
    images.chain(overlays).collect()
}

/// A disk as it is to be read: in the format that its VMM reads it in, where that
/// is known.
pub(crate) fn image(disk: &Disk) -> Source {
    Source::Image {
        path: disk.open_path.clone(),
        format: match disk.format {
            Some(DiskFormat::Raw) => ImageFormat::Raw,
            Some(DiskFormat::Qcow2) => ImageFormat::Qcow2,
            None => ImageFormat::by_name(Path::new(&disk.identity.path)),
        },
    }
}

/// One disk of the sandbox.
pub(super) fn disk_source(settings: &Settings, disk: &Disk) -> FileSource {
    FileSource {
        source: image(disk),
        config: FsConfig {
            expected: Some(disk.identity.clone()),
            ..settings.files.clone()
        },
        name: disk.identity.path.clone(),
        tier: settings.target.tier(),
        pause: settings.pause.clone(),
    }
}

/// Its overlay.
pub(super) fn overlay_source(settings: &Settings, overlay: &Disk) -> FileSource {
    let mount = overlay_mount(&settings.target, &overlay.open_path);
    let xattrs = mount.as_ref().map(|mount| mount.xattrs).unwrap_or_default();
    let layers = mount.map(|mount| (mount.lowers, mount.data));
    let (lowers, data_layers) = layers.unwrap_or_default();
    FileSource {
        source: Source::Overlay {
            upper: overlay.open_path.clone(),
            lowers,
        },
        config: FsConfig {
            overlay_xattrs: xattrs,
            expected: Some(overlay.identity.clone()),
            data_layers,
            ..settings.files.clone()
        },
        name: overlay.identity.path.clone(),
        tier: settings.target.tier(),
        pause: settings.pause.of_overlay(),
    }
}

/// Without the layers below an upper dir nobody can tell a new file from a
/// changed one; the trail says so.
pub(super) fn unknown_layers(target: &Target) -> Vec<Coverage> {
    let overlays = target.overlays.iter();
    let unknown = overlays.filter(|it| overlay_mount(target, &it.open_path).is_none());
    let told = unknown.map(|overlay| Coverage {
        layer: Layer::Filesystem,
        missing: format!(
            "no overlay with the upper dir {} is mounted here or is the root of the sandbox's process \
             (name it with --pid), by absolute paths: its lower layers are unknown, so a changed file is reported as created, \
             its former size is not, and nor is what was deleted",
            overlay.identity.path
        ),
    });
    told.collect()
}

/// The mount whose upper dir this is: the layers below decide what is new and
/// what was changed.
///
/// The host's own mounts are trusted. In its process' own the sandbox may have
/// mounted an overlay of its own making, which names the same upper dir and
/// any directory of the host below: there only the process' root counts.
pub(crate) fn overlay_mount(target: &Target, upper: &Path) -> Option<OverlayMount> {
    let upper = upper.canonicalize().ok()?;
    let mounts = |process: &str| std::fs::read(format!("/proc/{process}/mountinfo"));
    let here = mounts("self").unwrap_or_default();
    let sandbox = target.vmm.as_ref();
    let there = sandbox.and_then(|vmm| mounts(&vmm.pid.to_string()).ok());
    let there = there.unwrap_or_default();
    let mut there = mounts_for_upper(&there, &upper);
    mount_for_upper(&here, &upper)
        .or_else(|| there.find(|mount| mount.mount_point == Path::new("/")))
        .filter(OverlayMount::has_absolute_layers)
}

/// The trail's first record.
pub(super) fn trail_start(settings: &Settings, networks: &[NetworkCollector]) -> TrailStart {
    let identity = &settings.identity;
    let policy = settings.policy.as_ref();
    TrailStart {
        cadence: None,
        key: None,
        previous: None,
        settings_digest: settings.settings_digest,
        binary_digest: own_digest(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .map(|id| id.trim().to_owned()),
        capture: backends(&settings.target, networks),
        needs_restart: settings
            .needs_restart
            .iter()
            .map(ToString::to_string)
            .collect(),
        nonce: format!("{:016x}", identity.nonce),
        origin: settings.origin.clone(),
        policy_digest: policy.map(|policy| policy.digest),
        policy_path: policy.map(|policy| policy.path.display().to_string()),
        resolvers: settings.resolvers.iter().map(ToString::to_string).collect(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Digest of this program, computed once.
pub(crate) fn own_digest() -> Option<Digest> {
    static DIGEST: OnceLock<Option<Digest>> = OnceLock::new();
    *DIGEST.get_or_init(|| digest_of(std::fs::File::open("/proc/self/exe").ok()?).ok())
}

fn backends(target: &Target, networks: &[NetworkCollector]) -> Vec<BackendInForce> {
    let backend = |layer, backend: &str, reason: &str| BackendInForce {
        backend: backend.to_owned(),
        layer,
        reason: reason.to_owned(),
    };
    // All interfaces of a sandbox are captured by the same means: what works
    // for one works for all.
    let network = match networks.first().map(NetworkCollector::backend) {
        None => backend(Layer::Network, "off", "no interface was found or given"),
        Some(chosen) => backend(Layer::Network, chosen.name, &chosen.reason),
    };
    let files = match (target.overlays.is_empty(), target.disks.is_empty()) {
        (false, _) => backend(
            Layer::Filesystem,
            "overlay",
            "the sandbox's root is an overlay",
        ),
        (true, false) => backend(Layer::Filesystem, "ext4", "the sandbox has disk images"),
        (true, true) => backend(Layer::Filesystem, "off", "no disk was found or given"),
    };
    vec![network, files]
}
