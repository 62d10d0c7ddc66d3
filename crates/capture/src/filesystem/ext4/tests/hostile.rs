//! Images that were made to cost much: each is read, or refused by name, with
//! little memory and in little time.

use super::super::super::bounds::{Budget, Problems};
use super::super::super::disk::{Blocks, Bytes, Place, Stamp};
use super::super::super::testing::{run, walk_anew};
use super::super::super::tree::{Identity, Tree, Xattrs};
use super::super::{Ext4Error, Step, Volume};
use crate::filesystem::FsConfig;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SUPERBLOCK: usize = 1024;
/// Bytes of a value that is in an inode of its own.
const LARGE: u32 = 60_000;

/// A disk in memory that counts what is read of it.
#[derive(Debug)]
struct Counting {
    disk: Bytes,
    read: AtomicU64,
}

impl Blocks for Counting {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.disk.read_exact_at(buffer, offset)
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        self.disk.place(offset)
    }

    fn stamp(&self) -> Option<Stamp> {
        None
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        panic!("nobody asks for it")
    }
}

/// An image whose bytes are changed here and there.
struct Forged {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Forged {
    fn new(options: &[&str], size: &str, files: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("dir")).unwrap();
        for number in 0..files {
            fs::write(root.join(format!("f{number}")), "x").unwrap();
        }
        let image = dir.path().join("disk.img");
        let mut arguments = vec!["-q", "-F", "-d", root.to_str().unwrap()];
        arguments.extend(options);
        arguments.extend([image.to_str().unwrap(), size]);
        run("mkfs.ext4", &arguments);
        let bytes = fs::read(&image).unwrap();
        Self { dir, bytes }
    }

    fn debugfs(&mut self, script: &str) {
        let [image, commands] = ["disk.img", "script"].map(|name| self.dir.path().join(name));
        fs::write(&commands, script).unwrap();
        fs::write(&image, &self.bytes).unwrap();
        let commands = commands.to_str().unwrap();
        run("debugfs", &["-w", "-f", commands, image.to_str().unwrap()]);
        self.bytes = fs::read(&image).unwrap();
    }

    /// A file of so many bytes, beside the image.
    fn large(&self) -> std::path::PathBuf {
        let path = self.dir.path().join("large");
        fs::write(&path, vec![b'v'; LARGE as usize]).unwrap();
        path
    }

    fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_all(&mut self, at: usize, numbers: impl IntoIterator<Item = u32>) {
        for (index, number) in numbers.into_iter().enumerate() {
            self.put(at + 4 * index, &number.to_le_bytes());
        }
    }

    /// Where an inode of the first group is, in a file system without 64 bit.
    fn inode(&self, number: usize) -> usize {
        let block_size = 1024 << self.le32(SUPERBLOCK + 0x18);
        let descriptors = (SUPERBLOCK / block_size + 1) * block_size;
        let table = self.le32(descriptors + 8) as usize * block_size;
        let size = self.le32(SUPERBLOCK + 0x58) as usize & 0xffff;
        table + (number - 1) * size
    }

    fn disk(&self) -> Counting {
        Counting {
            disk: Bytes(self.bytes.clone()),
            read: AtomicU64::new(0),
        }
    }

    fn walk(&self) -> (Option<Tree>, Problems) {
        walk(&self.disk(), &mut Budget::new(&FsConfig::default()))
    }
}

fn walk(disk: &dyn Blocks, budget: &mut Budget) -> (Option<Tree>, Problems) {
    let walked = walk_anew(disk, budget);
    (walked.tree, walked.problems)
}

fn number_of(tree: &Tree, path: &str) -> usize {
    let entry = tree.get(path.as_bytes()).unwrap().unwrap();
    let Identity::Inode(number, _) = entry.identity else {
        panic!("{entry:?}");
    };
    usize::try_from(number).unwrap()
}

/// Gives all files the attributes of the first.
fn share_attributes(forged: &mut Forged, files: usize) {
    let disk = Bytes(forged.bytes.clone());
    let walked = walk(&disk, &mut Budget::new(&FsConfig::default())).0;
    let inode = forged.inode(number_of(&walked.unwrap(), "/f0"));
    let block = forged.le32(inode + 0x68);
    assert_ne!(block, 0);
    let mut script = String::new();
    for number in 1..files {
        writeln!(script, "set_inode_field /f{number} file_acl {block}").unwrap();
    }
    forged.debugfs(&script);
}

fn attributes_of(tree: &Tree, files: usize) -> Vec<Xattrs> {
    let of = |number| tree.get(format!("/f{number}").as_bytes()).unwrap().unwrap();
    (0..files).map(|number| of(number).xattrs).collect()
}

