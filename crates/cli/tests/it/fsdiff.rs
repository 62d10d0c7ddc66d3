//! `fsdiff`: differences of trees, images and upper dirs, and its exit codes.

use crate::support::{privileged, run};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory with two trees, `a` and `b`.
struct Trees {
    dir: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        let trees = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (path, content) in [
            ("a/home/notes", "old"),
            ("a/gone", "to go"),
            ("b/home/notes", "newer"),
            ("b/home/\u{1b}[31mred\n", "x"),
        ] {
            let path = trees.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        symlink("/etc/shadow", trees.path("b/link")).unwrap();
        trees
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn image(&self, tree: &str) -> PathBuf {
        let image = self.path(&format!("{tree}.img"));
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-d"]).arg(self.path(tree));
        let output = mkfs.arg(&image).arg("4M").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        image
    }
}

/// `op path` of every difference, by the answer in JSON.
#[track_caller]
fn differences(arguments: &[&Path]) -> Vec<String> {
    let mut all = vec![Path::new("fsdiff"), Path::new("--json")];
    all.extend(arguments);
    let ran = run(&all).expect(0).quiet();
    let lines = ran.stdout.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value
    });
    let changes = lines.filter(|line| line["event_type"] == "filesystem_change");
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    changes
        .map(|line| {
            let payload = &line["payload"];
            format!("{} {}", word(&payload["op"]), word(&payload["path"]))
        })
        .collect()
}

const EXPECTED: [&str; 4] = [
    "deleted /gone",
    "created /home/\u{1b}[31mred\n",
    "modified /home/notes",
    "created /link",
];

#[test]
fn trees_and_images_and_upper_dirs_are_compared_alike() {
    let trees = Trees::new();
    let (a, b) = (trees.path("a"), trees.path("b"));
    assert_eq!(differences(&[&a, &b]), EXPECTED);
    assert_eq!(differences(&[&a, &a]), [""; 0]);
    let images = [trees.image("a"), trees.image("b")];
    assert_eq!(differences(&[&images[0], &images[1]]), EXPECTED);
    // An image has a directory that a tree has not.
    let with_lost = [&EXPECTED[..], &["created /lost+found"]].concat();
    assert_eq!(differences(&[&a, &images[1]]), with_lost);
    let overlay = [Path::new("--overlay"), &b, Path::new("--lower"), &a];
    // What an upper dir does not hold is as it is below.
    assert_eq!(differences(&overlay), EXPECTED[1..]);
}

/// How an image was read, by what is said of every difference.
#[track_caller]
fn check_method(images: &[PathBuf; 2], expected: &str) {
    let ran = run(&[
        Path::new("fsdiff"),
        Path::new("--json"),
        &images[0],
        &images[1],
    ]);
    let said = ran.expect(0).stdout;
    let method = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let method = value["payload"]["quiesce_method"].as_str();
        method.map(str::to_owned)
    };
    let methods: Vec<_> = said.lines().filter_map(method).collect();
    assert_eq!(methods, vec![expected; EXPECTED.len()]);
}

#[track_caller]
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_image_that_may_be_written_to_is_live() {
    let trees = Trees::new();
    let images = [trees.image("a"), trees.image("b")];
    check_method(&images, "detached");
    for image in &images {
        let reads = fs::File::open(image).unwrap();
        check_method(&images, "detached");
        let writes = fs::File::options().append(true).open(image).unwrap();
        check_method(&images, "live");
        drop((reads, writes));
    }
    if !privileged("an image under a loop device") {
        return;
    }
    let losetup = |arguments: &[&str]| said_by("losetup", arguments);
    let after = images[1].to_str().unwrap();
    let device = losetup(&["--find", "--show", after]);
    // Read-only nobody writes by it.
    let reader = losetup(&[
        "--find",
        "--show",
        "--read-only",
        images[0].to_str().unwrap(),
    ]);
    let by_device = [images[0].clone(), PathBuf::from(&device)];
    let checked = std::panic::catch_unwind(|| {
        check_method(&images, "live");
        check_method(&by_device, "detached");
    });
    losetup(&["-d", &device, &reader]);
    checked.unwrap();
    check_method(&images, "detached");
}

/// A disk with the image in its only partition.
fn in_partition(image: &Path) -> PathBuf {
    const START: u32 = 2048;
    let content = fs::read(image).unwrap();
    let sectors = u32::try_from(content.len() / 512).unwrap();
    let mut disk = vec![0; START as usize * 512];
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&START.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(content);
    let path = image.with_extension("disk");
    fs::write(&path, disk).unwrap();
    path
}

