//! Disks that QEMU's and the system's own tools made.

use super::super::config::ImageFormat;
use super::super::testing::{Dice, has_program, run};
use super::*;
use std::fs;
use std::os::unix::fs::FileExt;

fn made(dir: &Path, name: &str, size: u64) -> std::path::PathBuf {
    let path = dir.join(name);
    let file = fs::File::create(&path).unwrap();
    file.set_len(size).unwrap();
    path
}

fn all(disk: &dyn Blocks) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// What is said to be zero is.
#[track_caller]
fn check_places(disk: &dyn Blocks, bytes: &[u8]) {
    let mut end = 0;
    let mut zeros = 0;
    pieces(disk, 0..disk.size(), &mut |range, is_zero| {
        assert_eq!(range.start, end);
        end = range.end;
        let place = |at: u64| usize::try_from(at).unwrap();
        let piece = &bytes[place(range.start)..place(range.end)];
        assert!(!is_zero || piece.iter().all(|byte| *byte == 0), "{range:?}");
        zeros += u64::from(is_zero) * (range.end - range.start);
    })
    .unwrap();
    assert_eq!(end, disk.size());
    assert!(zeros > 0, "nothing of the disk is known to be zero");
}

/// Random writes, so that clusters are allocated here and there.
fn scribble(path: &Path, dice: &mut Dice) -> Vec<u8> {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for _ in 0..40 {
        let at = dice.below(6 << 20) as u64;
        let len = [1, 600, 70_000][dice.below(3)];
        let byte = u8::try_from(1 + dice.below(9)).unwrap();
        file.write_all_at(&vec![byte; len], at).unwrap();
    }
    fs::read(path).unwrap()
}

#[test]
fn qcow2_reads_as_qemu_reads_it() {
    if !has_program("qcow2_reads_as_qemu_reads_it", "qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new();
    let raw = made(dir.path(), "disk.raw", 8 << 20);
    let bytes = scribble(&raw, &mut dice);
    for options in [
        &[][..],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "lazy_refcounts=on"],
        &["-c"],
    ] {
        let path = dir.path().join("disk.qcow2");
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(options);
        arguments.extend([raw.to_str().unwrap(), path.to_str().unwrap()]);
        run("qemu-img", &arguments);
        let disk = open(&path, ImageFormat::by_name(&path), None).unwrap();
        assert!(all(&*disk) == bytes, "{options:?}");
        check_places(&*disk, &bytes);
        let raw = open(&raw, ImageFormat::Raw, None).unwrap();
        assert_eq!(changed(&*raw, &*disk).unwrap(), Ranges::default());
    }
}

/// An image over an image over a raw disk; what was not written since is at
/// the same place in all of them.
#[test]
fn images_below_an_image_show_through() {
    if !has_program("images_below_an_image_show_through", "qemu-io") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = made(dir.path(), "base.raw", 7 << 20);
    let bytes = scribble(&raw, &mut Dice::new());
    let [middle, top] = ["middle.qcow2", "top.qcow2"].map(|name| dir.path().join(name));
    for (image, below, format) in [
        (&middle, "base.raw", "raw"),
        (&top, "middle.qcow2", "qcow2"),
    ] {
        let image = image.to_str().unwrap();
        run(
            "qemu-img",
            &[
                "create", "-q", "-f", "qcow2", "-F", format, "-b", below, image, "8M",
            ],
        );
    }
    for (image, command) in [
        (&middle, "write -P 7 1M 100k"),
        (&top, "write -P 8 1090k 10k"),
        (&top, "write -z 2M 128k"),
        (&top, "write -P 9 7500k 1k"),
    ] {
        run("qemu-io", &["-c", command, image.to_str().unwrap()]);
    }
    let mut expected = bytes;
    expected.resize(8 << 20, 0);
    let kib = 1024;
    expected[kib * kib..(kib + 100) * kib].fill(7);
    expected[1090 * kib..1100 * kib].fill(8);
    expected[2 * kib * kib..(2 * kib + 128) * kib].fill(0);
    expected[7500 * kib..7501 * kib].fill(9);
    let [middle, top] = [middle, top].map(|path| open(&path, ImageFormat::Qcow2, None).unwrap());
    assert!(all(&*top) == expected);
    check_places(&*top, &expected);
    let differing = changed(&*middle, &*top).unwrap();
    assert!(differing.touch(&(1090 * 1024..1091 * 1024)));
    assert!(differing.touch(&(7500 * 1024..7501 * 1024)));
    // Only clusters that were written can differ.
    assert!(differing.bytes() < 1 << 20, "{differing:?}");
}

