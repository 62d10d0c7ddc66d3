//! A container-like sandbox: its own network, mount and PID namespaces over an overlay.

use std::fs::{self, Permissions};
use std::io::{self, PipeReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use sandtrace_guest::{Network, Report, Script};
use sandtrace_sys::netns::{path_of, within};
use sandtrace_sys::unshare;

use crate::error::{LabError, doing};
use crate::guest_binary::guest_binary;
use crate::lab::{Inner, Lab};
use crate::netns;
use crate::run::{Outcome, Run, check_id};
use crate::tree::{self, TreeEntry};

/// Where the guest program is in the sandbox.
const PROGRAM: &str = "/usr/local/bin/agent";

/// Where containerd keeps its snapshots, below its root.
const SNAPSHOTS: &str = "io.containerd.snapshotter.v1.overlayfs/snapshots";

/// The directories of an overlay. A second sandbox over the same ones goes on where the first
/// stopped, as a second microVM over the same disk does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    upper: PathBuf,
    lowers: Vec<PathBuf>,
    work: PathBuf,
    merged: PathBuf,
}

impl Overlay {
    /// What the sandbox has changed.
    #[must_use]
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// What it started from, the topmost first.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }
}

/// What a namespace sandbox is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceConfig {
    /// What the sandbox is called in messages.
    pub sandbox_id: String,
    /// What the agent does.
    pub script: Script,
    /// Its root file system.
    pub overlay: Overlay,
}

/// The agent, started in namespaces of its own, which does nothing before
/// [`NamespaceSandbox::resume`]. Dropped, it is killed and its namespaces go.
#[derive(Debug)]
pub struct NamespaceSandbox {
    // Fields are dropped in this order: the process leaves the namespace before it is removed.
    run: Run,
    link: Link,
    overlay: Overlay,
    start: Option<ChildStdin>,
    script: Script,
}

impl Lab {
    /// Makes the directories of an overlay whose lower layer holds `tree` and the guest program.
    ///
    /// # Errors
    /// When the guest program is missing or a file cannot be written.
    pub fn overlay(&self, tree: &[TreeEntry]) -> Result<Overlay, LabError> {
        self.overlay_of(tree, ["lower", "upper", "work"])
    }

    /// The same with directories as containerd's snapshotter names them: the image's layer is
    /// snapshot 1, the container's own snapshot 2.
    ///
    /// # Errors
    /// As for [`Lab::overlay`].
    pub fn snapshot(&self, tree: &[TreeEntry]) -> Result<Overlay, LabError> {
        let below = |name: &str| format!("{SNAPSHOTS}/{name}");
        let names = ["1/fs", "2/fs", "2/work"].map(below);
        self.overlay_of(tree, names.each_ref().map(String::as_str))
    }

    fn overlay_of(&self, tree: &[TreeEntry], names: [&str; 3]) -> Result<Overlay, LabError> {
        let dir = self.inner.make_dir(&self.inner.name("overlay"))?;
        let make = |name: &str| {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(doing(format!("create {}", path.display())))?;
            Ok::<PathBuf, LabError>(path)
        };
        let [lower, upper, work] = names;
        let (lower, upper) = (make(lower)?, make(upper)?);
        let (work, merged) = (make(work)?, make("merged")?);
        tree::write(&lower, tree).map_err(doing("write the files of the lower layer"))?;
        install_program(&lower)?;
        Ok(Overlay {
            upper,
            lowers: vec![lower],
            work,
            merged,
        })
    }

    /// Starts a sandbox whose agent waits: a watcher can attach before the first packet.
    ///
    /// # Errors
    /// When the kernel refuses a namespace or the overlay.
    pub fn namespace(&self, config: &NamespaceConfig) -> Result<NamespaceSandbox, LabError> {
        check_id(&config.sandbox_id)?;
        let overlay = config.overlay.clone();
        let link = Link::add(&self.inner, &config.script.network)?;
        let (mut child, output) = within(Some(&path_of(&link.netns)), || spawn(&overlay))?
            .map_err(doing("start the agent in its namespaces"))?;
        let start = child.stdin.take();
        let run = Run::adopt(&self.inner, &config.sandbox_id, child, output)?;
        let script = config.script.clone();
        Ok(NamespaceSandbox {
            run,
            link,
            overlay,
            start,
            script,
        })
    }
}

