//! Reading ext4 structures.

mod hostile;
mod published;

use super::super::bounds::{Budget, Problems};
use super::super::content::Content;
use super::super::testing::{Dice, run, walk_anew};
use super::super::{FsConfig, ImageFormat, disk, tree::Tree};
use crate::published::corpus;
use sandtrace_event::{Digest, FileKind, HashScope};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn walk(path: &Path) -> (Option<Tree>, Problems) {
    let mut budget = Budget::new(&FsConfig::default());
    let disk = disk::open(path, ImageFormat::Raw, None).unwrap();
    let walked = walk_anew(&*disk, &mut budget);
    (walked.tree, walked.problems)
}

type Seen = BTreeMap<Vec<u8>, (char, u32, u32, u32, Option<Vec<u8>>)>;

/// What our reader sees, without what it could not read.
fn ours(tree: &Tree) -> Seen {
    let nodes = tree.iter().filter_map(|(path, node)| {
        let entry = node?;
        let attributes = entry.attributes?;
        let (kind, content) = match (&entry.kind, &entry.content) {
            (FileKind::File, Content::Hashed { digest, scope, .. }) => {
                assert_eq!(*scope, HashScope::Whole);
                ('f', Some(digest.0.to_vec()))
            }
            (FileKind::Dir, _) => ('d', None),
            (FileKind::Symlink, Content::Link(target)) => ('l', Some(target.to_vec())),
            (FileKind::File | FileKind::Symlink, _) => return None,
            _ => ('s', None),
        };
        let seen = (
            kind,
            attributes.mode,
            attributes.uid,
            attributes.gid,
            content,
        );
        Some((path.to_vec(), seen))
    });
    nodes.collect()
}

/// What another reader sees, as far as it can.
fn theirs(path: &Path) -> Option<Seen> {
    let volume = ext4_view::Ext4::load_from_path(path).ok()?;
    let mut seen = Seen::new();
    let root = volume.symlink_metadata("/").ok()?;
    let attributes = |kind, metadata: &ext4_view::Metadata, content| {
        let mode = u32::from(metadata.mode());
        (kind, mode, metadata.uid(), metadata.gid(), content)
    };
    seen.insert(b"/".to_vec(), attributes('d', &root, None));
    let mut visits = vec![ext4_view::PathBuf::new("/")];
    while let Some(dir) = visits.pop() {
        let Ok(entries) = volume.read_dir(dir.as_path()) else {
            continue;
        };
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let kind = metadata.file_type();
            let (kind, content) = if kind.is_dir() {
                if seen.len() < 5000 {
                    visits.push(path.clone());
                }
                ('d', None)
            } else if kind.is_symlink() {
                let Ok(target) = volume.read_link(path.as_path()) else {
                    continue;
                };
                ('l', Some(AsRef::<[u8]>::as_ref(&target).to_vec()))
            } else if kind.is_regular_file() {
                let small = metadata.len() <= 64 << 20;
                let Some(bytes) = small.then(|| volume.read(path.as_path()).ok()).flatten() else {
                    continue;
                };
                ('f', Some(sha2::Sha256::digest(bytes).to_vec()))
            } else {
                ('s', None)
            };
            let path: &[u8] = path.as_ref();
            seen.insert(path.to_vec(), attributes(kind, &metadata, content));
        }
    }
    Some(seen)
}

/// Content of a file as the tool that owns the format reads it.
fn referee(image: &Path, path: &[u8]) -> Vec<u8> {
    let request = format!("cat \"{}\"", String::from_utf8_lossy(path));
    let mut debugfs = std::process::Command::new("debugfs");
    let output = debugfs.args(["-R", &request]).arg(image).output();
    sha2::Sha256::digest(output.unwrap().stdout).to_vec()
}

/// Paths that both could read must be the same to both; where they are not,
/// e2fsprogs decides (the other reader shows what allocated, never written
/// blocks hold).
#[track_caller]
fn check_agreement(name: &str, image: &Path) -> usize {
    let (Some(tree), Some(theirs)) = (walk(image).0, theirs(image)) else {
        return 0;
    };
    let ours = ours(&tree);
    let mut agreed = 0;
    for (path, their) in theirs {
        let Some(our) = ours.get(&path) else {
            continue;
        };
        if *our != their {
            let text = String::from_utf8_lossy(&path).into_owned();
            let right = referee(image, &path);
            assert_eq!(our.4, Some(right), "{name}: {text}: {our:?} {their:?}");
            println!("{name}: {text}: e2fsprogs agrees with us");
        }
        agreed += 1;
    }
    agreed
}

#[test]
fn another_reader_sees_the_same_in_published_images() {
    let test = "another_reader_sees_the_same_in_published_images";
    let Some(corpora) = corpus(test, "ext4") else {
        return;
    };
    let mut agreed = 0;
    published::each(&corpora, |name, image| {
        agreed += check_agreement(name, image);
    });
    println!("{agreed} paths seen alike");
    assert!(agreed > 200);
}

