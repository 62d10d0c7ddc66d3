//! Scans of file systems: an overlay beside `find` over its upper dir, two
//! images beside `cmp` of as many bytes, memory for a million inodes, and what
//! a disk costs that nobody writes to.

pub(crate) mod idle;

use crate::Options;
use crate::capture::require_success;
use crate::child::{Running, Took};
use crate::statistics::{median, spread};
use anyhow::{Context as _, Result, bail};
use sandtrace_capture::filesystem::{FsCollector, FsConfig, ImageFormat, Source};
use sandtrace_event::{QuiesceMethod, Timestamp, WallTime};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Runs this program as the watcher of an image; see [`watch`].
pub(crate) const COMMAND: &str = "fs-watch";

const LOWER_FILES: usize = 100_000;
const UPPER_FILES: usize = 1000;
const INODES: usize = 1_000_000;
/// Files of 1 MiB in the image.
const DATA_FILES: usize = 1100;
const CHANGED_FILES: usize = 11;

/// All of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    overlay(options)?;
    images(options)?;
    memory(options)?;
    idle::run(options)
}

fn time(command: &mut Command) -> Result<Took> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let took = Running::start(command)?.finish()?;
    require_success(&took)?;
    Ok(took)
}

fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {arguments:?}: {said}");
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
    Timestamp {
        mono_us: nanoseconds / 1000,
        wall: WallTime(nanoseconds),
    }
}

fn seconds(all: &[Took], of: fn(&Took) -> Duration) -> f64 {
    median(all.iter().map(|took| of(took).as_secs_f64()))
}

/// Files in 100 directories, of a few hundred bytes each.
fn tree(root: &Path, count: usize, word: &str) -> Result<()> {
    for number in 0..count {
        let dir = root.join(format!("dir{:02}", number % 100));
        if number < 100 {
            fs::create_dir_all(&dir).context("making a directory")?;
        }
        let file = dir.join(format!("file{number:06}"));
        fs::write(file, format!("{word} {number}\n").repeat(20)).context("writing a file")?;
    }
    Ok(())
}

fn overlay(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let [upper, lower, small] = ["upper", "lower", "small"].map(|name| dir.path().join(name));
    tree(&lower, LOWER_FILES, "lower")?;
    tree(&small, LOWER_FILES / 10, "lower")?;
    tree(&upper, UPPER_FILES, "upper")?;
    // A watch's scans come after the file system's clock has moved on.
    std::thread::sleep(Duration::from_millis(1100));
    let mut finds = Vec::new();
    let mut scans: [Vec<f64>; 2] = Default::default();
    let (mut whole, mut watched) = (Vec::new(), Vec::new());
    for lower in [&lower, &small] {
        let source = Source::Overlay {
            upper: upper.clone(),
            lowers: vec![lower.clone()],
        };
        watched.push(FsCollector::attach(source, FsConfig::default()).context("attaching")?);
    }
    for run in 0..=options.runs {
        let mut find = Command::new("find");
        finds.push(time(find.arg(&upper).args(["-printf", "%p %s %T@\\n"]))?);
        for (collector, scans) in watched.iter_mut().zip(&mut scans) {
            let begun = Instant::now();
            collector.scan(now(), QuiesceMethod::Live, &mut |_| ())?;
            scans.push(begun.elapsed().as_secs_f64());
        }
        let mut fsdiff = Command::new(&options.sandtrace);
        fsdiff.arg("fsdiff").arg("--overlay").arg(&upper);
        whole.push(time(fsdiff.arg("--lower").arg(&lower))?);
        if run == 0 {
            // Caches are warm from here on.
            finds.clear();
            whole.clear();
            scans.iter_mut().for_each(Vec::clear);
        }
    }
    println!(
        "overlay: {UPPER_FILES} of {LOWER_FILES} files changed, {} runs",
        options.runs
    );
    let find = seconds(&finds, |took| took.wall);
    println!("  find over the upper dir           {:8.2} ms", find * 1e3);
    for (scans, count) in scans.iter().zip([LOWER_FILES, LOWER_FILES / 10]) {
        let scan = median(scans.iter().copied());
        println!(
            "  scan, {count:6} files below         {:8.2} ms",
            scan * 1e3
        );
    }
    let fsdiff = seconds(&whole, |took| took.wall);
    println!(
        "  fsdiff, every content read        {:8.2} ms",
        fsdiff * 1e3
    );
    let [scan, _] = &scans;
    let ratios: Vec<f64> = scan.iter().map(|scan| scan / find).collect();
    println!("  time, scan / find: {}", spread(&ratios));
    Ok(())
}

