//! Every body that a real VMM is sent, against what its API is documented to
//! take: the definitions of Firecracker 1.17 (src/firecracker/swagger) and of
//! Cloud Hypervisor (vmm/src/api/openapi), as far as they are used.

use super::*;
use crate::standin::command::Plan;
use crate::standin::payload::Payload;
use std::path::PathBuf;

/// What a value is to be.
enum Kind {
    Text,
    Whole,
    Truth,
    Word(&'static [&'static str]),
    Is(Schema),
    Many(&'static Kind),
    /// Not sent.
    Other,
    Anything,
}

use Kind::{Anything, Is, Many, Other, Text, Truth, Whole, Word};

/// An object: its members, and whether each must be there.
type Schema = &'static [(&'static str, bool, Kind)];

const MUST: bool = true;
const MAY: bool = false;

const BOOT_SOURCE: Schema = &[
    ("kernel_image_path", MUST, Text),
    ("boot_args", MAY, Text),
    ("initrd_path", MAY, Text),
];
const MACHINE: Schema = &[
    ("mem_size_mib", MUST, Whole),
    ("vcpu_count", MUST, Whole),
    ("cpu_template", MAY, Other),
    ("smt", MAY, Truth),
    ("track_dirty_pages", MAY, Truth),
    ("huge_pages", MAY, Word(&["None", "Transparent", "2M"])),
];
const DRIVE: Schema = &[
    ("drive_id", MUST, Text),
    ("is_root_device", MUST, Truth),
    ("partuuid", MAY, Text),
    ("cache_type", MAY, Word(&["Unsafe", "Writeback"])),
    // Required of virtio-block.
    ("is_read_only", MUST, Truth),
    ("path_on_host", MUST, Text),
    ("rate_limiter", MAY, Other),
    ("io_engine", MAY, Word(&["Sync", "Async"])),
    ("socket", MAY, Other),
];
const PARTIAL_DRIVE: Schema = &[
    ("drive_id", MUST, Text),
    ("path_on_host", MAY, Text),
    ("rate_limiter", MAY, Other),
];
const INTERFACE: Schema = &[
    ("host_dev_name", MUST, Text),
    ("iface_id", MUST, Text),
    ("guest_mac", MAY, Text),
    ("mtu", MAY, Whole),
    ("rx_rate_limiter", MAY, Other),
    ("tx_rate_limiter", MAY, Other),
];
const MMDS: Schema = &[
    ("network_interfaces", MUST, Many(&Text)),
    ("version", MAY, Word(&["V1", "V2"])),
    ("ipv4_address", MAY, Text),
    ("imds_compat", MAY, Truth),
];
const ACTIONS: &[&str] = &["FlushMetrics", "InstanceStart", "SendCtrlAltDel"];
const ACTION: Schema = &[("action_type", MUST, Word(ACTIONS))];
const STATE: Schema = &[("state", MUST, Word(&["Paused", "Resumed"]))];
const SNAPSHOT: Schema = &[
    ("mem_file_path", MUST, Text),
    ("snapshot_path", MUST, Text),
    ("snapshot_type", MAY, Word(&["Full", "Diff"])),
];
const MEMORY_BACKEND: Schema = &[
    ("backend_type", MUST, Word(&["File", "Uffd"])),
    ("backend_path", MUST, Text),
];
const LOAD: Schema = &[
    ("snapshot_path", MUST, Text),
    ("enable_diff_snapshots", MAY, Other),
    ("track_dirty_pages", MAY, Truth),
    // Exactly one of these two.
    ("mem_file_path", MAY, Other),
    ("mem_backend", MUST, Is(MEMORY_BACKEND)),
    ("resume_vm", MAY, Truth),
    ("network_overrides", MAY, Other),
    ("vsock_override", MAY, Other),
    ("clock_realtime", MAY, Truth),
];
/// `VmmConfig` of src/vmm/src/resources.rs, which a file has.
const FILE: Schema = &[
    ("boot-source", MUST, Is(BOOT_SOURCE)),
    ("drives", MUST, Many(&Is(DRIVE))),
    ("machine-config", MAY, Is(MACHINE)),
    ("network-interfaces", MAY, Many(&Is(INTERFACE))),
    ("mmds-config", MAY, Is(MMDS)),
    ("vsock", MAY, Other),
];

