//! Firecracker's API and configuration file (src/firecracker/swagger).

use super::api::{Answer, Manners, Request, serve};
use super::config::{BootSource, Drive, FileConfig, InstanceInfo, Interface, VmConfig};
use super::machine::Machine;
use super::option;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, PoisonError};

const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

/// The version that the recorded answers are of.
const VERSION: &str = "1.17.0-dev";

/// What a snapshot of x86_64 begins with (src/vmm/src/snapshot/mod.rs).
const MAGIC: [u8; 8] = 0x0710_1984_8664_0000_u64.to_le_bytes();

/// A VM as its API shows it.
struct Vm {
    id: String,
    state: &'static str,
    config: VmConfig,
    mmds: Option<Value>,
    machine: Machine,
}

pub(super) fn run(args: &[String]) -> Result<(), String> {
    let mut vm = Vm::new(option(args, "--id").unwrap_or("anonymous-instance"));
    if let Some(path) = option(args, "--metadata") {
        vm.mmds = Some(read(path)?);
    }
    if let Some(path) = option(args, "--config-file") {
        vm.configure(read(path)?)?;
    }
    if args.iter().any(|arg| arg == "--no-api") {
        loop {
            std::thread::park();
        }
    }
    let socket = option(args, "--api-sock").unwrap_or(DEFAULT_SOCKET);
    let listener = UnixListener::bind(socket).map_err(|error| format!("{socket}: {error}"))?;
    let vm = Mutex::new(vm);
    serve(&listener, "Firecracker API", |request| {
        let mut vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
        (vm.answer(request), Manners::of(&vm.machine.boot_args))
    });
    Ok(())
}

fn read<T: DeserializeOwned>(path: &str) -> Result<T, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))
}

