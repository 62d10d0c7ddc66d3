//! Mounts, kernel modules and the end of the machine.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::RebootCommand;

/// Only the first process of a PID namespace can mount the `/proc` that belongs to it.
pub(crate) fn mount_proc() -> io::Result<()> {
    mount("proc", Path::new("/proc"), "proc")
}

pub(super) fn mount_pseudo(root: &str) -> io::Result<()> {
    for (kind, name) in [("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")] {
        let target = Path::new(root).join(name);
        make_dir(&target)?;
        match mount(kind, &target, kind) {
            // The kernel may have mounted /dev before it started us.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
            other => other?,
        }
    }
    Ok(())
}

pub(super) fn mount_disk(device: &str, target: &str) -> io::Result<()> {
    make_dir(Path::new(target))?;
    mount(device, Path::new(target), "ext4")
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn mount(source: &str, target: &Path, kind: &str) -> io::Result<()> {
    let flags = MountFlags::NOATIME;
    Ok(rustix::mount::mount(source, target, kind, flags, None)?)
}

/// Leaves a clean file system behind, with every byte on the device.
pub(super) fn unmount_disk(disk: &str) -> io::Result<()> {
    for name in ["dev", "sys", "proc"] {
        rustix::mount::unmount(Path::new(disk).join(name), UnmountFlags::empty())?;
    }
    rustix::fs::sync();
    Ok(rustix::mount::unmount(disk, UnmountFlags::empty())?)
}

/// Inserts every module of a directory in the order of the file names.
pub(super) fn load_modules(dir: &str) -> Result<(), String> {
    let mut paths = list(dir).map_err(|error| format!("list {dir}: {error}"))?;
    paths.sort();
    for path in paths {
        insert(&path).map_err(|error| format!("insert {}: {error}", path.display()))?;
    }
    Ok(())
}

fn list(dir: &str) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

fn insert(path: &Path) -> io::Result<()> {
    match rustix::system::finit_module(&File::open(path)?, c"", 0) {
        // Built into this kernel or inserted before.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for a device that its driver has yet to make.
pub(super) fn wait_for(path: impl AsRef<Path>, patience: Duration) -> Result<(), String> {
    let path = path.as_ref();
    let start = Instant::now();
    while !path.exists() {
        if start.elapsed() > patience {
            return Err(format!("{} did not appear", path.display()));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// With QEMU's `-no-reboot` a restart ends the machine.
pub(super) fn restart() -> io::Result<()> {
    rustix::fs::sync();
    Ok(rustix::system::reboot(RebootCommand::Restart)?)
}