#[test]
fn what_is_not_read_of_qcow2_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut header = vec![0_u8; 1 << 16];
    header[..4].copy_from_slice(b"QFI\xfb");
    header[4..8].copy_from_slice(&3_u32.to_be_bytes());
    header[20..24].copy_from_slice(&16_u32.to_be_bytes());
    header[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
    header[36..40].copy_from_slice(&1_u32.to_be_bytes());
    header[100..104].copy_from_slice(&104_u32.to_be_bytes());
    let check = |place: usize, value: &[u8], expected: &str| {
        let mut header = header.clone();
        header[place..place + value.len()].copy_from_slice(value);
        let path = dir.path().join("x.qcow2");
        fs::write(&path, &header).unwrap();
        let said = match open(&path, ImageFormat::Qcow2, None) {
            Ok(_) => String::new(),
            Err(FsError::Image { source, .. }) => source.to_string(),
            Err(other) => other.to_string(),
        };
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
        assert_eq!(said.is_empty(), expected.is_empty());
    };
    check(0, b"QFI\xfb", "");
    check(0, b"nope", "no qcow2");
    check(4, &9_u32.to_be_bytes(), "version 9");
    check(32, &1_u32.to_be_bytes(), "encryption");
    check(72, &4_u64.to_be_bytes(), "external data file");
    check(72, &16_u64.to_be_bytes(), "extended L2");
    check(72, &64_u64.to_be_bytes(), "0x40");
    check(20, &40_u32.to_be_bytes(), "clusters");
    check(24, &(1_u64 << 60).to_be_bytes(), "table of tables");
    check(36, &u32::MAX.to_be_bytes(), "table of tables");
    check(
        8,
        &[0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0xff, 0xff],
        "too long",
    );
}

/// The format is never guessed: a guest wrote the header.
#[test]
fn a_raw_disk_that_claims_to_be_qcow2_stays_raw() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "disk.img", 1 << 20);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"QFI\xfb\0\0\0\x03", 0).unwrap();
    let disk = open(&path, ImageFormat::by_name(&path), None).unwrap();
    assert_eq!(disk.size(), 1 << 20);
    assert!(all(&*disk).starts_with(b"QFI"));
}

