//! Firecracker's configuration as `GET /vm/config` writes it
//! (src/vmm/src/resources.rs): members in its order, with its defaults.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The whole of it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct VmConfig {
    balloon: Option<Value>,
    pub(super) drives: Vec<Drive>,
    #[serde(rename = "boot-source")]
    pub(super) boot_source: BootSource,
    #[serde(rename = "cpu-config")]
    cpu_config: Option<Value>,
    logger: Option<Value>,
    #[serde(rename = "machine-config")]
    pub(super) machine: MachineConfig,
    metrics: Option<Value>,
    #[serde(rename = "mmds-config")]
    pub(super) mmds: Option<MmdsConfig>,
    #[serde(rename = "network-interfaces")]
    pub(super) interfaces: Vec<Interface>,
    pub(super) vsock: Option<Vsock>,
    entropy: Option<Value>,
    pmem: Vec<Value>,
    #[serde(rename = "memory-hotplug")]
    memory_hotplug: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drive {
    pub(super) drive_id: String,
    #[serde(default)]
    partuuid: Option<String>,
    pub(super) is_root_device: bool,
    #[serde(default = "unsafe_cache")]
    cache_type: String,
    #[serde(default)]
    pub(super) is_read_only: Option<bool>,
    pub(super) path_on_host: String,
    #[serde(default)]
    rate_limiter: Option<Value>,
    #[serde(default = "synchronous")]
    io_engine: String,
    #[serde(default)]
    socket: Option<String>,
}

/// `PATCH /drives/ID`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DriveUpdate {
    pub(super) drive_id: String,
    #[serde(default)]
    pub(super) path_on_host: Option<String>,
    #[serde(default, rename = "rate_limiter")]
    _rate_limiter: Option<Value>,
}

/// `PUT /actions`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "action_type", deny_unknown_fields)]
pub(super) enum Action {
    InstanceStart,
    /// Of these a stand-in does none.
    FlushMetrics,
    SendCtrlAltDel,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootSource {
    pub(super) kernel_image_path: String,
    #[serde(default)]
    initrd_path: Option<String>,
    #[serde(default)]
    pub(super) boot_args: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: usize,
    #[serde(default)]
    smt: bool,
    #[serde(default)]
    track_dirty_pages: bool,
    #[serde(default = "no_huge_pages")]
    huge_pages: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MmdsConfig {
    #[serde(default = "first_version")]
    version: String,
    network_interfaces: Vec<String>,
    #[serde(default = "link_local")]
    ipv4_address: String,
    #[serde(default)]
    imds_compat: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interface {
    pub(super) iface_id: String,
    pub(super) host_dev_name: String,
    #[serde(default)]
    pub(super) guest_mac: Option<String>,
    #[serde(default)]
    mtu: Option<u16>,
    #[serde(default)]
    rx_rate_limiter: Option<Value>,
    #[serde(default)]
    tx_rate_limiter: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vsock {
    guest_cid: u32,
    uds_path: String,
}

/// `GET /`.
#[derive(Debug, Serialize)]
pub(super) struct InstanceInfo<'a> {
    pub(super) id: &'a str,
    pub(super) state: &'a str,
    pub(super) vmm_version: &'a str,
    pub(super) app_name: &'a str,
}

/// `--config-file`: what is not here is not configured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileConfig {
    #[serde(default)]
    pub(super) drives: Vec<Drive>,
    #[serde(default, rename = "machine-config")]
    pub(super) machine: MachineConfig,
    #[serde(default, rename = "boot-source")]
    pub(super) boot_source: BootSource,
    #[serde(default, rename = "mmds-config")]
    pub(super) mmds: Option<MmdsConfig>,
    #[serde(default, rename = "network-interfaces")]
    pub(super) interfaces: Vec<Interface>,
    #[serde(default)]
    pub(super) vsock: Option<Vsock>,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            track_dirty_pages: false,
            huge_pages: no_huge_pages(),
        }
    }
}

fn no_huge_pages() -> String {
    "None".to_owned()
}

fn unsafe_cache() -> String {
    "Unsafe".to_owned()
}

fn synchronous() -> String {
    "Sync".to_owned()
}

fn first_version() -> String {
    "V1".to_owned()
}

fn link_local() -> String {
    "169.254.169.254".to_owned()
}
