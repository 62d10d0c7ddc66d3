//! What a watch of files costs a sandbox: nothing is written, and what its own
//! reading and writing takes beside a watch and without one, in turns.

use super::{now, quiet, text, time, tree, with_mounted};
use crate::Options;
use crate::child::Running;
use crate::statistics::{median, spread};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long nothing is written.
const REST: Duration = Duration::from_secs(10);
/// Files that are there, and that are read.
const FILES: usize = 10_000;
/// Files that are made anew and written to.
const WRITTEN: usize = 5000;

/// An overlay, and an image that is mounted as a guest's would be, by its file and by
/// its block device.
pub(crate) fn run(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    println!(
        "files under watch: {FILES} there, {WRITTEN} written, {} pairs",
        options.runs
    );
    overlay(dir.path(), options)?;
    image(dir.path(), options)
}

fn overlay(dir: &Path, options: &Options) -> Result<()> {
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| dir.join(name));
    for path in [&lower, &upper, &work, &merged] {
        fs::create_dir_all(path).context("making a directory")?;
    }
    tree(&lower, FILES, "lower")?;
    tree(&upper, FILES / 10, "upper")?;
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        text(&lower)?,
        text(&upper)?,
        text(&work)?
    );
    quiet(
        "mount",
        &["-t", "overlay", "overlay", "-o", &layers, text(&merged)?],
    )?;
    let watched = Watched {
        name: "overlay",
        arguments: vec!["--overlay".into(), upper],
        sandbox: &merged,
        dir,
    };
    let measured = watched.measure(options);
    quiet("umount", &[text(&merged)?])?;
    measured
}

fn image(dir: &Path, options: &Options) -> Result<()> {
    let (root, image, mount) = (dir.join("root"), dir.join("disk.img"), dir.join("mount"));
    fs::create_dir(&root).context("making a directory")?;
    fs::create_dir(&mount).context("making a directory")?;
    tree(&root, FILES, "image")?;
    quiet(
        "mkfs.ext4",
        &["-q", "-F", "-d", text(&root)?, text(&image)?, "512M"],
    )?;
    with_mounted(&image, &mount, |mount| {
        for (name, disk) in [("image", image.clone()), ("device", device_of(mount)?)] {
            let watched = Watched {
                name,
                arguments: vec!["--disk".into(), disk],
                sandbox: mount,
                dir,
            };
            watched.measure(options)?;
        }
        Ok(())
    })
}

/// The loop device that is mounted there (proc_pid_mountinfo(5)).
fn device_of(mount: &Path) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mounts")?;
    let at = format!(" {} ", text(mount)?);
    let line = mounts.lines().find(|line| line.contains(&at));
    let (_, source) = line
        .and_then(|line| line.split_once(" - ext4 "))
        .context("no mount")?;
    Ok(source.split(' ').next().unwrap_or_default().into())
}

/// What is watched, and where the sandbox sees it.
struct Watched<'a> {
    name: &'static str,
    arguments: Vec<PathBuf>,
    sandbox: &'a Path,
    dir: &'a Path,
}

impl Watched<'_> {
    fn measure(&self, options: &Options) -> Result<()> {
        // A device is read as long as something waits to be written to it.
        quiet("sync", &["-f", text(self.sandbox)?])?;
        let watch = self.watch(options)?;
        std::thread::sleep(REST);
        let took = watch.interrupt()?;
        let (idle, name) = (took.cpu.as_secs_f64() / REST.as_secs_f64(), self.name);
        println!(
            "  {name:8} CPU of the watch while nothing is written, with its start and end: {:.2} % of a core",
            idle * 100.0
        );
        self.pairs("reading", options, || read(self.sandbox))?;
        self.pairs("writing", options, || write(self.sandbox))
    }

    /// The same work without and with a watch, in turns.
    fn pairs(&self, what: &str, options: &Options, work: impl Fn() -> Result<()>) -> Result<()> {
        let timed = || -> Result<f64> {
            let begun = Instant::now();
            work()?;
            Ok(begun.elapsed().as_secs_f64())
        };
        timed()?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..options.runs {
            without.push(timed()?);
            let watch = self.watch(options)?;
            with.push(timed()?);
            watch.interrupt()?;
        }
        let ratios: Vec<f64> = with
            .iter()
            .zip(&without)
            .map(|(with, without)| with / without)
            .collect();
        let millis = |all: &[f64]| median(all.iter().copied()) * 1e3;
        println!(
            "  {:8} {what}: {:8.1} ms without, {:8.1} ms with a watch: {}",
            self.name,
            millis(&without),
            millis(&with),
            spread(&ratios)
        );
        Ok(())
    }

    /// A watch that has taken its baseline.
    fn watch(&self, options: &Options) -> Result<Running> {
        let trail = self.dir.join(format!("trail-{}.jsonl", now().wall.0));
        let said = self.dir.join("said");
        let mut command = Command::new(&options.sandtrace);
        command
            .args(["watch", "--sandbox-id", "bench", "--trail"])
            .arg(trail);
        command
            .args(&self.arguments)
            .env("SANDTRACE_STATE_DIR", self.dir.join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&said).context("making a file")?);
        let watch = Running::start(&mut command)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !fs::read_to_string(&said).is_ok_and(|said| said.contains("Ctrl-C ends")) {
            if Instant::now() > deadline {
                bail!("the watch does not begin");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(watch)
    }
}

/// Reads every file.
fn read(root: &Path) -> Result<()> {
    let mut grep = Command::new("grep");
    time(grep.args(["-rc", ""]).arg(root)).map(drop)
}

/// Makes files anew, writes to each and removes it.
fn write(root: &Path) -> Result<()> {
    let dir = root.join("written");
    fs::create_dir(&dir).context("making a directory")?;
    for number in 0..WRITTEN {
        fs::write(dir.join(number.to_string()), [b'w'; 4096]).context("writing a file")?;
    }
    fs::remove_dir_all(dir).context("removing a directory")
}
