//! Scans of images that a kernel writes to meanwhile, as a guest's would.

use super::super::super::testing::{Dice, Report, has_program, is_root, oracle, run};
use super::super::super::{FsCollector, FsConfig};
use super::{Made, scan, source};
use sandtrace_event::{GapCause, QuiesceMethod};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// An image that a kernel has mounted, as a guest's would: nothing that is
/// under test mounts anything.
struct Guest {
    made: Made,
    mount: PathBuf,
}

impl Guest {
    fn new(format: &[&str], options: &str) -> Self {
        let made = Made::new(format, oracle::fill);
        let mount = made.dir.path().join("mount");
        fs::create_dir(&mount).unwrap();
        let options = format!("loop,{options}");
        let (image, at) = (made.path(), mount.to_str().unwrap());
        run(
            "mount",
            &["-t", "ext4", "-o", &options, image.to_str().unwrap(), at],
        );
        Self { made, mount }
    }

    /// An image to be scanned in place of the one that is mounted, of which it is
    /// a copy of some moment.
    fn shadow(&self) -> PathBuf {
        self.made.dir.path().join("shadow.img")
    }

    /// Brings that to this moment, and says what a kernel finds on it.
    fn on_disk(&self) -> oracle::View {
        let [copy, mount] = ["copy.img", "copy"].map(|name| self.made.dir.path().join(name));
        fs::copy(self.made.path(), self.shadow()).unwrap();
        fs::copy(self.shadow(), &copy).unwrap();
        fs::create_dir_all(&mount).unwrap();
        let [copy, at] = [&copy, &mount].map(|path| path.to_str().unwrap());
        run("mount", &["-t", "ext4", "-o", "loop", copy, at]);
        let view = oracle::view(&mount);
        run("umount", &[at]);
        // A loop device that is let go of late would be taken again for the same file,
        // with the pages of what was in it before.
        fs::remove_file(copy).unwrap();
        view
    }

    /// Writes to the journal's last block, as fast commits do that fill their room.
    fn write_last_of_journal(&self) {
        let mut debugfs = Command::new("debugfs");
        let output = debugfs
            .args(["-R", "blocks <8>"])
            .arg(self.made.path())
            .output();
        let blocks = String::from_utf8(output.unwrap().stdout).unwrap();
        let last: u64 = blocks.split_whitespace().last().unwrap().parse().unwrap();
        let disk = fs::File::options()
            .write(true)
            .open(self.made.path())
            .unwrap();
        disk.write_all_at(b"more", last * 1024).unwrap();
    }