#[test]
fn a_value_that_files_share_is_read_once() {
    const FILES: usize = 600;
    let options = [
        "-O",
        "ea_inode,^64bit,^metadata_csum",
        "-I",
        "128",
        "-b",
        "1024",
    ];
    let mut forged = Forged::new(&options, "16M", FILES);
    let value = forged.dir.path().join("value");
    fs::write(&value, vec![b'v'; 2000]).unwrap();
    let value = value.display();
    forged.debugfs(&format!(
        "ea_set -f {value} /f0 user.big\nwrite {} /value",
        forged.large().display()
    ));
    let walked = forged.walk().0.unwrap();
    // The value's inode becomes that of a larger file.
    let block = forged.le32(forged.inode(number_of(&walked, "/f0")) + 0x68);
    let entry = block as usize * 1024 + 32;
    let holder = u32::try_from(number_of(&walked, "/value")).unwrap();
    assert_ne!(forged.le32(entry + 4), 0);
    forged.put_all(entry + 4, [holder, LARGE]);
    share_attributes(&mut forged, FILES);
    let disk = forged.disk();
    let (tree, problems) = walk(&disk, &mut Budget::new(&FsConfig::default()));
    assert_eq!(problems, Problems::default());
    let attributes = attributes_of(&tree.unwrap(), FILES);
    assert_ne!(attributes[0], Xattrs::default());
    assert!(attributes.iter().all(|other| *other == attributes[0]));
    let read = disk.read.into_inner();
    assert!(read < 8 << 20, "{read} bytes were read");
}

#[test]
fn many_attributes_that_files_share_take_little_room() {
    const FILES: usize = 1000;
    let options = ["-O", "^64bit,^metadata_csum", "-I", "128", "-b", "4096"];
    let mut forged = Forged::new(&options, "32M", FILES);
    let set = |number| format!("ea_set /f0 user.a{number} x\n");
    forged.debugfs(&(100..240).map(set).collect::<String>());
    share_attributes(&mut forged, FILES);
    let (tree, problems) = forged.walk();
    assert_eq!(problems, Problems::default());
    let attributes = attributes_of(&tree.unwrap(), FILES);
    assert!(matches!(attributes[0], Xattrs::Summed(_)));
    assert!(attributes.iter().all(|other| *other == attributes[0]));

    // No more is read than the scan may spend, and that is said.
    let mut budget = Budget::new(&FsConfig::default());
    budget.attribute_bytes = 100_000;
    let (tree, problems) = walk(&forged.disk(), &mut budget);
    let attributes = attributes_of(&tree.unwrap(), FILES);
    assert!(attributes.contains(&Xattrs::NotRead));
    assert!(attributes.contains(&attributes[0]));
    assert!(
        problems.bounded.first.contains("attributes"),
        "{problems:?}"
    );
    assert!(problems.bounded.count > 900, "{problems:?}");
}

