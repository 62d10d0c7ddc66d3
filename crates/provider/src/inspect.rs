//! What a process has open: its taps, its namespace, its disks.

use crate::claims::{Claims, Drive, Format, coverage, quoted};
use crate::{Disk, DiskFormat, ProcRoot};
use sandtrace_event::{Count, Coverage, DiskIdentity, Layer, TapIdentity};
use sandtrace_sys::netdev;
use sandtrace_sys::netns::within;
use sandtrace_sys::process::{Access, Descriptor, DescriptorKind, FileId, Process};

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What was found, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) taps: Vec<TapIdentity>,
    pub(crate) netns_path: Option<PathBuf>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) coverage: Vec<Coverage>,
}

impl Seen {
    pub(crate) fn missing(&mut self, layer: Layer, missing: impl Into<String>) {
        self.coverage.push(coverage(layer, missing));
    }
}

/// What to look for: what the operator did not name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) taps: bool,
    pub(crate) disks: bool,
}

impl Wanted {
    pub(crate) const ALL: Self = Self {
        taps: true,
        disks: true,
    };
}

pub(crate) fn inspect(
    namespaces: &Namespaces<'_>,
    process: &Process,
    claims: &Claims,
    wanted: Wanted,
) -> Seen {
    let mut seen = Seen::default();
    let limited = |seen: &mut Seen, why: &str| {
        if wanted.taps {
            seen.missing(Layer::Network, why);
        }
        if wanted.disks {
            seen.missing(Layer::Filesystem, why);
        }
    };
    let open = match process.descriptors() {
        Ok(open) => open,
        Err(error) => {
            let pid = process.pid();
            let why = hint(&error);
            limited(
                &mut seen,
                &format!("the open files of process {pid} cannot be listed: {why}"),
            );
            return seen;
        }
    };
    if open.truncated {
        limited(
            &mut seen,
            "the process has more files open than are looked at",
        );
    }
    if wanted.taps {
        look_for_taps(&mut seen, namespaces, process, &open.open, claims);
    }
    if wanted.disks {
        look_for_disks(&mut seen, process, &open.open, claims);
    }
    seen
}

fn look_for_taps(
    seen: &mut Seen,
    namespaces: &Namespaces<'_>,
    process: &Process,
    open: &[Descriptor],
    claims: &Claims,
) {
    // A tap with several queues is open several times.
    let names: BTreeSet<&str> = open
        .iter()
        .filter_map(|descriptor| match &descriptor.kind {
            DescriptorKind::Tap { interface } => Some(interface.as_str()),
            DescriptorKind::File { .. } | DescriptorKind::Block { .. } => None,
        })
        .collect();
    for claimed in &claims.interfaces {
        if !names.contains(claimed.as_str()) {
            let name = quoted(claimed);
            seen.missing(
                Layer::Network,
                format!("interface {name} is configured, but the process does not have it open"),
            );
        }
    }
    if names.is_empty() {
        seen.missing(Layer::Network, "the process has no tap open");
        return;
    }
    let place = match namespaces.place(process) {
        Ok(place) => place,
        Err(error) => {
            let why = format!(
                "the network namespace of process {} cannot be told: {}",
                process.pid(),
                hint(&error)
            );
            return seen.missing(Layer::Network, why);
        }
    };
    for name in names {
        match tap(&place, name) {
            Ok(tap) => seen.taps.push(tap),
            Err(why) => seen.missing(Layer::Network, format!("tap {}: {why}", quoted(name))),
        }
    }
    seen.netns_path = place.path;
}

/// The network namespace of a process.
pub(crate) struct Place {
    /// Its name, or else `path`; `None` for our own.
    pub(crate) name: Option<String>,
    /// Where to enter it; `None` for our own.
    pub(crate) path: Option<PathBuf>,
}

/// The named network namespaces of a host, listed once at most.
pub(crate) struct Namespaces<'a> {
    proc: &'a ProcRoot,
    own: io::Result<FileId>,
    named: OnceLock<Vec<(OsString, FileId)>>,
}

/// Names that were found last, by namespace: to look at all names of a host
/// takes milliseconds where there are a thousand.
static NAMES: Mutex<BTreeMap<FileId, OsString>> = Mutex::new(BTreeMap::new());

