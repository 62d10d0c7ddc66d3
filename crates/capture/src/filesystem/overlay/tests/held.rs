//! Files that are mapped, and written to much later.

use super::super::super::testing::{Report, is_root};
use super::super::super::{Baseline, FsCollector, FsConfig, ImageFormat, Source};
use super::{Mounted, home, scan};
use sandtrace_event::QuiesceMethod;
use sandtrace_sys::mapped::Mapping;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

fn mapped(path: &Path) -> Mapping {
    let file = File::options().read(true).write(true).open(path).unwrap();
    Mapping::of(&file).unwrap()
}

/// Longer than any time of change is doubted.
fn rest() {
    std::thread::sleep(Duration::from_millis(1200));
}

/// A tmpfs notes no time of what is written to a mapping: the last scan reads
/// everything anew.
#[test]
fn a_write_to_a_mapping_that_is_held_is_told_by_the_last_scan() {
    if !is_root("a_write_to_a_mapping_that_is_held_is_told_by_the_last_scan") {
        return;
    }
    let mounted = Mounted::new("", &[&home]);
    let path = mounted.merged("etc/hosts");
    fs::write(&path, "one").unwrap();
    let mut mapping = mapped(&path);
    mapping.write(b"two");
    let mut collector = mounted.attach(Baseline::AtAttach);
    rest();
    assert_eq!(scan(&mut collector).lines(), [""; 0]);
    let modified = || path.metadata().unwrap().modified().unwrap();
    let before = modified();
    mapping.write(b"3ee");
    assert_eq!(modified(), before);
    let report = Report::of(&mut collector, QuiesceMethod::Detached);
    assert_eq!(report.lines(), ["Modified File /etc/hosts"]);
    assert!(report.changes[0].quiesced);
}

/// So of an image that a VMM has mapped, as far as its times tell nothing.
#[test]
fn a_write_to_an_image_that_is_mapped_is_told_by_the_last_scan() {
    if !Path::new("/dev/shm").is_dir() {
        println!("skipped: an image that is mapped: no /dev/shm");
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("disk.img");
    // No file system, so that its bytes alone are told of.
    fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    let source = Source::Image {
        path: path.clone(),
        format: ImageFormat::Raw,
    };
    let mut mapping = mapped(&path);
    mapping.write(b"one");
    rest();
    let mut collector = FsCollector::attach(source, FsConfig::default()).unwrap();
    let gaps = |collector: &mut FsCollector, how| {
        let gaps = Report::of(collector, how).gaps.into_iter();
        gaps.map(|gap| gap.detail).collect::<String>()
    };
    assert!(gaps(&mut collector, QuiesceMethod::Live).contains("not an ext2"));
    assert_eq!(gaps(&mut collector, QuiesceMethod::Live), "");
    mapping.write(b"two");
    let last = gaps(&mut collector, QuiesceMethod::Detached);
    assert!(
        last.contains("65536 bytes of it differ since all of the disk was last read"),
        "{last}"
    );
}
