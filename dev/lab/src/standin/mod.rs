//! Stand-ins for VMMs whose binaries no registry has: the guest program under
//! their name, with a real tap, image, API socket and namespaces, started as
//! each orchestrator starts the real one. Where the environment names the
//! real program, that can run instead.

mod cgroup;
mod command;
mod docker;
mod e2b;
mod http;
mod orders;
mod payload;

pub use docker::{Container, Docker};
pub use e2b::{Slot, SlotSandbox};

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandtrace_sys::netns::{path_of, within};
use sandtrace_sys::unshare;
use serde_json::Value;

use crate::error::{LabError, doing};
use crate::lab::{Inner, Lab};
use crate::run::check_id;
use crate::{Network, netns, places};
use cgroup::Cgroup;
use command::{JAILED, Plan};
use orders::Order;

/// A secret in the environment of every stand-in that has one: nothing that
/// is written about it may hold this.
pub const CANARY: &str = "CANARY-7f3a";

/// How a VMM is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandInForm {
    /// Firecracker with `--api-sock` and `--id`.
    Firecracker,
    /// Firecracker by its jailer: another root, no environment.
    Jailed,
    /// Firecracker with `--no-api` and `--config-file`.
    ConfigFile,
    /// Firecracker by firecracker-containerd: no id, a relative socket.
    Containerd,
    /// Firecracker by E2B's orchestrator: no id, a socket with a random name.
    E2b,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// microsandbox's `msbrun microvm`: no tap and no drive, but a directory
    /// that its guest writes to, with the sandbox's name.
    Libkrun,
}

impl StandInForm {
    /// Every form with a tap and a drive.
    pub const ALL: [Self; 6] = [
        Self::Firecracker,
        Self::Jailed,
        Self::ConfigFile,
        Self::Containerd,
        Self::E2b,
        Self::CloudHypervisor,
    ];

    /// The real program that the environment names for it:
    /// `SANDTRACE_TEST_FIRECRACKER`, `SANDTRACE_TEST_CLOUD_HYPERVISOR`. A jailed
    /// one needs `SANDTRACE_TEST_JAILER` as well.
    #[must_use]
    pub fn real(self) -> Option<PathBuf> {
        if self == Self::Jailed {
            places::vmm_from_environment("jailer")?;
        }
        places::vmm_from_environment(self.program_name())
    }

    fn program_name(self) -> &'static str {
        match self {
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Libkrun => "msbrun",
            _ => "firecracker",
        }
    }

    /// Whether files of the lab are named by the sandbox's id. Where it is but
    /// an argument it may be anything, as a hostile VMM's would.
    fn names_files(self) -> bool {
        !matches!(self, Self::Firecracker | Self::ConfigFile)
    }
}

/// What a stand-in is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandInConfig {
    /// How it is started.
    pub form: StandInForm,
    /// Its id, as its orchestrator would give it.
    pub sandbox_id: String,
    /// That of containerd's namespaces which keeps it, where
    /// firecracker-containerd starts it.
    pub namespace: String,
    /// Its writable drive.
    pub disk: PathBuf,
    /// Its tap, which is made in a namespace of its own.
    pub tap: String,
    /// MMDS; null for none.
    pub metadata: Value,
    /// Command line of its kernel; the stand-in sends by it
    /// (`standin.frames=5 standin.gap_ms=100 standin.delay_ms=50`). The guest of a
    /// real program boots and does nothing.
    pub boot_args: String,
    /// Whether the real program runs that the environment names for this form
    /// ([`StandInForm::real`]), rather than the stand-in.
    pub real: bool,
    /// The process id that it is to have in the caller's PID namespace, which it
    /// gets unless another process is given it first.
    pub pid: Option<u32>,
}

/// A running stand-in in its own PID, mount and network namespaces. Dropped,
/// it is killed and its namespaces go.
#[derive(Debug)]
pub struct StandIn {
    lab: Arc<Inner>,
    child: Child,
    netns: String,
    /// Whether the namespace is there for others after it.
    is_pooled: bool,
    plan: Plan,
    cgroup: Option<Cgroup>,
}

impl Lab {
    /// Starts a VMM and configures it; its guest does not run before
    /// [`StandIn::start`], save in the form of a configuration file.
    ///
    /// # Errors
    /// When the guest program is missing or the kernel refuses something.
    pub fn stand_in(&self, config: &StandInConfig) -> Result<StandIn, LabError> {
        let stand_in = self.stand_in_unconfigured(config)?;
        stand_in.configure(config)?;
        Ok(stand_in)
    }

    /// Starts a VMM that has neither tap nor drive yet.
    ///
    /// # Errors
    /// As for [`Lab::stand_in`].
    pub fn stand_in_unconfigured(&self, config: &StandInConfig) -> Result<StandIn, LabError> {
        if config.form.names_files() {
            check_id(&config.sandbox_id)?;
            check_id(&config.namespace)?;
        }
        let lab = Arc::clone(&self.inner);
        let netns = lab.add_netns(&lab.name("vmm"))?;
        let network = Network::behind_tap([169, 254, 0, 22].into());
        let address = (network.gateway, network.prefix);
        netns::add_tap(&netns, &config.tap, JAILED, address)?;
        let plan = Plan::make(&lab, &netns, config)?;
        let child = within(Some(&path_of(&netns)), || spawn(&plan))?
            .map_err(doing(format!("start {}", plan.program.display())))?;
        lab.adopt(child.id())?;
        let cgroup = Cgroup::of(config.form, &config.sandbox_id, &plan.socket);
        let stand_in = StandIn {
            lab,
            child,
            netns,
            is_pooled: false,
            plan,
            cgroup,
        };
        stand_in.join_cgroup()?;
        Ok(stand_in)
    }
}

