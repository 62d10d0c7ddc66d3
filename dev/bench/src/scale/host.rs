//! The ground that stand-in VMMs run on: one network namespace with a tap and
//! one disk for each place, all removed at the end.

use anyhow::{Context as _, Result, bail};
use sandtrace_lab::{TreeEntry, guest_binary, make_image};
use sandtrace_sys::netns;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The tap of every place; namespaces keep them apart, as E2B's do.
const TAP: &str = "tap0";
/// Begins the names of the namespaces.
const PREFIX: &str = "sts-";
const IMAGE_BYTES: u64 = 2 << 20;
const BLOCK: usize = 4096;

/// Places for stand-ins.
pub(super) struct Host {
    dir: TempDir,
    places: Vec<Place>,
    guest: PathBuf,
}

/// Where one stand-in at a time can run.
pub(super) struct Place {
    netns: String,
    image: PathBuf,
    config: PathBuf,
}

impl Host {
    /// Makes them; needs root, iproute2, e2fsprogs and the guest program.
    pub(super) fn prepare(count: usize) -> Result<Self> {
        sweep()?;
        let guest = guest_binary()?;
        let dir = tempfile::tempdir().context("making a directory")?;
        let template = dir.path().join("template.ext4");
        let tree = [TreeEntry::text("/etc/hostname", "standin", 0o644)];
        make_image(&template, IMAGE_BYTES, &tree)?;
        let template = fs::read(&template).context("reading an image")?;
        let mut host = Self {
            dir,
            places: Vec::new(),
            guest,
        };
        let owner = std::process::id();
        let names: Vec<String> = (0..count)
            .map(|number| format!("{PREFIX}{owner}-{number}"))
            .collect();
        let add: Vec<String> = names
            .iter()
            .map(|name| format!("netns add {name}"))
            .collect();
        for netns in names {
            let named = |kind: &str| host.dir.path().join(format!("{netns}.{kind}"));
            let (image, config) = (named("ext4"), named("json"));
            host.places.push(Place {
                netns,
                image,
                config,
            });
        }
        ip(&[], &add)?;
        for place in &host.places {
            place.fill(&template)?;
        }
        Ok(host)
    }

    /// Where trails may go.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A namespace to enter, by the number of its place.
    pub(super) fn namespace(&self, place: usize) -> Result<File> {
        let place = self.places.get(place).context("no such place")?;
        let path = netns::path_of(&place.netns);
        File::open(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Has every VMM from now on send so.
    pub(super) fn send(&self, boot_args: &str) -> Result<()> {
        for place in &self.places {
            let config = json!({
                "boot-source": {"kernel_image_path": "/boot/vmlinux", "boot_args": boot_args},
                "drives": [{
                    "drive_id": "rootfs", "path_on_host": place.image,
                    "is_root_device": true, "is_read_only": false,
                }],
                "network-interfaces": [{"iface_id": "eth0", "host_dev_name": TAP}],
            });
            fs::write(&place.config, config.to_string()).context("writing a configuration")?;
        }
        Ok(())
    }

    /// A VMM as an operator would start it from a configuration file.
    pub(super) fn vmm(&self, place: usize, id: &str) -> Result<Command> {
        use std::os::unix::process::CommandExt as _;
        let place = self.places.get(place).context("no such place")?;
        let mut command = Command::new(&self.guest);
        command.arg0(self.dir.path().join("firecracker"));
        command.args(["--no-api", "--id", id, "--config-file"]);
        command.arg(&place.config);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        Ok(command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let names = self.places.iter().map(|place| place.netns.clone());
        if let Err(error) = remove(names) {
            println!("namespaces are left behind: {error:#}");
        }
    }
}

impl Place {
    fn fill(&self, template: &[u8]) -> Result<()> {
        // The host must not speak on this tap by itself.
        let link = [
            format!("tuntap add dev {TAP} mode tap"),
            format!("link set {TAP} addrgenmode none"),
            format!("link set {TAP} up"),
        ];
        ip(&["-n", &self.netns], &link)?;
        let image = File::create_new(&self.image).context("creating an image")?;
        image.set_len(IMAGE_BYTES).context("sizing an image")?;
        let mut at = 0;
        for block in template.chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                image.write_all_at(block, at).context("writing an image")?;
            }
            at += u64::try_from(block.len())?;
        }
        Ok(())
    }
}

/// Namespaces of runs that were killed.
fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(netns::NAMED) else {
        return Ok(());
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let orphans = names.filter(|name| {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    });
    remove(orphans)
}

fn remove(names: impl Iterator<Item = String>) -> Result<()> {
    let orders: Vec<String> = names.map(|name| format!("netns del {name}")).collect();
    if orders.is_empty() {
        return Ok(());
    }
    ip(&["-force"], &orders)
}

/// Many orders for one `ip`.
fn ip(options: &[&str], orders: &[String]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip")?;
    let mut text = orders.join("\n");
    text.push('\n');
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).context("telling ip")?;
    }
    let output = child.wait_with_output().context("awaiting ip")?;
    if !output.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
