//! Scans of real overlay mounts.

mod canary;
mod data_only;
mod held;
mod limits;
mod moving;
mod redirects;
mod walks;

use super::super::testing::{Report, is_root, run, set_xattr};
use super::super::{Baseline, FsCollector, FsConfig, OverlayXattrs, Source};
use super::mount_for_upper;
use sandtrace_event::{Digest, GapCause, QuiesceMethod};
use sha2::Digest as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What is below an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Tmpfs,
    Ext4,
    Xfs,
}

/// An overlay on a file system of its own, unmounted when dropped.
struct Mounted {
    dir: tempfile::TempDir,
    /// Of the image that it is on, if it is on one.
    _image: Option<tempfile::TempDir>,
    lowers: Vec<PathBuf>,
    options: String,
}

impl Mounted {
    /// `fill`: makes what the lower layers hold, topmost first.
    fn new(options: &str, fill: &[&dyn Fn(&Path)]) -> Self {
        Self::on(Below::Tmpfs, options, fill)
    }

    fn on(below: Below, options: &str, fill: &[&dyn Fn(&Path)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = mount_below(below, dir.path());
        let mut mounted = Self {
            dir,
            _image: image,
            lowers: Vec::new(),
            options: options.to_owned(),
        };
        for name in ["upper", "work", "merged"] {
            fs::create_dir(mounted.path(name)).unwrap();
        }
        for (number, fill) in fill.iter().enumerate() {
            let lower = mounted.path(&format!("lower{number}"));
            fs::create_dir(&lower).unwrap();
            fill(&lower);
            mounted.lowers.push(lower);
        }
        mounted.mount();
        mounted
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn merged(&self, name: &str) -> PathBuf {
        self.path("merged").join(name)
    }

    fn mount(&self) {
        let lowers: Vec<_> = self
            .lowers
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}{}",
            lowers.join(":"),
            self.path("upper").display(),
            self.path("work").display(),
            self.options
        );
        let merged = self.path("merged");
        run(
            "mount",
            &[
                "-t",
                "overlay",
                "overlay",
                "-o",
                &options,
                merged.to_str().unwrap(),
            ],
        );
    }

    fn unmount(&self) {
        run("umount", &[self.path("merged").to_str().unwrap()]);
    }

    fn xattrs(&self) -> OverlayXattrs {
        match self.options.contains("userxattr") {
            true => OverlayXattrs::User,
            false => OverlayXattrs::FOLLOWED,
        }
    }

    fn attach(&self, baseline: Baseline) -> FsCollector {
        self.attach_with(FsConfig {
            baseline,
            overlay_xattrs: self.xattrs(),
            ..FsConfig::default()
        })
    }

    fn attach_with(&self, config: FsConfig) -> FsCollector {
        let source = Source::Overlay {
            upper: self.path("upper"),
            lowers: self.lowers.clone(),
        };
        FsCollector::attach(source, config).unwrap()
    }
}

/// Mounts a new file system at `at`. A loop device goes with its last mount.
fn mount_below(below: Below, at: &Path) -> Option<tempfile::TempDir> {
    let at = at.to_str().unwrap();
    let (make, size) = match below {
        Below::Tmpfs => {
            run("mount", &["-t", "tmpfs", "tmpfs", at]);
            return None;
        }
        Below::Ext4 => (&["mkfs.ext4", "-q", "-F"], 64 << 20),
        Below::Xfs => (&["mkfs.xfs", "-q", "-f"], 400 << 20),
    };
    let memory = tempfile::tempdir_in("/dev/shm");
    let dir = memory.or_else(|_| tempfile::tempdir()).unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(size).unwrap();
    let image = image.to_str().unwrap();
    let [program, options @ ..] = make;
    run(program, &[options, &[image][..]].concat());
    run("mount", &["-o", "loop", image, at]);
    Some(dir)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for path in [self.path("merged"), self.dir.path().to_owned()] {
            let _ = std::process::Command::new("umount")
                .arg("-l")
                .arg(path)
                .output();
        }
    }
}

