//! Random operations inside a microVM, on an ext4 file system that nothing on
//! the host mounts while it runs: what is recorded must be the difference of
//! two walks by the kernel.

use crate::support::{Dir, Kind, Running, Stage, assert_sealed, privileged, run, sandtrace, text};
use sandtrace_event::{AuditEvent, FileChange, FileKind, FileOp, Payload};
use sandtrace_lab::Scenario;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// That succeed.
const OPERATIONS: u32 = 10_000;

/// What a path is to somebody in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: FileKind,
    /// SHA-256 of a file, target of a link.
    content: Vec<u8>,
    /// Mode, user, group.
    attributes: (u32, u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

type View = BTreeMap<String, Seen>;

#[test]
fn what_a_microvm_did_by_chance_is_the_difference_of_two_walks() {
    if !privileged("random operations in a microVM") {
        return;
    }
    let seed = seed();
    let dir = Dir::new();
    let mut stage = Stage::set(
        Kind::MicroVm,
        Scenario::Disorder {
            seed,
            operations: OPERATIONS,
        },
    );
    let (before, trail) = (dir.path("before.img"), dir.text("trace.jsonl"));
    fs::copy(stage.disk(), &before).unwrap();
    let mut args = stage.by_hand();
    args.extend(["--trail", &trail, "--scan-interval", "200ms"].map(str::to_owned));
    args.extend(["--pid".to_owned(), stage.pid().to_string()]);
    let watch = Running::start(sandtrace(&args)).ready();
    let outcome = stage.play();
    watch.wait().expect(0);
    let reports = outcome.reports.iter();
    let done: Vec<_> = reports
        .filter(|report| report.step == "disorder")
        .map(|report| report.detail.as_str())
        .collect();
    assert_eq!(done, [format!("{OPERATIONS} operations")]);

    let (was, is) = (walk(&before, &dir), walk(stage.disk(), &dir));
    let truth = difference(&was, &is);
    // What the guest put aside is there whatever came by chance.
    let kept = truth.iter().filter(|(path, _)| path.contains("/kept "));
    let kept: Vec<_> = kept.map(|(_, op)| *op).collect();
    assert_eq!(kept, [FileOp::Created; (OPERATIONS / 250) as usize]);
    assert_eq!(offline(&before, stage.disk(), (&was, &is)), truth);
    assert_lives_agree(&assert_sealed(&trail), &was, &is);
}

/// Printed, so that a run can be repeated.
fn seed() -> u64 {
    let chance = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap().as_nanos()).unwrap()
    };
    let seed = std::env::var("SANDTRACE_SEED").map_or_else(|_| chance(), |it| it.parse().unwrap());
    println!("SANDTRACE_SEED={seed}");
    seed
}