impl Vm {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: "Not started",
            config: VmConfig::default(),
            mmds: None,
            machine: Machine::default(),
        }
    }

    /// A configuration file starts the VM.
    fn configure(&mut self, config: FileConfig) -> Result<(), String> {
        for drive in config.drives {
            self.add_drive(drive)?;
        }
        for interface in config.interfaces {
            self.add_interface(interface)?;
        }
        self.set_boot_source(config.boot_source);
        self.config.mmds = config.mmds;
        self.config.vsock = config.vsock;
        self.start()
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let body = request.body.clone();
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => Answer::json(&InstanceInfo {
                id: &self.id,
                state: self.state,
                vmm_version: VERSION,
                app_name: "Firecracker",
            }),
            ("GET", "/version") => Answer::json(&json!({ "firecracker_version": VERSION })),
            ("GET", "/vm/config") => Answer::json(&self.config),
            ("GET", "/machine-config") => Answer::json(&self.config.machine),
            ("GET", "/mmds") => match &self.mmds {
                Some(metadata) => Answer::json(metadata),
                None => Answer::fault("The MMDS resource does not exist."),
            },
            ("PUT", "/mmds") => {
                self.mmds = Some(body);
                Answer::done(Ok(()))
            }
            ("PUT", "/mmds/config") => {
                Answer::done(given(body).map(|mmds| self.config.mmds = Some(mmds)))
            }
            ("PUT", "/boot-source") => {
                Answer::done(given(body).map(|boot| self.set_boot_source(boot)))
            }
            ("PUT", "/vsock") => {
                Answer::done(given(body).map(|vsock| self.config.vsock = Some(vsock)))
            }
            ("PUT", path) if path.starts_with("/drives/") => {
                Answer::done(given(body).and_then(|drive| self.add_drive(drive)))
            }
            ("PUT", path) if path.starts_with("/network-interfaces/") => {
                Answer::done(given(body).and_then(|interface| self.add_interface(interface)))
            }
            ("PUT", "/actions") if body == json!({"action_type": "InstanceStart"}) => {
                Answer::done(self.start())
            }
            ("PATCH", "/vm") => Answer::done(self.change_state(&body)),
            ("PUT", "/snapshot/create") => Answer::done(self.snapshot(&body)),
            ("PUT", "/snapshot/load") => Answer::done(self.restore(&body)),
            (method, path) => Answer::fault(&format!(
                "Invalid request method and/or path: {method} {}.",
                path.trim_start_matches('/')
            )),
        }
    }

    /// One of an id that there is already takes its place.
    fn add_drive(&mut self, drive: Drive) -> Result<(), String> {
        let read_only = drive.is_read_only == Some(true);
        let (id, path) = (&drive.drive_id, &drive.path_on_host);
        self.machine.open_drive(id, path, read_only)?;
        let mut drives = self.config.drives.iter_mut();
        match drives.find(|other| other.drive_id == drive.drive_id) {
            Some(place) => *place = drive,
            None => self.config.drives.push(drive),
        }
        Ok(())
    }

    fn add_interface(&mut self, interface: Interface) -> Result<(), String> {
        self.machine.open_tap(&interface.host_dev_name)?;
        self.config.interfaces.push(interface);
        Ok(())
    }

    fn set_boot_source(&mut self, boot: BootSource) {
        self.machine.boot_args = boot.boot_args.clone().unwrap_or_default();
        self.config.boot_source = boot;
    }

    fn start(&mut self) -> Result<(), String> {
        if self.state != "Not started" {
            return Err(
                "The requested operation is not supported after starting the microVM.".to_owned(),
            );
        }
        self.state = "Running";
        self.machine.start("fc_vcpu 0")
    }

    /// Of the real files' form these have but the magic number.
    fn snapshot(&self, body: &Value) -> Result<(), String> {
        if self.state != "Paused" {
            return Err("save/restore unavailable while running".to_owned());
        }
        let devices = json!({
            "drives": self.config.drives, "network-interfaces": self.config.interfaces,
            "boot-source": {"kernel_image_path": "", "boot_args": self.machine.boot_args},
        });
        let bytes = [&MAGIC[..], devices.to_string().as_bytes()].concat();
        write(text(body, "snapshot_path")?, &bytes)?;
        write(text(body, "mem_file_path")?, &[0; 4096])
    }

    /// A VM that goes on has no boot source.
    fn restore(&mut self, body: &Value) -> Result<(), String> {
        let path = text(body, "snapshot_path")?;
        let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let devices = bytes.strip_prefix(&MAGIC).ok_or("not a snapshot")?;
        let devices: FileConfig =
            serde_json::from_slice(devices).map_err(|error| format!("{path}: {error}"))?;
        self.configure(devices)?;
        self.config.boot_source = BootSource::default();
        Ok(())
    }

    fn change_state(&mut self, body: &Value) -> Result<(), String> {
        self.state = match body.get("state").and_then(Value::as_str) {
            Some("Paused") => "Paused",
            Some("Resumed") => "Running",
            _ => return Err("unknown state".to_owned()),
        };
        self.machine.pause(self.state == "Paused");
        Ok(())
    }
}

fn text<'a>(body: &'a Value, name: &str) -> Result<&'a str, String> {
    let value = body.get(name).and_then(Value::as_str);
    value.ok_or_else(|| format!("missing field `{name}`"))
}

fn write(path: &str, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|error| format!("{path}: {error}"))
}

