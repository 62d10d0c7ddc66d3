//! Lower layers that hold nothing but the content of files in others
//! (Linux 6.5, Documentation/filesystems/overlayfs.rst, "Data-only lower
//! layers"), as image stores keep it.

use super::super::super::testing::{Report, is_root, set_xattr};
use super::super::super::{Baseline, FsConfig};
use super::{Mounted, mount_for_upper};
use sandtrace_event::{Digest, QuiesceMethod};
use sha2::Digest as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const CONTENT: &[u8] = b"content that only a data layer holds";

/// A name whose content is elsewhere.
fn named(root: &Path) {
    let path = root.join("tool");
    let file = fs::File::create(&path).unwrap();
    file.set_len(CONTENT.len() as u64).unwrap();
    set_xattr(&path, "trusted.overlay.metacopy", "");
    set_xattr(&path, "trusted.overlay.redirect", "/blobs/1f");
}

fn blob(root: &Path) {
    fs::create_dir(root.join("blobs")).unwrap();
    fs::write(root.join("blobs/1f"), CONTENT).unwrap();
}

#[test]
fn content_in_a_data_only_layer_is_read_from_there() {
    if !is_root("content_in_a_data_only_layer_is_read_from_there") {
        return;
    }
    let mut mounted = Mounted::new("", &[&|_: &Path| {}]);
    mounted.unmount();
    let [lower, data] = ["named", "data"].map(|name| mounted.path(name));
    for (path, fill) in [(&lower, named as fn(&Path)), (&data, blob)] {
        fs::create_dir(path).unwrap();
        fill(path);
    }
    // With two colons before it.
    mounted.lowers = vec![lower, "".into(), data];
    mounted.options = ",metacopy=on,redirect_dir=on".to_owned();
    mounted.mount();
    assert_eq!(fs::read(mounted.merged("tool")).unwrap(), CONTENT);

    let text = fs::read("/proc/self/mountinfo").unwrap();
    let found = mount_for_upper(&text, &mounted.path("upper")).unwrap();
    assert_eq!(found.data, [mounted.path("data")]);
    mounted.lowers = found.lowers;
    let mut collector = mounted.attach_with(FsConfig {
        baseline: Baseline::AtAttach,
        data_layers: found.data,
        ..FsConfig::default()
    });
    let mut scan = || {
        let report = Report::of(&mut collector, QuiesceMethod::Live);
        assert!(report.gaps.is_empty(), "{:?}", report.gaps);
        report
    };
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(mounted.merged("tool"), mode).unwrap();
    assert_eq!(scan().lines(), ["Metadata File /tool"]);
    fs::rename(mounted.merged("tool"), mounted.merged("moved")).unwrap();
    let report = scan();
    assert_eq!(report.lines(), ["Renamed File /moved < /tool"]);
    let moved = report.change("/moved");
    assert_eq!(
        moved.sha256,
        Some(Digest(sha2::Sha256::digest(CONTENT).into()))
    );
    assert_eq!(moved.unreadable, None);
    fs::write(mounted.merged("moved"), "other").unwrap();
    assert_eq!(scan().lines(), ["Modified File /moved"]);
}