impl NamespaceSandbox {
    /// The agent: process 1 of its PID namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.run.pid()
    }

    /// The host's end of the sandbox's link, in the lab's namespace.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.link.name
    }

    /// The sandbox's own named network namespace.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.link.netns
    }

    /// What the sandbox has changed.
    #[must_use]
    pub fn upper(&self) -> &Path {
        self.overlay.upper()
    }

    /// What it started from, the topmost first.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        self.overlay.lowers()
    }

    /// The last part of what the agent printed, for diagnostics.
    #[must_use]
    pub fn console(&self) -> String {
        self.run.console().text()
    }

    /// What the agent has reported since the last call.
    #[must_use]
    pub fn fresh_reports(&self) -> Vec<Report> {
        self.run.console().fresh_reports()
    }

    /// Hands the agent its script, upon which it starts. A second call does nothing.
    ///
    /// # Errors
    /// When the agent has ended.
    pub fn resume(&mut self) -> Result<(), LabError> {
        let Some(mut start) = self.start.take() else {
            return Ok(());
        };
        let json =
            serde_json::to_string(&self.script).map_err(doing("write the script as JSON"))?;
        writeln!(start, "{json}").map_err(doing("hand the script to the agent"))
    }

    /// Waits until the agent has ended.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Outcome, LabError> {
        self.run.wait(timeout)
    }
}

fn install_program(lower: &Path) -> Result<(), LabError> {
    let program = lower.join(PROGRAM.trim_start_matches('/'));
    let guest = guest_binary()?;
    let copy = || {
        fs::create_dir_all(program.parent().unwrap_or(lower))?;
        fs::copy(&guest, &program)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))
    };
    copy().map_err(doing(format!(
        "copy {} to {}",
        guest.display(),
        program.display()
    )))
}

/// Runs on a thread that has entered the sandbox's network namespace and ends afterwards: only
/// this thread gets the mounts and the root, and its child is born into all of it.
fn spawn(overlay: &Overlay) -> io::Result<(Child, PipeReader)> {
    let (output, said) = io::pipe()?;
    unshare::mounts_and_children()?;
    enter_root(overlay)?;
    let child = Command::new(PROGRAM)
        .arg("agent")
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(said.try_clone()?)
        .stderr(said)
        .spawn()?;
    Ok((child, output))
}

/// The overlay is mounted for the sandbox alone and so goes with its last process.
fn enter_root(overlay: &Overlay) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let (merged, none) = (&overlay.merged, MountFlags::empty());
    rustix::mount::mount(
        "overlay",
        merged,
        "overlay",
        none,
        Some(&*overlay.options()?),
    )?;
    rustix::process::chdir(merged)?;
    // pivot_root(2), notes: the old root comes to lie over the new one and is taken off.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

impl Overlay {
    fn options(&self) -> io::Result<std::ffi::CString> {
        let lowers: Vec<String> = self.lowers.iter().map(|lower| escaped(lower)).collect();
        let (upper, work) = (escaped(&self.upper), escaped(&self.work));
        let options = format!(
            "lowerdir={},upperdir={upper},workdir={work}",
            lowers.join(":")
        );
        Ok(std::ffi::CString::new(options)?)
    }
}

/// Overlayfs takes commas and colons in its options after a backslash.
fn escaped(path: &Path) -> String {
    let path = path.to_string_lossy();
    path.replace('\\', "\\\\")
        .replace(',', "\\,")
        .replace(':', "\\:")
}

/// A pair of links and the namespace in which the sandbox's end lies.
#[derive(Debug)]
struct Link {
    lab: Arc<Inner>,
    name: String,
    netns: String,
}

impl Link {
    fn add(lab: &Arc<Inner>, network: &Network) -> Result<Self, LabError> {
        const INSIDE: &str = "eth0";
        let netns = lab.add_netns(&lab.name("box"))?;
        let link = Self {
            lab: Arc::clone(lab),
            name: lab.name("veth"),
            netns,
        };
        netns::add_pair(lab.netns(), &link.name, &link.netns, INSIDE)?;
        netns::set_address(lab.netns(), &link.name, network.gateway, network.prefix)?;
        netns::set_address(&link.netns, INSIDE, network.address, network.prefix)?;
        netns::set_default_route(&link.netns, network.gateway)?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Goes with the lab's namespace otherwise.
        let _ = netns::remove_link(self.lab.netns(), &self.name);
        self.lab.remove_netns(&self.netns);
    }
}