/// Everything in an image, as the kernel reads it.
fn walk(image: &Path, dir: &Dir) -> View {
    let mount = dir.path("mount");
    fs::create_dir_all(&mount).unwrap();
    let program = |name: &str, arguments: &[&str]| {
        let output = Command::new(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    program("mount", &["-o", "loop,ro", &text(image), &text(&mount)]);
    let mut view = View::new();
    let mut visits = vec![PathBuf::new()];
    while let Some(path) = visits.pop() {
        let full = mount.join(&path);
        if full.symlink_metadata().unwrap().is_dir() {
            let entries = fs::read_dir(&full).unwrap();
            visits.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        }
        view.insert(format!("/{}", path.display()), look(&full));
    }
    program("umount", &[&text(&mount)]);
    view
}

fn look(path: &Path) -> Seen {
    let metadata = path.symlink_metadata().unwrap();
    let (kind, content) = if metadata.is_dir() {
        (FileKind::Dir, Vec::new())
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).unwrap();
        (FileKind::Symlink, target.as_os_str().as_bytes().to_vec())
    } else {
        assert!(metadata.is_file(), "{path:?}");
        (
            FileKind::File,
            Sha256::digest(fs::read(path).unwrap()).to_vec(),
        )
    };
    Seen {
        kind,
        content,
        attributes: (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    };
    names.map(read).collect()
}

/// What differs, without any notion of renaming.
fn difference(was: &View, is: &View) -> BTreeMap<String, FileOp> {
    let paths: BTreeSet<_> = was.keys().chain(is.keys()).collect();
    let op = |path: &String| match (was.get(path), is.get(path)) {
        (None, _) => Some(FileOp::Created),
        (_, None) => Some(FileOp::Deleted),
        (Some(a), Some(b)) if (a.kind, &a.content) != (b.kind, &b.content) => {
            Some(FileOp::Modified)
        }
        (Some(a), Some(b)) => (a != b).then_some(FileOp::Metadata),
    };
    paths
        .into_iter()
        .filter_map(|path| Some((path.clone(), op(path)?)))
        .collect()
}

/// What `fsdiff` says of two images, each renaming taken apart.
fn offline(before: &Path, after: &Path, views: (&View, &View)) -> BTreeMap<String, FileOp> {
    let said = run(&["fsdiff", "--json", &text(before), &text(after)]).expect(0);
    let mut changes = BTreeMap::new();
    for line in said.stdout.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_ne!(value["event_type"], "capture_gap", "{line}");
        if value["event_type"] != "filesystem_change" {
            continue;
        }
        let change: FileChange = serde_json::from_value(value["payload"].clone()).unwrap();
        assert_attributes(&change, views);
        let mut op = change.op;
        if let Some(from) = change.renamed_from {
            assert_eq!(changes.insert(from, FileOp::Deleted), None);
            op = FileOp::Created;
        }
        assert_eq!(changes.insert(change.path, op), None);
    }
    changes
}

/// The extended attributes that a change names are those that differ.
#[track_caller]
fn assert_attributes(change: &FileChange, (was, is): (&View, &View)) {
    let former = change.renamed_from.as_ref().unwrap_or(&change.path);
    let of = |view: &View, path| view.get(path).map(|seen: &Seen| seen.xattrs.clone());
    let (had, has) = (of(was, former).unwrap_or_default(), of(is, &change.path));
    // Of what is gone none are named.
    let Some(has) = has else { return };
    let names: BTreeSet<_> = had.keys().chain(has.keys()).collect();
    let differ = names
        .iter()
        .filter(|name| had.get(**name) != has.get(**name));
    let differ = differ.map(|name| String::from_utf8_lossy(name).into_owned());
    assert_eq!(
        change.xattrs_changed,
        differ.collect::<Vec<_>>(),
        "{change:?}"
    );
}

/// A watch saw states between the first and the last; of each path, what it
/// said last is true, and of a path that differs it said something.
#[track_caller]
fn assert_lives_agree(events: &[AuditEvent], was: &View, is: &View) {
    let mut said: BTreeMap<String, Told> = was
        .iter()
        .map(|(path, seen)| (path.clone(), Told::of(seen)))
        .collect();
    let changes: Vec<_> = events.iter().filter_map(change).collect();
    assert!(
        changes.iter().any(|(_, change)| !change.quiesced),
        "nothing was seen while the guest ran"
    );
    // Of one scan, what became of a path counts, not that something left it.
    for scan in changes.chunk_by(|(a, _), (b, _)| a.mono_us == b.mono_us) {
        let mut become_of = Vec::new();
        for (_, change) in scan {
            assert_eq!(change.unreadable, None, "{change:?}");
            let former = said.get(change.renamed_from.as_ref().unwrap_or(&change.path));
            become_of.push((&change.path, Told::by(change, former.cloned())));
        }
        for (_, change) in scan {
            said.remove(change.renamed_from.as_ref().unwrap_or(&change.path));
        }
        for (path, told) in become_of {
            if let Some(told) = told {
                said.insert(path.clone(), told);
            }
        }
    }
    let is: BTreeMap<_, _> = is
        .iter()
        .map(|(path, seen)| (path.clone(), Told::of(seen)))
        .collect();
    assert_eq!(said, is);
}

fn change(event: &AuditEvent) -> Option<(&AuditEvent, &FileChange)> {
    match &event.payload {
        Payload::FilesystemChange(change) => Some((event, change)),
        Payload::CaptureGap(gap) => panic!("{gap:?}"),
        _ => None,
    }
}

/// What records tell of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: FileKind,
    content: Vec<u8>,
    attributes: (u32, u32, u32),
}

impl Told {
    fn of(seen: &Seen) -> Self {
        let (kind, content, attributes) = (seen.kind, seen.content.clone(), seen.attributes);
        Self {
            kind,
            content,
            attributes,
        }
    }

    /// By a record after which a path is there; its content as it was where
    /// the record is about attributes alone, or moves a link.
    fn by(change: &FileChange, former: Option<Self>) -> Option<Self> {
        let content = match (change.op, change.kind) {
            (FileOp::Deleted, _) => return None,
            (FileOp::Metadata, _) | (FileOp::Renamed, FileKind::Symlink) => former.unwrap().content,
            (_, FileKind::File) => change.sha256.unwrap().0.to_vec(),
            (_, FileKind::Symlink) => change.symlink_target.clone().unwrap().into_bytes(),
            _ => Vec::new(),
        };
        Some(Self {
            kind: change.kind,
            content,
            attributes: (
                change.mode.unwrap(),
                change.uid.unwrap(),
                change.gid.unwrap(),
            ),
        })
    }
}
