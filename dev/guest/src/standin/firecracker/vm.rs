//! A VM as its API shows it (src/vmm/src/resources.rs).

use super::super::api::Answer;
use super::super::config::{
    BootSource, Drive, DriveUpdate, FileConfig, InstanceInfo, Interface, MachineConfig, MmdsConfig,
    VmConfig, Vsock,
};
use super::super::machine::Machine;
use serde_json::{Value, json};

/// The version that the recorded answers are of.
pub(super) const VERSION: &str = "1.17.0-dev";

/// What a snapshot of x86_64 begins with (src/vmm/src/snapshot/mod.rs).
const MAGIC: [u8; 8] = 0x0710_1984_8664_0000_u64.to_le_bytes();

const TOO_EARLY: &str = "The requested operation is not supported before starting the microVM.";

const TOO_LATE: &str = "The requested operation is not supported after starting the microVM.";

pub(super) struct Vm {
    id: String,
    state: &'static str,
    pub(super) config: VmConfig,
    pub(super) mmds: Option<Value>,
    machine: Machine,
    /// Something was configured that a snapshot brings with it.
    is_configured: bool,
}

impl Vm {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: "Not started",
            config: VmConfig::default(),
            mmds: None,
            machine: Machine::default(),
            is_configured: false,
        }
    }

    pub(super) fn info(&self) -> InstanceInfo<'_> {
        InstanceInfo {
            id: &self.id,
            state: self.state,
            vmm_version: VERSION,
            app_name: "Firecracker",
        }
    }

    pub(super) fn boot_args(&self) -> &str {
        &self.machine.boot_args
    }

    /// What is only done before the guest starts.
    pub(super) fn before<T>(
        &mut self,
        body: Result<T, String>,
        order: impl FnOnce(&mut Self, T) -> Result<(), String>,
    ) -> Answer {
        let is_early = self.state == "Not started";
        let too_late = || Err(TOO_LATE.to_owned());
        Answer::done(body.and_then(|body| {
            if is_early {
                order(self, body)
            } else {
                too_late()
            }
        }))
    }

    /// What is only done after that.
    pub(super) fn after<T>(
        &mut self,
        body: Result<T, String>,
        order: impl FnOnce(&mut Self, T) -> Result<(), String>,
    ) -> Answer {
        let is_early = self.state == "Not started";
        let too_early = || Err(TOO_EARLY.to_owned());
        Answer::done(body.and_then(|body| {
            if is_early {
                too_early()
            } else {
                order(self, body)
            }
        }))
    }

    /// A configuration file starts the VM.
    pub(super) fn configure(&mut self, config: FileConfig) -> Result<(), String> {
        for drive in config.drives {
            self.add_drive(drive)?;
        }
        for interface in config.interfaces {
            self.add_interface(interface)?;
        }
        self.set_boot_source(config.boot_source)?;
        self.config.machine = config.machine;
        self.config.mmds = config.mmds;
        self.config.vsock = config.vsock;
        self.start()
    }

    /// One of an id that there is already takes its place; the root device is the
    /// first of all (src/vmm/src/vmm_config/drive.rs).
    pub(super) fn add_drive(&mut self, drive: Drive) -> Result<(), String> {
        self.is_configured = true;
        let drives = &mut self.config.drives;
        let place = drives.iter().position(|it| it.drive_id == drive.drive_id);
        let is_root = drive.is_root_device;
        let has_root = drives.first().is_some_and(|it| it.is_root_device);
        if is_root && has_root && place != Some(0) {
            return Err("Drive config error: A root block device already exists!".to_owned());
        }
        let read_only = drive.is_read_only == Some(true);
        self.machine
            .open_drive(&drive.drive_id, &drive.path_on_host, read_only)?;
        match place.and_then(|place| drives.get_mut(place)) {
            Some(old) => *old = drive,
            None if is_root => drives.insert(0, drive),
            None => drives.push(drive),
        }
        if let Some(place) = place.filter(|_| is_root) {
            drives.swap(0, place);
        }
        Ok(())
    }

    /// Another file in the place of a drive's, while the guest runs.
    pub(super) fn exchange_drive(&mut self, update: DriveUpdate) -> Result<(), String> {
        let mut drives = self.config.drives.iter_mut();
        let drive = drives.find(|it| it.drive_id == update.drive_id);
        let drive = drive.ok_or("Drive config error: Unable to patch the block device")?;
        if let Some(path) = update.path_on_host {
            let read_only = drive.is_read_only == Some(true);
            self.machine.open_drive(&drive.drive_id, &path, read_only)?;
            drive.path_on_host = path;
        }
        Ok(())
    }

    /// One of an id that there is already goes before the new one comes
    /// (src/vmm/src/vmm_config/net.rs).
    pub(super) fn add_interface(&mut self, interface: Interface) -> Result<(), String> {
        self.is_configured = true;
        let (id, mac) = (&interface.iface_id, &interface.guest_mac);
        let interfaces = &mut self.config.interfaces;
        let mut others = interfaces.iter().filter(|it| it.iface_id != *id);
        if let Some(mac) = mac
            && others.any(|it| it.guest_mac.as_ref() == Some(mac))
        {
            return Err(format!(
                "Network config error: The MAC address is already in use: {mac}"
            ));
        }
        if let Some(place) = interfaces.iter().position(|it| it.iface_id == *id) {
            interfaces.swap_remove(place);
        }
        self.machine.open_tap(id, &interface.host_dev_name)?;
        self.config.interfaces.push(interface);
        Ok(())
    }

    pub(super) fn set_boot_source(&mut self, boot: BootSource) -> Result<(), String> {
        self.is_configured = true;
        self.machine.boot_args = boot.boot_args.clone().unwrap_or_default();
        self.config.boot_source = boot;
        Ok(())
    }

    pub(super) fn set_machine(&mut self, machine: MachineConfig) -> Result<(), String> {
        self.is_configured = true;
        self.config.machine = machine;
        Ok(())
    }

    pub(super) fn set_mmds_config(&mut self, mmds: MmdsConfig) -> Result<(), String> {
        self.is_configured = true;
        self.config.mmds = Some(mmds);
        Ok(())
    }

    pub(super) fn set_vsock(&mut self, vsock: Vsock) -> Result<(), String> {
        self.is_configured = true;
        self.config.vsock = Some(vsock);
        Ok(())
    }

    pub(super) fn boot(&mut self, (): ()) -> Result<(), String> {
        if self.config.boot_source.kernel_image_path.is_empty() {
            let why = "Start microvm error: Cannot start microvm without kernel configuration.";
            return Err(why.to_owned());
        }
        self.start()
    }

    fn start(&mut self) -> Result<(), String> {
        self.state = "Running";
        self.machine.start("fc_vcpu 0")
    }

    /// Of the real files' form these have but the magic number.
    pub(super) fn snapshot(&mut self, body: &Value) -> Result<(), String> {
        if self.state != "Paused" {
            let why = "Create snapshot error: Cannot save the microVM state: \
                Operation not allowed: save/restore unavailable while running";
            return Err(why.to_owned());
        }
        let devices = json!({
            "drives": self.config.drives, "network-interfaces": self.config.interfaces,
            "boot-source": {"kernel_image_path": "", "boot_args": self.machine.boot_args},
            "machine-config": self.config.machine,
        });
        let bytes = [&MAGIC[..], devices.to_string().as_bytes()].concat();
        write(text(body, "snapshot_path")?, &bytes)?;
        write(text(body, "mem_file_path")?, &[0; 4096])
    }

    /// A VM that goes on has no boot source.
    pub(super) fn restore(&mut self, body: &Value) -> Result<(), String> {
        if self.is_configured {
            let why = "Load snapshot error: Loading a microVM snapshot not allowed after \
                configuring boot-specific resources.";
            return Err(why.to_owned());
        }
        let path = text(body, "snapshot_path")?;
        let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let devices = bytes.strip_prefix(&MAGIC).ok_or("not a snapshot")?;
        let devices: FileConfig =
            serde_json::from_slice(devices).map_err(|error| format!("{path}: {error}"))?;
        self.configure(devices)?;
        self.config.boot_source = BootSource::default();
        let resumes = body.get("resume_vm") == Some(&Value::Bool(true));
        self.pause(!resumes);
        Ok(())
    }

    pub(super) fn change_state(&mut self, body: &Value) -> Result<(), String> {
        match body.get("state").and_then(Value::as_str) {
            Some("Paused") => self.pause(true),
            Some("Resumed") => self.pause(false),
            _ => return Err("unknown state".to_owned()),
        }
        Ok(())
    }

    fn pause(&mut self, paused: bool) {
        self.state = if paused { "Paused" } else { "Running" };
        self.machine.pause(paused);
    }
}

fn text<'a>(body: &'a Value, name: &str) -> Result<&'a str, String> {
    let value = body.get(name).and_then(Value::as_str);
    value.ok_or_else(|| format!("missing field `{name}`"))
}

fn write(path: &str, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|error| format!("{path}: {error}"))
}
