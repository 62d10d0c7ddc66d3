//! The microVM's initramfs: a cpio archive in the "newc" format, as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst describes it.

use std::fs;
use std::path::Path;

use sandtrace_guest::Script;

use crate::error::{LabError, doing};
use crate::kernel::Kernel;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The archive that makes a VM insert its drivers and play a script; without a script it only
/// tells that it boots.
pub(crate) fn build(
    guest: &Path,
    kernel: &Kernel,
    script: Option<&Script>,
) -> Result<Vec<u8>, LabError> {
    let mut archive = Archive::default();
    for name in ["dev", "proc", "sys", "disk", "modules"] {
        archive.directory(name);
    }
    // What the kernel gives process 1 as its standard streams.
    archive.device("dev/console", 5, 1);
    archive.file("init", 0o755, &read(guest)?);
    for (index, module) in kernel.modules().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        // The guest inserts them in the order of the names.
        archive.file(
            &format!("modules/{index:02}-{name}"),
            0o644,
            &read(&module)?,
        );
    }
    if let Some(script) = script {
        let json = serde_json::to_vec(script).map_err(doing("write the script as JSON"))?;
        archive.file("script.json", 0o644, &json);
    }
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>, LabError> {
    fs::read(path).map_err(doing(format!("read {}", path.display())))
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[]);
    }

    fn file(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entry(name, REGULAR | mode, (0, 0), contents);
    }

    fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file, device that it stands
        // for, length of the name with its NUL, checksum (unused).
        let fields: [usize; 13] = [
            self.entries as usize,
            mode as usize,
            0,
            0,
            1,
            0,
            contents.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            name.len() + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_documented() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081a4", "mode");
        assert_eq!(&bytes[54..62], b"00000005", "size");
        assert_eq!(&bytes[94..102], b"00000002", "length of the name");
        // The header has 110 bytes, so that name and data start at a multiple of four.
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..117], b"hello");
        assert_eq!(&bytes[120..126], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }
}
