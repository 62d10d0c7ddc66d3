//! Finding the static guest program.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::places;

const NAME: &str = "sandtrace-guest";
/// Where cargo puts it when it is built for the named target, below its target directory.
const BUILT: &str = "x86_64-unknown-linux-gnu/release/sandtrace-guest";

/// The guest program is not where it is looked for, or is not static.
#[derive(Debug, thiserror::Error)]
#[error("no static guest program{found}; build it with: cargo xtask setup")]
pub struct GuestMissing {
    found: String,
}

/// The static guest program: what `SANDTRACE_GUEST` names, else what was built for this
/// executable, else `sandtrace-guest` beside it.
///
/// # Errors
/// When none is there, or only such as need shared libraries, which a sandbox has not.
pub fn guest_binary() -> Result<PathBuf, GuestMissing> {
    let candidates = places::guest_from_environment().map_or_else(
        || {
            env::current_exe()
                .map(|exe| around(&exe))
                .unwrap_or_default()
        },
        |named| vec![named],
    );
    first_static(candidates)
}

/// A test's executable lies in `<target>/debug/deps`, the tool's in `<target>/release`.
fn around(exe: &Path) -> Vec<PathBuf> {
    let built = exe.ancestors().skip(1).take(4).map(|dir| dir.join(BUILT));
    let beside = exe.ancestors().skip(1).take(2).map(|dir| dir.join(NAME));
    built.chain(beside).collect()
}

fn first_static(candidates: Vec<PathBuf>) -> Result<PathBuf, GuestMissing> {
    let mut found = String::new();
    for path in candidates {
        match is_static(&path) {
            Ok(true) => return Ok(path),
            Ok(false) => found = format!(" ({} needs shared libraries)", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found = format!(" ({}: {error})", path.display()),
        }
    }
    Err(GuestMissing { found })
}

/// A program that names no interpreter (program header of type `PT_INTERP`, System V ABI
/// chapter 5) is loaded by the kernel alone.
fn is_static(path: &Path) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut head = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    let types = program_header_types(&head);
    let types = types.ok_or_else(|| io::Error::other("not a 64-bit little-endian ELF program"))?;
    Ok(!types.contains(&PT_INTERP))
}

fn program_header_types(elf: &[u8]) -> Option<Vec<u32>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let word = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let offset = u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?);
    let (size, count) = (usize::from(word(54)?), usize::from(word(56)?));
    let header = |index: usize| {
        let at = usize::try_from(offset).ok()?.checked_add(index * size)?;
        let bytes = elf.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    (0..count).map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_not_static() {
        let exe = env::current_exe().unwrap();
        assert!(!is_static(&exe).unwrap());
        let error = first_static(vec![PathBuf::from("/none-such"), exe])
            .unwrap_err()
            .to_string();
        assert!(error.contains("needs shared libraries"), "{error}");
        assert!(error.ends_with("cargo xtask setup"), "{error}");
    }

    #[test]
    fn hostile_heads_are_no_programs() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(64, 0xff);
        assert_eq!(program_header_types(&head), None);
        assert_eq!(program_header_types(b"#!/bin/sh"), None);
    }

    #[test]
    fn looks_in_the_target_directory() {
        let places = around(Path::new("/t/debug/deps/lab-1"));
        assert!(places.contains(&PathBuf::from("/t").join(BUILT)));
        assert!(places.contains(&PathBuf::from("/t/debug/sandtrace-guest")));
    }
}
