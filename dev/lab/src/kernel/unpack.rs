//! The kernel as VMMs take it that have no boot loader in them: the ELF file
//! within the compressed image (Documentation/arch/x86/boot.rst of Linux).

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Stdio;

use super::Kernel;
use crate::error::{LabError, doing};
use crate::programs::{GZIP, LZ4, Program, XZ, ZSTD};

/// How each kind of payload begins, and what unpacks it.
const KINDS: [(&[u8], Program); 4] = [
    (&[0x02, 0x21, 0x4c, 0x18], LZ4),
    (&[0x1f, 0x8b], GZIP),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], XZ),
    (&[0x28, 0xb5, 0x2f, 0xfd], ZSTD),
];

/// Length of the size that the kernel's build puts behind all but gzip's.
const SIZE: usize = 4;

const ELF: &[u8] = b"\x7fELF";

impl Kernel {
    /// Writes it uncompressed.
    pub(crate) fn unpack(&self, to: &Path) -> Result<(), LabError> {
        let name = self.vmlinuz.display();
        let image = fs::read(&self.vmlinuz).map_err(doing(format!("read {name}")))?;
        let odd = |what| LabError::Io {
            doing: format!("unpack {name}"),
            source: io::Error::new(io::ErrorKind::InvalidData, what),
        };
        let payload = payload(&image).ok_or_else(|| odd("no payload after boot protocol 2.08"))?;
        let kind = KINDS.iter().find(|(magic, _)| payload.starts_with(magic));
        let (_, program) = kind.ok_or_else(|| odd("compressed in a way that is not known"))?;
        let packed = match payload.len().checked_sub(SIZE) {
            Some(end) if *program != GZIP => payload.get(..end).unwrap_or_default(),
            _ => payload,
        };
        run(program, packed, to)?;
        let mut head = [0; ELF.len()];
        let read = File::open(to).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
        match read {
            Ok(()) if head == ELF => Ok(()),
            _ => Err(odd("what is in it is no ELF file")),
        }
    }
}

/// What the image's own code would unpack.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let version = u16::from_le_bytes(image.get(0x206..0x208)?.try_into().ok()?);
    if image.get(0x202..0x206)? != b"HdrS" || version < 0x0208 {
        return None;
    }
    // An old way to say four.
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

fn run(program: &Program, packed: &[u8], to: &Path) -> Result<(), LabError> {
    let input = || {
        let mut file = tempfile::tempfile()?;
        file.write_all(packed)?;
        file.seek(SeekFrom::Start(0))?;
        io::Result::Ok(file)
    };
    let input = input().map_err(doing("write the kernel's payload"))?;
    let output = File::create(to).map_err(doing(format!("create {}", to.display())))?;
    let mut command = program.command()?;
    command.arg("-dc").stdin(input).stdout(output);
    let output = command.stderr(Stdio::piped()).output();
    let output = output.map_err(doing(format!("run {}", program.name)))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: format!("{} -dc", program.name),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::locate;
    use std::process::Command;

    /// Firecracker loads its segments, Cloud Hypervisor enters by the PVH note
    /// (`XEN_ELFNOTE_PHYS32_ENTRY`, 0x12).
    #[test]
    fn the_labs_kernel_is_an_elf_file_with_a_pvh_entry() {
        let dir = tempfile::tempdir().unwrap();
        let vmlinux = dir.path().join("vmlinux");
        // In CI one was fetched.
        match locate() {
            Ok(kernel) => kernel.unpack(&vmlinux).unwrap(),
            Err(missing) => {
                assert!(std::env::var_os("CI").is_none(), "{missing}");
                return println!("skipped: the_labs_kernel_is_an_elf_file: {missing}");
            }
        }
        let readelf = |options: &str| {
            let output = Command::new("readelf").arg(options).arg(&vmlinux).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let head = readelf("-h");
        assert!(head.contains("Advanced Micro Devices X86-64"), "{head}");
        assert!(head.contains("EXEC (Executable file)"), "{head}");
        let segments = readelf("-lW");
        assert!(segments.matches(" LOAD ").count() > 1, "{segments}");
        let notes = readelf("-n");
        assert!(notes.contains("Unknown note type: (0x00000012)"), "{notes}");
    }

    #[test]
    fn what_is_no_kernel() {
        let mut image = vec![0; 2048];
        assert_eq!(payload(&image), None);
        image[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
        image[0x1f1] = 1;
        image[0x248] = 16;
        image[0x24c] = 8;
        image[1024 + 16..1024 + 24].copy_from_slice(b"a kernel");
        assert_eq!(payload(&image), Some(&b"a kernel"[..]));
        image[0x24d] = 0xff;
        assert_eq!(payload(&image), None, "beyond its end");
        image[0x207] = 1;
        assert_eq!(payload(&image), None, "too old");
    }
}