/// By another node of the same disk, or where only another namespace has it mounted.
#[test]
fn a_disk_whose_partition_or_file_is_in_use_is_live() {
    if !privileged("a disk whose partition is in use") {
        return;
    }
    let trees = Trees::new();
    let disks = [trees.image("a"), trees.image("b")].map(|image| in_partition(&image));
    let device = said_by("losetup", &["--find", "--show", disks[1].to_str().unwrap()]);
    let partition = format!("{device}p1");
    said_by("addpart", &[&device, "1", "2048", "8192"]);
    let by_device = [disks[0].clone(), PathBuf::from(&device)];
    let checked = std::panic::catch_unwind(|| {
        check_method(&by_device, "detached");
        for node in [disks[1].as_path(), Path::new(&partition)] {
            let writes = fs::File::options().append(true).open(node).unwrap();
            check_method(&by_device, "live");
            drop(writes);
        }
        let mount_point = trees.path("a").display().to_string();
        let script =
            r#"mount --make-rprivate / && mount -o ro "$0" "$1" && echo there && read -r _"#;
        let mut elsewhere = Command::new("unshare")
            .args(["-m", "sh", "-c", script, &partition, &mount_point])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 6];
        elsewhere
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        let live = std::panic::catch_unwind(|| check_method(&by_device, "live"));
        drop(elsewhere.stdin.take());
        elsewhere.wait().unwrap();
        live.unwrap();
        check_method(&by_device, "detached");
    });
    said_by("delpart", &[&device, "1"]);
    said_by("losetup", &["-d", &device]);
    checked.unwrap();
}

/// What E2B's orchestrator keeps of a sandbox's writes: the blocks that are not
/// as they were, in a sparse file.
fn cow(before: &Path, after: &Path, cow: &Path) -> usize {
    const BLOCK: usize = 4096;
    let (was, is) = (fs::read(before).unwrap(), fs::read(after).unwrap());
    assert_eq!(was.len(), is.len());
    let file = fs::File::create(cow).unwrap();
    file.set_len(is.len() as u64).unwrap();
    let mut written = 0;
    for (number, (was, is)) in was.chunks(BLOCK).zip(is.chunks(BLOCK)).enumerate() {
        if was != is {
            file.write_all_at(is, (number * BLOCK) as u64).unwrap();
            written += 1;
        }
    }
    written
}

/// As a guest writes: nothing of the image is made anew.
fn debugfs(image: &Path, order: &str) {
    let mut debugfs = Command::new("debugfs");
    let output = debugfs.args(["-w", "-R", order]).arg(image).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_a_sandbox_of_e2b_wrote_is_read_above_its_template() {
    let trees = Trees::new();
    let template = trees.image("a");
    let after = trees.path("after.img");
    fs::copy(&template, &after).unwrap();
    let note = trees.path("b/home/notes");
    debugfs(&after, &format!("write {} stolen", note.display()));
    debugfs(&after, "rm /gone");
    let path = trees.path("rootfs-ibox-x1.cow");
    let written = cow(&template, &after, &path);
    assert!((1..100).contains(&written), "{written}");
    let expected = differences(&[&template, &after]);
    assert_eq!(expected, ["deleted /gone", "created /stolen"]);
    let args = [Path::new("fsdiff"), &template, &path];
    let ran = run(&args).expect(0);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].starts_with("deleted   /gone"), "{lines:#?}");
    assert!(lines[1].starts_with("created   /stolen"), "{lines:#?}");
    assert_eq!(lines[2], "2 differences");
    // That holes are ambiguous is said, whatever comes of it.
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:#?}");
    assert!(ran.stderr.contains("zeroed or trimmed"), "{ran:#?}");
    let alone = run(&[Path::new("fsdiff"), &path, &template]).expect(64);
    alone.one_line(&["template first"]);
    let other = trees.path("other.img");
    fs::write(&other, [0; 8192]).unwrap();
    let ran = run(&[Path::new("fsdiff"), &other, &path]).expect(69);
    assert!(ran.stderr.contains("another disk"), "{ran:#?}");
}

#[test]
fn people_get_lines_that_steer_no_terminal() {
    let trees = Trees::new();
    let (a, b) = (trees.path("a"), trees.path("b"));
    let ran = run(&[Path::new("fsdiff"), &a, &b]).expect(0).quiet();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert!(lines[1].starts_with("created   /home/\\u{1b}[31mred\\n  1 B  sha256:"));
    assert!(lines[2].contains("3 → 5 B"), "{lines:#?}");
    assert_eq!(lines[4], "4 differences");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let trees = Trees::new();
    let (a, gone) = (trees.path("a"), trees.path("gone"));
    let fsdiff = Path::new("fsdiff");
    run(&[fsdiff, &a, &gone]).expect(69).one_line(&["gone"]);
    let note = trees.path("a/gone");
    let ran = run(&[fsdiff, &note, &a]).expect(4);
    assert!(ran.stdout.contains("not read"), "{ran:#?}");
    for usage in [
        &[fsdiff][..],
        &[fsdiff, &a],
        &[fsdiff, Path::new("--lower"), &a],
    ] {
        run(usage).expect(64);
    }
}