/// By method and the first parts of the path.
const FIRECRACKER: &[(&str, &str, Kind)] = &[
    ("PUT", "/boot-source", Is(BOOT_SOURCE)),
    ("PUT", "/machine-config", Is(MACHINE)),
    ("PUT", "/drives/", Is(DRIVE)),
    ("PATCH", "/drives/", Is(PARTIAL_DRIVE)),
    ("PUT", "/network-interfaces/", Is(INTERFACE)),
    ("PUT", "/mmds/config", Is(MMDS)),
    ("PUT", "/mmds", Anything),
    ("PUT", "/actions", Is(ACTION)),
    ("PATCH", "/vm", Is(STATE)),
    ("PUT", "/snapshot/create", Is(SNAPSHOT)),
    ("PUT", "/snapshot/load", Is(LOAD)),
];

const PAYLOAD: Schema = &[
    ("kernel", MUST, Text),
    ("cmdline", MAY, Text),
    ("initramfs", MAY, Text),
    ("firmware", MAY, Other),
    ("igvm", MAY, Other),
    ("host_data", MAY, Other),
];
const CPUS: Schema = &[("boot_vcpus", MUST, Whole), ("max_vcpus", MUST, Whole)];
const MEMORY: Schema = &[("size", MUST, Whole), ("shared", MAY, Truth)];
const DISK: Schema = &[
    ("path", MAY, Text),
    ("readonly", MAY, Truth),
    ("direct", MAY, Truth),
    ("id", MAY, Text),
];
const NET: Schema = &[
    ("tap", MAY, Text),
    ("ip", MAY, Text),
    ("mask", MAY, Text),
    ("mac", MAY, Text),
    ("id", MAY, Text),
];
const MODES: &[&str] = &["Off", "Pty", "Tty", "File", "Socket", "Null"];
const CONSOLE: Schema = &[("mode", MUST, Word(MODES)), ("file", MAY, Text)];
const VM: Schema = &[
    ("payload", MUST, Is(PAYLOAD)),
    ("cpus", MAY, Is(CPUS)),
    ("memory", MAY, Is(MEMORY)),
    ("disks", MAY, Many(&Is(DISK))),
    ("net", MAY, Many(&Is(NET))),
    ("serial", MAY, Is(CONSOLE)),
    ("console", MAY, Is(CONSOLE)),
];
const CLOUD_HYPERVISOR: &[(&str, &str, Kind)] = &[
    ("PUT", "/api/v1/vm.create", Is(VM)),
    ("PUT", "/api/v1/vm.boot", Other),
    ("PUT", "/api/v1/vm.pause", Other),
    ("PUT", "/api/v1/vm.resume", Other),
    ("PUT", "/api/v1/vm.add-net", Is(NET)),
];

fn fits(value: &Value, kind: &Kind) -> Result<(), String> {
    let is_so = match kind {
        Text => value.as_str().is_some_and(|text| !text.is_empty()),
        Whole => value.as_u64().is_some(),
        Truth => value.is_boolean(),
        Word(words) => words.iter().any(|word| value == word),
        Other => value.is_null(),
        Anything => true,
        Many(kind) => {
            let list = value.as_array().ok_or("no list")?;
            return list.iter().try_for_each(|value| fits(value, kind));
        }
        Is(schema) => return object_fits(value, schema),
    };
    is_so.then_some(()).ok_or_else(|| format!("{value}"))
}

fn object_fits(value: &Value, schema: Schema) -> Result<(), String> {
    let object = value.as_object().ok_or("no object")?;
    for (name, value) in object {
        let known = schema.iter().find(|(known, ..)| known == name);
        let (.., kind) = known.ok_or_else(|| format!("{name} is unknown"))?;
        fits(value, kind).map_err(|why| format!("{name}: {why}"))?;
    }
    let missing = |(name, must, _): &&(&str, bool, Kind)| *must && !object.contains_key(*name);
    match schema.iter().find(missing) {
        Some((name, ..)) => Err(format!("{name} is missing")),
        None => Ok(()),
    }
}

