//! Scans of qcow2 images above other images.

use super::super::super::testing::{Report, has_program, is_root, run};
use super::super::super::{FsCollector, FsConfig, ImageFormat, Source};
use super::device::{content_at, filled, read_so_far};
use super::{Made, scan};
use sandtrace_event::QuiesceMethod;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An image above `base`, in the same directory.
fn above(base: &Path) -> PathBuf {
    let top = base.with_extension("qcow2");
    let [below, path] = [base, &top].map(|path| path.to_str().unwrap());
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", below, path,
        ],
    );
    top
}

fn attach(path: PathBuf) -> FsCollector {
    let format = ImageFormat::Qcow2;
    let source = Source::Image { path, format };
    FsCollector::attach(source, FsConfig::default()).unwrap()
}

/// Writes to a disk as a guest would.
fn write(image: &Path, at: u64, len: usize) {
    let order = format!("write -q -P 98 {at} {len}");
    let image = image.to_str().unwrap();
    run("qemu-io", &["-f", "qcow2", "-c", &order, image]);
}

/// What a scan reported, and how much it read.
fn measured(collector: &mut FsCollector) -> (Report, u64) {
    let before = read_so_far();
    let report = scan(collector);
    (report, read_so_far() - before)
}

/// Much of the disk is content that nobody looks at any more.
fn full(root: &Path) {
    filled(root);
    fs::write(root.join("much"), vec![b'm'; 8 << 20]).unwrap();
}

#[test]
fn what_only_the_image_below_has_is_read_once() {
    let test = "what_only_the_image_below_has_is_read_once";
    if !has_program(test, "qemu-img") || !has_program(test, "qemu-io") {
        return;
    }
    let made = Made::new(&["-b", "4096"], full);
    let at = content_at(&made.path());
    let top = above(&made.path());
    // What is below is trusted to rest once it has for a second.
    std::thread::sleep(Duration::from_millis(1200));
    let mut collector = attach(top.clone());
    // Sums of the first state are taken without a clock.
    write(&top, at, 4096);
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
    for piece in 1..3 {
        write(&top, at + piece * 65536, 4096);
        let (report, read) = measured(&mut collector);
        assert_eq!(report.lines(), ["Modified File /config"]);
        assert!(read < 3 << 20, "{read} bytes");
    }
    // Unless somebody writes to it all the same.
    let below = fs::OpenOptions::new().write(true).open(made.path());
    below.unwrap().write_all_at(b"below", at + 800_000).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
    write(&top, at + 5 * 65536, 4096);
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
}

/// A copy of the image file shares all clusters with it that nobody wrote.
#[test]
fn an_image_is_compared_with_a_reflink_copy_of_it() {
    let test = "an_image_is_compared_with_a_reflink_copy_of_it";
    let has_all = ["mkfs.xfs", "qemu-img", "qemu-io"].map(|name| has_program(test, name));
    if !is_root(test) || has_all.contains(&false) {
        return;
    }
    let made = Made::new(&["-b", "4096"], full);
    let at = content_at(&made.path());
    let host = made.dir.path().join("host.img");
    fs::File::create(&host).unwrap().set_len(400 << 20).unwrap();
    let mount = made.dir.path().join("host");
    fs::create_dir(&mount).unwrap();
    let [host, place] = [&host, &mount].map(|path| path.to_str().unwrap());
    run("mkfs.xfs", &["-q", host]);
    run("mount", &["-o", "loop", host, place]);
    let base = mount.join("base.img");
    fs::copy(made.path(), &base).unwrap();
    let top = above(&base);
    let mut collector = attach(top.clone());
    let mut told = Vec::new();
    for piece in 0..3 {
        write(&top, at + piece * 65536, 4096);
        told.push(measured(&mut collector));
    }
    drop(collector);
    run("umount", &[place]);
    for (report, read) in told {
        assert_eq!(report.lines(), ["Modified File /config"]);
        let method = report.changes[0].quiesce_method;
        assert_eq!(method, QuiesceMethod::Snapshot);
        assert!(read < 3 << 20, "{read} bytes");
    }
}