impl StandIn {
    /// Its process as this host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The named network namespace with its tap.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The drive's file as this host names it; without a drive, the directory
    /// that the guest writes to.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.plan.disk
    }

    fn join_cgroup(&self) -> Result<(), LabError> {
        let joined = self.cgroup.as_ref().map(|cgroup| cgroup.add(self.pid()));
        let joined = joined.unwrap_or(Ok(()));
        joined.map_err(doing("move the VMM into its cgroup"))
    }

    /// Freezes its cgroup, or lets it go on; false where it has none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn freeze(&self, frozen: bool) -> Result<bool, LabError> {
        let Some(cgroup) = &self.cgroup else {
            return Ok(false);
        };
        let freeze = cgroup.freeze(frozen);
        freeze.map_err(doing("freeze the VMM's cgroup"))?;
        Ok(true)
    }

    /// Its API as this host names it.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.plan.socket
    }

    /// Gives it its drive, its tap and its metadata.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn configure(&self, config: &StandInConfig) -> Result<(), LabError> {
        let orders = orders::configuration(&self.plan, config);
        orders.iter().try_for_each(|order| self.send(order))
    }

    /// Makes one more tap in its namespace and gives it that: Firecracker before
    /// its guest runs, Cloud Hypervisor then.
    ///
    /// # Errors
    /// When there is one of that name, or the VMM says no.
    pub fn add_tap(&self, iface_id: &str, tap: &str) -> Result<(), LabError> {
        // The address is the host's own, so that it may be that of each tap.
        let network = Network::behind_tap([169, 254, 0, 22].into());
        netns::add_tap(&self.netns, tap, JAILED, (network.gateway, network.prefix))?;
        self.send(&orders::add_interface(self.plan.form, iface_id, tap))
    }

    /// Gives it one more writable drive, which it can reach by this path.
    /// Firecracker only.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn add_drive(&self, drive_id: &str, disk: &Path) -> Result<(), LabError> {
        self.send(&orders::drive(drive_id, disk))
    }

    /// Puts another file in the place of a drive's, while its guest runs.
    /// Firecracker only.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn exchange_drive(&self, drive_id: &str, disk: &Path) -> Result<(), LabError> {
        self.send(&orders::exchange_drive(drive_id, disk))
    }

    /// Takes a tap away from its namespace, whoever has it open.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_tap(&self, tap: &str) -> Result<(), LabError> {
        netns::remove_link(&self.netns, tap)
    }

    /// Lets its guest run.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn start(&self) -> Result<(), LabError> {
        let start = orders::start(self.plan.form);
        start.map_or(Ok(()), |order| self.send(&order))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        // Where it ended by itself there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Pauses its guest, or lets it go on.
    ///
    /// # Errors
    /// When it does not answer or says no; also without an API.
    pub fn pause(&self, paused: bool) -> Result<(), LabError> {
        self.send(&orders::pause(self.plan.form, paused))
    }

    /// Makes a snapshot of its guest, which must be paused, in this directory.
    /// Firecracker only.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn snapshot(&self, dir: &Path) -> Result<(), LabError> {
        self.send(&orders::snapshot(dir))
    }

    /// Goes on where that one stopped, with its drives and taps. Firecracker
    /// only, and not configured yet.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn restore(&self, dir: &Path) -> Result<(), LabError> {
        self.send(&orders::restore(dir))
    }

    /// Orders something by its API.
    ///
    /// # Errors
    /// When it does not answer or says no.
    pub fn put(&self, path: &str, body: &Value) -> Result<(), LabError> {
        self.request("PUT", path, body)
    }

    fn send(&self, order: &Order) -> Result<(), LabError> {
        self.request(order.method, &order.path, &order.body)
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Result<(), LabError> {
        let failed = doing(format!(
            "{method} {path} to the VMM at {}",
            self.plan.socket.display()
        ));
        http::send(method, &self.plan.socket, path, body).map_err(failed)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.kill();
        self.lab.disown(self.child.id());
        if !self.is_pooled {
            self.lab.remove_netns(&self.netns);
        }
    }
}

/// On a thread that has entered the network namespace and ends afterwards.
fn spawn(plan: &Plan) -> io::Result<Child> {
    // A jail has no /dev/null of its own.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    unshare::mounts_and_children()?;
    // A jail has none of these files either.
    let last = File::options()
        .write(true)
        .open("/proc/sys/kernel/ns_last_pid");
    let mut command = Command::new(&plan.program);
    command.arg0(&plan.argv0).args(&plan.arguments);
    command.env("E2B_ACCESS_TOKEN", CANARY);
    if let Some(root) = &plan.jail {
        command::enter_jail(root)?;
        command.env_clear().uid(JAILED).gid(JAILED);
    }
    command
        .current_dir(&plan.working_directory)
        .process_group(0)
        .stdin(null.try_clone()?)
        .stdout(null)
        .stderr(Stdio::inherit());
    if let Some(pid) = plan.pid {
        // The next one after it is given (Documentation/admin-guide/sysctl/kernel.rst).
        write!(last?, "{}", pid.saturating_sub(1))?;
    }
    command.spawn()
}

/// Waits until a program listens at `path`.
fn await_socket(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
            Ok(stream) => return Ok(stream),
        }
    }
}

/// A copy that shares its bytes where the file system can.
fn copy_or_link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => fs::copy(from, to).map(drop),
    }
}
