//! Scans of images that mkfs.ext4 made and debugfs changed.

mod device;
mod layered;
mod mounted;
mod moving;
mod unread;

use super::super::testing::{Report, has_program, run};
use super::super::{Baseline, FsCollector, FsConfig, ImageFormat, Source};
use crate::published::corpus;
use sandtrace_event::{Digest, FileOp, GapCause, HashScope, QuiesceMethod};
use sha2::Digest as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// An image made from a directory, and changed from outside with debugfs.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new(options: &[&str], fill: impl FnOnce(&std::path::Path)) -> Self {
        let made = Self {
            // In memory where possible: a guest's flushes are many.
            dir: tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .unwrap(),
        };
        let root = made.dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fill(&root);
        let image = made.path();
        let image = image.to_str().unwrap();
        let mut arguments = vec!["-q", "-F", "-d", root.to_str().unwrap()];
        arguments.extend(options);
        arguments.extend([image, "16M"]);
        run("mkfs.ext4", &arguments);
        made
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn debugfs(&self, requests: &[&str]) {
        for request in requests {
            run(
                "debugfs",
                &["-w", "-R", request, self.path().to_str().unwrap()],
            );
        }
    }

    /// Writes a file into the image.
    fn write(&self, path: &str, content: &[u8]) {
        let source = self.dir.path().join("content");
        fs::write(&source, content).unwrap();
        self.debugfs(&[&format!("write {} {path}", source.display())]);
    }

    fn attach(&self) -> FsCollector {
        self.attach_with(FsConfig::default())
    }

    fn attach_with(&self, config: FsConfig) -> FsCollector {
        FsCollector::attach(source(self.path()), config).unwrap()
    }
}

fn source(path: PathBuf) -> Source {
    let format = ImageFormat::Raw;
    Source::Image { path, format }
}

fn scan(collector: &mut FsCollector) -> Report {
    Report::of(collector, QuiesceMethod::Live)
}

fn sha256(bytes: &[u8]) -> Option<Digest> {
    Some(Digest(sha2::Sha256::digest(bytes).into()))
}

fn home(root: &std::path::Path) {
    fs::create_dir_all(root.join("home/agent")).unwrap();
    fs::write(root.join("home/agent/notes"), "remember\n").unwrap();
    fs::write(root.join("home/agent/old"), vec![7; 70_000]).unwrap();
    fs::write(root.join("secret"), "key").unwrap();
    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/etc/shadow", root.join("link")).unwrap();
}

#[track_caller]
fn check_changes(options: &[&str]) {
    let made = Made::new(options, home);
    let mut collector = made.attach();
    assert_eq!(scan(&mut collector).lines(), [""; 0], "{options:?}");

    made.write("/home/agent/new", b"created\n");
    made.debugfs(&[
        "rm /secret",
        "ln /home/agent/old /home/agent/moved",
        "unlink /home/agent/old",
        "symlink /points /elsewhere",
        "mkdir /dir",
        "set_inode_field /home/agent/notes mode 0100640",
        "mknod pipe p",
    ]);
    let report = scan(&mut collector);
    assert_eq!(
        report.lines(),
        [
            "Created Dir /dir",
            "Renamed File /home/agent/moved < /home/agent/old",
            "Created File /home/agent/new",
            "Metadata File /home/agent/notes",
            "Created Fifo /pipe",
            "Created Symlink /points",
            "Deleted File /secret",
        ],
        "{options:?}"
    );
    let new = report.change("/home/agent/new");
    assert_eq!(new.sha256, sha256(b"created\n"));
    assert_eq!(new.size_after.map(|count| count.0), Some(8));
    assert!(!new.quiesced);
    let link = report.change("/points");
    assert_eq!(link.symlink_target.as_deref(), Some("/elsewhere"));
    assert_eq!(report.change("/home/agent/notes").mode, Some(0o640));
    let moved = report.change("/home/agent/moved");
    assert_eq!(moved.sha256, sha256(&[7; 70_000]));
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert_eq!(scan(&mut collector).lines(), [""; 0]);
}

#[test]
fn changes_of_an_image_are_told() {
    check_changes(&[]);
    check_changes(&["-b", "1024"]);
    check_changes(&["-O", "^metadata_csum,^64bit"]);
    check_changes(&["-O", "^extent,^64bit,^has_journal", "-I", "128"]);
    check_changes(&["-O", "bigalloc"]);
    check_changes(&["-O", "inline_data"]);
    check_changes(&["-O", "meta_bg,^resize_inode"]);
    check_changes(&["-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256"]);
    check_changes(&["-t", "ext2"]);
}

