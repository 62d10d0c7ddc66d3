//! Random operations on files: whatever programs do to a file system, in an
//! order that nobody would choose.

use std::fs::{self, File, Permissions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, lremovexattr, lsetxattr};
use sandtrace_sys::mapped;

use super::{Agent, AgentError, below};

/// Below this directory everything happens.
pub const DISORDER: &str = "/home/agent/disorder";

/// Operations between two requests to write everything to the disk: what is
/// read from it meanwhile is a state that the file system was in.
const SYNC_EVERY: u32 = 100;

/// Operations after which something is kept that no later one gets at: by chance
/// much of what is made is removed again.
const KEEP_EVERY: u32 = 250;

/// Of so many tries one succeeds, in the long run; in fact every third does.
const MOST_TRIES: u32 = 10;

/// Does `operations` of them. One that fails does no harm and does not count.
pub(super) fn disorder(
    agent: &mut Agent<'_>,
    seed: u64,
    operations: u32,
) -> Result<(), AgentError> {
    let root = below(agent.root.path(), DISORDER);
    let mut dice = Dice::new(seed);
    let _exists = fs::create_dir_all(&root);
    let (mut done, mut tries) = (0_u32, 0_u32);
    while done < operations && tries < operations.saturating_mul(MOST_TRIES) {
        tries += 1;
        if operate(&root, &mut dice).is_err() {
            continue;
        }
        done += 1;
        if done.is_multiple_of(KEEP_EVERY) {
            keep(&root, done);
        }
        if done.is_multiple_of(SYNC_EVERY) {
            rustix::fs::sync();
        }
    }
    agent.tell("disorder", format!("{done} operations"));
    Ok(())
}

/// Gives a file a name that no operation uses, the first that there is.
fn keep(root: &Path, number: u32) {
    let kept = root.join(format!("kept {number}"));
    let files = NAMES.map(|name| root.join(name)).into_iter();
    let moved = files
        .filter(|path| path.is_file() || path.is_symlink())
        .any(|path| fs::rename(path, &kept).is_ok());
    if !moved {
        let _full = fs::write(&kept, kept.as_os_str().as_encoded_bytes());
    }
}

fn operate(root: &Path, dice: &mut Dice) -> io::Result<()> {
    let (from, to) = (dice.path(), dice.path());
    let (one, two) = (root.join(from), root.join(&to));
    let at = u64::from(dice.below(6000));
    match dice.below(26) {
        0..=3 => fs::write(&one, dice.bytes()),
        4 | 5 => fs::create_dir_all(&one),
        6 => fs::remove_file(&one),
        7 => fs::remove_dir(&one),
        8 if dice.below(4) == 0 => fs::remove_dir_all(&one),
        8..=10 => fs::rename(&one, &two),
        11 => fs::hard_link(&one, &two),
        12 => symlink(&to, &one),
        13 => set_mode(&one, *dice.pick(&[0o600, 0o644, 0o755, 0o1777])),
        14 => {
            let owner = dice.below(3);
            lchown(&one, Some(owner), Some(owner))
        }
        15 => {
            let mut file = opened(&one)?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(b"patch")
        }
        16 => opened(&one)?.set_len(at),
        17 | 18 => {
            let value = vec![b'v'; *dice.pick(&[0, 1, 30, 600])];
            let name = *dice.pick(&ATTRIBUTES);
            Ok(lsetxattr(&one, name, &value, XattrFlags::empty())?)
        }
        19 => Ok(lremovexattr(&one, *dice.pick(&ATTRIBUTES))?),
        20 => opened(&one)?.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)),
        21 => Ok(fallocate(
            opened(&one)?,
            *dice.pick(&ALLOCATIONS),
            at,
            5000,
        )?),
        22 | 23 => patch_secretly(&one, at),
        24 => mapped::write(&opened(&one)?, b"mapped"),
        _ => copy(&one, &two),
    }
}

/// Few, so that operations meet.
const NAMES: [&str; 7] = ["a", "b", "c", "home", "etc", "file", "x y"];

const ATTRIBUTES: [&str; 4] = ["user.note", "user.x", "security.test", "trusted.test"];

const ALLOCATIONS: [FallocateFlags; 4] = [
    FallocateFlags::empty(),
    FallocateFlags::KEEP_SIZE,
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
    FallocateFlags::ZERO_RANGE,
];

fn opened(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Writes amid a file, whose size and time of modification stay as they were.
fn patch_secretly(path: &Path, at: u64) -> io::Result<()> {
    let mut file = opened(path)?;
    let metadata = file.metadata()?;
    if let Some(last) = metadata.len().checked_sub(5) {
        file.seek(SeekFrom::Start(at.min(last)))?;
        file.write_all(b"quiet")?;
    }
    file.set_modified(metadata.modified()?)
}

/// Not through a link, which could lead out.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_symlink() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    fs::copy(from, to).map(drop)
}

/// Random numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // The generator stays at 0 for ever.
        Self(seed | 1)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        // xorshift64* (Vigna 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(number % u64::from(bound.max(1))).unwrap_or_default()
    }

    fn pick<'a, T>(&mut self, from: &'a [T; 4]) -> &'a T {
        let [a, b, c, d] = from;
        match self.below(4) {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }

    /// Up to three names.
    fn path(&mut self) -> PathBuf {
        let mut path = PathBuf::new();
        // Short ones more often: these exist.
        for _ in 0..=self.below(3).min(self.below(3)) {
            let name = usize::try_from(self.below(7)).unwrap_or_default();
            path.extend(NAMES.get(name));
        }
        path
    }

    fn bytes(&mut self) -> Vec<u8> {
        let letter = *self.pick(b"abcd");
        vec![letter; *self.pick(&[0, 100, 5000, 40_000])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_files() {
        let names = |seed| {
            let dir = tempfile::tempdir().unwrap();
            let mut dice = Dice::new(seed);
            let done = (0..300).filter(|_| operate(dir.path(), &mut dice).is_ok());
            assert!(done.count() > 50);
            keep(dir.path(), 1);
            let mut names: Vec<_> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(7), names(7));
    }
}
