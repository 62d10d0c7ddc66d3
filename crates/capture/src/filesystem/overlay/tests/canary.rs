//! Nothing outside the layers is opened, however links and redirects point.

use super::super::super::testing::{Report, is_root, set_xattr};
use super::super::super::wake::Wakeups;
use super::super::super::{Baseline, FsConfig, Source};
use super::{Mounted, home};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use sandtrace_event::{Digest, FileOp, GapCause, QuiesceMethod};
use sha2::Digest as _;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Files of the host, and whoever opens, lists or reads one of them.
struct Canary {
    dir: PathBuf,
    events: OwnedFd,
}

impl Canary {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("inner")).unwrap();
        for name in ["canary", "inner/canary"] {
            fs::write(dir.join(name), "canary").unwrap();
        }
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let kinds = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE;
        for name in ["", "canary", "inner", "inner/canary"] {
            add_watch(&events, dir.join(name), kinds).unwrap();
        }
        let canary = Self { dir, events };
        // It sings when it is touched.
        fs::read(canary.dir.join("inner/canary")).unwrap();
        assert!(canary.sang() > 0);
        canary
    }

    /// Events since it was last asked.
    fn sang(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.events, &mut buffer);
        std::iter::from_fn(|| reader.next().ok().map(drop)).count()
    }
}

/// A directory and a metacopy file of the upper dir that point at `target`.
fn redirect(upper: &Path, name: &str, target: &str) {
    let dir = upper.join(name);
    fs::create_dir(&dir).unwrap();
    set_xattr(&dir, "trusted.overlay.redirect", target);
    let file = upper.join(format!("{name}.meta"));
    fs::File::create(&file).unwrap().set_len(6).unwrap();
    set_xattr(&file, "trusted.overlay.metacopy", "");
    let target = format!("{target}/canary");
    set_xattr(&file, "trusted.overlay.redirect", &target);
}

#[test]
fn links_and_forged_redirects_lead_nowhere() {
    if !is_root("links_and_forged_redirects_lead_nowhere") {
        return;
    }
    let mounted = Mounted::new(",redirect_dir=on,metacopy=on", &[&home]);
    let outside = Canary::new(mounted.path("outside"));
    let upper = mounted.path("upper");
    let canary = outside.dir.join("canary");
    symlink(&canary, upper.join("to-file")).unwrap();
    symlink(&outside.dir, upper.join("to-dir")).unwrap();
    symlink(&outside.dir, mounted.lowers[0].join("lower-dir")).unwrap();
    fs::create_dir(upper.join("lower-dir")).unwrap();
    for (name, target) in [
        ("absolute", outside.dir.to_str().unwrap()),
        ("up", "/../outside"),
        ("dots", "../outside"),
        ("through-link", "/lower-dir"),
        ("below-link", "/lower-dir/inner"),
        ("by-process", "/proc/self/root/tmp"),
    ] {
        redirect(&upper, name, target);
    }
    // A data-only layer is searched by whole paths.
    let data = mounted.path("data");
    fs::create_dir(&data).unwrap();
    symlink(&outside.dir, data.join("lower-dir")).unwrap();
    let mut collector = mounted.attach_with(FsConfig {
        baseline: Baseline::Lowers,
        data_layers: vec![data],
        ..FsConfig::default()
    });
    let report = Report::of(&mut collector, QuiesceMethod::Live);
    assert_eq!(report.change("/to-file").op, FileOp::Created);
    assert_eq!(
        report.change("/to-file").symlink_target.as_deref(),
        canary.to_str()
    );
    let forbidden = Digest(sha2::Sha256::digest("canary").into());
    for change in &report.changes {
        assert!(!change.path.contains("inner"), "{change:?}");
        assert_ne!(change.sha256, Some(forbidden), "{change:?}");
        if change.path.ends_with(".meta") {
            assert!(change.unreadable.is_some(), "{change:?}");
        }
    }
    let is_told = |gap: &sandtrace_event::CaptureGap| gap.cause == GapCause::DiskUnreadable;
    assert!(report.gaps.iter().any(is_told));
    Report::of(&mut collector, QuiesceMethod::Detached);
    assert_eq!(outside.sang(), 0);
}

/// What was a directory when it was listed is a link when it is opened.
#[test]
fn links_that_come_while_it_is_read_lead_nowhere() {
    if !is_root("links_that_come_while_it_is_read_lead_nowhere") {
        return;
    }
    let mounted = Mounted::new("", &[&home]);
    let outside = Canary::new(mounted.path("outside"));
    let upper = mounted.path("upper");
    let [place, dir, link] = ["place", "dir", "link"].map(|name| upper.join(name));
    for name in ["inner", "other"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(dir.join("canary"), "own").unwrap();
    fs::write(dir.join("inner/canary"), "own").unwrap();
    symlink(&outside.dir, &link).unwrap();
    let is_over = AtomicBool::new(false);
    let path = upper.clone();
    let mut wakeups = Wakeups::of(&Source::Directory { path }).unwrap();
    let mut links = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for name in [&dir, &link] {
                    fs::rename(name, &place).unwrap();
                    std::thread::yield_now();
                    fs::rename(&place, name).unwrap();
                }
            }
        });
        let mut collector = mounted.attach(Baseline::Lowers);
        for _ in 0..150 {
            let report = Report::of(&mut collector, QuiesceMethod::Detached);
            let changes = report.changes.iter();
            links += changes
                .filter(|change| change.symlink_target.is_some())
                .count();
            wakeups.take();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(links > 3, "{links}");
    assert_eq!(outside.sang(), 0);
}
