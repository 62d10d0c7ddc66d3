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

/// Without metacopy and redirects the kernel looks into data-only layers all the same
/// (since Linux 6.16), if nothing of the merge is below the name.
#[test]
fn content_in_a_data_only_layer_needs_no_metacopy() {
    if !is_root("content_in_a_data_only_layer_needs_no_metacopy") {
        return;
    }
    for (options, prefix) in [
        (",redirect_dir=nofollow", "trusted"),
        (",userxattr", "user"),
    ] {
        let mut mounted = Mounted::new(options, &[&|_: &Path| {}]);
        mounted.unmount();
        let [lower, other, data] = ["named", "other", "data"].map(|name| mounted.path(name));
        for dir in [&lower, &other, &data] {
            fs::create_dir(dir).unwrap();
        }
        blob(&data);
        let tool = lower.join("tool");
        fs::File::create(&tool)
            .unwrap()
            .set_len(CONTENT.len() as u64)
            .unwrap();
        set_xattr(&tool, &format!("{prefix}.overlay.metacopy"), "");
        set_xattr(&tool, &format!("{prefix}.overlay.redirect"), "/blobs/1f");
        for lowers in [vec![lower.clone()], vec![lower.clone(), other]] {
            mounted.lowers = [&lowers[..], &["".into(), data.clone()]].concat();
            mounted.mount();
            let inside = fs::read(mounted.merged("tool"));
            let text = fs::read("/proc/self/mountinfo").unwrap();
            let found = mount_for_upper(&text, &mounted.path("upper")).unwrap();
            mounted.unmount();
            let config = FsConfig {
                data_layers: vec![data.clone()],
                overlay_xattrs: found.xattrs,
                ..FsConfig::default()
            };
            mounted.lowers = lowers.clone();
            let mut collector = mounted.attach_with(config);
            let copied = mounted.path("upper/tool");
            fs::write(&copied, CONTENT).unwrap();
            let report = Report::of(&mut collector, QuiesceMethod::Live);
            fs::remove_file(copied).unwrap();
            match inside {
                // It was copied up as it was.
                Ok(_) => assert!(report.lines().iter().all(|line| !line.contains("Modified"))),
                Err(_) if lowers.len() == 1 => println!("this kernel does not look there"),
                Err(_) => assert_ne!(report.lines(), [""; 0]),
            }
        }
    }
}