/// `(number, start, len)` in sectors.
#[track_caller]
fn check_table(path: &Path, expected: &[(u32, u64, u64)]) {
    let disk = open(path, ImageFormat::Raw, None).unwrap();
    let mut found: Vec<_> = partitions(&*disk)
        .unwrap()
        .iter()
        .map(|found| (found.number, found.start / 512, found.len / 512))
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn tables_that_the_system_makes_are_read() {
    let test = "tables_that_the_system_makes_are_read";
    if !has_program(test, "sfdisk") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "disk.img", 64 << 20);
    let table = |script: &str| {
        let mut child = std::process::Command::new("sfdisk")
            .arg("-q")
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        io::Write::write_all(&mut stdin, script.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    };
    table("label: gpt\nstart=2048 size=4096\nstart=10240 size=20480\n");
    check_table(&path, &[(1, 2048, 4096), (2, 10240, 20480)]);
    // The first header is gone; the copy at the end counts.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 512], 512).unwrap();
    check_table(&path, &[(1, 2048, 4096), (2, 10240, 20480)]);
    file.set_len(0).unwrap();
    file.set_len(64 << 20).unwrap();
    check_table(&path, &[]);
    table(
        "label: dos\nstart=2048 size=4096\nstart=8192 size=65536 type=5\n\
         start=10240 size=2048\nstart=20480 size=4096\n",
    );
    check_table(
        &path,
        &[(1, 2048, 4096), (5, 10240, 2048), (6, 20480, 4096)],
    );
}

#[test]
fn a_forged_table_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = made(dir.path(), "disk.img", 1 << 20);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // An extended partition that links to itself, and to the front.
    let mut sector = [0_u8; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector[446 + 4] = 0x05;
    sector[446 + 8] = 8;
    sector[446 + 12] = 1;
    file.write_all_at(&sector, 0).unwrap();
    file.write_all_at(&sector, 8 * 512).unwrap();
    check_table(&path, &[]);
    let mut header = [0_u8; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[24] = 1;
    header[72] = 2;
    header[80..84].copy_from_slice(&u32::MAX.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    file.write_all_at(&header, 512).unwrap();
    file.write_all_at(&[0x41; 900_000], 1024).unwrap();
    let disk = open(&path, ImageFormat::Raw, None).unwrap();
    assert!(partitions(&*disk).unwrap().len() <= 256);
}

/// Places and sums say the same as a comparison of all bytes.
#[test]
fn what_was_written_is_found_by_every_means() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new();
    let before = made(dir.path(), "before.img", 6 << 20);
    let after = made(dir.path(), "after.img", (6 << 20) + 5000);
    let was = scribble(&before, &mut dice);
    fs::write(&after, &was).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&after).unwrap();
    file.set_len((6 << 20) + 5000).unwrap();
    for _ in 0..5 {
        let at = dice.below(6 << 20) as u64;
        file.write_all_at(b"patched", at).unwrap();
    }
    let [before, after] = [before, after].map(|path| open(&path, ImageFormat::Raw, None).unwrap());
    let (was, is) = (all(&*before), all(&*after));
    let exact = changed(&*before, &*after).unwrap();
    let sums = Sums::of(&*after).unwrap();
    let by_sums = sums.changed(&Sums::of(&*before).unwrap());
    for (at, byte) in is.iter().enumerate() {
        let differs = was.get(at) != Some(byte);
        let range = at as u64..at as u64 + 1;
        if differs {
            assert!(exact.touch(&range), "{at}");
            assert!(by_sums.touch(&range), "{at}");
        }
    }
    // What was scribbled behind the end of the other is gone there.
    let gone = was.len().saturating_sub(is.len()) as u64;
    assert!(exact.bytes() <= 6 * 8192 + 5000 + gone, "{exact:?}");
    assert_eq!(changed(&*after, &*after).unwrap(), Ranges::default());
    assert!(sums.changed(&Sums::of(&*after).unwrap()).is_empty());
}

#[test]
fn ranges_touch_what_they_overlap() {
    let mut ranges = Ranges::default();
    ranges.push(64..128);
    ranges.push(128..192);
    for (range, touched) in [
        (0..64, false),
        (0..65, true),
        (191..192, true),
        (192..300, false),
    ] {
        assert_eq!(ranges.touch(&range), touched, "{range:?}");
    }
    assert!(Ranges::all().touch(&(5..6)));
}

/// Any byte of an image may be forged.
#[test]
fn damaged_qcow2_ends() {
    if !has_program("damaged_qcow2_ends", "qemu-img") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new();
    let raw = made(dir.path(), "disk.raw", 1 << 20);
    let file = fs::OpenOptions::new().write(true).open(&raw).unwrap();
    file.write_all_at(&[9; 5000], 70_000).unwrap();
    let path = dir.path().join("disk.qcow2");
    let [from, to] = [&raw, &path].map(|path| path.to_str().unwrap());
    let options = [
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        "cluster_size=4k",
        from,
        to,
    ];
    run("qemu-img", &options);
    let good = fs::read(&path).unwrap();
    for _ in 0..300 {
        let mut bad = good.clone();
        for _ in 0..=dice.below(4) {
            let most = [112, 20_000][dice.below(2)];
            let at = dice.below(good.len().min(most));
            bad[at] = u8::try_from(dice.below(256)).unwrap();
        }
        super::super::fuzzing::qcow2(&bad);
    }
}

/// A disk of a pebibyte of which one byte is not zero.
#[derive(Debug)]
struct Thin {
    at: u64,
    byte: u8,
    largest: std::sync::atomic::AtomicU64,
}

impl Blocks for Thin {
    fn size(&self) -> u64 {
        1 << 50
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let len = buffer.len() as u64;
        self.largest
            .fetch_max(len, std::sync::atomic::Ordering::Relaxed);
        // What is not there to be had is not asked for.
        assert!(len <= 1 << 20, "{len} bytes in one go");
        buffer.fill(0);
        let at = self.at.checked_sub(offset);
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = at.and_then(|at| buffer.get_mut(at)) {
            *byte = self.byte;
        }
        Ok(())
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        let cluster = self.at - self.at % 4096;
        Ok(match offset {
            _ if offset < cluster => (Place::Zeros, cluster - offset),
            _ if offset < cluster + 4096 => (Place::Unknown, cluster + 4096 - offset),
            _ => (Place::Zeros, self.size() - offset),
        })
    }

    fn stamp(&self) -> Option<Stamp> {
        None
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        panic!("nobody asks for it")
    }
}

#[test]
fn sums_of_a_vast_thin_disk_take_little_memory() {
    let thin = |at, byte| Thin {
        at,
        byte,
        largest: 0.into(),
    };
    let at = (700 << 40) + 5_000;
    let sums = |thin: &Thin| Sums::of(thin).unwrap();
    let disk = thin(at, 1);
    let first = sums(&disk);
    assert!(disk.largest.into_inner() > 0);
    assert!(first.changed(&sums(&thin(at, 1))).is_empty());
    for other in [thin(at, 2), thin(at, 0), thin(at + 4096, 1)] {
        let changed = sums(&other).changed(&first);
        assert!(changed.touch(&(at..at + 1)));
        assert!(!changed.touch(&(0..at - (1 << 31))));
    }
}

/// A descriptor that names another file by now is not the disk that was found.
#[test]
fn another_file_than_the_one_that_was_found_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [found, other] = ["found", "other"].map(|name| dir.path().join(name));
    for path in [&found, &other] {
        fs::write(path, [0; 4096]).unwrap();
    }
    let stat = rustix::fs::stat(&found).unwrap();
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let expected = DiskIdentity {
        device: format!("{major}:{minor}"),
        inode: sandtrace_event::Count(stat.st_ino),
        path: "fd/7".to_owned(),
        kind: "unknown".to_owned(),
    };
    let link = dir.path().join("fd");
    std::os::unix::fs::symlink(&found, &link).unwrap();
    assert!(open(&link, ImageFormat::Raw, Some(&expected)).is_ok());
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let error = open(&link, ImageFormat::Raw, Some(&expected)).unwrap_err();
    assert!(
        error.to_string().contains("is not the disk that was found"),
        "{error}"
    );
}