/// The blocks of the journal are all one and the same: of revocations, of
/// which each would be a quarter of a thousand more.
#[test]
fn a_journal_that_is_one_block_over_and_over_is_refused() {
    let options = ["-O", "^extent,^64bit,^metadata_csum", "-b", "1024"];
    let mut forged = Forged::new(&options, "16M", 0);
    let journal = forged.inode(8);
    // Its superblock, then a block of each kind that is made anew.
    let numbers = [0, 1, 2, 3, 4].map(|index| forged.le32(journal + 0x28 + 4 * index));
    let [first, revoke, single, double, _] = numbers.map(|block| block as usize * 1024);
    let [_, revoke_block, single_block, double_block, triple_block] = numbers;
    // All of a billion bytes.
    forged.put(journal + 4, &(1_u32 << 30).to_le_bytes());
    forged.put_all(journal + 0x2c, [revoke_block; 11]);
    forged.put_all(
        journal + 0x28 + 48,
        [single_block, double_block, triple_block],
    );
    forged.put_all(single, [revoke_block; 256]);
    forged.put_all(double, [single_block; 256]);
    forged.put_all(triple_block as usize * 1024, [double_block; 256]);
    let big = |number: u32| number.to_be_bytes();
    // 2^20 blocks, of which the log begins with the first.
    forged.put(first + 16, &[big(1 << 20), big(1), big(7), big(1)].concat());
    forged.put(first + 40, &big(0));
    forged.put(
        revoke,
        &[[0xc0, 0x3b, 0x39, 0x98], big(5), big(7), big(1024)].concat(),
    );
    forged.put_all(revoke + 16, 1..253);
    // It must be replayed.
    let features = forged.le32(SUPERBLOCK + 0x60) | 4;
    forged.put(SUPERBLOCK + 0x60, &features.to_le_bytes());
    let start = Instant::now();
    let (tree, problems) = forged.walk();
    assert!(tree.is_none());
    let detail = &problems.unreadable.first;
    assert!(detail.contains("in the journal twice"), "{detail}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// A directory of four billion blocks, none of which is there.
#[test]
fn holes_of_a_directory_are_counted() {
    let options = ["-O", "^extent,^64bit,^metadata_csum", "-b", "1024"];
    let mut forged = Forged::new(&options, "16M", 1);
    let root = forged.inode(2);
    let free = 15_000_u32;
    forged.put_all(free as usize * 1024, [0; 256]);
    forged.put_all((free as usize + 1) * 1024, [free; 256]);
    forged.put_all((free as usize + 2) * 1024, [free + 1; 256]);
    forged.put_all(root + 0x28 + 48, [free, free + 1, free + 2]);
    // 2^34 bytes: as many as three levels of such small blocks reach.
    forged.put(root + 4, &[0; 4]);
    forged.put(root + 0x6c, &4_u32.to_le_bytes());
    let disk = forged.disk();
    let volume = Volume::open(&disk).unwrap();
    let inode = volume.inode(2).unwrap();
    assert_eq!(inode.size, 1 << 34);
    let (mut blocks, mut calls) = (1000, 0);
    let mut count = |step| {
        calls += u32::from(matches!(step, Step::Unread(_)));
        true
    };
    let listed = volume.list(&inode, &mut blocks, &mut count);
    let larger = Ext4Error::Corrupt("directories larger than the disk");
    assert_eq!(listed, Err(larger));
    assert!(calls < 1000, "{calls}");
    let mut after_end = 0;
    let mut stop = |step| {
        let ends = matches!(step, Step::Unread(_));
        after_end += u32::from(ends);
        !ends
    };
    volume.list(&inode, &mut 1000, &mut stop).unwrap();
    assert_eq!(after_end, 1, "it was told to stop");
    // As a whole: the name that is there is found, the rest is a gap.
    let (tree, problems) = forged.walk();
    assert!(tree.unwrap().get(b"/f0").is_some());
    assert!(problems.unreadable.count > 0);
}

/// An index of extents that leads back to itself.
#[test]
fn a_loop_of_extents_ends() {
    let options = ["-O", "^64bit,^metadata_csum,^metadata_csum_seed"];
    let mut forged = Forged::new(&options, "16M", 1);
    let walked = forged.walk().0.unwrap();
    let inode = forged.inode(number_of(&walked, "/f0"));
    let block_size = 1024_usize << forged.le32(SUPERBLOCK + 0x18);
    let own = u32::try_from(15 * (1 << 20) / block_size).unwrap();
    for depth in [5_u8, 1] {
        // Magic, one entry of at most four, and how deep: always the same.
        let node = [0x0a, 0xf3, 1, 0, 4, 0, depth, 0, 0, 0, 0, 0];
        let mut entry = [0; 12];
        entry[4..8].copy_from_slice(&own.to_le_bytes());
        for at in [inode + 0x28, own as usize * block_size] {
            forged.put(at, &node);
            forged.put(at + 12, &entry);
        }
        let walked = forged.walk().0.unwrap();
        let file = walked.get(b"/f0").unwrap().unwrap();
        let unreadable = format!("{:?}", file.content);
        assert!(unreadable.contains("extent tree"), "{unreadable}");
    }
}

/// Whatever numbers of a superblock are forged, the answer comes soon.
#[test]
fn forged_counts_of_a_superblock_are_refused_or_do_no_harm() {
    let options = ["-O", "^64bit,^metadata_csum"];
    let sound = Forged::new(&options, "16M", 3);
    // Inodes, blocks, first block, blocks and inodes per group, inode size.
    for at in [0x0, 0x4, 0x14, 0x20, 0x28, 0x58] {
        for value in [0_u32, 1, 0x7fff_ffff, u32::MAX] {
            let mut forged = Forged {
                dir: tempfile::tempdir().unwrap(),
                bytes: sound.bytes.clone(),
            };
            forged.put(SUPERBLOCK + at, &value.to_le_bytes());
            let start = Instant::now();
            let (tree, problems) = forged.walk();
            let is_whole = tree.is_some_and(|tree| tree.get(b"/f2").is_some());
            assert!(
                is_whole || problems.unreadable.count > 0,
                "{at:#x} {value:#x}"
            );
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    }
}
