//! Redirects and metacopies that the overlay itself refuses to follow.

use super::super::super::testing::{Report, is_root, set_xattr};
use super::super::super::{Baseline, FsConfig, OverlayXattrs};
use super::{Mounted, home, mount_for_upper};
use sandtrace_event::{GapCause, QuiesceMethod};
use std::fs;
use std::io;

/// A scan as the mount says that the overlay is to be read.
fn scan(mounted: &Mounted) -> (OverlayXattrs, Report) {
    let mounts = fs::read("/proc/self/mountinfo").unwrap();
    let mount = mount_for_upper(&mounts, &mounted.path("upper")).unwrap();
    let mut collector = mounted.attach_with(FsConfig {
        baseline: Baseline::Lowers,
        overlay_xattrs: mount.xattrs,
        ..FsConfig::default()
    });
    let report = Report::of(&mut collector, QuiesceMethod::Live);
    (mount.xattrs, report)
}

#[test]
fn a_redirect_that_the_overlay_does_not_follow_is_a_gap() {
    if !is_root("a_redirect_that_the_overlay_does_not_follow_is_a_gap") {
        return;
    }
    let mut mounted = Mounted::new(",redirect_dir=on", &[&home]);
    fs::rename(mounted.merged("deep"), mounted.merged("moved")).unwrap();
    let shows = |report: &Report| {
        let mut lines = report.lines().into_iter();
        lines.any(|line| line.contains("/moved/a/file"))
    };
    let (xattrs, report) = scan(&mounted);
    assert!(matches!(xattrs, OverlayXattrs::Trusted { redirects, .. } if redirects));
    assert!(shows(&report) && report.gaps.is_empty(), "{report:?}");
    mounted.unmount();
    mounted.options = ",redirect_dir=nofollow".to_owned();
    mounted.mount();
    // So sees it who is in the sandbox.
    let inside = fs::metadata(mounted.merged("moved")).unwrap_err();
    assert_eq!(inside.kind(), io::ErrorKind::PermissionDenied);
    let (xattrs, report) = scan(&mounted);
    assert!(matches!(xattrs, OverlayXattrs::Trusted { redirects, .. } if !redirects));
    assert!(!shows(&report), "{:?}", report.lines());
    let [gap] = report.gaps.as_slice() else {
        panic!("{:?}", report.gaps);
    };
    assert_eq!(gap.cause, GapCause::DiskUnreadable);
    assert!(gap.detail.contains("redirect_dir=nofollow"), "{gap:?}");
}

/// Marks as another mount of the same directories left them, or an image brought them.
#[track_caller]
fn check_refused(options: &str, prefix: &str) {
    let mounted = Mounted::new(options, &[&home]);
    mounted.unmount();
    let (moved, bare) = (mounted.path("upper/moved"), mounted.path("upper/bare"));
    fs::create_dir(&moved).unwrap();
    set_xattr(&moved, &format!("{prefix}.overlay.redirect"), "/deep");
    fs::File::create(&bare).unwrap().set_len(7).unwrap();
    set_xattr(&bare, &format!("{prefix}.overlay.metacopy"), "");
    mounted.mount();
    for name in ["moved", "bare"] {
        let inside = fs::metadata(mounted.merged(name))
            .err()
            .map(|error| error.kind());
        assert_eq!(
            inside,
            Some(io::ErrorKind::PermissionDenied),
            "{options} {name}"
        );
    }
    let (_, report) = scan(&mounted);
    let said: Vec<_> = report.gaps.iter().map(|gap| gap.detail.as_str()).collect();
    let said = said.concat();
    assert!(said.contains("redirect_dir=nofollow"), "{options}: {said}");
    let bare = report.change("/bare");
    let unreadable = bare.unreadable.as_deref().unwrap_or_default();
    assert!(unreadable.contains("metacopy=off"), "{options}: {bare:?}");
    assert_eq!(bare.sha256, None);
}

#[test]
fn marks_that_the_overlay_does_not_follow_are_refused() {
    if !is_root("marks_that_the_overlay_does_not_follow_are_refused") {
        return;
    }
    check_refused(",metacopy=off,redirect_dir=nofollow", "trusted");
    check_refused(",userxattr", "user");
}
