//! What Firecracker answers, and when it refuses.

use super::*;

fn ask(vm: &mut Vm, method: &str, path: &str, body: Value) -> Answer {
    let (method, path) = (method.to_owned(), path.to_owned());
    answer(vm, &Request { method, path, body })
}

/// A VM that could be started.
fn bootable() -> Vm {
    let mut vm = Vm::new("vm-001");
    let boot = json!({"kernel_image_path": "/boot/vmlinux"});
    assert_eq!(ask(&mut vm, "PUT", "/boot-source", boot).status, 204);
    vm
}

fn started() -> Vm {
    let mut vm = bootable();
    let start = json!({"action_type": "InstanceStart"});
    assert_eq!(ask(&mut vm, "PUT", "/actions", start).status, 204);
    vm
}

fn state(vm: &mut Vm) -> Value {
    let info = ask(vm, "GET", "/", Value::Null).body.unwrap();
    serde_json::from_str::<Value>(&info).unwrap()["state"].clone()
}

#[test]
fn life_of_a_vm() {
    let mut vm = bootable();
    assert_eq!(state(&mut vm), "Not started");
    let mut vm = started();
    assert_eq!(state(&mut vm), "Running");
    for (order, expected) in [
        ("Paused", "Paused"),
        ("Paused", "Paused"),
        ("Resumed", "Running"),
    ] {
        let answer = ask(&mut vm, "PATCH", "/vm", json!({ "state": order }));
        assert_eq!(answer.status, 204);
        assert_eq!(state(&mut vm), expected);
    }
}

/// `handle_preboot_request` and `handle_request` of src/vmm/src/rpc_interface.rs.
#[test]
fn each_thing_at_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let drive = json!({
        "drive_id": "d", "path_on_host": file, "is_root_device": false, "is_read_only": true,
    });
    let early = [
        ("PATCH", "/vm", json!({"state": "Paused"})),
        ("PATCH", "/vm", json!({"state": "Resumed"})),
        ("PATCH", "/drives/d", json!({"drive_id": "d"})),
        ("PUT", "/actions", json!({"action_type": "FlushMetrics"})),
        ("PUT", "/actions", json!({"action_type": "SendCtrlAltDel"})),
        (
            "PUT",
            "/snapshot/create",
            json!({"snapshot_path": "s", "mem_file_path": "m"}),
        ),
    ];
    let late = [
        ("PUT", "/actions", json!({"action_type": "InstanceStart"})),
        (
            "PUT",
            "/boot-source",
            json!({"kernel_image_path": "/boot/vmlinux"}),
        ),
        ("PUT", "/drives/d", drive),
        (
            "PUT",
            "/network-interfaces/e",
            json!({"iface_id": "e", "host_dev_name": "t"}),
        ),
        (
            "PUT",
            "/machine-config",
            json!({"vcpu_count": 1, "mem_size_mib": 128}),
        ),
        ("PUT", "/vsock", json!({"guest_cid": 3, "uds_path": "v"})),
        ("PUT", "/mmds/config", json!({"network_interfaces": []})),
        ("PUT", "/snapshot/load", json!({"snapshot_path": "s"})),
    ];
    let mut vm = bootable();
    for (method, path, body) in early {
        let fault = "The requested operation is not supported before starting the microVM.";
        let answer = ask(&mut vm, method, path, body);
        assert_eq!(answer, Answer::fault(fault), "{method} {path}");
    }
    let mut vm = started();
    for (method, path, body) in late {
        let fault = "The requested operation is not supported after starting the microVM.";
        let answer = ask(&mut vm, method, path, body);
        assert_eq!(answer, Answer::fault(fault), "{method} {path}");
    }
    // Metadata are taken at any time.
    for vm in [&mut bootable(), &mut started()] {
        assert_eq!(
            ask(vm, "GET", "/mmds", Value::Null).body.as_deref(),
            Some("{}")
        );
        assert_eq!(ask(vm, "PUT", "/mmds", json!({"a": 1})).status, 204);
    }
}

#[test]
fn what_is_wrong_with_a_request() {
    let mut vm = bootable();
    let mut check = |method: &str, path: &str, body: Value, fault: &str| {
        let answer = ask(&mut vm, method, path, body);
        assert_eq!(answer, Answer::fault(fault), "{method} {path}");
    };
    let vsock = json!({"guest_cid": 3, "uds_path": "v", "x": 1});
    check(
        "PUT",
        "/vsock",
        vsock,
        "An error occurred when deserializing the json body of a request: \
         unknown field `x`, expected `guest_cid` or `uds_path`.",
    );
    let interface = json!({"iface_id": "eth1", "host_dev_name": "t"});
    check(
        "PUT",
        "/network-interfaces/eth0",
        interface,
        "The id from the path [eth0] does not match the id from the body [eth1]!",
    );
    check("GET", "/", json!({}), "GET request cannot have a body.");
    check("PUT", "/vsock", Value::Null, "Empty PUT request.");
    check("PATCH", "/vm", Value::Null, "Empty PATCH request.");
    check(
        "PUT",
        "/vm/pause",
        json!({}),
        "Invalid request method and/or path: PUT vm.",
    );
    check(
        "GET",
        "/network-interfaces",
        Value::Null,
        "Invalid request method and/or path: GET network-interfaces.",
    );
    let snapshot = json!({"snapshot_path": "s"});
    check(
        "PUT",
        "/snapshot/load",
        snapshot,
        "Load snapshot error: Loading a microVM snapshot not allowed after configuring \
         boot-specific resources.",
    );
    let mut vm = Vm::new("vm-001");
    let start = json!({"action_type": "InstanceStart"});
    let fault = "Start microvm error: Cannot start microvm without kernel configuration.";
    assert_eq!(ask(&mut vm, "PUT", "/actions", start), Answer::fault(fault));
}