/// Root in the guest can write to the disk under the file system.
#[test]
fn a_write_that_touches_no_time_stamp_is_seen() {
    let made = Made::new(&[], |root| {
        fs::write(root.join("config"), vec![b'a'; 9000]).unwrap();
    });
    let mut collector = made.attach();
    let disk = fs::read(made.path()).unwrap();
    let at = disk.windows(64).position(|bytes| bytes == [b'a'; 64]);
    let image = fs::OpenOptions::new().write(true).open(made.path());
    let at = u64::try_from(at.unwrap()).unwrap();
    image.unwrap().write_all_at(b"b", at + 100).unwrap();
    assert_eq!(scan(&mut collector).lines(), ["Modified File /config"]);
}

#[test]
fn large_and_sparse_files_are_read_in_part() {
    let made = Made::new(&["-b", "4096"], |root| {
        let file = fs::File::create(root.join("sparse")).unwrap();
        // No file of ext4 is larger.
        file.set_len((16 << 40) - 4096).unwrap();
    });
    made.write("/marker", b"x");
    let config = FsConfig {
        hash_bound: 1 << 20,
        ..FsConfig::default()
    };
    let start = Instant::now();
    let mut collector = made.attach_with(config);
    made.debugfs(&["ln /sparse /again", "unlink /sparse"]);
    let report = scan(&mut collector);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(report.lines(), ["Renamed File /again < /sparse"]);
    let again = report.change("/again");
    assert_eq!(again.sha256_scope, Some(HashScope::HeadTail));
    assert_eq!(again.sha256, sha256(&vec![0; 1 << 20]));
}

/// One disk with two file systems and something else between them.
#[test]
fn every_partition_is_read() {
    if !has_program("every_partition_is_read", "sfdisk") {
        return;
    }
    let made = Made::new(&[], home);
    let disk = made.dir.path().join("whole.img");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(64 << 20).unwrap();
    let script =
        "label: gpt\nstart=2048 size=32768\nstart=34816 size=2048\nstart=40960 size=32768\n";
    let script_path = made.dir.path().join("table");
    fs::write(&script_path, script).unwrap();
    let command = format!("sfdisk -q {} < {}", disk.display(), script_path.display());
    run("sh", &["-c", &command]);
    let content = fs::read(made.path()).unwrap();
    for sector in [2048, 40960] {
        file.write_all_at(&content, sector * 512).unwrap();
    }
    let mut collector = FsCollector::attach(source(disk.clone()), FsConfig::default()).unwrap();
    let report = scan(&mut collector);
    assert_eq!(report.lines(), [""; 0]);
    assert_eq!(report.gaps.len(), 1);
    assert!(report.gaps[0].source.ends_with("whole.img#2"));
    made.debugfs(&["rm /secret"]);
    let content = fs::read(made.path()).unwrap();
    file.write_all_at(&content, 40960 * 512).unwrap();
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Deleted File /secret"]);
    let disk = report.changes[0].disk.as_deref().unwrap();
    assert!(disk.ends_with("whole.img#3"), "{disk}");
}