    /// Brings what the page cache holds to the disk. With a journal, what is
    /// not content goes to the journal alone, as it does in a guest.
    fn flush(&self, has_journal: bool) {
        if !has_journal {
            return run("sync", &["-f", self.mount.to_str().unwrap()]);
        }
        let mut visits = vec![self.mount.clone()];
        while let Some(path) = visits.pop() {
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_dir() {
                let entries = fs::read_dir(&path).unwrap();
                visits.extend(entries.map(|entry| entry.unwrap().path()));
            }
            if kind.is_dir() || kind.is_file() {
                fs::File::open(path).unwrap().sync_all().unwrap();
            }
        }
        // What was changed of a link is committed with what is newer.
        let root = fs::File::open(&self.mount).unwrap();
        root.set_modified(std::time::SystemTime::now()).unwrap();
        root.sync_all().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}

/// A kernel writes, with its own journal going round; a scan of the image
/// beneath it tells the difference of two walks.
#[test]
fn a_scan_of_a_mounted_image_is_the_difference_of_two_walks() {
    if !is_root("a_scan_of_a_mounted_image_is_the_difference_of_two_walks") {
        return;
    }
    let mut dice = Dice::new();
    let mut operations = 0;
    // The small journals go round and round, and revoke what they logged.
    for (number, (format, options, steps)) in [
        (&[][..], "rw", 30),
        (&["-J", "size=4", "-b", "4096"], "rw", 60),
        (&["-J", "size=1", "-b", "1024"], "data=journal", 150),
        (&["-O", "^metadata_csum"], "nodelalloc,data=journal", 40),
        (&["-O", "^extent,^64bit"], "data=writeback", 30),
        (&["-O", "^has_journal"], "rw", 30),
        (&["-O", "inline_data", "-b", "4096"], "rw", 30),
        (&["-O", "inline_data", "-I", "1024", "-b", "4096"], "rw", 30),
    ]
    .into_iter()
    .enumerate()
    {
        let bound = [FsConfig::default().hash_bound, 8192][number % 2];
        let guest = Guest::new(format, options);
        let has_journal = !format.contains(&"^has_journal");
        // Of a file that grew out of its inode Linux (6.18) may leave a write in
        // its page cache for long, whoever asks for it to be flushed.
        let is_inline = format.iter().any(|option| option.contains("inline"));
        let view = || match is_inline {
            true => guest.on_disk(),
            false => oracle::view(&guest.mount),
        };
        guest.flush(has_journal);
        let mut before = view();
        let watched = match is_inline {
            true => guest.shadow(),
            false => guest.made.path(),
        };
        let config = FsConfig {
            hash_bound: bound,
            ..FsConfig::default()
        };
        let mut collector = FsCollector::attach(source(watched), config).unwrap();
        let mut story = vec![format!("{format:?} {options}, bound {bound}")];
        for _ in 0..steps {
            for _ in 0..=dice.below(12) {
                story.push(oracle::operate(&guest.mount, &mut dice));
            }
            guest.flush(has_journal);
            let after = view();
            let report = scan(&mut collector);
            oracle::check(&report, (&before, &after), bound, &story);
            before = after;
        }
        operations += oracle::done(&story);
    }
    assert!(operations > 1500, "{operations}");
}

/// A directory that a kernel has turned into a hashed one keeps an old
/// checksum behind its index.
#[test]
fn a_directory_that_grew_to_a_hashed_one_is_read_whole() {
    if !is_root("a_directory_that_grew_to_a_hashed_one_is_read_whole") {
        return;
    }
    for size in ["1024", "4096"] {
        let guest = Guest::new(&["-b", size, "-N", "8000"], "rw");
        let before = oracle::view(&guest.mount);
        guest.flush(true);
        let mut collector = guest.made.attach();
        // Enough for an index of two levels where blocks are small.
        for number in 0..5000 {
            fs::write(
                guest
                    .mount
                    .join(format!("home/a/a rather long name {number:08}")),
                "",
            )
            .unwrap();
        }
        guest.flush(true);
        let after = oracle::view(&guest.mount);
        let bound = FsConfig::default().hash_bound;
        let report = scan(&mut collector);
        oracle::check(&report, (&before, &after), bound, &[size.to_owned()]);
    }
}

/// While somebody writes, a scan may be late, but it says nothing that is not
/// so without saying so; and the last scan, when all is at rest, has caught up.
#[test]
fn what_is_written_while_it_is_read_is_caught_up_with() {
    if !is_root("what_is_written_while_it_is_read_is_caught_up_with") {
        return;
    }
    let mut dice = Dice::new();
    let guest = Guest::new(&["-J", "size=4", "-b", "4096"], "rw,commit=1");
    let before = oracle::view(&guest.mount);
    guest.flush(true);
    let mut collector = guest.made.attach();
    let is_over = AtomicBool::new(false);
    // What the scans told, added up.
    let mut paths: std::collections::BTreeSet<String> = before.keys().cloned().collect();
    let mut follow = |report: &Report| {
        for gap in &report.gaps {
            assert_eq!(gap.cause, GapCause::DiskUnreadable, "{gap:?}");
        }
        for change in &report.changes {
            if let Some(from) = &change.renamed_from {
                paths.remove(from);
            }
            match change.op {
                sandtrace_event::FileOp::Deleted => paths.remove(&change.path),
                _ => paths.insert(change.path.clone()),
            };
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..600 {
                oracle::operate(&guest.mount, &mut dice);
                if number % 20 == 0 {
                    guest.flush(true);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            follow(&Report::of(&mut collector, QuiesceMethod::Live));
        }
    });
    run("umount", &[guest.mount.to_str().unwrap()]);
    let report = Report::of(&mut collector, QuiesceMethod::Detached);
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert!(report.changes.iter().all(|change| change.quiesced));
    follow(&report);
    // What an index that was never late says.
    let truth: Vec<_> = guest.on_disk().into_keys().collect();
    assert_eq!(paths.into_iter().collect::<Vec<_>>(), truth);
    assert_eq!(scan(&mut guest.made.attach()).lines(), [""; 0]);
}

/// Fast commits are not replayed: what they hold is named at every one of them,
/// and told once it is committed in full.
#[test]
fn fast_commits_are_named_and_told_with_the_next_full_commit() {
    if !is_root("fast_commits_are_named_and_told_with_the_next_full_commit") {
        return;
    }
    // Of 2 MiB for them, as in a large journal, most is beyond a thousand blocks.
    let journal = "size=4,fast_commit_size=2048";
    let options = ["-b", "1024", "-O", "fast_commit", "-J", journal];
    let guest = Guest::new(&options, "rw,commit=300");
    let write = |name: &str| {
        let file = fs::File::create(guest.mount.join(name)).unwrap();
        file.write_all_at(b"content", 0).unwrap();
        file.sync_all().unwrap();
    };
    write("first");
    guest.flush(false);
    let mut collector = guest.made.attach();
    assert_eq!(scan(&mut collector).gaps, []);
    let mut told = std::collections::BTreeSet::new();
    for name in ["one", "two", "in the last block"] {
        match name {
            "in the last block" => guest.write_last_of_journal(),
            name => write(name),
        }
        let report = scan(&mut collector);
        assert_eq!(report.lines(), [""; 0]);
        let [gap] = report.gaps.as_slice() else {
            panic!("{:?}", report.gaps);
        };
        let reason = "ext4 feature not supported: fast_commit: ";
        assert!(gap.detail.starts_with(reason), "{gap:?}");
        assert_eq!(gap.cause, GapCause::DiskUnreadable);
        assert!(told.insert(gap.detail.clone()), "{gap:?}");
        assert_eq!(scan(&mut collector).gaps, []);
    }
    guest.flush(false);
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Created File /one", "Created File /two"]);
    assert_eq!(report.gaps, []);
}

/// Where the image's file system makes reflink copies, scans read these.
#[test]
fn a_reflink_copy_is_what_is_compared_with() {
    let test = "a_reflink_copy_is_what_is_compared_with";
    if !is_root(test) || !has_program(test, "mkfs.xfs") {
        return;
    }
    let made = Made::new(&["-b", "4096"], oracle::fill);
    let host = made.dir.path().join("host.img");
    fs::File::create(&host).unwrap().set_len(400 << 20).unwrap();
    let mount = made.dir.path().join("host");
    fs::create_dir(&mount).unwrap();
    let [host, at] = [&host, &mount].map(|path| path.to_str().unwrap());
    run("mkfs.xfs", &["-q", host]);
    run("mount", &["-o", "loop", host, at]);
    let image = mount.join("disk.img");
    fs::copy(made.path(), &image).unwrap();
    let mut collector = FsCollector::attach(source(image.clone()), FsConfig::default()).unwrap();
    let content = made.dir.path().join("content");
    fs::write(&content, "new").unwrap();
    let change = |request: &str| run("debugfs", &["-w", "-R", request, image.to_str().unwrap()]);
    for round in 0..3 {
        let name = format!("new{round}");
        change(&format!("write {} {name}", content.display()));
        let report = scan(&mut collector);
        assert_eq!(report.lines(), [format!("Created File /{name}")]);
        let change = &report.changes[0];
        assert_eq!(change.quiesce_method, QuiesceMethod::Snapshot);
        assert!(!change.quiesced);
        // Nothing but the new file was read.
        assert!(report.summary.hashed_bytes < 30_000, "{:?}", report.summary);
    }
    change("rm /etc/file");
    let report = scan(&mut collector);
    assert_eq!(report.lines(), ["Deleted File /etc/file"]);
    assert_eq!(report.changes[0].size_before.map(|size| size.0), Some(4000));
    drop(collector);
    run("umount", &[at]);
}