impl<'a> Namespaces<'a> {
    pub(crate) fn of(proc: &'a ProcRoot) -> Self {
        Self {
            proc,
            own: proc.own_net_namespace(),
            named: OnceLock::new(),
        }
    }

    /// The name of a namespace. One that cannot be looked up is not known.
    fn name(&self, id: FileId) -> Option<OsString> {
        let names = || NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names().get(&id).cloned();
        // Another one may have that name by now.
        let holds = |name: &OsString| self.proc.named_net_namespace(name).is_ok_and(|it| it == id);
        if let Some(name) = known.filter(holds) {
            return Some(name);
        }
        let named = self.named.get_or_init(|| {
            let named = self.proc.named_net_namespaces().unwrap_or_default();
            let by_id = named.iter().map(|(name, id)| (*id, name.clone()));
            *names() = by_id.rev().collect();
            named
        });
        let mut named = named.iter();
        Some(named.find(|(_, other)| *other == id)?.0.clone())
    }

    /// Where a process is. A name that could not be looked up is not known,
    /// which is no error.
    pub(crate) fn place(&self, process: &Process) -> io::Result<Place> {
        let id = process.net_namespace()?;
        let own = self.own.as_ref();
        if *own.map_err(|error| io::Error::from(error.kind()))? == id {
            let (name, path) = (None, None);
            return Ok(Place { name, path });
        }
        let path = process.path("ns/net");
        let name = self.name(id).and_then(|name| name.into_string().ok());
        Ok(Place {
            name: Some(name.unwrap_or_else(|| path.display().to_string())),
            path: Some(path),
        })
    }
}

fn tap(place: &Place, name: &str) -> Result<TapIdentity, String> {
    let index = within(place.path.as_deref(), || netdev::index(name));
    let index = index.map_err(|error| error.to_string())?;
    let index = index.map_err(|error| error.to_string())?;
    let here = || "not in the network namespace of the process".to_owned();
    Ok(TapIdentity {
        index: index.ok_or_else(here)?,
        interface: name.to_owned(),
        netns: place.name.clone(),
    })
}

/// A disk is what the process can write to and what either its configuration
/// names, or is a block device, or begins with an ext4 file system. (Logs and
/// guest memory are none of these; a hot-plugged drive is.)
fn look_for_disks(seen: &mut Seen, process: &Process, open: &[Descriptor], claims: &Claims) {
    let mut claimed = BTreeMap::new();
    for drive in &claims.drives {
        match process.file_id(&drive.path) {
            Ok(id) => _ = claimed.insert(id, drive),
            Err(error) => {
                let path = quoted(&drive.path.to_string_lossy());
                seen.missing(
                    Layer::Filesystem,
                    format!("drive {path} cannot be looked up: {}", hint(&error)),
                );
            }
        }
    }
    let mut found = BTreeSet::new();
    for descriptor in open {
        let Some((id, is_block)) = writable(&descriptor.kind) else {
            continue;
        };
        if found.contains(&id) {
            continue;
        }
        let kind = kind_of(process, descriptor.number, id);
        let drive = claimed.get(&id);
        if is_block || drive.is_some() || kind == "ext4" {
            found.insert(id);
            let mut format = drive.map_or(Format::Untold, |drive| drive.format.clone());
            if let (Format::Untold, Some(only)) = (&format, claims.only_format) {
                format = Format::Known(only);
            }
            seen.add_disk(process, descriptor, id, (kind, format));
        }
    }
    seen.missing_drives(&claimed, &found);
}

fn writable(kind: &DescriptorKind) -> Option<(FileId, bool)> {
    match *kind {
        DescriptorKind::File {
            id,
            access: Access::ReadWrite,
        } => Some((id, false)),
        DescriptorKind::Block {
            id,
            access: Access::ReadWrite,
        } => Some((id, true)),
        _ => None,
    }
}

impl Seen {
    fn add_disk(
        &mut self,
        process: &Process,
        descriptor: &Descriptor,
        id: FileId,
        (kind, format): (&str, Format),
    ) {
        let name = descriptor.name.to_string_lossy();
        let path = quoted(&name);
        let format = match format {
            Format::Untold => None,
            Format::Known(format) => Some(format),
            Format::Other(format) => {
                let why = format!("disk {path} is kept as {format}, which is not read");
                return self.missing(Layer::Filesystem, why);
            }
        };
        if !is_read(&name, kind, format) {
            let why = format!("disk {path} holds no ext4 and no partitions at its start ({kind})");
            self.missing(Layer::Filesystem, why);
        }
        self.disks.push(Disk {
            identity: disk_identity(&name, id, kind),
            open_path: process.path(&format!("fd/{}", descriptor.number)),
            format,
        });
    }

