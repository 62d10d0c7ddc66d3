//! A microVM: QEMU with a tap, a disk and the lab's kernel.

mod accelerator;
pub(crate) mod initramfs;
pub(crate) mod machine;
mod qmp;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use sandtrace_guest::{Report, Script};
use sandtrace_sys::netns::{path_of, within};

use crate::error::{LabError, doing};
use crate::guest_binary::guest_binary;
use crate::lab::{Inner, Lab};
use crate::run::{Outcome, Run, check_id};
use crate::{kernel, netns};

pub use accelerator::{Accelerator, Detected, detect};

/// What a microVM is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroVmConfig {
    /// QEMU's `-name`, by which a watcher finds it.
    pub sandbox_id: String,
    /// What the agent does.
    pub script: Script,
    /// The disk's image, see [`crate::make_image`]; it outlives the microVM.
    pub disk: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What to run it with; found out by trying where nothing is said.
    pub accelerator: Option<Accelerator>,
}

impl MicroVmConfig {
    /// A small machine.
    #[must_use]
    pub fn new(sandbox_id: &str, script: Script, disk: &Path) -> Self {
        Self {
            sandbox_id: sandbox_id.to_owned(),
            script,
            disk: disk.to_owned(),
            memory_mib: 256,
            accelerator: None,
        }
    }
}

/// A QEMU process that waits for [`MicroVm::resume`] before the guest's first instruction.
/// Dropped, it is killed and its tap removed.
#[derive(Debug)]
pub struct MicroVm {
    // Fields are dropped in this order: the process lets go of the tap before it is removed.
    run: Run,
    tap: Tap,
    disk: PathBuf,
    control: PathBuf,
    messages: PathBuf,
    accelerator: Accelerator,
}

impl Lab {
    /// Starts a microVM that is paused: a watcher can attach before the first packet.
    ///
    /// # Errors
    /// When the kernel, the guest program or QEMU is missing, or QEMU does not come up.
    pub fn microvm(&self, config: &MicroVmConfig) -> Result<MicroVm, LabError> {
        check_id(&config.sandbox_id)?;
        let (kernel, guest) = (kernel::locate()?, guest_binary()?);
        let accelerator = match config.accelerator {
            Some(accelerator) => accelerator,
            None => detect(&kernel, &guest)?.accelerator,
        };
        let dir = self.inner.make_dir(&self.inner.name("vm"))?;
        let initrd = dir.join("initrd");
        let archive = initramfs::build(&guest, &kernel, Some(&config.script))?;
        fs::write(&initrd, archive).map_err(doing(format!("write {}", initrd.display())))?;
        let tap = Tap::add(&self.inner, config)?;
        let (control, messages) = (dir.join("qmp.sock"), dir.join("qemu.stderr"));

        let mut command = machine::base(accelerator, config.memory_mib)?;
        machine::boot(&mut command, &kernel, &initrd, "");
        machine::disk(&mut command, &config.disk);
        machine::tap(&mut command, &tap.name);
        machine::control(&mut command, &control);
        command.args(["-S", "-name", &config.sandbox_id]);
        let (output, said) = io::pipe().map_err(doing("create a pipe"))?;
        command.stdout(said);
        command
            .stderr(File::create(&messages).map_err(doing("create a file for QEMU's messages"))?);
        // A child is born into the namespaces of the thread that starts it.
        let child: Child = within(Some(&path_of(self.netns())), || command.spawn())?
            .map_err(doing("start QEMU"))?;
        // Its copy of the pipe would keep the console from ending.
        drop(command);
        let run = Run::adopt(&self.inner, &config.sandbox_id, child, output)?;

        let disk = config.disk.clone();
        let mut vm = MicroVm {
            run,
            tap,
            disk,
            control,
            messages,
            accelerator,
        };
        vm.await_pause()?;
        Ok(vm)
    }
}

impl MicroVm {
    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.run.pid()
    }

    /// The tap's name in the lab's namespace.
    #[must_use]
    pub fn tap(&self) -> &str {
        &self.tap.name
    }

    /// The disk's image.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// QEMU's control socket. It serves one client at a time and is free between calls.
    #[must_use]
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// What runs the guest's code.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// The last part of the guest's console, for diagnostics.
    #[must_use]
    pub fn console(&self) -> String {
        self.run.console().text()
    }

    /// What the agent has reported since the last call.
    #[must_use]
    pub fn fresh_reports(&self) -> Vec<Report> {
        self.run.console().fresh_reports()
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// When QEMU has ended or does not answer.
    pub fn resume(&mut self) -> Result<(), LabError> {
        self.command("cont")
    }

    /// Waits until the guest has ended; the disk is then complete and clean.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Outcome, LabError> {
        self.run.wait(timeout)
    }

    /// QEMU opens disk and tap before it answers, so that a watcher then finds both.
    fn await_pause(&mut self) -> Result<(), LabError> {
        self.command("query-status").map_err(|error| match error {
            LabError::Qmp(_) if self.run.is_ending() => LabError::Died {
                sandbox: self.run.id().to_owned(),
                console: fs::read_to_string(&self.messages).unwrap_or_default(),
            },
            other => other,
        })
    }

    fn command(&mut self, command: &str) -> Result<(), LabError> {
        qmp::execute(&self.control, command, || !self.run.has_ended())
    }
}

/// The host's end of the guest's network card.
#[derive(Debug)]
struct Tap {
    lab: Arc<Inner>,
    name: String,
}

impl Tap {
    fn add(lab: &Arc<Inner>, config: &MicroVmConfig) -> Result<Self, LabError> {
        let network = &config.script.network;
        let tap = Self {
            lab: Arc::clone(lab),
            name: lab.name("tap"),
        };
        let address = (network.gateway, network.prefix);
        netns::add_tap(lab.netns(), &tap.name, 0, address)?;
        Ok(tap)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Goes with the lab's namespace otherwise.
        let _ = netns::remove_link(self.lab.netns(), &self.name);
    }
}
