//! QEMU: its arguments. Its QMP socket takes one client only and is left alone.

mod nodes;
mod options;

use crate::claims::{Claims, Drive, Format, quoted};
use nodes::{Blockdev, Nodes, blockdev};
use options::{Options, filename, protocol};
use sandtrace_event::Layer;
use sandtrace_sys::process::ThreadTurns;
use std::path::PathBuf;

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) id: Option<String>,
    drives: Vec<Drive>,
    /// The nodes of `-blockdev`.
    nodes: Nodes,
    /// What is out of sight, and why.
    missing: Vec<(Layer, String)>,
}

/// Network back ends that are taps, or that carry nothing.
const ON_A_TAP: [&str; 5] = ["tap", "bridge", "hubport", "nic", "none"];

/// Devices by which a guest reaches the host past its tap and its disks:
/// the beginning of their driver's name, and what that is.
const ASIDE: [(&str, Layer, &str); 6] = [
    (
        "vhost-vsock",
        Layer::Network,
        "vsock connections never reach a tap",
    ),
    (
        "vhost-user-vsock",
        Layer::Network,
        "vsock connections never reach a tap",
    ),
    (
        "virtserialport",
        Layer::Network,
        "a virtio serial port leads to the host",
    ),
    (
        "vhost-user-fs",
        Layer::Filesystem,
        "a directory of the host is shared with the guest",
    ),
    (
        "virtio-9p",
        Layer::Filesystem,
        "a directory of the host is shared with the guest",
    ),
    (
        "vfio-pci",
        Layer::Network,
        "a device of the host is passed through",
    ),
];

impl Arguments {
    /// Reads what follows argv\[0\] (qemu-system(1)).
    pub(crate) fn parse(arguments: &[Vec<u8>]) -> Self {
        let mut parsed = Self::default();
        let mut uuid = None;
        let values = arguments.iter().skip(1);
        for (name, value) in arguments.iter().zip(values) {
            let value = String::from_utf8_lossy(value);
            let Some(name) = option_name(name) else {
                continue;
            };
            match name {
                "name" => {
                    let guest = Options::parse(&value, "guest").get("guest");
                    parsed.id = parsed.id.or(guest);
                }
                "uuid" => uuid = uuid.or(Some(value.into_owned())),
                "drive" => parsed.drive(&Options::parse(&value, "file")),
                "blockdev" => parsed.blockdev(blockdev(&value)),
                "hda" | "hdb" | "hdc" | "hdd" | "sd" => {
                    parsed.file(&value, true, Format::Untold);
                }
                "netdev" | "nic" | "net" => parsed.network(&Options::parse(&value, "type")),
                "device" => parsed.device(&Options::parse(&value, "driver")),
                "virtfs" => parsed.shared_directory(),
                _ => {}
            }
        }
        parsed.id = parsed.id.filter(|id| !id.is_empty()).or(uuid);
        parsed
            .drives
            .extend(std::mem::take(&mut parsed.nodes).drives());
        parsed
    }

    pub(crate) fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        claims.drives.clone_from(&self.drives);
        for (layer, why) in &self.missing {
            claims.missing(*layer, why.clone());
        }
        claims
    }

    fn drive(&mut self, options: &Options) {
        // Firmware is no disk of the guest.
        if options.get("if").as_deref() == Some("pflash") {
            return;
        }
        let driver = options.get("file.driver").or_else(|| options.get("driver"));
        if let Some(driver) = driver.and_then(|driver| options::remote(&driver)) {
            return self.no_file(driver);
        }
        let Some(file) = options.get("file").or_else(|| options.get("file.filename")) else {
            return;
        };
        let is_on = |name| matches!(options.get(name).as_deref(), Some("on" | "yes" | "true"));
        let cdrom = options.get("media").as_deref() == Some("cdrom");
        let read_only = cdrom || is_on("readonly") || is_on("read-only");
        let format = options.get("format").or_else(|| options.get("driver"));
        let format = format.map_or(Format::Untold, |driver| options::format(&driver, options));
        self.file(&file, !read_only, format);
    }

    fn file(&mut self, name: &str, writable: bool, format: Format) {
        match filename(name) {
            Some(path) => self.drives.push(Drive {
                path: PathBuf::from(path),
                writable,
                format,
            }),
            None => self.no_file(protocol(name)),
        }
    }

    fn blockdev(&mut self, found: Blockdev) {
        for driver in &found.remote {
            self.no_file(driver);
        }
        self.nodes.extend(found);
    }

    /// Names the protocol alone: what follows may hold a password.
    fn no_file(&mut self, protocol: &str) {
        let protocol = quoted(protocol);
        let why = format!("a drive by the protocol {protocol} is no file of this host");
        self.missing.push((Layer::Filesystem, why));
    }

    fn network(&mut self, options: &Options) {
        let back_end = options.get("type").unwrap_or_default();
        if !ON_A_TAP.contains(&back_end.as_str()) {
            let back_end = quoted(options::word(&back_end));
            self.missing.push((
                Layer::Network,
                format!("network back end {back_end} is not a tap"),
            ));
        }
    }

    fn device(&mut self, options: &Options) {
        let driver = options.get("driver").unwrap_or_default();
        let aside = ASIDE.iter().find(|(name, _, _)| driver.starts_with(name));
        if let Some((_, layer, why)) = aside {
            let driver = quoted(options::word(&driver));
            self.missing
                .push((*layer, format!("device {driver}: {why}")));
        }
    }

    fn shared_directory(&mut self) {
        let why = "a directory of the host is shared with the guest (virtfs)";
        self.missing.push((Layer::Filesystem, why.to_owned()));
    }
}