/// A body as Firecracker takes it.
fn given<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_json::from_value(body).map_err(|error| {
        format!("An error occurred when deserializing the json body of a request: {error}.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(vm: &mut Vm, method: &str, path: &str, body: Value) -> Answer {
        vm.answer(&Request {
            method: method.to_owned(),
            path: path.to_owned(),
            body,
        })
    }

    #[test]
    fn life_of_a_vm() {
        let mut vm = Vm::new("vm-001");
        let state = |vm: &mut Vm| {
            let info = ask(vm, "GET", "/", Value::Null).body.unwrap();
            serde_json::from_str::<Value>(&info).unwrap()["state"].clone()
        };
        assert_eq!(state(&mut vm), "Not started");
        let start = json!({"action_type": "InstanceStart"});
        assert_eq!(ask(&mut vm, "PUT", "/actions", start.clone()).status, 204);
        assert_eq!(ask(&mut vm, "PUT", "/actions", start).status, 400);
        let paused = json!({"state": "Paused"});
        assert_eq!(ask(&mut vm, "PATCH", "/vm", paused).status, 204);
        assert_eq!(state(&mut vm), "Paused");
        let no_route = ask(&mut vm, "GET", "/network-interfaces", Value::Null);
        let fault = "Invalid request method and/or path: GET network-interfaces.";
        assert_eq!(no_route, Answer::fault(fault));
    }

    #[test]
    fn a_drive_that_is_given_again_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut vm = Vm::new("vm-001");
        let mut drives = |id: &str, file: &str| {
            let path = dir.path().join(file);
            std::fs::write(&path, "").unwrap();
            let drive = json!({
                "drive_id": id, "path_on_host": path, "is_root_device": id == "rootfs",
            });
            let answer = ask(&mut vm, "PUT", &format!("/drives/{id}"), drive);
            assert_eq!(answer.status, 204, "{answer:?}");
            let config = ask(&mut vm, "GET", "/vm/config", Value::Null).body.unwrap();
            let config: Value = serde_json::from_str(&config).unwrap();
            let drives = config["drives"].as_array().unwrap().iter();
            let name = |drive: &Value| {
                let path = drive["path_on_host"].as_str().unwrap();
                path.rsplit('/').next().unwrap().to_owned()
            };
            drives.map(name).collect::<Vec<_>>()
        };
        assert_eq!(drives("rootfs", "old"), ["old"]);
        assert_eq!(drives("data", "data"), ["old", "data"]);
        assert_eq!(drives("rootfs", "new"), ["new", "data"]);
    }

    /// JSON without what people put between its parts, its members in order.
    fn compact(json: &str) -> String {
        let (mut inside, mut compact) = (false, String::new());
        for c in json.chars() {
            inside ^= c == '"';
            if inside || !c.is_whitespace() {
                compact.push(c);
            }
        }
        compact
    }

    #[track_caller]
    fn check(vm: &mut Vm, path: &str, recorded: &str) {
        let answer = ask(vm, "GET", path, Value::Null);
        assert_eq!(answer.body.unwrap(), compact(recorded), "{path}");
    }

    /// Only the drive's file and the tap are not opened.
    #[test]
    fn answers_are_the_recorded_ones_to_the_byte() {
        const RAW: &str =
            include_str!("../../../../crates/provider/tests/fixtures/firecracker/raw_response.txt");
        let mut vm = Vm::new("vm-001");
        let info = ask(&mut vm, "GET", "/", Value::Null);
        assert_eq!(info.bytes("Firecracker API"), RAW.as_bytes());
        let drive = json!({
            "drive_id": "rootfs", "path_on_host": "/var/lib/vm/rootfs.ext4",
            "is_root_device": true, "is_read_only": false,
        });
        vm.config.drives.push(given(drive).unwrap());
        let interface = json!({
            "iface_id": "eth0", "guest_mac": "06:00:ac:10:00:02", "host_dev_name": "fctap0",
        });
        vm.config.interfaces.push(given(interface).unwrap());
        let boot = json!({
            "kernel_image_path": "/var/lib/vm/vmlinux",
            "boot_args": "console=ttyS0 reboot=k panic=1",
        });
        let vsock = json!({"guest_cid": 3, "uds_path": "/var/lib/vm/v.sock"});
        let mmds = json!({"version": "V2", "network_interfaces": ["eth0"]});
        let metadata = json!({"instanceID": "sbx-1", "agent": "billing"});
        for (path, body) in [
            ("/boot-source", boot),
            ("/vsock", vsock),
            ("/mmds/config", mmds),
            ("/mmds", metadata),
        ] {
            assert_eq!(ask(&mut vm, "PUT", path, body).status, 204, "{path}");
        }
        check(
            &mut vm,
            "/",
            include_str!(
                "../../../../crates/provider/tests/fixtures/firecracker/instance_info.json"
            ),
        );
        check(
            &mut vm,
            "/version",
            include_str!("../../../../crates/provider/tests/fixtures/firecracker/version.json"),
        );
        check(
            &mut vm,
            "/machine-config",
            include_str!(
                "../../../../crates/provider/tests/fixtures/firecracker/machine_config.json"
            ),
        );
        check(
            &mut vm,
            "/vm/config",
            include_str!("../../../../crates/provider/tests/fixtures/firecracker/vm_config.json"),
        );
        check(
            &mut vm,
            "/mmds",
            include_str!("../../../../crates/provider/tests/fixtures/firecracker/mmds.json"),
        );
        check(
            &mut vm,
            "/network-interfaces",
            include_str!(
                "../../../../crates/provider/tests/fixtures/firecracker/fault_bad_route.json"
            ),
        );
    }
}
