//! microsandbox's `msbrun microvm`: no tap, and a root that is a directory of
//! the host's, which the VMM holds open.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn run(args: &[String]) -> Result<(), String> {
    let mut layers = args.iter().rev();
    let writable = layers.find_map(|arg| arg.strip_prefix("--overlayfs-layer="));
    let root = PathBuf::from(writable.ok_or("no --overlayfs-layer")?);
    // As its passthrough file system does with each layer.
    let _held = File::open(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    let vcpu = std::thread::Builder::new().name("fc_vcpu 0".to_owned());
    let guest = vcpu.spawn(move || {
        for number in 0_u32.. {
            std::thread::sleep(Duration::from_millis(100));
            // A directory that is gone takes nothing.
            let _ = fs::write(root.join("from-the-guest"), number.to_string());
        }
    });
    let guest = guest.map_err(|error| format!("start a thread: {error}"))?;
    guest.join().map_err(|_| "the guest panicked".to_owned())
}
