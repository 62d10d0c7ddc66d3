//! Images that e2fsprogs publishes with its tests, and what its own programs
//! say of them.

use super::super::super::bounds::Problems;
use super::super::super::testing::has_program;
use super::walk;
use crate::published::corpus;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

/// Unpacks one image after the other.
pub(super) fn each(corpora: &Path, mut act: impl FnMut(&str, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    for image in fs::read_dir(corpora).unwrap() {
        let image = image.unwrap().path().join("image.gz");
        let Ok(packed) = fs::File::open(&image) else {
            continue;
        };
        let mut bytes = Vec::new();
        let mut unpacked = flate2::read::GzDecoder::new(packed);
        unpacked.read_to_end(&mut bytes).unwrap();
        fs::write(&path, bytes).unwrap();
        act(&image.display().to_string(), &path);
    }
}

fn run(program: &str, arguments: &[&str], image: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).arg(image).output().unwrap()
}

/// Names in the root, by debugfs (`ls -p`: inode, mode, owner, group, name);
/// `None` where it does not open the image, as no kernel does.
fn names(image: &Path) -> Option<BTreeSet<Vec<u8>>> {
    let output = run("debugfs", &["-R", "ls -p /"], image);
    if String::from_utf8_lossy(&output.stderr).contains("while trying to open") {
        return None;
    }
    let listed = output.stdout;
    let name = |line: &[u8]| Some(line.split(|byte| *byte == b'/').nth(5)?.to_vec());
    let names = listed.split(|byte| *byte == b'\n').filter_map(name);
    let names = names.filter(|name| !matches!(&name[..], b"" | b"." | b".."));
    Some(names.collect())
}

/// What is sound to e2fsck is read in full, or refused by the name of what is
/// not read.
#[test]
fn sound_images_are_read_or_refused_by_name() {
    let test = "sound_images_are_read_or_refused_by_name";
    let (Some(corpora), true) = (corpus(test, "ext4"), has_program(test, "debugfs")) else {
        return;
    };
    let (mut read, mut refused) = (0, 0);
    each(&corpora, |name, image| {
        // Of some images e2fsck itself never comes to an end.
        let check = run("timeout", &["5", "e2fsck", "-fn"], image);
        if !check.status.success() {
            return;
        }
        let Some(theirs) = names(image) else { return };
        let (tree, problems) = walk(image);
        if problems == Problems::default() {
            let tree = tree.unwrap_or_else(|| panic!("{name}: nothing is read"));
            let ours = tree.iter().filter_map(|(path, _)| {
                let name = path.strip_prefix(b"/")?;
                (!name.is_empty() && !name.contains(&b'/')).then(|| name.to_vec())
            });
            assert_eq!(ours.collect::<BTreeSet<_>>(), theirs, "{name}");
            read += 1;
        } else {
            let why = &problems.unreadable.first;
            assert!(why.contains("not supported"), "{name}: {problems:?}");
            println!("{name}: {why}");
            refused += 1;
        }
    });
    println!("{read} sound images are read, {refused} refused by name");
    assert!(read >= 5, "{read}");
}
