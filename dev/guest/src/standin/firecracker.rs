//! Firecracker's API and configuration file (src/firecracker/swagger).

use super::api::{Answer, Request, serve};
use super::machine::Machine;
use super::option;
use serde_json::{Map, Value, json};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, PoisonError};

const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

/// The version that the recorded answers are of.
const VERSION: &str = "1.17.0-dev";

/// A VM as its API shows it.
struct Vm {
    id: String,
    state: &'static str,
    /// `GET /vm/config`.
    config: Map<String, Value>,
    mmds: Option<Value>,
    machine: Machine,
}

pub(super) fn run(args: &[String]) -> Result<(), String> {
    let mut vm = Vm::new(option(args, "--id").unwrap_or("anonymous-instance"));
    if let Some(path) = option(args, "--metadata") {
        vm.mmds = Some(read(path)?);
    }
    if let Some(path) = option(args, "--config-file") {
        vm.configure(&read(path)?)?;
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
        vm.answer(request)
    });
    Ok(())
}

fn read(path: &str) -> Result<Value, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))
}

impl Vm {
    fn new(id: &str) -> Self {
        let machine = json!({
            "vcpu_count": 1, "mem_size_mib": 128, "smt": false,
            "track_dirty_pages": false, "huge_pages": "None",
        });
        let config = json!({
            "balloon": null, "drives": [],
            "boot-source": {"kernel_image_path": "", "initrd_path": null, "boot_args": null},
            "cpu-config": null, "logger": null, "machine-config": machine, "metrics": null,
            "mmds-config": null, "network-interfaces": [], "vsock": null, "entropy": null,
            "pmem": [], "memory-hotplug": null,
        });
        Self {
            id: id.to_owned(),
            state: "Not started",
            config: config.as_object().cloned().unwrap_or_default(),
            mmds: None,
            machine: Machine::default(),
        }
    }

    /// A configuration file starts the VM.
    fn configure(&mut self, config: &Value) -> Result<(), String> {
        let list = |name: &str| config.get(name).and_then(Value::as_array).cloned();
        for drive in list("drives").unwrap_or_default() {
            self.add_drive(drive)?;
        }
        for interface in list("network-interfaces").unwrap_or_default() {
            self.add_interface(interface)?;
        }
        for name in ["boot-source", "mmds-config", "vsock"] {
            if let Some(value) = config.get(name).filter(|value| !value.is_null()) {
                self.set(name, value.clone());
            }
        }
        self.start()
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let body = request.body.clone();
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => Answer::json(json!({
                "id": self.id, "state": self.state, "vmm_version": VERSION,
                "app_name": "Firecracker",
            })),
            ("GET", "/version") => Answer::json(json!({ "firecracker_version": VERSION })),
            ("GET", "/vm/config") => Answer::json(Value::Object(self.config.clone())),
            ("GET", "/machine-config") => Answer::json(
                self.config
                    .get("machine-config")
                    .cloned()
                    .unwrap_or_default(),
            ),
            ("GET", "/mmds") => match &self.mmds {
                Some(metadata) => Answer::json(metadata.clone()),
                None => Answer::fault("The MMDS resource does not exist."),
            },
            ("PUT", "/mmds") => {
                self.mmds = Some(body);
                Answer::done(Ok(()))
            }
            ("PUT", "/mmds/config") => self.set("mmds-config", body),
            ("PUT", "/boot-source") => self.set("boot-source", body),
            ("PUT", "/vsock") => self.set("vsock", body),
            ("PUT", path) if path.starts_with("/drives/") => Answer::done(self.add_drive(body)),
            ("PUT", path) if path.starts_with("/network-interfaces/") => {
                Answer::done(self.add_interface(body))
            }
            ("PUT", "/actions") if body == json!({"action_type": "InstanceStart"}) => {
                Answer::done(self.start())
            }
            ("PATCH", "/vm") => Answer::done(self.change_state(&body)),
            (method, path) => Answer::fault(&format!(
                "Invalid request method and/or path: {method} {}.",
                path.trim_start_matches('/')
            )),
        }
    }

    fn add_drive(&mut self, drive: Value) -> Result<(), String> {
        let path = text(&drive, "path_on_host")?;
        let read_only = drive.get("is_read_only") == Some(&Value::Bool(true));
        self.machine.open_drive(&path, read_only)?;
        self.push("drives", drive)
    }

    fn add_interface(&mut self, interface: Value) -> Result<(), String> {
        let tap = text(&interface, "host_dev_name")?;
        self.machine.open_tap(&tap)?;
        self.push("network-interfaces", interface)
    }

    fn push(&mut self, name: &str, value: Value) -> Result<(), String> {
        let list = self.config.get_mut(name).and_then(Value::as_array_mut);
        list.ok_or_else(|| name.to_owned())?.push(value);
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value) -> Answer {
        if let Some(arguments) = value.get("boot_args").and_then(Value::as_str) {
            self.machine.boot_args = arguments.to_owned();
        }
        self.config.insert(name.to_owned(), value);
        Answer::done(Ok(()))
    }

    fn start(&mut self) -> Result<(), String> {
        if self.state != "Not started" {
            return Err(
                "The requested operation is not supported after starting the microVM.".to_owned(),
            );
        }
        self.state = "Running";
        self.machine.start()
    }

    fn change_state(&mut self, body: &Value) -> Result<(), String> {
        self.state = match body.get("state").and_then(Value::as_str) {
            Some("Paused") => "Paused",
            Some("Resumed") => "Running",
            _ => return Err("unknown state".to_owned()),
        };
        Ok(())
    }
}

fn text(value: &Value, name: &str) -> Result<String, String> {
    let text = value.get(name).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| format!("missing field `{name}`"))
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
        let info = ask(&mut vm, "GET", "/", Value::Null).body.unwrap();
        assert_eq!(info["state"], "Not started");
        let start = json!({"action_type": "InstanceStart"});
        assert_eq!(ask(&mut vm, "PUT", "/actions", start.clone()).status, 204);
        assert_eq!(ask(&mut vm, "PUT", "/actions", start).status, 400);
        let paused = json!({"state": "Paused"});
        assert_eq!(ask(&mut vm, "PATCH", "/vm", paused).status, 204);
        let info = ask(&mut vm, "GET", "/", Value::Null).body.unwrap();
        assert_eq!(info["state"], "Paused");
        let no_route = ask(&mut vm, "GET", "/network-interfaces", Value::Null);
        let fault = "Invalid request method and/or path: GET network-interfaces.";
        assert_eq!(no_route, Answer::fault(fault));
    }
}
