//! Files of a sandbox that are too large, or have too much on them, to be
//! read in full; and an upper dir that another one has taken the place of.

use super::super::super::testing::{Report, has_program, is_root, run, set_xattr};
use super::super::super::{Baseline, FsCollector, FsConfig, OverlayXattrs, Source};
use super::{Mounted, home, scan};
use sandtrace_event::{FileOp, GapCause, HashScope, QuiesceMethod};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

const BOUND: u64 = 4096;

fn bounded(baseline: Baseline) -> FsConfig {
    FsConfig {
        baseline,
        hash_bound: BOUND,
        ..FsConfig::default()
    }
}

fn large(root: &Path) {
    home(root);
    fs::write(root.join("large"), vec![b'l'; 40_000]).unwrap();
}

/// Does so until the file's time of change has moved on: the clock of an older
/// kernel's files ticks in milliseconds.
fn until_changed(path: &Path, change: impl Fn()) {
    let time = || {
        let metadata = path.metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = time();
    while time() == before {
        change();
    }
}

/// Writes amid a file and sets its time back.
fn patch(path: &Path) {
    let modified = path.metadata().unwrap().modified().unwrap();
    until_changed(path, || {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"patched", 20_000).unwrap();
        file.set_modified(modified).unwrap();
    });
}

/// Head, tail, size and time of modification are as they were: the time of
/// change is not, and that the sandbox cannot set.
#[test]
fn a_write_amid_a_large_file_that_hides_its_time_is_told() {
    if !is_root("a_write_amid_a_large_file_that_hides_its_time_is_told") {
        return;
    }
    let mounted = Mounted::new("", &[&large]);
    let path = mounted.merged("large");
    let mut collector = mounted.attach_with(bounded(Baseline::AtAttach));
    let mut check = |what: &str| {
        let report = scan(&mut collector);
        assert_eq!(report.lines(), ["Modified File /large"], "{what}");
        let change = report.change("/large");
        assert_eq!(change.sha256_scope, Some(HashScope::HeadTail), "{what}");
        assert_eq!(scan(&mut collector).lines(), [""; 0], "{what}");
    };
    patch(&path);
    check("with a copy from the lower layer");
    patch(&path);
    check("in the upper dir");
    // Nobody can tell whether it was written to as well.
    until_changed(&path, || {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    });
    check("with another mode");
    fs::rename(&path, mounted.merged("moved")).unwrap();
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Renamed File /moved < /large"]);
    let scope = report.change("/moved").sha256_scope;
    assert_eq!(scope, Some(HashScope::HeadTail));
}

#[test]
fn a_write_amid_a_large_file_of_a_directory_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    for root in [&one, &two] {
        fs::create_dir(root).unwrap();
        large(root);
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = fs::File::options().write(true).open(root.join("large"));
        file.unwrap().set_modified(time).unwrap();
    }
    let source = |path: &Path| Source::Directory {
        path: path.to_owned(),
    };
    // Of another directory the times of change tell nothing.
    let other = bounded(Baseline::Of(source(&one)));
    let mut collector = FsCollector::attach(source(&two), other).unwrap();
    assert_eq!(scan(&mut collector).lines(), [""; 0]);
    patch(&two.join("large"));
    assert_eq!(scan(&mut collector).lines(), ["Modified File /large"]);
}

/// XFS takes more names than the kernel can list.
#[test]
fn a_file_with_too_many_attributes_is_told_without_them() {
    let test = "a_file_with_too_many_attributes_is_told_without_them";
    if !is_root(test) || !has_program(test, "mkfs.xfs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("xfs.img");
    fs::File::create(&image)
        .unwrap()
        .set_len(400 << 20)
        .unwrap();
    let mount = dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let [image, at] = [&image, &mount].map(|path| path.to_str().unwrap());
    run("mkfs.xfs", &["-q", image]);
    run("mount", &["-o", "loop", image, at]);
    let unmount = Unmount(at.to_owned());
    let [upper, lower] = ["upper", "lower"].map(|name| mount.join(name));
    for path in [&upper, &lower] {
        fs::create_dir(path).unwrap();
    }
    let source = Source::Overlay {
        upper: upper.clone(),
        lowers: vec![lower],
    };
    let mut collector = FsCollector::attach(source, FsConfig::default()).unwrap();
    let file = upper.join("file");
    fs::write(&file, "x").unwrap();
    for number in 0..300 {
        set_xattr(&file, &format!("user.{number:0240}"), "");
    }
    let report = Report::of(&mut collector, QuiesceMethod::Live);
    assert_eq!(report.lines(), ["Created File /file"]);
    assert_eq!(report.gaps.len(), 1, "{:?}", report.gaps);
    assert_eq!(report.gaps[0].cause, GapCause::DiskUnreadable);
    let detail = &report.gaps[0].detail;
    assert!(detail.contains("attributes of /file"), "{detail}");
    fs::write(&file, "other").unwrap();
    assert_eq!(scan(&mut collector).lines(), ["Modified File /file"]);
    drop(collector);
    drop(unmount);
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        run("umount", &[&self.0]);
    }
}

/// Since Linux 6.7 the sandbox may have attributes that have names of
/// OverlayFS' own, which are stored under others.
#[test]
fn attributes_with_names_of_the_overlays_own_are_told() {
    if !is_root("attributes_with_names_of_the_overlays_own_are_told") {
        return;
    }
    for (options, name) in [
        ("", "trusted.overlay.opaque"),
        (",userxattr", "user.overlay.opaque"),
    ] {
        let mounted = Mounted::new(options, &[&home]);
        let mut collector = mounted.attach(Baseline::AtAttach);
        let flags = rustix::fs::XattrFlags::empty();
        let path = mounted.merged("etc/conf.d");
        match rustix::fs::setxattr(&path, name, b"y", flags) {
            // An older kernel.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => continue,
            set => set.unwrap(),
        }
        let report = scan(&mut collector);
        let change = report.change("/etc/conf.d");
        assert_eq!(change.op, FileOp::Metadata);
        assert_eq!(change.xattrs_changed, [name]);
        // It is no mark: what is below still shows.
        assert_eq!(report.changes.len(), 1, "{:?}", report.lines());
    }
}

