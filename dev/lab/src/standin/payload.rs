//! What a real VMM boots: the lab's kernel as it takes it, and a guest that
//! boots, and then rests for as long as its VMM lives.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{LabError, doing};
use crate::guest_binary::guest_binary;
use crate::kernel;
use crate::microvm::initramfs;

/// A guest that cannot boot ends its VMM, and what waits for that fails.
const BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1 sandtrace.rest";

/// Kernel, first file system and command line.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) kernel: PathBuf,
    /// A stand-in has none.
    pub(super) initrd: Option<PathBuf>,
    pub(super) boot_args: String,
}

impl Payload {
    /// What a stand-in is told, which opens none of it.
    pub(super) fn nominal(boot_args: &str) -> Self {
        Self {
            kernel: PathBuf::from("/boot/vmlinux"),
            initrd: None,
            boot_args: boot_args.to_owned(),
        }
    }

    /// Makes a real one in this directory.
    pub(super) fn make(dir: &Path) -> Result<Self, LabError> {
        let (source, kernel) = (kernel::locate()?, dir.join("vmlinux"));
        source.unpack(&kernel)?;
        let initrd = dir.join("initrd");
        let archive = initramfs::build(&guest_binary()?, &source, None)?;
        fs::write(&initrd, archive).map_err(doing(format!("write {}", initrd.display())))?;
        Ok(Self {
            kernel,
            initrd: Some(initrd),
            boot_args: BOOT_ARGS.to_owned(),
        })
    }

    /// Its files.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.kernel].into_iter().chain(&mut self.initrd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::microvm::Accelerator;
    use crate::microvm::machine;
    use crate::process::ends_within;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::Duration;

    /// QEMU enters an ELF kernel by its PVH note, as Cloud Hypervisor does.
    #[test]
    fn a_guest_that_boots_and_rests() {
        let dir = tempfile::tempdir().unwrap();
        let payload = match Payload::make(dir.path()) {
            Ok(payload) => payload,
            Err(missing) => {
                assert!(std::env::var_os("CI").is_none(), "{missing}");
                return println!("skipped: a_guest_that_boots_and_rests: {missing}");
            }
        };
        let mut command = machine::base(Accelerator::Tcg, 256).unwrap();
        command.arg("-kernel").arg(&payload.kernel);
        command.arg("-initrd").arg(payload.initrd.unwrap());
        let clock = machine::clock_arguments().unwrap_or_default();
        let line = format!("{} {clock} mitigations=off", payload.boot_args);
        command.args(["-append", &line]).stdout(Stdio::piped());
        let mut vmm = command.spawn().unwrap();
        let mut console = BufReader::new(vmm.stdout.take().unwrap());
        let mut said = String::new();
        let rests = loop {
            let mut line = Vec::new();
            if console.read_until(b'\n', &mut line).unwrap() == 0 {
                break false;
            }
            said.push_str(&String::from_utf8_lossy(&line));
            if said.contains("@lab {\"done\":true}") {
                break true;
            }
        };
        let ended = ends_within(vmm.id(), Duration::from_secs(3)).unwrap();
        vmm.kill().unwrap();
        vmm.wait().unwrap();
        assert!(rests && !ended, "{said}");
    }
}
