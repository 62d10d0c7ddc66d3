//! Headers as E2B writes them, made by hand from the layout; what a snapshot
//! reads as, against a disk in memory.

use super::super::super::config::ImageFormat;
use super::super::open;
use super::*;
use proptest::prelude::*;
use std::fs;

const BLOCK: u64 = 4096;

fn header(version: u64, size: u64, own: u8, rows: &[(u64, u64, u8, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [version, BLOCK, size, 1] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([own; 16]);
    bytes.extend([9; 16]);
    for (offset, len, build, at) in rows {
        bytes.extend(offset.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend([*build; 16]);
        bytes.extend(at.to_le_bytes());
    }
    bytes
}

#[test]
fn a_template_without_mappings_is_all_its_own() {
    let header = Header::parse(&header(2, 3 * BLOCK, 7, &[])).unwrap();
    let mapping = header.at(BLOCK).unwrap();
    assert_eq!((mapping.offset, mapping.len, mapping.at), (0, 3 * BLOCK, 0));
    let id = "07070707-0707-0707-0707-070707070707";
    assert_eq!(mapping.build.to_string(), id);
}

#[test]
fn what_does_not_hold_together_is_refused() {
    let check = |bytes: &[u8], error: HeaderError| {
        assert_eq!(Header::parse(bytes), Err(error));
    };
    let good = header(3, 2 * BLOCK, 7, &[(0, BLOCK, 7, 0), (BLOCK, BLOCK, 0, 0)]);
    assert!(Header::parse(&good).is_ok());
    check(&good[..63], HeaderError::Length(63));
    check(&good[..100], HeaderError::Length(100));
    let incomplete = HeaderError::Incomplete {
        mapped: BLOCK,
        size: 2 * BLOCK,
    };
    check(&good[..104], incomplete);
    check(&header(4, BLOCK, 7, &[]), HeaderError::Version(4));
    let overlap = [(0, BLOCK, 7, 0), (BLOCK - 1, BLOCK, 7, 0)];
    check(&header(3, 2 * BLOCK, 7, &overlap), HeaderError::Order(1));
    let beyond = [(0, u64::MAX, 7, 0)];
    check(&header(3, BLOCK, 7, &beyond), HeaderError::Bounds(0));
    let far = [(0, BLOCK, 7, u64::MAX - 1)];
    check(&header(3, BLOCK, 7, &far), HeaderError::Bounds(0));
    let mut block = good;
    block[8..16].copy_from_slice(&3000u64.to_le_bytes());
    check(&block, HeaderError::BlockSize(3000));
}

fn index(number: u64) -> usize {
    number.try_into().unwrap()
}

/// Builds 1 and 2, each with a file, and a disk of pieces of them.
fn check_disk(pieces: &[(u8, u64, u64)]) {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for build in 1..=2_u8 {
        let id = BuildId([build; 16]);
        let own = dir.path().join(id.to_string());
        fs::create_dir(&own).unwrap();
        let sector = |number: u8| [build.wrapping_mul(31).wrapping_add(number); 512];
        let bytes: Vec<u8> = (0..128).flat_map(sector).collect();
        fs::write(own.join("rootfs.ext4"), &bytes).unwrap();
        files.push(bytes);
    }
    let (mut rows, mut expected) = (Vec::new(), Vec::new());
    for &(build, blocks, at) in pieces {
        let (offset, len) = (expected.len() as u64, blocks * BLOCK);
        rows.push((offset, len, build, at * BLOCK));
        match build {
            0 => expected.extend(vec![0; index(len)]),
            build => {
                let file = &files[usize::from(build) - 1];
                let start = index(at * BLOCK);
                expected.extend(&file[start..start + index(len)]);
            }
        }
    }
    let path = dir.path().join(BuildId([2; 16]).to_string());
    let path = path.join("rootfs.ext4.header");
    fs::write(&path, header(3, expected.len() as u64, 2, &rows)).unwrap();
    let disk = open(&path, ImageFormat::by_name(&path), None).unwrap();
    assert_eq!(disk.size(), expected.len() as u64);
    let mut read = vec![1; expected.len()];
    disk.read_exact_at(&mut read, 0).unwrap();
    assert!(read == expected);
    let mut at = 0;
    while at < disk.size() {
        let (place, len) = disk.place(at).unwrap();
        assert!(len > 0);
        if place == Place::Zeros {
            let piece = &expected[index(at)..index(at + len)];
            assert!(piece.iter().all(|byte| *byte == 0));
        }
        at += len;
    }
    assert!(disk.read_exact_at(&mut [0; 1], disk.size()).is_err());
}

#[test]
fn a_build_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    let path = own.join("rootfs.ext4.header");
    fs::write(&path, header(3, BLOCK, 5, &[(0, BLOCK, 5, 0)])).unwrap();
    let error = open(&path, ImageFormat::by_name(&path), None).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("05050505-0505-0505-0505-050505050505/rootfs.ext4"),
        "{said}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pieces_read_as_their_builds_have_them(
        pieces in prop::collection::vec((0..=2_u8, 1..=8_u64, 0..=8_u64), 1..12)
    ) {
        check_disk(&pieces);
    }

    #[test]
    fn whatever_is_accepted_covers_the_disk(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        size in 0..64_u64,
        lens in prop::collection::vec(0..8_u64, 0..8),
    ) {
        let mut rows = Vec::new();
        let mut at = 0;
        for len in lens {
            rows.push((at, len, 1, at));
            at += len;
        }
        for bytes in [bytes, header(3, size, 1, &rows)] {
            let Ok(header) = Header::parse(&bytes) else { continue };
            for offset in 0..header.size.min(64) {
                let mapping = header.at(offset).unwrap();
                prop_assert!((mapping.offset..mapping.offset + mapping.len).contains(&offset));
            }
        }
    }
}
