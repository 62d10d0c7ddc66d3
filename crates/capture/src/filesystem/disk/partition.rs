//! Partition tables: MBR with logical partitions, and GPT (UEFI
//! Specification 2.10, chapter 5).

use super::Blocks;
use std::io;

/// A part of a disk that a table names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// As Linux numbers them, from 1.
    pub(crate) number: u32,
    /// First byte.
    pub(crate) start: u64,
    /// Bytes; may reach beyond the disk's end.
    pub(crate) len: u64,
    /// It is not to be read: others of the same bytes are already.
    pub(crate) is_crowded: bool,
}

/// More are not looked at: a GPT has 128 by default.
const MOST: usize = 256;
/// Partitions that may hold the same bytes. Two tables may tell of the same
/// place in two ways, but nobody has a use for a disk that is read hundreds of
/// times.
const MOST_OF_SAME: usize = 4;
/// Logical partitions chained in a ring must end somewhere.
const MOST_LOGICAL: u32 = 60;
/// Largest entry of a GPT that is taken for one.
const MAX_ENTRY: u32 = 4096;
const SECTOR: u64 = 512;
/// Types of MBR partitions that hold a chain of logical ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;

/// The partitions of a disk; none where there is no table. A table that is
/// damaged gives what can be made of it.
pub(crate) fn partitions(disk: &dyn Blocks) -> io::Result<Vec<Partition>> {
    let mut sector = [0; 512];
    if disk.size() < 2 * SECTOR {
        return Ok(Vec::new());
    }
    disk.read_exact_at(&mut sector, 0)?;
    let mut found = Vec::new();
    // The guest's kernel reads a GPT behind a protective MBR; a forged one
    // elsewhere is read as well, as nothing says which the guest believes.
    for size in [SECTOR, 4096] {
        gpt(disk, size, &mut found)?;
        if !found.is_empty() {
            break;
        }
    }
    if is_table(&sector) {
        mbr(disk, &sector, &mut found)?;
    }
    found.retain(|partition| partition.start > 0 && partition.start < disk.size());
    let mut starts = std::collections::HashSet::new();
    found.retain(|partition| starts.insert((partition.start, partition.len)));
    found.truncate(MOST);
    crowd(&mut found);
    Ok(found)
}

/// Marks partitions of bytes that enough others before them hold.
fn crowd(found: &mut [Partition]) {
    let mut kept: Vec<Partition> = Vec::new();
    for partition in found {
        let end = |of: &Partition| of.start.saturating_add(of.len);
        let overlaps =
            |other: &&Partition| other.start < end(partition) && partition.start < end(other);
        partition.is_crowded = kept.iter().filter(overlaps).count() >= MOST_OF_SAME;
        if !partition.is_crowded {
            kept.push(*partition);
        }
    }
}

fn is_table(sector: &[u8; 512]) -> bool {
    sector.ends_with(&[0x55, 0xaa])
}

/// Type, first sector and sectors of the four entries of a boot sector.
fn entries(sector: &[u8; 512]) -> impl Iterator<Item = (u8, u64, u64)> {
    let table = sector.get(446..510).unwrap_or_default();
    table.chunks_exact(16).map(|entry| {
        let le32 = |at: usize| {
            let bytes = entry
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            u64::from(bytes.map_or(0, u32::from_le_bytes))
        };
        (entry.get(4).copied().unwrap_or(0), le32(8), le32(12))
    })
}

fn mbr(disk: &dyn Blocks, sector: &[u8; 512], found: &mut Vec<Partition>) -> io::Result<()> {
    for (number, (kind, first, count)) in (1..).zip(entries(sector)) {
        if EXTENDED.contains(&kind) {
            logical(disk, first, found)?;
        } else if kind != 0 && kind != PROTECTIVE && count > 0 {
            found.push(partition(number, first, count));
        }
    }
    Ok(())
}

/// Each link of the chain has one partition, relative to itself, and the
/// next link, relative to the first.
fn logical(disk: &dyn Blocks, first: u64, found: &mut Vec<Partition>) -> io::Result<()> {
    let mut at = first;
    let mut number = 5;
    for _ in 0..MOST_LOGICAL {
        let mut sector = [0; 512];
        if at.saturating_mul(SECTOR).saturating_add(SECTOR) > disk.size() {
            break;
        }
        disk.read_exact_at(&mut sector, at * SECTOR)?;
        if !is_table(&sector) {
            break;
        }
        let mut next = None;
        for (kind, start, count) in entries(&sector) {
            if EXTENDED.contains(&kind) {
                next = next.or(Some(first.saturating_add(start)));
            } else if kind != 0 && count > 0 {
                found.push(partition(number, at.saturating_add(start), count));
                number += 1;
            }
        }
        match next {
            Some(next) if next > first => at = next,
            _ => break,
        }
    }
    Ok(())
}

fn partition(number: u32, first: u64, sectors: u64) -> Partition {
    Partition {
        number,
        start: first.saturating_mul(SECTOR),
        len: sectors.saturating_mul(SECTOR),
        is_crowded: false,
    }
}

/// Reads the table at the start, or where that is damaged the one at the end.
fn gpt(disk: &dyn Blocks, sector: u64, found: &mut Vec<Partition>) -> io::Result<()> {
    let last = (disk.size() / sector).saturating_sub(1);
    for header in [1, last] {
        let offset = header.saturating_mul(sector);
        let mut bytes = [0; 92];
        if header == 0 || offset.saturating_add(512) > disk.size() {
            continue;
        }
        disk.read_exact_at(&mut bytes, offset)?;
        if bytes.starts_with(b"EFI PART") && gpt_entries(disk, sector, &bytes, found)? {
            return Ok(());
        }
    }
    Ok(())
}

fn gpt_entries(
    disk: &dyn Blocks,
    sector: u64,
    header: &[u8; 92],
    found: &mut Vec<Partition>,
) -> io::Result<bool> {
    let (table, count, size) = (le64(header, 72), le32(header, 80), le32(header, 84));
    if !(128..=MAX_ENTRY).contains(&size) || le64(header, 24) == 0 {
        return Ok(false);
    }
    let mut entry = vec![0; usize::try_from(size).unwrap_or(128)];
    let mut offset = table.saturating_mul(sector);
    for number in 1..=count.min(u32::try_from(MOST).unwrap_or(0)) {
        if offset.saturating_add(size.into()) > disk.size() {
            break;
        }
        disk.read_exact_at(&mut entry, offset)?;
        offset += u64::from(size);
        let (first, last) = (le64(&entry, 32), le64(&entry, 40));
        let is_used = entry.iter().take(16).any(|byte| *byte != 0);
        if is_used && last >= first {
            found.push(Partition {
                number,
                start: first.saturating_mul(sector),
                len: (last - first).saturating_add(1).saturating_mul(sector),
                is_crowded: false,
            });
        }
    }
    Ok(true)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes
        .get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}