/// Each option is named: what is left out is as the host's kernel was built.
/// With metacopy the kernel wants redirects as well.
const OPTIONS: [&str; 8] = [
    ",index=off,metacopy=off,redirect_dir=off",
    ",index=on,metacopy=off,redirect_dir=off",
    ",index=off,metacopy=off,redirect_dir=on",
    ",index=off,metacopy=on,redirect_dir=on",
    ",index=on,metacopy=off,redirect_dir=on",
    ",index=on,metacopy=on,redirect_dir=on",
    ",index=off,userxattr",
    ",index=on,userxattr",
];

fn home(root: &Path) {
    for dir in ["home/agent", "etc/conf.d", "deep/a/b"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in [
        "home/agent/notes",
        "etc/hosts",
        "etc/conf.d/one",
        "deep/a/file",
        "deep/a/b/leaf",
    ] {
        fs::write(root.join(file), format!("content of {file}\n")).unwrap();
    }
    fs::write(root.join("large"), vec![b'l'; 50_000]).unwrap();
    symlink("etc/hosts", root.join("link")).unwrap();
}

fn scan(collector: &mut FsCollector) -> Report {
    let report = Report::of(collector, QuiesceMethod::Live);
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    report
}

/// Applies `change` to the merged view and compares what a scan says.
#[track_caller]
fn check(
    mounted: &Mounted,
    collector: &mut FsCollector,
    change: impl FnOnce(&Path),
    expected: &[&str],
) {
    change(&mounted.path("merged"));
    let lines = scan(collector).lines();
    assert_eq!(lines, expected, "{}", mounted.options);
    assert_eq!(scan(collector).lines(), [""; 0], "{}", mounted.options);
}

#[test]
fn every_operation_is_told() {
    if !is_root("every_operation_is_told") {
        return;
    }
    for options in OPTIONS {
        let mounted = Mounted::new(options, &[&home]);
        let mut collector = mounted.attach(Baseline::AtAttach);
        let mut check = |change: &dyn Fn(&Path), expected: &[&str]| {
            check(&mounted, &mut collector, change, expected);
        };
        check(
            &|root| fs::write(root.join("home/agent/new"), "new").unwrap(),
            &["Created File /home/agent/new"],
        );
        check(
            &|root| fs::write(root.join("etc/hosts"), "changed").unwrap(),
            &["Modified File /etc/hosts"],
        );
        // A copy up without a change: opened for writing, nothing written.
        check(
            &|root| {
                let mut options = fs::OpenOptions::new();
                options
                    .append(true)
                    .open(root.join("home/agent/notes"))
                    .unwrap();
            },
            &[],
        );
        check(
            &|root| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(root.join("large"), mode).unwrap();
            },
            &["Metadata File /large"],
        );
        check(
            &|root| fs::rename(root.join("large"), root.join("moved")).unwrap(),
            &["Renamed File /moved < /large"],
        );
        check(
            &|root| fs::hard_link(root.join("moved"), root.join("second")).unwrap(),
            &["Created File /second"],
        );
        check(
            &|root| fs::remove_file(root.join("moved")).unwrap(),
            &["Deleted File /moved"],
        );
        check(
            &|root| {
                fs::remove_file(root.join("link")).unwrap();
                symlink("/elsewhere", root.join("link")).unwrap();
            },
            &["Modified Symlink /link"],
        );
        check(
            &|root| fs::remove_dir_all(root.join("deep/a")).unwrap(),
            &[
                "Deleted Dir /deep/a",
                "Deleted Dir /deep/a/b",
                "Deleted File /deep/a/b/leaf",
                "Deleted File /deep/a/file",
            ],
        );
        // An opaque directory: the new one shows nothing of the old.
        check(
            &|root| {
                fs::create_dir_all(root.join("deep/a/b")).unwrap();
                fs::write(root.join("deep/a/file"), "again").unwrap();
            },
            &[
                "Created Dir /deep/a",
                "Created Dir /deep/a/b",
                "Created File /deep/a/file",
            ],
        );
        // A directory becomes a file.
        check(
            &|root| {
                fs::remove_dir_all(root.join("etc/conf.d")).unwrap();
                fs::write(root.join("etc/conf.d"), "file").unwrap();
            },
            &["Modified File /etc/conf.d", "Deleted File /etc/conf.d/one"],
        );
    }
}