#[track_caller]
fn check(order: &Order, api: &[(&str, &str, Kind)]) {
    let Order { method, path, body } = order;
    let takes = |(known, start, _): &&(&str, &str, Kind)| {
        known == method && (path == start || (start.ends_with('/') && path.starts_with(start)))
    };
    let kind = api.iter().find(takes);
    let (.., kind) = kind.unwrap_or_else(|| panic!("{method} {path} is no route"));
    if let Err(why) = fits(body, kind) {
        panic!("{method} {path}: {why}");
    }
}

fn config(form: StandInForm) -> StandInConfig {
    StandInConfig {
        pid: None,
        form,
        sandbox_id: "i1".to_owned(),
        namespace: "default".to_owned(),
        disk: "/lab/i1.ext4".into(),
        tap: "tap0".to_owned(),
        metadata: json!({"agent_id": "billing"}),
        boot_args: String::new(),
        real: true,
    }
}

/// As for a real program; nothing of it is made.
fn plan(config: &StandInConfig) -> Plan {
    Plan {
        pid: None,
        form: config.form,
        program: PathBuf::new(),
        argv0: "firecracker".into(),
        arguments: Vec::new(),
        working_directory: PathBuf::new(),
        socket: PathBuf::new(),
        jail: None,
        disk: config.disk.clone(),
        disk_inside: config.disk.clone(),
        payload: Payload {
            kernel: "/lab/vmlinux".into(),
            initrd: Some("/lab/initrd".into()),
            boot_args: "panic=1".to_owned(),
        },
    }
}

#[test]
fn what_firecracker_is_told_is_what_it_takes() {
    let config = config(StandInForm::Firecracker);
    let plan = plan(&config);
    let mut orders = configuration(&plan, &config);
    assert_eq!(orders.len(), 6);
    orders.extend(start(config.form));
    orders.extend([true, false].map(|paused| pause(config.form, paused)));
    orders.push(add_interface(config.form, "eth1", "tap1"));
    orders.push(drive("data", Path::new("/lab/data.ext4")));
    orders.push(exchange_drive("data", Path::new("/lab/other.ext4")));
    orders.extend([snapshot(Path::new("/lab")), restore(Path::new("/lab"))]);
    for order in &orders {
        check(order, FIRECRACKER);
    }
    let macs: Vec<_> = orders
        .iter()
        .filter_map(|it| it.body["guest_mac"].as_str())
        .collect();
    assert_eq!(macs, ["02:FC:00:00:00:05", "02:FC:00:00:00:06"]);
    assert_eq!(fits(&configuration_file(&plan, &config), &Is(FILE)), Ok(()));
}

#[test]
fn what_cloud_hypervisor_is_told_is_what_it_takes() {
    let config = config(StandInForm::CloudHypervisor);
    let mut orders = configuration(&plan(&config), &config);
    assert_eq!(orders.len(), 1);
    orders.extend(start(config.form));
    orders.extend([true, false].map(|paused| pause(config.form, paused)));
    orders.push(add_interface(config.form, "eth1", "tap1"));
    for order in &orders {
        check(order, CLOUD_HYPERVISOR);
    }
}

#[test]
fn what_nobody_takes() {
    let refused = |body: Value, why: &str| {
        let found = fits(&body, &Is(DRIVE)).unwrap_err();
        assert_eq!(found, why, "{body}");
    };
    let drive = drive("rootfs", Path::new("/r")).body;
    let with = |name: &str, value: Value| {
        let mut body = drive.clone();
        body[name] = value;
        body
    };
    refused(with("path", json!("/r")), "path is unknown");
    refused(with("io_engine", json!("Fast")), "io_engine: \"Fast\"");
    refused(
        with("is_root_device", json!("yes")),
        "is_root_device: \"yes\"",
    );
    refused(json!({"drive_id": "x"}), "is_root_device is missing");
}