/// A snapshot as E2B keeps it: a header, and a file of the blocks that are its
/// own, one after the other. Everything else is in the first build's file.
fn snapshot(builds: &Path, own: u8, before: &[u8], after: &[u8]) -> PathBuf {
    const BLOCK: usize = 4096;
    let name = |build: u8| {
        let byte = format!("{build:02x}");
        let part = |bytes: usize| byte.repeat(bytes);
        let (four, two, six) = (part(4), part(2), part(6));
        builds.join(format!("{four}-{two}-{two}-{two}-{six}"))
    };
    let mut header = Vec::new();
    for number in [3, BLOCK as u64, after.len() as u64, u64::from(own)] {
        header.extend(number.to_le_bytes());
    }
    header.extend([own; 16]);
    header.extend([1; 16]);
    let mut data = Vec::new();
    for (number, block) in after.chunks(BLOCK).enumerate() {
        let at = number * BLOCK;
        let same = own != 1 && before.get(at..at + BLOCK) == Some(block);
        let (build, kept) = match block.iter().all(|byte| *byte == 0) {
            true => (0, 0),
            false if same => (1, at),
            false if own == 1 => (1, at),
            false => {
                data.extend(block);
                (own, data.len() - BLOCK)
            }
        };
        header.extend((at as u64).to_le_bytes());
        header.extend((BLOCK as u64).to_le_bytes());
        header.extend([build; 16]);
        header.extend((kept as u64).to_le_bytes());
    }
    let dir = name(own);
    fs::create_dir_all(&dir).unwrap();
    let data = if own == 1 { after } else { &data };
    fs::write(dir.join("rootfs.ext4"), data).unwrap();
    let path = dir.join("rootfs.ext4.header");
    fs::write(&path, header).unwrap();
    path
}

#[test]
fn snapshots_of_e2b_are_compared_by_their_headers() {
    let trees = Trees::new();
    let images = [trees.image("a"), trees.image("b")].map(|image| fs::read(image).unwrap());
    let builds = trees.path("builds");
    let base = snapshot(&builds, 1, &[], &images[0]);
    let later = snapshot(&builds, 2, &images[0], &images[1]);
    assert_eq!(differences(&[&base, &later]), EXPECTED);
    assert_eq!(differences(&[&later, &later]), [""; 0]);
    assert_eq!(differences(&[&trees.path("b.img"), &later]), [""; 0]);
    // A header that does not hold together, and a build that is gone.
    let bytes = fs::read(&later).unwrap();
    fs::write(&later, &bytes[..100]).unwrap();
    let ran = run(&[Path::new("fsdiff"), &base, &later]).expect(69);
    assert!(
        ran.stderr.contains("the header has 100 bytes"),
        "{}",
        ran.stderr
    );
    fs::write(&later, bytes).unwrap();
    fs::remove_file(base.with_extension("")).unwrap();
    let ran = run(&[Path::new("fsdiff"), &later, &later]).expect(69);
    assert!(ran.stderr.contains("01010101-0101"), "{}", ran.stderr);
}

/// What no name tells is told by a flag; the bytes never decide.
#[test]
fn the_format_of_an_image_can_be_named() {
    let trees = Trees::new();
    let [a, b] = ["a", "b"].map(|tree| trees.image(tree));
    let packed = trees.path("packed");
    fs::write(&packed, qcow2(&fs::read(&b).unwrap())).unwrap();
    let named = [Path::new("--format"), Path::new("qcow2"), &a, &packed];
    assert_eq!(differences(&named), EXPECTED);
    let before = [
        Path::new("--before-format"),
        Path::new("qcow2"),
        &packed,
        &b,
    ];
    assert_eq!(differences(&before), [""; 0]);
    let unread = run(&[Path::new("fsdiff"), &a, &packed]).expect(4);
    assert!(unread.stdout.contains("not an ext2"), "{}", unread.stdout);
}

/// An image of QEMU's format, version 2, in which all clusters are allocated
/// one after the other (docs/interop/qcow2.rst in QEMU).
fn qcow2(disk: &[u8]) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    const COPIED: u64 = 1 << 63;
    let mut image = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, number: u64| {
        image[at..at + 8].copy_from_slice(&number.to_be_bytes());
    };
    // Magic and version; cluster bits; size; entries of the first table, which
    // is the second cluster; the counts of references, of which none is read.
    put(0, 0x5146_49fb_0000_0002);
    put(16, 16);
    put(24, disk.len() as u64);
    put(32, 1);
    put(40, CLUSTER as u64);
    put(48, 3 * CLUSTER as u64);
    put(56, 1 << 32);
    put(CLUSTER, (2 * CLUSTER as u64) | COPIED);
    for index in 0..disk.len().div_ceil(CLUSTER) {
        let cluster = (4 + index) * CLUSTER;
        put(2 * CLUSTER + 8 * index, cluster as u64 | COPIED);
    }
    image.extend_from_slice(disk);
    image.resize(image.len().next_multiple_of(CLUSTER), 0);
    image
}
