//! What the API of each VMM is told. Real ones refuse what they do not know.

use std::path::Path;

use serde_json::{Value, json};

use super::command::Plan;
use super::{StandInConfig, StandInForm};

/// Memory of a guest, in MiB: room for the kernel and its first file system.
const MEMORY_MIB: u64 = 256;

/// One request.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Value,
}

impl Order {
    fn new(method: &'static str, path: impl Into<String>, body: Value) -> Self {
        let path = path.into();
        Self { method, path, body }
    }

    fn put(path: impl Into<String>, body: Value) -> Self {
        Self::new("PUT", path, body)
    }
}

/// Everything before its guest runs.
pub(super) fn configuration(plan: &Plan, config: &StandInConfig) -> Vec<Order> {
    match plan.form {
        StandInForm::ConfigFile | StandInForm::Libkrun => Vec::new(),
        StandInForm::CloudHypervisor => vec![Order::put("/api/v1/vm.create", vm(plan, config))],
        _ => {
            let mut orders = vec![
                Order::put("/boot-source", boot_source(plan)),
                Order::put("/machine-config", machine()),
                drive("rootfs", &plan.disk_inside),
                interface("eth0", &config.tap),
            ];
            if !config.metadata.is_null() {
                orders.push(Order::put("/mmds/config", mmds()));
                orders.push(Order::put("/mmds", config.metadata.clone()));
            }
            orders
        }
    }
}

/// The same in a file of Firecracker's.
pub(super) fn configuration_file(plan: &Plan, config: &StandInConfig) -> Value {
    json!({
        "boot-source": boot_source(plan),
        "machine-config": machine(),
        "drives": [drive("rootfs", &plan.disk_inside).body],
        "network-interfaces": [interface("eth0", &config.tap).body],
        "mmds-config": Some(mmds()).filter(|_| !config.metadata.is_null()),
    })
}

/// Lets the guest run.
pub(super) fn start(form: StandInForm) -> Option<Order> {
    match form {
        StandInForm::ConfigFile | StandInForm::Libkrun => None,
        StandInForm::CloudHypervisor => Some(Order::put("/api/v1/vm.boot", Value::Null)),
        _ => {
            let action = json!({"action_type": "InstanceStart"});
            Some(Order::put("/actions", action))
        }
    }
}

/// Pauses it, or lets it go on.
pub(super) fn pause(form: StandInForm, paused: bool) -> Order {
    match (form, paused) {
        (StandInForm::CloudHypervisor, true) => Order::put("/api/v1/vm.pause", Value::Null),
        (StandInForm::CloudHypervisor, false) => Order::put("/api/v1/vm.resume", Value::Null),
        (_, true) => Order::new("PATCH", "/vm", json!({"state": "Paused"})),
        (_, false) => Order::new("PATCH", "/vm", json!({"state": "Resumed"})),
    }
}

/// One more interface.
pub(super) fn add_interface(form: StandInForm, id: &str, tap: &str) -> Order {
    match form {
        StandInForm::CloudHypervisor => Order::put("/api/v1/vm.add-net", json!({ "tap": tap })),
        _ => interface(id, tap),
    }
}

pub(super) fn snapshot(dir: &Path) -> Order {
    let body = json!({
        "snapshot_type": "Full",
        "snapshot_path": dir.join("snapshot"), "mem_file_path": dir.join("memory"),
    });
    Order::put("/snapshot/create", body)
}

pub(super) fn restore(dir: &Path) -> Order {
    let memory = json!({"backend_type": "File", "backend_path": dir.join("memory")});
    let body = json!({
        "snapshot_path": dir.join("snapshot"), "mem_backend": memory, "resume_vm": true,
    });
    Order::put("/snapshot/load", body)
}

pub(super) fn drive(id: &str, path: &Path) -> Order {
    let body = json!({
        "drive_id": id, "path_on_host": path, "is_root_device": id == "rootfs",
        "is_read_only": false, "cache_type": "Unsafe", "io_engine": "Sync",
    });
    Order::put(format!("/drives/{id}"), body)
}

/// Another file in the place of a drive's, while the guest runs.
pub(super) fn exchange_drive(id: &str, path: &Path) -> Order {
    let body = json!({"drive_id": id, "path_on_host": path});
    Order::new("PATCH", format!("/drives/{id}"), body)
}

/// `eth0` has the MAC that E2B gives all of its guests; no two of one VMM have
/// the same, which Firecracker refuses.
fn interface(id: &str, tap: &str) -> Order {
    let number = id.bytes().last().unwrap_or(b'0').wrapping_sub(b'0');
    let mac = format!("02:FC:00:00:00:{:02X}", number.wrapping_add(5));
    let body = json!({"iface_id": id, "host_dev_name": tap, "guest_mac": mac});
    Order::put(format!("/network-interfaces/{id}"), body)
}

fn boot_source(plan: &Plan) -> Value {
    let payload = &plan.payload;
    json!({
        "kernel_image_path": payload.kernel, "initrd_path": payload.initrd,
        "boot_args": payload.boot_args,
    })
}

fn machine() -> Value {
    json!({"vcpu_count": 1, "mem_size_mib": MEMORY_MIB})
}

fn mmds() -> Value {
    json!({"version": "V2", "network_interfaces": ["eth0"]})
}

/// Cloud Hypervisor's.
fn vm(plan: &Plan, config: &StandInConfig) -> Value {
    let payload = &plan.payload;
    json!({
        "payload": {
            "kernel": payload.kernel, "initramfs": payload.initrd,
            "cmdline": payload.boot_args,
        },
        "cpus": {"boot_vcpus": 1, "max_vcpus": 1},
        "memory": {"size": MEMORY_MIB << 20},
        "disks": [{"path": plan.disk_inside, "readonly": false}],
        "net": [{"tap": config.tap, "mac": "12:34:56:78:90:ab"}],
        "serial": {"mode": "Null"},
        "console": {"mode": "Off"},
    })
}

#[cfg(test)]
mod tests;