/// The same as seen against the lower layers, in one scan.
#[test]
fn against_the_lower_layers_all_changes_are_told_at_once() {
    if !is_root("against_the_lower_layers_all_changes_are_told_at_once") {
        return;
    }
    let mounted = Mounted::new("", &[&home]);
    fs::write(mounted.merged("etc/hosts"), "changed").unwrap();
    fs::remove_dir_all(mounted.merged("deep")).unwrap();
    fs::create_dir(mounted.merged("deep")).unwrap();
    fs::rename(mounted.merged("large"), mounted.merged("big")).unwrap();
    let mut collector = mounted.attach(Baseline::Lowers);
    let report = scan(&mut collector);
    assert_eq!(
        report.lines(),
        [
            "Renamed File /big < /large",
            "Deleted Dir /deep/a",
            "Deleted Dir /deep/a/b",
            "Deleted File /deep/a/b/leaf",
            "Deleted File /deep/a/file",
            "Modified File /etc/hosts",
        ]
    );
    let hosts = report.change("/etc/hosts");
    assert_eq!(
        hosts.sha256,
        Some(Digest(sha2::Sha256::digest("changed").into()))
    );
    assert_eq!(hosts.size_before.map(|count| count.0), Some(21));
    assert_eq!(hosts.size_after.map(|count| count.0), Some(7));
    assert_eq!(scan(&mut collector).lines(), [""; 0]);
}

/// With redirects a renamed directory's children are not in the upper dir.
#[test]
fn a_redirected_directory_shows_what_it_took_along() {
    if !is_root("a_redirected_directory_shows_what_it_took_along") {
        return;
    }
    let mounted = Mounted::new(",metacopy=on,redirect_dir=on", &[&home]);
    let mut collector = mounted.attach(Baseline::AtAttach);
    fs::rename(mounted.merged("deep/a"), mounted.merged("etc/b")).unwrap();
    fs::write(mounted.merged("etc/b/file"), "changed").unwrap();
    let report = scan(&mut collector);
    assert_eq!(
        report.lines(),
        [
            "Deleted File /deep/a/file",
            "Renamed Dir /etc/b < /deep/a",
            "Renamed Dir /etc/b/b < /deep/a/b",
            "Renamed File /etc/b/b/leaf < /deep/a/b/leaf",
            "Created File /etc/b/file",
        ]
    );
    assert!(report.change("/etc/b/b/leaf").sha256.is_some());
}