/// A real tree of files, in every layout that mke2fs knows.
#[test]
fn another_reader_sees_the_same_in_made_images() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("many")).unwrap();
    for number in 0..2000 {
        let content = vec![b'x'; number % 300];
        fs::write(root.join(format!("many/file-{number}")), content).unwrap();
    }
    for (number, size) in [0, 1, 4096, 50_000, 1_000_000, 5_000_000]
        .iter()
        .enumerate()
    {
        let bytes: Vec<_> = (0..*size)
            .map(|at: u32| at.to_le_bytes()[number % 3])
            .collect();
        fs::write(root.join(format!("large-{number}")), bytes).unwrap();
    }
    std::os::unix::fs::symlink("a".repeat(59), root.join("short")).unwrap();
    std::os::unix::fs::symlink("b".repeat(200), root.join("long")).unwrap();
    let path = dir.path().join("disk.img");
    for options in [
        &["-b", "4096"][..],
        &["-b", "1024"],
        &["-O", "^extent,^64bit"],
        &["-O", "^extent,^64bit", "-b", "1024"],
        &["-O", "^metadata_csum,^64bit", "-I", "128"],
        &["-t", "ext3"],
    ] {
        let (root, path) = (root.to_str().unwrap(), path.to_str().unwrap());
        let mut arguments = vec!["-q", "-F", "-N", "4000", "-d", root];
        arguments.extend(options);
        arguments.extend([path, "64M"]);
        run("mkfs.ext4", &arguments);
        let (_, problems) = walk(path.as_ref());
        assert_eq!(problems, Problems::default(), "{options:?}");
        let agreed = check_agreement(&format!("{options:?}"), path.as_ref());
        assert_eq!(agreed, 2000 + 6 + 2 + 3, "{options:?}");
    }
}

/// Bytes of a sound image changed at random: whatever comes out, it comes.
#[test]
fn random_damage_neither_crashes_nor_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for number in 0..40 {
        fs::write(root.join(format!("a/b/{number}")), vec![number; 5000]).unwrap();
        fs::write(root.join(format!("a/{number}")), [number; 70]).unwrap();
    }
    let path = dir.path().join("disk.img");
    let (root, shown) = (root.to_str().unwrap(), path.to_str().unwrap());
    let mut dice = Dice::new();
    // Without checksums damage gets further.
    for features in ["^metadata_csum", "^metadata_csum,inline_data"] {
        let options = ["-q", "-F", "-O", features, "-b", "1024", "-d", root];
        run("mkfs.ext4", &[&options[..], &[shown, "2M"]].concat());
        let sound = fs::read(&path).unwrap();
        let metadata: Vec<usize> = (1024..sound.len()).filter(|at| sound[*at] != 0).collect();
        for _ in 0..300 {
            let mut bytes = sound.clone();
            for _ in 0..=dice.below(8) {
                let at = *dice.pick(&metadata);
                bytes[at] = u8::try_from(dice.below(256)).unwrap();
            }
            fs::write(&path, bytes).unwrap();
            let _ = walk(&path);
        }
    }
}

/// A real journal that was not checkpointed: debugfs writes transactions and
/// leaves them in the log, as a guest that runs does.
#[test]
fn the_journal_is_replayed_with_its_revocations() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("file"), vec![b'a'; 4096]).unwrap();
    let path = dir.path().join("disk.img");
    let (root, shown) = (root.to_str().unwrap(), path.to_str().unwrap());
    run(
        "mkfs.ext4",
        &["-q", "-F", "-b", "4096", "-d", root, shown, "32M"],
    );
    let disk = fs::read(&path).unwrap();
    let block = disk.chunks(4096).position(|block| block == [b'a'; 4096]);
    let block = block.unwrap();
    let content = |byte: u8| {
        let content = dir.path().join(format!("block-{byte}"));
        fs::write(&content, vec![byte; 4096]).unwrap();
        content.display().to_string()
    };
    let commands = |text: &str| {
        let script = dir.path().join("script");
        fs::write(&script, text).unwrap();
        run("debugfs", &["-w", "-f", script.to_str().unwrap(), shown]);
    };
    let digest = |byte: u8| Digest(sha2::Sha256::digest(vec![byte; 4096]).into());
    let file = || {
        let (tree, problems) = walk(&path);
        assert_eq!(problems, Problems::default());
        let tree = tree.unwrap();
        let entry = tree.get(b"/file").unwrap().unwrap();
        match entry.content {
            Content::Hashed { digest, .. } => digest,
            ref other => panic!("{other:?}"),
        }
    };
    let (b, c) = (content(b'b'), content(b'c'));
    commands(&format!("jo\njw -b {block} {b}\njc\n"));
    assert_eq!(file(), digest(b'b'), "one transaction");
    commands(&format!("jo\njw -b {block} {c}\njc\n"));
    assert_eq!(file(), digest(b'c'), "the later one counts");
    commands(&format!("jo\njw -r {block}\njc\n"));
    assert_eq!(file(), digest(b'a'), "revoked: the block itself counts");
    commands(&format!("jo\njw -b {block} {b}\njc\n"));
    assert_eq!(file(), digest(b'b'), "logged again after the revocation");
    // The tool that owns the format agrees.
    let fsck = std::process::Command::new("e2fsck")
        .args(["-fy", shown])
        .output();
    assert!(fsck.unwrap().status.code().is_some_and(|code| code <= 1));
    assert_eq!(file(), digest(b'b'), "after a real replay");
}