#[test]
fn a_vast_sparse_file_of_an_overlay_takes_little_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mut collector =
        FsCollector::attach(Source::Directory { path }, bounded(Baseline::AtAttach)).unwrap();
    let file = fs::File::create(dir.path().join("vast")).unwrap();
    // As large as the file system of the test has it.
    let sizes = [16 << 40, 8 << 40, 1 << 40, 1 << 30];
    let size = sizes.iter().find(|size| file.set_len(**size).is_ok());
    let start = Instant::now();
    let report = Report::of(&mut collector, QuiesceMethod::Detached);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(report.lines(), ["Created File /vast"]);
    let vast = report.change("/vast");
    assert_eq!(vast.size_after.map(|size| size.0), size.copied());
    assert_eq!(vast.sha256_scope, Some(HashScope::HeadTail));
}

/// With an index all names of a file of a lower layer show what is written to
/// one of them, but only that one is in the upper dir.
#[test]
fn names_that_only_the_lower_layers_have_are_a_gap() {
    if !is_root("names_that_only_the_lower_layers_have_are_a_gap") {
        return;
    }
    let linked = |root: &Path| {
        fs::write(root.join("h1"), "one").unwrap();
        fs::hard_link(root.join("h1"), root.join("h2")).unwrap();
        fs::hard_link(root.join("h1"), root.join("h3")).unwrap();
    };
    for (options, gaps) in [(",index=on", 1), (",index=off", 0)] {
        let mounted = Mounted::new(options, &[&linked]);
        let mut collector = mounted.attach(Baseline::AtAttach);
        let root = mounted.path("merged");
        fs::write(root.join("h1"), "another").unwrap();
        let shows = fs::read(root.join("h2")).unwrap() == b"another";
        assert_eq!(shows, gaps == 1, "{options}");
        let report = Report::of(&mut collector, QuiesceMethod::Live);
        assert_eq!(report.lines(), ["Modified File /h1"], "{options}");
        assert_eq!(report.gaps.len(), gaps, "{options}: {:?}", report.gaps);
        assert!(
            report
                .gaps
                .iter()
                .all(|gap| gap.detail.contains("/h1: it has 2 more names"))
        );
        // Once each has its name in the upper dir nothing is left out.
        for name in ["h2", "h3"] {
            fs::write(root.join(name), "each by itself").unwrap();
        }
        let report = Report::of(&mut collector, QuiesceMethod::Live);
        assert_eq!(report.gaps, [], "{options}");
        let told: Vec<_> = ["/h1", "/h2", "/h3"]
            .into_iter()
            .filter(|path| report.lines().contains(&format!("Modified File {path}")))
            .collect();
        let expected: &[&str] = if gaps == 1 {
            &["/h1", "/h2", "/h3"]
        } else {
            &["/h2", "/h3"]
        };
        assert_eq!(told, expected, "{options}");
    }
}

/// Without the capability the kernel shows no marks, which is not to be taken
/// for there being none.
#[test]
fn an_overlay_whose_marks_cannot_be_read_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let [upper, lower] = ["upper", "lower"].map(|name| dir.path().join(name));
    for path in [&upper, &lower] {
        fs::create_dir(path).unwrap();
    }
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective
        .remove(rustix::thread::CapabilitySet::SYS_ADMIN);
    // Of this thread, which is the test's own.
    rustix::thread::set_capabilities(None, sets).unwrap();
    let gaps = |xattrs| {
        let source = Source::Overlay {
            upper: upper.clone(),
            lowers: vec![lower.clone()],
        };
        let config = FsConfig {
            overlay_xattrs: xattrs,
            ..FsConfig::default()
        };
        let mut collector = FsCollector::attach(source, config).unwrap();
        Report::of(&mut collector, QuiesceMethod::Live).gaps
    };
    let blind = gaps(OverlayXattrs::FOLLOWED);
    assert_eq!(blind.len(), 1, "{blind:?}");
    assert!(blind[0].detail.contains("CAP_SYS_ADMIN"), "{blind:?}");
    assert_eq!(gaps(OverlayXattrs::User), []);
}

/// A path that names another directory by now is not the upper dir that was found.
#[test]
fn another_upper_dir_than_the_one_that_was_found_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).unwrap();
    let attach = |expected| {
        let source = Source::Overlay {
            upper: upper.clone(),
            lowers: Vec::new(),
        };
        let config = FsConfig {
            expected,
            ..FsConfig::default()
        };
        FsCollector::attach(source, config)
    };
    let stat = rustix::fs::stat(&upper).unwrap();
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let found = sandtrace_event::DiskIdentity {
        device: format!("{major}:{minor}"),
        inode: sandtrace_event::Count(stat.st_ino),
        path: upper.display().to_string(),
        kind: "overlay".to_owned(),
    };
    assert!(attach(Some(found.clone())).is_ok());
    fs::rename(&upper, dir.path().join("away")).unwrap();
    fs::create_dir(&upper).unwrap();
    let error = attach(Some(found.clone())).unwrap_err().to_string();
    assert!(error.contains("is not the disk that was found"), "{error}");
    fs::remove_dir(&upper).unwrap();
    symlink(dir.path().join("away"), &upper).unwrap();
    assert!(attach(Some(found)).is_ok(), "the same by another name");
}
