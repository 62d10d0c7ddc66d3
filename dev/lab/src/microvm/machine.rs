//! QEMU's command line.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use sandtrace_sys::tsc;

use super::accelerator::Accelerator;
use crate::error::LabError;
use crate::kernel::Kernel;
use crate::programs::QEMU;

/// - `reboot=t panic=-1`: every end is a triple fault, which `-no-reboot` makes QEMU's end.
/// - `ipv6.disable=1`: the guest's own router solicitations would be frames that the agent did
///   not cause.
/// - `mitigations=off`, `quiet`: a lab's guest is short-lived, and its console slow.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=3 reboot=t panic=-1 \
    ipv6.disable=1 random.trust_cpu=on mitigations=off audit=0 cryptomgr.notests";

/// A machine without any device but processor, memory, clock and a console on standard output.
/// It is its own process group: the lab ends it, not a Ctrl-C at the terminal.
pub(crate) fn base(accelerator: Accelerator, memory_mib: u32) -> Result<Command, LabError> {
    let mut command = QEMU.command()?;
    command.args([
        "-M",
        "microvm,rtc=on",
        "-smp",
        "1",
        "-m",
        &memory_mib.to_string(),
    ]);
    command.args(match accelerator {
        Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
        Accelerator::Tcg => ["-accel", "tcg", "-cpu", "max"],
    });
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.args(["-serial", "stdio"]);
    command.process_group(0);
    Ok(command)
}

/// `word` is one more argument of the kernel.
pub(super) fn boot(command: &mut Command, kernel: &Kernel, initrd: &Path, word: &str) {
    command
        .arg("-kernel")
        .arg(&kernel.vmlinuz)
        .arg("-initrd")
        .arg(initrd);
    let clock = clock_arguments().unwrap_or_default();
    command.args(["-append", &format!("{KERNEL_ARGUMENTS} {clock} {word}")]);
}

/// Tells the guest how fast its time stamp counter runs, which is as fast as the host's. Left to
/// itself it measures that against an emulated timer, which on a busy host fails and leaves it
/// hanging in its first second; and it would later mistrust the counter for the same reason.
pub(crate) fn clock_arguments() -> Option<String> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    let khz = KHZ.get_or_init(tsc::khz).as_ref()?;
    Some(format!("tsc_early_khz={khz} tsc=reliable"))
}

pub(super) fn disk(command: &mut Command, image: &Path) {
    let mut option = OsString::from("if=none,id=disk,format=raw,file=");
    option.push(doubled_commas(image));
    command.arg("-drive").arg(option);
    command.args(["-device", "virtio-blk-device,drive=disk"]);
}

pub(super) fn tap(command: &mut Command, tap: &str) {
    let netdev = format!("tap,id=net,ifname={tap},script=no,downscript=no");
    command.args([
        "-netdev",
        &netdev,
        "-device",
        "virtio-net-device,netdev=net",
    ]);
}

pub(super) fn control(command: &mut Command, socket: &Path) {
    let mut option = OsString::from("unix:");
    option.push(doubled_commas(socket));
    option.push(",server=on,wait=off");
    command.arg("-qmp").arg(option);
}

/// In QEMU's options a comma ends a value unless it is doubled.
fn doubled_commas(path: &Path) -> OsString {
    let parts: Vec<&[u8]> = path
        .as_os_str()
        .as_bytes()
        .split(|&byte| byte == b',')
        .collect();
    OsString::from_vec(parts.join(b",,".as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_doubled() {
        assert_eq!(doubled_commas(Path::new("/a,b/c,,d")), "/a,,b/c,,,,d");
        assert_eq!(doubled_commas(Path::new("/a")), "/a");
    }
}
