//! Scans of block devices: what was not written to is not read.

use super::super::super::testing::{is_root, run};
use super::super::super::{FsCollector, FsConfig};
use super::{Made, scan, source};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A loop device over a file.
struct Loop(PathBuf);

impl Loop {
    fn over(path: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn in_sysfs(&self, file: &str) -> PathBuf {
        let name = self.0.file_name().unwrap();
        Path::new("/sys/class/block").join(name).join(file)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The kernel keeps what was set, and a partition that was added by hand.
        let _ = fs::write(self.in_sysfs("queue/iostats"), "1");
        let _ = Command::new("delpart").arg(&self.0).arg("1").output();
        let _ = Command::new("losetup").arg("-d").arg(&self.0).output();
    }
}

/// What this thread has read so far, in bytes.
pub(super) fn read_so_far() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

/// Bytes read by a scan that finds nothing new.
fn idle_scan(collector: &mut FsCollector) -> u64 {
    let before = read_so_far();
    let report = scan(collector);
    assert_eq!(report.lines(), [""; 0]);
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    read_so_far() - before
}

/// Of 16 MiB, next to nothing.
const NOTHING: u64 = 64 << 10;

/// Times of the file behind a device are trusted once they are a second old.
#[track_caller]
fn await_rest(collector: &mut FsCollector) {
    let begun = Instant::now();
    while idle_scan(collector) > NOTHING {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(20), "it is read each time");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(idle_scan(collector) < NOTHING);
}

pub(super) const SIZE: usize = 1 << 20;

pub(super) fn filled(root: &Path) {
    fs::write(root.join("config"), vec![b'a'; SIZE]).unwrap();
}

/// Where the file's content begins on the disk.
pub(super) fn content_at(disk: &Path) -> u64 {
    let disk = fs::read(disk).unwrap();
    let at = disk.windows(8192).position(|bytes| bytes == [b'a'; 8192]);
    u64::try_from(at.unwrap()).unwrap()
}

/// Writes past the page cache that scans read.
fn write_directly(made: &Made, device: &Path, at: u64) {
    let block = made.dir.path().join("block");
    fs::write(&block, vec![b'd'; 4096]).unwrap();
    run(
        "dd",
        &[
            &format!("if={}", block.display()),
            &format!("of={}", device.display()),
            "bs=4096",
            &format!("seek={}", at / 4096),
            "oflag=direct",
            "conv=notrunc",
            "status=none",
        ],
    );
}

#[test]
fn a_block_device_is_read_when_it_was_written_to() {
    if !is_root("a_block_device_is_read_when_it_was_written_to") {
        return;
    }
    let made = Made::new(&["-b", "4096"], filled);
    let at = content_at(&made.path());
    let device = Loop::over(&made.path());
    let mut collector = FsCollector::attach(source(device.0.clone()), FsConfig::default()).unwrap();
    await_rest(&mut collector);
    // Not counted before it gets to the disk, and seen all the same.
    let held = File::options().write(true).open(&device.0).unwrap();
    held.write_all_at(b"b", at + 5000).unwrap();
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
    held.sync_all().unwrap();
    await_rest(&mut collector);
    write_directly(&made, &device.0, at + 8192);
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
    await_rest(&mut collector);
    // While nothing is counted, it is read each time.
    fs::write(device.in_sysfs("queue/iostats"), "0").unwrap();
    write_directly(&made, &device.0, at + 16384);
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(idle_scan(&mut collector) > NOTHING);
    assert!(idle_scan(&mut collector) > NOTHING);
    fs::write(device.in_sysfs("queue/iostats"), "1").unwrap();
    // Behind the device's back, whose pages still have what was there before.
    await_rest(&mut collector);
    let behind = File::options().write(true).open(made.path()).unwrap();
    behind.write_all_at(b"behind", at + 300_000).unwrap();
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
}

/// What is written to the whole disk is no write to the partition for the
/// kernel, and is one all the same.
#[test]
fn a_partition_is_read_when_its_disk_was_written_to() {
    if !is_root("a_partition_is_read_when_its_disk_was_written_to") {
        return;
    }
    let made = Made::new(&["-b", "4096"], filled);
    let disk = made.dir.path().join("whole.img");
    let start = 1 << 20;
    let whole = File::create(&disk).unwrap();
    whole.set_len(20 << 20).unwrap();
    whole
        .write_all_at(&fs::read(made.path()).unwrap(), start)
        .unwrap();
    let device = Loop::over(&disk);
    // Not every kernel reads tables of partitions.
    run("addpart", &[&device.name(), "1", "2048", "32768"]);
    let partition = PathBuf::from(format!("{}p1", device.name()));
    let at = content_at(&partition);
    let mut collector =
        FsCollector::attach(source(partition.clone()), FsConfig::default()).unwrap();
    await_rest(&mut collector);
    write_directly(&made, &device.0, start + at);
    // The partition's own pages still have what was there before.
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
    await_rest(&mut collector);
}

#[test]
fn what_may_have_to_be_read_shows_at_a_glance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let image = File::create(&path).unwrap();
    image.set_len(8 << 20).unwrap();
    let allocated = |path: &Path| source(path.to_owned()).allocated();
    assert_eq!(allocated(&path), 0, "it is all holes");
    image.write_all_at(&[7; 1 << 20], 0).unwrap();
    image.sync_all().unwrap();
    assert!((1 << 20..2 << 20).contains(&allocated(&path)));
    assert_eq!(allocated(dir.path().join("none").as_path()), 0);
    if is_root("what_may_have_to_be_read_shows_at_a_glance") {
        assert_eq!(allocated(&Loop::over(&path).0), 8 << 20);
    }
}