/// A forged table in which all partitions are the same one: few are read, the
/// others are gaps, and all share what one scan may spend.
#[test]
fn partitions_of_the_same_bytes_are_not_all_read() {
    let made = Made::new(&[], |root| {
        for number in 0..50 {
            fs::write(root.join(format!("file{number}")), [number; 100]).unwrap();
        }
    });
    let disk = made.dir.path().join("whole.img");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(20 << 20).unwrap();
    file.write_all_at(&fs::read(made.path()).unwrap(), 1 << 20)
        .unwrap();
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    for (at, number) in [(24, 1_u32), (72, 2), (80, 256), (84, 128)] {
        header[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    file.write_all_at(&header, 512).unwrap();
    for number in 0..256_u32 {
        let mut entry = [0; 128];
        entry[0] = 1;
        let last = 2048 + 32_767 + number;
        for (at, sector) in [(32, 2048_u32), (40, last)] {
            entry[at..at + 4].copy_from_slice(&sector.to_le_bytes());
        }
        let at = 1024 + 128 * u64::from(number);
        file.write_all_at(&entry, at).unwrap();
    }
    let config = FsConfig {
        max_paths: 100,
        ..FsConfig::default()
    };
    let mut collector = FsCollector::attach(source(disk), config).unwrap();
    let report = scan(&mut collector);
    // A root costs nothing.
    assert!(report.summary.paths <= 104, "{:?}", report.summary);
    assert!(report.summary.paths > 50, "{:?}", report.summary);
    let with = |text: &str| {
        let gaps = report.gaps.iter();
        gaps.filter(|gap| gap.detail.contains(text)).count()
    };
    assert_eq!(with("others of the same bytes"), 252);
    assert!(with("too many") >= 2, "{:?}", report.gaps);
}

/// A guest image over a shared one, as QEMU makes it: what differs from the
/// shared one, told by which clusters there are.
#[test]
fn a_qcow2_image_is_compared_with_what_is_below_it() {
    if !has_program(
        "a_qcow2_image_is_compared_with_what_is_below_it",
        "qemu-img",
    ) {
        return;
    }
    let made = Made::new(&["-b", "4096"], home);
    let base = made.dir.path().join("base.img");
    fs::copy(made.path(), &base).unwrap();
    made.write("/home/agent/new", b"created\n");
    made.debugfs(&["rm /secret"]);
    let top = made.dir.path().join("top.qcow2");
    let [from, to] = [made.path(), top.clone()].map(|path| path.to_str().unwrap().to_owned());
    run(
        "qemu-img",
        &[
            "convert",
            "-O",
            "qcow2",
            "-F",
            "raw",
            "-B",
            base.to_str().unwrap(),
            &from,
            &to,
        ],
    );
    let config = FsConfig {
        baseline: Baseline::Of(source(base)),
        ..FsConfig::default()
    };
    let format = ImageFormat::by_name(&top);
    let top = Source::Image { path: top, format };
    let mut collector = FsCollector::attach(top, config).unwrap();
    let report = scan(&mut collector);
    assert_eq!(
        report.lines(),
        ["Created File /home/agent/new", "Deleted File /secret"]
    );
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    // Only what was written was read.
    assert!(report.summary.hashed_bytes < 1000, "{:?}", report.summary);
    assert_eq!(scan(&mut collector).lines(), [""; 0]);
}

/// Nothing that is not written is hashed again, and nothing at all is read
/// while the image's own times stand still.
#[test]
fn only_what_was_written_is_read() {
    let made = Made::new(&["-b", "1024"], |root| {
        for number in 0..30 {
            fs::write(root.join(format!("file{number}")), vec![number; 100_000]).unwrap();
        }
    });
    let mut collector = made.attach();
    made.write("/new", b"new");
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Created File /new"]);
    assert!(
        report.summary.hashed_bytes < 700_000,
        "{:?}",
        report.summary
    );
    assert_eq!(scan(&mut collector).summary.hashed_bytes, 0);
    // Nor after a scan that had nothing to read.
    std::thread::sleep(Duration::from_millis(1200));
    for _ in 0..3 {
        assert_eq!(scan(&mut collector).lines(), [""; 0]);
    }
    made.write("/newer", b"newer");
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Created File /newer"]);
    assert!(
        report.summary.hashed_bytes < 700_000,
        "{:?}",
        report.summary
    );
}

/// A large file is hashed in part; that something else of it was written is
/// told by its blocks.
#[test]
fn a_write_amid_a_large_file_is_seen() {
    let made = Made::new(&["-b", "4096"], |root| {
        fs::write(root.join("large"), vec![b'l'; 3 << 20]).unwrap();
    });
    let config = FsConfig {
        // What shares a piece of the sums with other files is hashed.
        hash_bound: 256 << 10,
        ..FsConfig::default()
    };
    let mut collector = made.attach_with(config);
    let disk = fs::read(made.path()).unwrap();
    let at = disk.windows(8192).position(|bytes| bytes == [b'l'; 8192]);
    let at = u64::try_from(at.unwrap()).unwrap() + (1 << 20);
    let image = fs::OpenOptions::new()
        .write(true)
        .open(made.path())
        .unwrap();
    image.write_all_at(b"patched", at).unwrap();
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Modified File /large"]);
    let large = report.change("/large");
    assert_eq!(large.sha256_scope, Some(HashScope::HeadTail));
    made.write("/other", b"x");
    assert_eq!(scan(&mut collector).lines(), ["Created File /other"]);
}

#[test]
fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let made = Made::new(&[], |_| ());
    let other = Made::new(&[], |root| {
        for name in [&b"new\nline"[..], b"\x1b[31mred", b"latin\xe9"] {
            fs::write(root.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
    });
    let mut collector = made.attach();
    fs::write(made.path(), fs::read(other.path()).unwrap()).unwrap();
    let report = scan(&mut collector);
    let paths: Vec<_> = report.changes.iter().map(|change| &*change.path).collect();
    assert_eq!(paths, ["/\x1b[31mred", "/latin\u{fffd}", "/new\nline"]);
    let exact = &report.changes[1].path_b64;
    assert_eq!(
        exact.as_ref().map(|bytes| &*bytes.0),
        Some(&b"/latin\xe9"[..])
    );
    assert_eq!(report.changes[0].path_b64, None);
}

#[test]
fn bounds_become_gaps() {
    let made = Made::new(&[], |root| {
        for number in 0..50 {
            fs::write(root.join(format!("file{number}")), [number; 100]).unwrap();
        }
    });
    let mut collector = made.attach_with(FsConfig {
        max_paths: 20,
        ..FsConfig::default()
    });
    let report = scan(&mut collector);
    assert_eq!(report.lines(), [""; 0]);
    assert_eq!(report.gaps[0].cause, GapCause::ScanBound);
    assert_eq!(scan(&mut collector).gaps, [], "the same gap is said once");

    let mut collector = made.attach_with(FsConfig {
        hash_budget: 1000,
        ..FsConfig::default()
    });
    let report = scan(&mut collector);
    assert_eq!(report.lines(), [""; 0]);
    assert_eq!(report.gaps[0].cause, GapCause::ScanBound);
    assert_eq!(report.gaps[0].count.0, 40);
}

#[test]
fn what_is_no_file_system_is_a_gap_and_then_a_baseline() {
    let made = Made::new(&[], home);
    let good = fs::read(made.path()).unwrap();
    for (bad, reason) in [
        (vec![0; 1 << 20], "not an ext2"),
        (Vec::new(), "cannot read the image"),
        (good[..3000].to_vec(), "cannot read the image"),
    ] {
        fs::write(made.path(), bad).unwrap();
        let mut collector = made.attach();
        let report = scan(&mut collector);
        assert_eq!(report.lines(), [""; 0]);
        assert_eq!(report.gaps[0].cause, GapCause::DiskUnreadable);
        assert!(report.gaps[0].detail.contains(reason), "{:?}", report.gaps);
        assert!(scan(&mut collector).gaps.is_empty());
        fs::write(made.path(), &good).unwrap();
        assert_eq!(scan(&mut collector).lines(), [""; 0]);
        made.debugfs(&["rm /secret"]);
        assert_eq!(scan(&mut collector).lines(), ["Deleted File /secret"]);
    }
    let missing = source(made.dir.path().join("missing"));
    assert!(FsCollector::attach(missing, FsConfig::default()).is_err());
    let directory = source(made.dir.path().to_owned());
    assert!(FsCollector::attach(directory, FsConfig::default()).is_err());
}

/// A forged name is said, and hides no other change.
#[test]
fn a_name_with_a_slash_is_a_gap() {
    let made = Made::new(&[], home);
    let mut collector = made.attach();
    made.debugfs(&["mknod /etc/passwd p", "rm /secret"]);
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Deleted File /secret"]);
    assert!(
        report.gaps[0].detail.contains("no name"),
        "{:?}",
        report.gaps
    );
}

#[test]
fn a_directory_inside_itself_is_walked_once() {
    let made = Made::new(&[], home);
    let mut collector = made.attach();
    made.debugfs(&["ln <2> home/root", "ln <2> again"]);
    let report = scan(&mut collector);
    assert_eq!(
        report.lines(),
        ["Created Dir /again", "Created Dir /home/root"]
    );
    assert!(report.gaps[0].detail.contains("in two places"));
    assert_eq!(report.gaps[0].count.0, 2);
}

/// One file whose inode fails its checksum is reported; the rest is read.
#[test]
fn an_unreadable_inode_is_a_change_of_its_own() {
    let made = Made::new(&[], home);
    let mut collector = made.attach();
    made.debugfs(&["set_inode_field /secret checksum 0x1234"]);
    made.write("/other", b"still seen");
    let report = scan(&mut collector);
    assert_eq!(
        report.lines(),
        ["Created File /other", "Modified Unknown /secret"]
    );
    let secret = report.change("/secret");
    assert_eq!(secret.op, FileOp::Modified);
    assert_eq!(secret.unreadable.as_deref(), Some("checksum of the inode"));
    assert_eq!((secret.mode, secret.size_after), (None, None));
}

/// Published images with every kind of damage: each is read or refused in
/// little time, also when a second scan finds the same.
#[test]
fn damaged_images_neither_crash_nor_hang() {
    let test = "damaged_images_neither_crash_nor_hang";
    let Some(corpora) = corpus(test, "ext4") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let mut read = 0;
    let mut slowest = (Duration::ZERO, String::new());
    let images = fs::read_dir(corpora).unwrap().map(|entry| entry.unwrap());
    for image in images.map(|entry| entry.path().join("image.gz")) {
        let Ok(packed) = fs::File::open(&image) else {
            continue;
        };
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(packed)
            .read_to_end(&mut bytes)
            .unwrap();
        fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        let source = source(path.clone());
        let mut collector = FsCollector::attach(source, FsConfig::default()).unwrap();
        let report = scan(&mut collector);
        assert_eq!(report.lines(), [""; 0], "{}", image.display());
        read += u32::from(report.summary.paths > 0);
        slowest = slowest.max((start.elapsed(), image.display().to_string()));
    }
    println!("{read} images read, the slowest in {slowest:?}");
    // Far above what it takes: other tests run beside it.
    assert!(slowest.0 < Duration::from_secs(60), "{slowest:?}");
    assert!(read > 80, "{read}");
}
