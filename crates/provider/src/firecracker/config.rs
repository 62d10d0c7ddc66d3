//! Firecracker's JSON: `/vm/config` and `--config-file` have the same
//! members (its src/vmm/src/resources.rs and src/firecracker/swagger).

use crate::claims::{Claims, Drive, Format, quoted};
use crate::ids::is_valid_agent_id;
use sandtrace_event::Layer;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Most drives or interfaces that are looked at; Firecracker itself takes far fewer.
const MAX_DEVICES: usize = 256;

/// A VM's configuration; what is not looked at is not kept.
#[derive(Debug, Deserialize)]
pub(super) struct VmConfig {
    #[serde(default)]
    drives: Vec<DriveConfig>,
    #[serde(default, rename = "boot-source")]
    boot_source: BootSource,
    #[serde(default, rename = "network-interfaces")]
    network_interfaces: Vec<InterfaceConfig>,
    #[serde(default, rename = "mmds-config")]
    mmds: Option<IgnoredAny>,
    #[serde(default)]
    vsock: Option<IgnoredAny>,
    #[serde(default)]
    pmem: Option<Vec<PmemConfig>>,
}

#[derive(Debug, Default, Deserialize)]
struct BootSource {
    #[serde(default)]
    kernel_image_path: String,
}

#[derive(Debug, Deserialize)]
struct DriveConfig {
    drive_id: String,
    #[serde(default)]
    path_on_host: Option<PathBuf>,
    #[serde(default)]
    is_read_only: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct InterfaceConfig {
    host_dev_name: String,
}

#[derive(Debug, Deserialize)]
struct PmemConfig {
    path_on_host: PathBuf,
    #[serde(default)]
    read_only: bool,
}

impl VmConfig {
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Whether a guest that runs with it was booted by this VMM, not taken
    /// over from a snapshot, of which no boot source is told.
    pub(super) fn was_booted(&self) -> bool {
        !self.boot_source.kernel_image_path.is_empty()
    }

    pub(super) fn claims(self) -> Claims {
        let mut claims = Claims::default();
        for drive in self.drives.into_iter().take(MAX_DEVICES) {
            let Some(path) = drive.path_on_host else {
                let id = quoted(&drive.drive_id);
                claims.missing(
                    Layer::Filesystem,
                    format!("drive {id} is served by another process (vhost-user)"),
                );
                continue;
            };
            let writable = !drive.is_read_only.unwrap_or(false);
            claims.drives.push(Drive {
                path,
                writable,
                format: Format::Untold,
            });
        }
        for device in self.pmem.unwrap_or_default().into_iter().take(MAX_DEVICES) {
            claims.drives.push(Drive {
                path: device.path_on_host,
                writable: !device.read_only,
                format: Format::Untold,
            });
        }
        let interfaces = self.network_interfaces.into_iter().take(MAX_DEVICES);
        claims.interfaces = interfaces.map(|it| it.host_dev_name).collect();
        if self.mmds.is_some() {
            claims.missing(
                Layer::Network,
                "metadata requests (MMDS) are answered inside the VMM and never reach the tap",
            );
        }
        if self.vsock.is_some() {
            claims.missing(
                Layer::Network,
                "vsock connections end in a socket on the host and never reach the tap",
            );
        }
        claims
    }
}

/// The agent that metadata names: the text member `agent_id`, or else
/// `agent`, at the top level. No other value is kept, also not in an error:
/// metadata may hold credentials.
pub(super) fn agent_id(json: &[u8]) -> Option<String> {
    let metadata: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let text = |name| match metadata.get(name) {
        Some(Value::String(text)) if is_valid_agent_id(text) => Some(text.clone()),
        _ => None,
    };
    text("agent_id").or_else(|| text("agent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_agent(json: &str, expected: Option<&str>) {
        assert_eq!(agent_id(json.as_bytes()).as_deref(), expected, "{json}");
    }

    #[test]
    fn agents_in_metadata() {
        check_agent(
            include_str!("../../tests/fixtures/firecracker/mmds.json"),
            Some("billing"),
        );
        check_agent(r#"{"agent_id":"a","agent":"b"}"#, Some("a"));
        check_agent(r#"{"agent_id":{"x":1},"agent":"b"}"#, Some("b"));
        check_agent(r#"{"agent_id":"with space"}"#, None);
        check_agent(r#"{"latest":{"agent":"deep"}}"#, None);
        check_agent(r#"["agent"]"#, None);
        check_agent("", None);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check_agent(&format!(r#"{{"agent":{deep}}}"#), None);
    }

    #[test]
    fn recorded_configuration() {
        let json = include_bytes!("../../tests/fixtures/firecracker/vm_config.json");
        let claims = VmConfig::parse(json).unwrap().claims();
        let rootfs = Drive {
            path: "/var/lib/vm/rootfs.ext4".into(),
            writable: true,
            format: Format::Untold,
        };
        assert_eq!(claims.drives, [rootfs]);
        assert_eq!(claims.interfaces, ["fctap0"]);
        assert_eq!(claims.coverage.len(), 2, "{:?}", claims.coverage);
    }

    #[test]
    fn a_drive_without_a_path_is_another_process() {
        let json =
            br#"{"drives":[{"drive_id":"d","path_on_host":null,"socket":"/s"}],"vsock":null}"#;
        let claims = VmConfig::parse(json).unwrap().claims();
        assert!(claims.drives.is_empty());
        assert!(claims.coverage[0].missing.contains("vhost-user"));
        assert_eq!(claims.coverage.len(), 1);
    }
}