/// Layers under the lower layer: whiteouts, opaque directories and redirects
/// of an earlier overlay count as well.
#[test]
fn lower_layers_that_were_upper_once_are_merged() {
    if !is_root("lower_layers_that_were_upper_once_are_merged") {
        return;
    }
    let options = ",metacopy=on,redirect_dir=on";
    let mut mounted = Mounted::new(options, &[&home]);
    fs::remove_file(mounted.merged("etc/hosts")).unwrap();
    fs::rename(mounted.merged("deep/a"), mounted.merged("moved")).unwrap();
    fs::set_permissions(mounted.merged("large"), fs::Permissions::from_mode(0o600)).unwrap();
    mounted.unmount();
    fs::rename(mounted.path("upper"), mounted.path("middle")).unwrap();
    fs::create_dir(mounted.path("upper")).unwrap();
    fs::remove_dir_all(mounted.path("work")).unwrap();
    fs::create_dir(mounted.path("work")).unwrap();
    mounted.lowers.insert(0, mounted.path("middle"));
    mounted.mount();
    let mut collector = mounted.attach(Baseline::AtAttach);
    fs::write(mounted.merged("etc/hosts"), "back").unwrap();
    fs::rename(mounted.merged("moved/b"), mounted.merged("b")).unwrap();
    fs::set_permissions(mounted.merged("large"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(mounted.merged("moved/file")).unwrap();
    assert_eq!(
        scan(&mut collector).lines(),
        [
            "Renamed Dir /b < /moved/b",
            "Renamed File /b/leaf < /moved/b/leaf",
            "Created File /etc/hosts",
            "Metadata File /large",
            "Deleted File /moved/file",
        ]
    );
}

/// What the sandbox may set itself means nothing where the overlay ignores it.
#[test]
fn marks_of_the_other_prefix_are_ignored() {
    if !is_root("marks_of_the_other_prefix_are_ignored") {
        return;
    }
    let mounted = Mounted::new("", &[&home]);
    let mut collector = mounted.attach(Baseline::AtAttach);
    fs::write(mounted.merged("etc/hosts"), "evil").unwrap();
    let upper = mounted.path("upper");
    let hosts = upper.join("etc/hosts");
    set_xattr(&hosts, "user.overlay.metacopy", "");
    set_xattr(upper.join("etc"), "user.overlay.opaque", "y");
    let report = scan(&mut collector);
    // To this overlay they are attributes like any other.
    assert_eq!(
        report.lines(),
        ["Metadata Dir /etc", "Modified File /etc/hosts"]
    );
    assert_eq!(
        report.change("/etc").xattrs_changed,
        ["user.overlay.opaque"]
    );
    let evil = Digest(sha2::Sha256::digest("evil").into());
    assert_eq!(report.change("/etc/hosts").sha256, Some(evil));
}

#[test]
fn marked_empty_files_are_whiteouts() {
    if !is_root("marked_empty_files_are_whiteouts") {
        return;
    }
    let mounted = Mounted::new("", &[&home]);
    let mut collector = mounted.attach(Baseline::AtAttach);
    let upper = mounted.path("upper");
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::create_dir_all(upper.join("deep/a")).unwrap();
    for (file, dir) in [("etc/hosts", "etc"), ("deep/a/file", "")] {
        let file = upper.join(file);
        fs::write(&file, "").unwrap();
        set_xattr(&file, "trusted.overlay.whiteout", "");
        if !dir.is_empty() {
            let dir = upper.join(dir);
            set_xattr(&dir, "trusted.overlay.opaque", "x");
        }
    }
    // Only a directory marked "x" may hold them: elsewhere it is an empty file.
    assert_eq!(
        scan(&mut collector).lines(),
        ["Modified File /deep/a/file", "Deleted File /etc/hosts"]
    );
}

#[test]
fn bounds_become_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let [upper, lower] = ["upper", "lower"].map(|name| dir.path().join(name));
    for path in [&upper, &lower] {
        fs::create_dir(path).unwrap();
    }
    let source = || Source::Overlay {
        upper: upper.clone(),
        lowers: vec![lower.clone()],
    };
    let config = FsConfig {
        max_paths: 20,
        ..FsConfig::default()
    };
    let mut collector = FsCollector::attach(source(), config).unwrap();
    for number in 0..50 {
        fs::write(upper.join(format!("{number}")), "x").unwrap();
    }
    let report = Report::of(&mut collector, QuiesceMethod::Live);
    assert_eq!(report.changes.len(), 19);
    assert_eq!(report.gaps[0].cause, GapCause::ScanBound);
    fs::remove_dir_all(&upper).unwrap();
    let report = Report::of(&mut collector, QuiesceMethod::Live);
    assert_eq!(report.lines().len(), 19, "the open directory is empty now");
    assert!(FsCollector::attach(source(), FsConfig::default()).is_err());
}

#[test]
fn the_kernels_own_mountinfo_is_understood() {
    if !is_root("the_kernels_own_mountinfo_is_understood") {
        return;
    }
    let mut mounted = Mounted::new("", &[&home]);
    mounted.unmount();
    let odd = ["a:b", "c,d", "e f", "g\\h"].map(|name| mounted.path(name));
    for path in &odd {
        fs::create_dir(path).unwrap();
    }
    let escape = |path: &PathBuf| {
        let path = path.to_str().unwrap().replace('\\', "\\\\");
        path.replace(':', "\\:").replace(',', "\\,")
    };
    mounted.lowers = odd.iter().map(|path| PathBuf::from(escape(path))).collect();
    mounted.mount();
    let text = fs::read("/proc/self/mountinfo").unwrap();
    let found = mount_for_upper(&text, &mounted.path("upper")).unwrap();
    assert_eq!(found.lowers, odd);
    assert_eq!(found.mount_point, mounted.path("merged"));
}