    fn missing_drives(&mut self, claimed: &BTreeMap<FileId, &Drive>, found: &BTreeSet<FileId>) {
        for (id, drive) in claimed {
            if drive.writable && !found.contains(id) {
                let path = quoted(&drive.path.to_string_lossy());
                self.missing(Layer::Filesystem, format!("drive {path} is configured, but the process does not have it open for writing"));
            }
        }
        if self.disks.is_empty() {
            self.missing(
                Layer::Filesystem,
                "the process has no disk open for writing",
            );
        }
    }
}

pub(crate) fn disk_identity(path: &str, id: FileId, kind: &str) -> DiskIdentity {
    DiskIdentity {
        device: id.device_text(),
        inode: Count(id.inode),
        path: path.chars().take(4096).collect(),
        kind: kind.to_owned(),
    }
}

fn kind_of(process: &Process, number: u32, id: FileId) -> &'static str {
    let mut head = [0; HEAD];
    match process.read_descriptor(number, id, &mut head) {
        Ok(()) => content_kind(&head),
        Err(_) => "unknown",
    }
}

/// Bytes that tell what a disk holds.
pub(crate) const HEAD: usize = 2048;

/// Whether the files of a disk are looked at: of ext4, as a whole or in
/// partitions, and of qcow2, whose content is not at its start, where somebody
/// says that it is that, or the name: a guest can write what it likes to the
/// start of its disk.
fn is_read(name: &str, kind: &str, format: Option<DiskFormat>) -> bool {
    let named = || kind == "qcow2" && name.to_ascii_lowercase().ends_with(".qcow2");
    match format {
        Some(DiskFormat::Qcow2) => true,
        Some(DiskFormat::Raw) => matches!(kind, "ext4" | "gpt" | "mbr"),
        None => matches!(kind, "ext4" | "gpt" | "mbr") || named(),
    }
}

/// Offset, magic bytes, and what begins so. A partition table may stand
/// before anything else, so file systems come first.
const MAGIC: [(usize, &[u8], &str); 6] = [
    (1080, &[0x53, 0xef], "ext4"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"XFSB", "xfs"),
    (0, b"hsqs", "squashfs"),
    (512, b"EFI PART", "gpt"),
    (510, &[0x55, 0xaa], "mbr"),
];

pub(crate) fn content_kind(head: &[u8]) -> &'static str {
    let begins = |&(offset, magic, _): &(usize, &[u8], &str)| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    let known = MAGIC.iter().find(|magic| begins(magic));
    known.map_or("unknown", |(_, _, name)| name)
}

/// An error, and what would help.
fn hint(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        format!("{error} (needs root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)")
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_are_read() {
        let (raw, qcow2) = (Some(DiskFormat::Raw), Some(DiskFormat::Qcow2));
        assert!(is_read("/d/rootfs", "ext4", None) && is_read("/d/disk.img", "gpt", raw));
        assert!(is_read("/d/a.QCOW2", "qcow2", None) && is_read("/d/a", "qcow2", qcow2));
        assert!(!is_read("/d/a.img", "qcow2", None) && !is_read("/d/a.qcow2", "qcow2", raw));
        assert!(!is_read("/d/a", "xfs", None) && !is_read("/d/a.qcow2", "unknown", None));
    }

    #[test]
    fn contents_are_told_by_their_magic() {
        let with = |offset: usize, magic: &[u8]| {
            let mut head = vec![0; HEAD];
            head[offset..offset + magic.len()].copy_from_slice(magic);
            content_kind(&head)
        };
        assert_eq!(with(1080, &[0x53, 0xef]), "ext4");
        assert_eq!(with(0, b"QFI\xfb"), "qcow2");
        assert_eq!(with(512, b"EFI PART"), "gpt");
        assert_eq!(with(510, &[0x55, 0xaa]), "mbr");
        assert_eq!(with(0, b"nothing"), "unknown");
        assert_eq!(content_kind(b""), "unknown");
    }
}
