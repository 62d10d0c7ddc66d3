//! `GET /api/v1/vm.info` (vmm/src/api/openapi/cloud-hypervisor.yaml).

use crate::claims::{Claims, Drive, Format, quoted};
use sandtrace_event::Layer;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::PathBuf;

/// Most devices of a kind that are looked at.
const MAX_DEVICES: usize = 256;

/// The answer; what is not looked at is not kept.
#[derive(Debug, Deserialize)]
pub(super) struct VmInfo {
    config: VmConfig,
    #[serde(default)]
    state: String,
}

#[derive(Debug, Deserialize)]
struct VmConfig {
    #[serde(default)]
    disks: Option<Vec<DiskConfig>>,
    #[serde(default)]
    net: Option<Vec<NetConfig>>,
    #[serde(default)]
    pmem: Option<Vec<PmemConfig>>,
    #[serde(default)]
    fs: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    vsock: Option<IgnoredAny>,
    #[serde(default)]
    devices: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    user_devices: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    vdpa: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
struct DiskConfig {
    #[serde(default)]
    path: Option<PathBuf>,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    vhost_user: bool,
}

#[derive(Debug, Deserialize)]
struct NetConfig {
    #[serde(default)]
    tap: Option<String>,
    #[serde(default)]
    vhost_user: bool,
}

#[derive(Debug, Deserialize)]
struct PmemConfig {
    file: PathBuf,
    #[serde(default)]
    discard_writes: bool,
}

impl VmInfo {
    pub(super) fn is_paused(&self) -> bool {
        self.state == "Paused"
    }

    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    pub(super) fn claims(self) -> Claims {
        let mut claims = Claims::default();
        let config = self.config;
        for disk in config.disks.into_iter().flatten().take(MAX_DEVICES) {
            match disk.path {
                Some(path) if !disk.vhost_user => claims.drives.push(Drive {
                    path,
                    writable: !disk.readonly,
                    format: Format::Untold,
                }),
                _ => claims.missing(
                    Layer::Filesystem,
                    "a drive is served by another process (vhost-user)",
                ),
            }
        }
        for device in config.pmem.into_iter().flatten().take(MAX_DEVICES) {
            claims.drives.push(Drive {
                path: device.file,
                writable: !device.discard_writes,
                format: Format::RAW,
            });
        }
        for net in config.net.into_iter().flatten().take(MAX_DEVICES) {
            if net.vhost_user {
                let tap = quoted(&net.tap.unwrap_or_default());
                claims.missing(
                    Layer::Network,
                    format!("network device {tap} is served by another process (vhost-user)"),
                );
            } else {
                // Without a name the VMM makes a tap of its own, which it has open.
                claims.interfaces.extend(net.tap);
            }
        }
        let some = |list: Option<Vec<IgnoredAny>>| list.is_some_and(|list| !list.is_empty());
        let out_of_sight = [
            (
                some(config.fs),
                Layer::Filesystem,
                "a directory of the host is shared with the guest (virtio-fs)",
            ),
            (
                config.vsock.is_some(),
                Layer::Network,
                "vsock connections end in a socket on the host and never reach the tap",
            ),
            (
                some(config.devices) | some(config.user_devices) | some(config.vdpa),
                Layer::Network,
                "a device of the host is passed through",
            ),
        ];
        for (_, layer, why) in out_of_sight.into_iter().filter(|(is_so, ..)| *is_so) {
            claims.missing(layer, why);
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vm_info_says() {
        let json = br#"{"config":{"cpus":{"boot_vcpus":1,"max_vcpus":1},
            "disks":[{"path":"/d/rootfs.raw","readonly":false,"id":"_disk0"},
                     {"path":"/d/ro.raw","readonly":true},{"vhost_user":true,"vhost_socket":"/s"}],
            "net":[{"tap":"chtap0","mac":"12:34:56:78:90:ab","id":"_net1"},{"tap":null}],
            "vsock":{"cid":3,"socket":"/v"},"fs":[{"tag":"x","socket":"/f"}],"devices":null},
            "state":"Running","memory_actual_size":134217728}"#;
        let claims = VmInfo::parse(json).unwrap().claims();
        let drive = |path: &str, writable| Drive {
            path: path.into(),
            writable,
            format: Format::Untold,
        };
        assert_eq!(
            claims.drives,
            [drive("/d/rootfs.raw", true), drive("/d/ro.raw", false)]
        );
        assert_eq!(claims.interfaces, ["chtap0"]);
        let missing: Vec<_> = claims
            .coverage
            .iter()
            .map(|it| it.missing.as_str())
            .collect();
        assert_eq!(missing.len(), 3, "{missing:?}");
    }
}