fn images(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let before = dir.path().join("before.img");
    let after = dir.path().join("after.img");
    make_image(dir.path(), &before)?;
    quiet("cp", &["--sparse=always", text(&before)?, text(&after)?])?;
    change_image(dir.path(), &after)?;
    println!("images: 4 GiB, {DATA_FILES} MiB of data, {CHANGED_FILES} files of 1 MiB changed");
    compare("holes", &before, &after, options)?;
    if let Err(error) = reflinked(dir.path(), &before, options) {
        println!("  reflink: not measured: {error:#}");
    }
    for image in [&before, &after] {
        // Every block is allocated: nothing but reading tells.
        let full = image.with_extension("full");
        quiet("cp", &["--sparse=never", text(image)?, text(&full)?])?;
        fs::rename(full, image).context("replacing an image")?;
    }
    compare("every block", &before, &after, options)
}

/// `cmp` ends at the first difference, so it compares an image with itself
/// under another name; the same number of bytes.
fn compare(how: &str, before: &Path, after: &Path, options: &Options) -> Result<()> {
    let (mut cmps, mut diffs) = (Vec::new(), Vec::new());
    let twin = before.with_extension("twin");
    let sparse = if how == "every block" {
        "never"
    } else {
        "always"
    };
    quiet(
        "cp",
        &[&format!("--sparse={sparse}"), text(before)?, text(&twin)?],
    )?;
    for run in 0..=options.runs {
        let mut cmp = Command::new("cmp");
        cmps.push(time(cmp.arg(before).arg(&twin))?);
        let mut fsdiff = Command::new(&options.sandtrace);
        diffs.push(time(fsdiff.arg("fsdiff").arg(before).arg(after))?);
        if run == 0 {
            cmps.clear();
            diffs.clear();
        }
    }
    fs::remove_file(twin).context("removing an image")?;
    let row = |name: &str, all: &[Took]| {
        let memory = all.iter().map(|took| took.peak_memory).max().unwrap_or(0);
        println!(
            "  {how:12} {name:10} {:7.2} s {:7.2} s CPU {:6} MiB",
            seconds(all, |took| took.wall),
            seconds(all, |took| took.cpu),
            memory >> 20
        );
    };
    row("cmp", &cmps);
    row("sandtrace", &diffs);
    let ratio = |of: fn(&Took) -> Duration| -> Vec<f64> {
        let pairs = cmps.iter().zip(&diffs);
        pairs
            .map(|(cmp, diff)| of(diff).as_secs_f64() / of(cmp).as_secs_f64())
            .collect()
    };
    println!(
        "  {how}: time, sandtrace / cmp: {}",
        spread(&ratio(|took| took.wall))
    );
    println!(
        "  {how}: CPU, sandtrace / cmp: {}",
        spread(&ratio(|took| took.cpu))
    );
    Ok(())
}

/// On an XFS of its own, where a copy shares its extents.
fn reflinked(dir: &Path, image: &Path, options: &Options) -> Result<()> {
    let disk = dir.join("xfs.img");
    let file = File::create(&disk).context("making a disk")?;
    file.set_len(12 << 30).context("making a disk")?;
    quiet("mkfs.xfs", &["-q", text(&disk)?])?;
    let mount = dir.join("xfs");
    fs::create_dir(&mount).context("making a directory")?;
    quiet("mount", &["-o", "loop", text(&disk)?, text(&mount)?])?;
    let measured = (|| {
        let [before, after] = ["before.img", "after.img"].map(|name| mount.join(name));
        quiet("cp", &["--sparse=always", text(image)?, text(&before)?])?;
        quiet("cp", &["--reflink=always", text(&before)?, text(&after)?])?;
        change_image(dir, &after)?;
        compare("reflink", &before, &after, options)
    })();
    quiet("umount", &[text(&mount)?])?;
    fs::remove_file(disk).context("removing a disk")?;
    measured
}

