//! Redirects that the overlay itself refuses to follow.

use super::super::super::testing::{Report, is_root};
use super::super::super::{Baseline, FsConfig, OverlayXattrs};
use super::{Mounted, home, mount_for_upper};
use sandtrace_event::{GapCause, QuiesceMethod};
use std::fs;

#[test]
fn a_redirect_that_the_overlay_does_not_follow_is_a_gap() {
    if !is_root("a_redirect_that_the_overlay_does_not_follow_is_a_gap") {
        return;
    }
    let mut mounted = Mounted::new(",redirect_dir=on", &[&home]);
    fs::rename(mounted.merged("deep"), mounted.merged("moved")).unwrap();
    let scan = |mounted: &Mounted| {
        let mounts = fs::read("/proc/self/mountinfo").unwrap();
        let mount = mount_for_upper(&mounts, &mounted.path("upper")).unwrap();
        let mut collector = mounted.attach_with(FsConfig {
            baseline: Baseline::Lowers,
            overlay_xattrs: mount.xattrs,
            ..FsConfig::default()
        });
        (
            mount.xattrs,
            Report::of(&mut collector, QuiesceMethod::Live),
        )
    };
    let shows = |report: &Report| {
        let mut lines = report.lines().into_iter();
        lines.any(|line| line.contains("/moved/a/file"))
    };
    let (xattrs, report) = scan(&mounted);
    assert_eq!(xattrs, OverlayXattrs::Trusted);
    assert!(shows(&report) && report.gaps.is_empty(), "{report:?}");
    mounted.unmount();
    mounted.options = ",redirect_dir=nofollow".to_owned();
    mounted.mount();
    // So sees it who is in the sandbox.
    let inside = fs::metadata(mounted.merged("moved")).unwrap_err();
    assert_eq!(inside.kind(), std::io::ErrorKind::PermissionDenied);
    let (xattrs, report) = scan(&mounted);
    assert_eq!(xattrs, OverlayXattrs::Unfollowed);
    assert!(!shows(&report), "{:?}", report.lines());
    let [gap] = report.gaps.as_slice() else {
        panic!("{:?}", report.gaps);
    };
    assert_eq!(gap.cause, GapCause::DiskUnreadable);
    assert!(gap.detail.contains("redirect_dir=nofollow"), "{gap:?}");
}
