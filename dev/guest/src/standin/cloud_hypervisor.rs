//! Cloud Hypervisor's API (vmm/src/api/openapi/cloud-hypervisor.yaml).

use super::api::{Answer, Manners, Request, serve};
use super::machine::Machine;
use super::option;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, PoisonError};

fn refusal(status: u16) -> Answer {
    Answer { status, body: None }
}

#[derive(Default)]
struct Vm {
    config: Option<Value>,
    state: &'static str,
    machine: Machine,
    events: Option<File>,
}

pub(super) fn run(args: &[String]) -> Result<(), String> {
    let socket = option(args, "--api-socket").ok_or("no --api-socket")?;
    let socket = socket.strip_prefix("path=").unwrap_or(socket);
    let events = option(args, "--event-monitor").and_then(|it| it.strip_prefix("path="));
    let events = events.map(|path| File::create(path).map_err(|error| format!("{path}: {error}")));
    let listener = UnixListener::bind(socket).map_err(|error| format!("{socket}: {error}"))?;
    let vm = Mutex::new(Vm {
        events: events.transpose()?,
        ..Vm::default()
    });
    serve(&listener, "Cloud Hypervisor API", |request| {
        let mut vm = vm.lock().unwrap_or_else(PoisonError::into_inner);
        (vm.answer(request), Manners::of(&vm.machine.boot_args))
    });
    Ok(())
}

impl Vm {
    fn answer(&mut self, request: &Request) -> Answer {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/v1/vm.info") => match &self.config {
                Some(config) => Answer::json(&json!({
                    "config": config, "state": self.state, "memory_actual_size": 134_217_728,
                })),
                // 500 before openapi had 404 for it.
                None => Answer::with(
                    404,
                    &[
                        "Error from API",
                        "The VM info is not available",
                        "VM is not created",
                    ],
                ),
            },
            ("PUT", "/api/v1/vm.create") => {
                self.config = Some(request.body.clone());
                self.state = "Created";
                Answer::done(Ok(()))
            }
            ("PUT", "/api/v1/vm.boot") if self.config.is_none() => refusal(404),
            ("PUT", "/api/v1/vm.boot") => Answer::done(self.boot()),
            ("PUT", "/api/v1/vm.add-net") => self.add_net(&request.body),
            ("PUT", "/api/v1/vm.pause") => self.pause("Running", "Paused"),
            ("PUT", "/api/v1/vm.resume") => self.pause("Paused", "Running"),
            _ => refusal(404),
        }
    }

    fn pause(&mut self, from: &str, to: &'static str) -> Answer {
        if self.state != from {
            return refusal(if self.config.is_none() { 404 } else { 405 });
        }
        let is_paused = to == "Paused";
        self.state = to;
        self.machine.pause(is_paused);
        let words = if is_paused {
            ["pausing", "paused"]
        } else {
            ["resuming", "resumed"]
        };
        Answer::done(words.iter().try_for_each(|word| self.tell(word)))
    }

    /// As event_monitor/src/lib.rs writes it.
    fn tell(&mut self, event: &str) -> Result<(), String> {
        let Some(file) = &mut self.events else {
            return Ok(());
        };
        let event = json!({
            "timestamp": {"secs": 1, "nanos": 0}, "source": "vm", "event": event,
            "properties": null,
        });
        write!(file, "{event:#}\n\n").map_err(|error| error.to_string())
    }

    /// While the guest runs. It gets the next free place on the bus.
    fn add_net(&mut self, net: &Value) -> Answer {
        let list = self
            .config
            .as_mut()
            .and_then(|config| config.get_mut("net"));
        let Some(list) = list.and_then(Value::as_array_mut) else {
            return refusal(404);
        };
        let id = format!("_net{}", list.len());
        let tap = net.get("tap").and_then(Value::as_str).unwrap_or_default();
        if let Err(why) = self.machine.open_tap(&id, tap) {
            return Answer::with(500, &["Error from API", &why]);
        }
        let bdf = format!("0000:00:{:02x}.0", 5 + list.len());
        list.push(net.clone());
        Answer::json(&json!({ "id": id, "bdf": bdf }))
    }

    fn boot(&mut self) -> Result<(), String> {
        let config = self.config.clone().ok_or("VM is not created")?;
        let list = |name: &str| config.get(name).and_then(Value::as_array).cloned();
        for (number, disk) in list("disks").unwrap_or_default().iter().enumerate() {
            let path = disk.get("path").and_then(Value::as_str).ok_or("no path")?;
            let read_only = disk.get("readonly") == Some(&Value::Bool(true));
            let id = format!("_disk{number}");
            self.machine.open_drive(&id, path, read_only)?;
        }
        for (number, net) in list("net").unwrap_or_default().iter().enumerate() {
            let tap = net.get("tap").and_then(Value::as_str).ok_or("no tap")?;
            self.machine.open_tap(&format!("_net{number}"), tap)?;
        }
        let line = config.pointer("/payload/cmdline").and_then(Value::as_str);
        line.unwrap_or_default()
            .clone_into(&mut self.machine.boot_args);
        self.state = "Running";
        self.machine.start("vcpu0")?;
        self.tell("booted")
    }
}