fn make_image(dir: &Path, image: &Path) -> Result<()> {
    let root = dir.join("root");
    fs::create_dir(&root).context("making a directory")?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..DATA_FILES {
        let mut bytes = Vec::with_capacity(1 << 20);
        while bytes.len() < 1 << 20 {
            // xorshift64: nothing in it repeats.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        fs::write(root.join(format!("data{number:04}")), bytes).context("writing a file")?;
    }
    let made = quiet(
        "mkfs.ext4",
        &["-q", "-F", "-d", text(&root)?, text(image)?, "4G"],
    );
    fs::remove_dir_all(root).context("removing a directory")?;
    made
}

fn change_image(dir: &Path, image: &Path) -> Result<()> {
    let content = dir.join("content");
    fs::write(&content, vec![b'c'; 1 << 20]).context("writing a file")?;
    let mut script = String::new();
    for number in 0..CHANGED_FILES {
        let name = format!("data{:04}", number * 97);
        script.push_str(&format!("rm {name}\nwrite {} {name}\n", content.display()));
    }
    let commands = dir.join("commands");
    fs::write(&commands, script).context("writing a script")?;
    quiet("debugfs", &["-w", "-f", text(&commands)?, text(image)?])
}

/// Peak memory of comparing two images of a million inodes, and of watching
/// one; and what a scan costs of which nothing was written.
pub(crate) fn memory(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let image = many_inodes(dir.path())?;
    let after = dir.path().join("after.img");
    quiet("cp", &["--sparse=always", text(&image)?, text(&after)?])?;
    let mut fsdiff = Command::new(&options.sandtrace);
    let took = time(fsdiff.arg("fsdiff").arg(&image).arg(&after))?;
    println!("memory: {INODES} inodes");
    let row = |name: &str, took: &Took| {
        println!(
            "  {name:28} {:6} MiB {:7.2} s",
            took.peak_memory >> 20,
            took.wall.as_secs_f64()
        );
    };
    row("fsdiff, two images", &took);
    with_mounted(&after, &dir.path().join("mount"), |mount| {
        for number in 0..INODES {
            let mut file = File::options();
            let file = file.append(true).open(inode(mount, number));
            let written = file.and_then(|mut file| file.write_all(b"y"));
            written.context("changing a file")?;
        }
        Ok(())
    })?;
    let mut fsdiff = Command::new(&options.sandtrace);
    let took = time(fsdiff.arg("fsdiff").arg(&image).arg(&after))?;
    row("fsdiff, every file changed", &took);
    let this = std::env::current_exe().context("finding this program")?;
    let mut watch = Command::new(this);
    watch.arg(COMMAND).arg(&image).stdin(Stdio::null());
    let took = Running::start(&mut watch)?.finish()?;
    require_success(&took)?;
    row("watch, every content hashed", &took);
    Ok(())
}

fn many_inodes(dir: &Path) -> Result<PathBuf> {
    let image = dir.join("many.img");
    let file = File::create(&image).context("making an image")?;
    file.set_len(4 << 30).context("making an image")?;
    let count = (INODES + 20_000).to_string();
    quiet(
        "mkfs.ext4",
        &[
            "-q",
            "-b",
            "1024",
            "-N",
            &count,
            "-O",
            "^has_journal",
            text(&image)?,
        ],
    )?;
    let mount = dir.join("mount");
    fs::create_dir(&mount).context("making a directory")?;
    with_mounted(&image, &mount, |mount| {
        for number in 0..INODES {
            let path = inode(mount, number);
            if let (0, Some(dir)) = (number % 1000, path.parent()) {
                fs::create_dir(dir).context("making a directory")?;
            }
            fs::write(path, "x").context("writing a file")?;
        }
        Ok(())
    })?;
    Ok(image)
}

fn inode(mount: &Path, number: usize) -> PathBuf {
    mount.join(format!("directory{:03}/file{number:07}", number / 1000))
}

/// Does so to an image while it is mounted.
fn with_mounted(image: &Path, at: &Path, act: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    quiet("mount", &["-o", "loop", text(image)?, text(at)?])?;
    let acted = act(at);
    quiet("umount", &[text(at)?])?;
    acted
}

/// Attaches to an image, writes into it, and scans: the child of [`memory`].
pub(crate) fn watch(image: &Path) -> Result<()> {
    let source = Source::Image {
        path: image.to_owned(),
        format: ImageFormat::Raw,
    };
    let mut collector = FsCollector::attach(source, FsConfig::default()).context("attaching")?;
    let mut scan = |what: &str| -> Result<()> {
        let begun = Instant::now();
        let summary = collector.scan(now(), QuiesceMethod::Live, &mut |_| ())?;
        println!(
            "  {what:28} {:10.3} ms, {} changes of {} paths",
            begun.elapsed().as_secs_f64() * 1e3,
            summary.changes,
            summary.paths
        );
        Ok(())
    };
    quiet(
        "debugfs",
        &["-w", "-R", "rm directory500/file0500500", text(image)?],
    )?;
    scan("scan after one deletion")?;
    std::thread::sleep(Duration::from_millis(1100));
    scan("scan that settles the times")?;
    scan("scan while nobody writes")
}
