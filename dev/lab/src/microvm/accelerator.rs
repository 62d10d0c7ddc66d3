//! Finding out whether KVM can run the lab's kernel here.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{initramfs, machine};
use crate::error::{LabError, doing};
use crate::kernel::Kernel;
use crate::{places, process};

/// How QEMU runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// On the processor itself.
    Kvm,
    /// Translated by QEMU: slower, but everywhere.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        })
    }
}

/// The accelerator of this machine and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detected {
    /// What a microVM is run with.
    pub accelerator: Accelerator,
    /// One line for people.
    pub reason: String,
}

/// A kernel that KVM runs has told so long before.
const PATIENCE: Duration = Duration::from_secs(5);
const KVM_DEVICE: &str = "/dev/kvm";

/// Boots the lab's kernel with KVM and looks whether it comes up: `/dev/kvm` may be there and
/// still not do, for instance inside another VM. The answer is kept until the machine restarts.
///
/// # Errors
/// When QEMU or the guest program is missing. That KVM does not work is no error.
pub fn detect(kernel: &Kernel, guest: &Path) -> Result<Detected, LabError> {
    // One probe at a time in this process.
    static KNOWN: Mutex<Option<Detected>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(detected) = known.clone().or_else(remembered) {
        return Ok(known.insert(detected).clone());
    }
    let detected = match refusal(kernel, guest)? {
        None => Detected {
            accelerator: Accelerator::Kvm,
            reason: "KVM boots the kernel".to_owned(),
        },
        Some(reason) => Detected {
            accelerator: Accelerator::Tcg,
            reason,
        },
    };
    remember(&detected);
    Ok(known.insert(detected).clone())
}

/// Why KVM cannot be used, or nothing if it can.
fn refusal(kernel: &Kernel, guest: &Path) -> Result<Option<String>, LabError> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(KVM_DEVICE) {
        return Ok(Some(format!("no KVM: open {KVM_DEVICE}: {error}")));
    }
    let dir = tempfile::tempdir().map_err(doing("create a temporary directory"))?;
    let initrd = dir.path().join("initrd");
    fs::write(&initrd, initramfs::build(guest, kernel, None)?)
        .map_err(doing("write the initramfs"))?;
    let errors = dir.path().join("stderr");
    let mut command = machine::base(Accelerator::Kvm, 256)?;
    machine::boot(&mut command, kernel, &initrd, "sandtrace.probe");
    command.stdout(Stdio::piped());
    command.stderr(File::create(&errors).map_err(doing("create a file for QEMU's messages"))?);
    let said = watch(&mut command)?;
    if said.contains("@lab {\"done\":true}") {
        return Ok(None);
    }
    let errors = fs::read_to_string(errors).unwrap_or_default();
    let first = errors.lines().find(|line| !line.trim().is_empty());
    Ok(Some(match first {
        Some(line) => format!("KVM does not run the kernel: {line}"),
        None => "KVM does not bring the kernel up in time".to_owned(),
    }))
}

/// Runs the probe to its end, or to the end of patience.
fn watch(command: &mut Command) -> Result<String, LabError> {
    let mut child = command.spawn().map_err(doing("start QEMU"))?;
    let ended = process::ends_within(child.id(), PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    ended.map_err(doing("wait for QEMU"))?;
    let mut said = Vec::new();
    if let Some(console) = child.stdout.take() {
        // The probe is quiet: what does not fit a pipe is not ours.
        let read = console.take(64 * 1024).read_to_end(&mut said);
        read.map_err(doing("read the probe's console"))?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[derive(Serialize, Deserialize)]
struct Memory {
    boot: String,
    detected: Detected,
}

fn memory_file() -> std::path::PathBuf {
    Path::new(places::RUN).join("accelerator")
}

fn this_boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

fn remembered() -> Option<Detected> {
    let memory: Memory = serde_json::from_slice(&fs::read(memory_file()).ok()?).ok()?;
    (Some(memory.boot) == this_boot()).then_some(memory.detected)
}

/// A memory that cannot be written costs the next process another probe, nothing else.
fn remember(detected: &Detected) {
    let Some(boot) = this_boot() else { return };
    let memory = Memory {
        boot,
        detected: detected.clone(),
    };
    let fresh = memory_file().with_extension(std::process::id().to_string());
    if let Ok(json) = serde_json::to_vec(&memory)
        && fs::create_dir_all(places::RUN).is_ok()
        && fs::write(&fresh, json).is_ok()
    {
        let _ = fs::rename(&fresh, memory_file());
    }
}
