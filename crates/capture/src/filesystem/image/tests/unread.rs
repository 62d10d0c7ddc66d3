//! What is not understood is said by name, of each file or of the whole disk,
//! and its changes are told by its blocks.

use super::super::super::testing::Report;
use super::{Made, home, scan};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;

/// Overwrites what is somewhere on the disk, under the file system.
fn overwrite(made: &Made, what: &[u8], with: &[u8]) {
    let disk = fs::read(made.path()).unwrap();
    let at = disk.windows(what.len()).position(|bytes| bytes == what);
    write_at(made, u64::try_from(at.unwrap()).unwrap(), with);
}

fn write_at(made: &Made, at: u64, bytes: &[u8]) {
    let image = fs::OpenOptions::new().write(true).open(made.path());
    image.unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn files_that_are_encrypted_are_told_by_their_blocks() {
    let made = Made::new(&["-O", "encrypt"], home);
    let mut collector = made.attach();
    made.write("/small", b"tiny");
    // EXT4_ENCRYPT_FL, with EXT4_EXTENTS_FL.
    let encrypted = "flags 0x80800";
    made.debugfs(&[
        &format!("set_inode_field /small {encrypted}"),
        &format!("set_inode_field /home/agent/old {encrypted}"),
        &format!("set_inode_field /home/agent {encrypted}"),
    ]);
    // Names as they are on the disk, in digits.
    let old = "/home/agent/6f6c64";
    assert_eq!(
        scan(&mut collector).lines(),
        [
            "Modified Dir /home/agent",
            "Renamed File /home/agent/6e6f746573 < /home/agent/notes",
            &format!("Created File {old}"),
            "Deleted File /home/agent/old",
            "Created File /small",
        ]
    );
    let mut seen = BTreeSet::new();
    let mut check = |report: &Report, expected: &[&str]| {
        assert_eq!(report.lines(), expected);
        assert_eq!(report.gaps, []);
        for change in &report.changes {
            let why = change.unreadable.clone().unwrap();
            assert!(
                why.starts_with("ext4 feature not supported: encrypt; "),
                "{why}"
            );
            assert!(seen.insert(why) && change.sha256.is_none());
        }
    };
    for (was, is) in [(b"tiny", b"Tiny"), (b"Tiny", b"tINY")] {
        overwrite(&made, was, is);
        overwrite(&made, &[7; 3000], &[8; 50]);
        let both = [&format!("Modified File {old}"), "Modified File /small"];
        check(&scan(&mut collector), &both);
        check(&scan(&mut collector), &[]);
    }
}

#[test]
fn encrypted_links_are_told_by_what_their_inodes_hold() {
    let made = Made::new(&["-O", "encrypt"], home);
    made.debugfs(&["symlink /link nowhere", "set_inode_field /link flags 0x800"]);
    let mut collector = made.attach();
    let mut seen = BTreeSet::new();
    for word in ["0x41414141", "0x42424242"] {
        made.debugfs(&[&format!("set_inode_field /link block[0] {word}")]);
        let report = scan(&mut collector);
        assert_eq!(report.lines(), ["Modified Symlink /link"]);
        let why = report.changes[0].unreadable.clone().unwrap();
        assert!(why.starts_with("ext4 feature not supported: encrypt; "));
        assert!(seen.insert(why));
        assert_eq!(scan(&mut collector).lines(), [""; 0]);
    }
}

/// As long as nobody can read it.
#[test]
fn a_file_system_that_is_not_read_is_told_by_its_blocks() {
    let made = Made::new(&["-O", "^metadata_csum,^metadata_csum_seed"], home);
    // EXT4_FEATURE_INCOMPAT_COMPRESSION
    let features = fs::read(made.path()).unwrap()[1024 + 0x60];
    write_at(&made, 1024 + 0x60, &[features | 1]);
    let mut collector = made.attach();
    let details = |report: Report| -> Vec<String> {
        assert_eq!(report.lines(), [""; 0]);
        report.gaps.into_iter().map(|gap| gap.detail).collect()
    };
    let mut told = BTreeSet::new();
    let reason = "the whole file system: ext4 feature not supported: compression";
    assert_eq!(details(scan(&mut collector)), [reason]);
    for byte in 1..4 {
        write_at(&made, 5 << 20, &[byte]);
        write_at(&made, 7 << 20, &[1]);
        let said = details(scan(&mut collector));
        let [said] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert!(said.starts_with(reason), "{said}");
        let where_ = match byte {
            1 => {
                "131072 bytes of it differ since all of the disk was last read (65536 at 5242880, 65536 at 7340032)"
            }
            _ => "65536 bytes of it differ since all of the disk was last read (65536 at 5242880)",
        };
        assert!(said.contains(where_), "{said}");
        assert!(told.insert(said.clone()), "{said}");
        assert_eq!(details(scan(&mut collector)), [""; 0]);
    }
    // One that could be read before: since then.
    write_at(&made, 1024 + 0x60, &[features]);
    assert_eq!(details(scan(&mut collector)), [""; 0]);
    write_at(&made, 1024 + 0x60, &[features | 1]);
    for byte in 4..6 {
        write_at(&made, 5 << 20, &[byte]);
        let said = details(scan(&mut collector)).concat();
        assert!(
            said.contains("differ since all of the disk was last read"),
            "{said}"
        );
        assert!(told.insert(said));
        assert_eq!(details(scan(&mut collector)), [""; 0]);
    }
}