/// QEMU takes its options with one dash or two.
fn option_name(argument: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(argument).ok()?.strip_prefix('-')?;
    Some(name.strip_prefix('-').unwrap_or(name))
}

/// What grows when its vCPUs run, by how often and how long they did: threads that it
/// names `CPU N/KVM` or `CPU N/TCG` where it was told to name any
/// (`-name debug-threads=on`), else all but the first, which serves QMP also while the
/// guest is paused.
pub(crate) fn vcpu_turns(pid: u32, threads: &[ThreadTurns]) -> Option<u64> {
    let is_named = |it: &&ThreadTurns| it.name.starts_with("CPU ");
    let any_named = threads.iter().any(|it| is_named(&it));
    let vcpus = threads.iter().filter(|it| match any_named {
        true => is_named(it),
        false => it.thread != pid,
    });
    let runs = vcpus.map(|it| it.turns.wrapping_add(it.ran_ns));
    runs.reduce(u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskFormat;

    fn parse(line: &[&str]) -> Arguments {
        let words: Vec<_> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        Arguments::parse(&words)
    }

    #[track_caller]
    fn check_id(line: &[&str], expected: Option<&str>) {
        assert_eq!(parse(line).id.as_deref(), expected, "{line:?}");
    }

    #[test]
    fn ids() {
        check_id(&[], None);
        check_id(&["-name"], None);
        check_id(&["-name", "vm-1"], Some("vm-1"));
        check_id(&["--name", "vm-1"], Some("vm-1"));
        check_id(&["-name", "guest=vm-1,debug-threads=on"], Some("vm-1"));
        check_id(&["-name", "vm-1,process=other"], Some("vm-1"));
        check_id(&["-name", "guest=a,,b"], Some("a,b"));
        check_id(&["-uuid", "0c8c-11", "-name", "vm-1"], Some("vm-1"));
        check_id(&["-uuid", "0c8c-11", "-name", "process=x"], Some("0c8c-11"));
        check_id(&["-name", "debug-threads=on,guest=late"], Some("late"));
    }

    /// One alone on its processor is never taken off it.
    #[test]
    fn a_vcpu_that_keeps_its_processor_runs() {
        let turns = |ran_ns| {
            let thread = |thread, name: &str, turns, ran_ns| ThreadTurns {
                thread,
                name: name.to_owned(),
                turns,
                ran_ns,
            };
            let threads = [thread(7, "qemu", 90, 5), thread(8, "CPU 0/KVM", 3, ran_ns)];
            vcpu_turns(7, &threads)
        };
        assert_eq!(turns(100), turns(100));
        assert_ne!(turns(100), turns(5_000_000_100));
    }

    #[track_caller]
    fn check_drives(line: &[&str], expected: &[(&str, bool)]) {
        let drives = parse(line).drives;
        let drives: Vec<_> = drives
            .iter()
            .map(|drive| (drive.path.to_str().unwrap(), drive.writable))
            .collect();
        assert_eq!(drives, expected, "{line:?}");
    }

    #[test]
    fn drives() {
        check_drives(
            &["-drive", "file=/a.raw,format=raw,if=virtio"],
            &[("/a.raw", true)],
        );
        check_drives(
            &["-drive", "id=d,file=/a,,b.raw,readonly=on"],
            &[("/a,b.raw", false)],
        );
        check_drives(&["-drive", "if=pflash,file=/code.fd"], &[]);
        check_drives(&["-drive", "file=/x.iso,media=cdrom"], &[("/x.iso", false)]);
        check_drives(&["-drive", "file=file:/a.raw"], &[("/a.raw", true)]);
        check_drives(&["-drive", "file=nbd:unix:/s"], &[]);
        check_drives(&["-hda", "disk.img"], &[("disk.img", true)]);
        check_drives(
            &[
                "-blockdev",
                "driver=file,node-name=f,filename=/b.raw,read-only=on",
            ],
            &[("/b.raw", false)],
        );
        check_drives(
            &[
                "-blockdev",
                "driver=qcow2,node-name=q,file.driver=file,file.filename=/c.qcow2",
            ],
            &[("/c.qcow2", true)],
        );
        check_drives(
            &[
                "-blockdev",
                r#"{"driver":"raw","file":{"driver":"file","filename":"/d.raw"}}"#,
            ],
            &[("/d.raw", true)],
        );
        check_drives(&["-blockdev", r#"{"driver":"raw","#], &[]);
        check_drives(&["-blockdev", "driver=file,filename=/dev/fdset/2"], &[]);
    }

    #[track_caller]
    fn check_format(line: &[&str], expected: &Format) {
        let drives = parse(line).drives;
        assert_eq!(drives[0].format, *expected, "{line:?}");
    }

    #[test]
    fn formats_are_told_and_never_guessed() {
        let qcow2 = Format::Known(DiskFormat::Qcow2);
        check_format(&["-drive", "file=/a,format=raw"], &Format::RAW);
        check_format(&["-drive", "file=/a,format=qcow2"], &qcow2);
        check_format(&["-drive", "file=/a,driver=qcow2"], &qcow2);
        check_format(&["-drive", "file.filename=/a,driver=qcow2"], &qcow2);
        // QEMU itself guesses here, by bytes that the guest writes.
        check_format(&["-drive", "file=/a"], &Format::Untold);
        check_format(&["-hda", "/a"], &Format::Untold);
        let vmdk = Format::Other("vmdk".to_owned());
        check_format(&["-drive", "file=/a,format=vmdk"], &vmdk);
    }

    #[track_caller]
    fn check_missing(line: &[&str], expected: &[Layer]) {
        let missing = parse(line).missing;
        let layers: Vec<_> = missing.iter().map(|(layer, _)| *layer).collect();
        assert_eq!(layers, expected, "{line:?}");
    }

    #[test]
    fn what_passes_by() {
        check_missing(&["-netdev", "tap,id=n,ifname=tap0,script=no"], &[]);
        check_missing(&["-netdev", "user,id=n"], &[Layer::Network]);
        check_missing(&["-nic", "none"], &[]);
        check_missing(&["-netdev", r#"{"type":"tap","id":"n"}"#], &[]);
        check_missing(
            &["-device", "vhost-vsock-pci,guest-cid=3"],
            &[Layer::Network],
        );
        check_missing(&["-device", "virtio-blk-device,drive=d"], &[]);
        check_missing(&["-virtfs", "local,path=/x"], &[Layer::Filesystem]);
        check_missing(&["-drive", "file=rbd:pool/image"], &[Layer::Filesystem]);
    }

    /// What is said of a line that holds a password, and never that.
    #[track_caller]
    fn check_secret(line: &[&str], expected: &str) {
        const CANARY: &str = "CANARY-41d8";
        assert!(line.iter().any(|word| word.contains(CANARY)), "{line:?}");
        let claims = parse(line).claims();
        let said = format!("{claims:?}");
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains(CANARY), "{said}");
    }

    #[test]
    fn passwords_are_never_kept() {
        let rbd = "file=rbd:pool/image:id=admin:key=CANARY-41d8:auth_supported=cephx,if=virtio";
        check_secret(&["-drive", rbd], r#"protocol \"rbd\""#);
        let https = "file=https://user:CANARY-41d8@host/disk.raw";
        check_secret(&["-drive", https], r#"protocol \"https\""#);
        check_secret(&["-hda", "ssh://u:CANARY-41d8@h/x"], r#"\"ssh\""#);
        let json = r#"file=json:{"driver":"https",,"url":"https://u:CANARY-41d8@h/x"}"#;
        check_secret(&["-drive", json], r#"\"json\""#);
        let dotted = "file.driver=https,file.url=https://h/x?token=CANARY-41d8";
        check_secret(&["-drive", dotted], r#"\"https\""#);
        let dotted = "driver=rbd,node-name=d,pool=p,image=CANARY-41d8";
        check_secret(&["-blockdev", dotted], r#"\"rbd\""#);
        let json = r#"{"driver":"raw","file":{"driver":"https","url":"https://u:CANARY-41d8@h"}}"#;
        check_secret(&["-blockdev", json], r#"\"https\""#);
        let deep = r#"{"driver":"https","filename":"https://CANARY-41d8@h"}"#;
        check_secret(&["-blockdev", deep], r#"\"https\""#);
        check_secret(&["-netdev", "CANARY-41d8:x y,id=n"], "is not a tap");
        check_secret(&["-device", "vfio-pci CANARY-41d8"], "passed through");
        check_secret(&["-object", "secret,id=s,data=CANARY-41d8"], "");
        check_secret(&["-vnc", ":1,password=CANARY-41d8"], "");
        check_secret(&["-append", "token=CANARY-41d8"], "");
        check_secret(&["-fw_cfg", "name=opt/t,string=CANARY-41d8"], "");
        check_secret(&["-smbios", "type=1,serial=CANARY-41d8"], "");
    }
}