/// Only where nothing was configured; it goes on where that is wanted.
#[test]
fn a_snapshot_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let create = json!({"snapshot_path": file("s"), "mem_file_path": file("m")});
    let mut vm = started();
    let running = ask(&mut vm, "PUT", "/snapshot/create", create.clone());
    let fault = "Create snapshot error: Cannot save the microVM state: Operation not allowed: \
        save/restore unavailable while running";
    assert_eq!(running, Answer::fault(fault));
    let pause = json!({"state": "Paused"});
    assert_eq!(ask(&mut vm, "PATCH", "/vm", pause).status, 204);
    let created = ask(&mut vm, "PUT", "/snapshot/create", create);
    assert_eq!(created.status, 204, "{created:?}");
    for (resumes, expected) in [(true, "Running"), (false, "Paused")] {
        let mut vm = Vm::new("vm-002");
        let load = json!({"snapshot_path": file("s"), "resume_vm": resumes});
        assert_eq!(ask(&mut vm, "PUT", "/snapshot/load", load).status, 204);
        assert_eq!(state(&mut vm), expected);
    }
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
    assert_eq!(drives("data", "data"), ["data"]);
    // The root device is the first.
    assert_eq!(drives("rootfs", "old"), ["old", "data"]);
    assert_eq!(drives("more", "more"), ["old", "data", "more"]);
    assert_eq!(drives("rootfs", "new"), ["new", "data", "more"]);
    let second = json!({
        "drive_id": "other", "path_on_host": dir.path().join("new"), "is_root_device": true,
    });
    let answer = ask(&mut vm, "PUT", "/drives/other", second);
    let fault = "Drive config error: A root block device already exists!";
    assert_eq!(answer, Answer::fault(fault));
    // While the guest runs another file can take a drive's place.
    vm.config.boot_source = given(&json!({"kernel_image_path": "/boot/vmlinux"})).unwrap();
    let start = json!({"action_type": "InstanceStart"});
    assert_eq!(ask(&mut vm, "PUT", "/actions", start).status, 204);
    let other = dir.path().join("old");
    let exchange = json!({"drive_id": "data", "path_on_host": other});
    let answer = ask(&mut vm, "PATCH", "/drives/data", exchange);
    assert_eq!(answer.status, 204, "{answer:?}");
    let config = ask(&mut vm, "GET", "/vm/config", Value::Null).body.unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["drives"][1]["path_on_host"], other.to_str().unwrap());
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
        include_str!("../../../../../crates/provider/tests/fixtures/firecracker/raw_response.txt");
    let mut vm = Vm::new("vm-001");
    let info = ask(&mut vm, "GET", "/", Value::Null);
    assert_eq!(info.bytes("Firecracker API"), RAW.as_bytes());
    let drive = json!({
        "drive_id": "rootfs", "path_on_host": "/var/lib/vm/rootfs.ext4",
        "is_root_device": true, "is_read_only": false,
    });
    vm.config.drives.push(given(&drive).unwrap());
    let interface = json!({
        "iface_id": "eth0", "guest_mac": "06:00:ac:10:00:02", "host_dev_name": "fctap0",
    });
    vm.config.interfaces.push(given(&interface).unwrap());
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
            "../../../../../crates/provider/tests/fixtures/firecracker/instance_info.json"
        ),
    );
    check(
        &mut vm,
        "/version",
        include_str!("../../../../../crates/provider/tests/fixtures/firecracker/version.json"),
    );
    check(
        &mut vm,
        "/machine-config",
        include_str!(
            "../../../../../crates/provider/tests/fixtures/firecracker/machine_config.json"
        ),
    );
    check(
        &mut vm,
        "/vm/config",
        include_str!("../../../../../crates/provider/tests/fixtures/firecracker/vm_config.json"),
    );
    check(
        &mut vm,
        "/mmds",
        include_str!("../../../../../crates/provider/tests/fixtures/firecracker/mmds.json"),
    );
    check(
        &mut vm,
        "/network-interfaces",
        include_str!(
            "../../../../../crates/provider/tests/fixtures/firecracker/fault_bad_route.json"
        ),
    );
}
