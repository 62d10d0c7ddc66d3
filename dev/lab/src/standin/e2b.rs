//! E2B's orchestrator: slots of a pool, each a network namespace with a tap and
//! a pair of links, and sandboxes that are started in them one after the other.
//! Guests have the same address in all slots and see the same paths; a guest's TCP
//! ends at the host wherever it was sent. This kernel has no nbd, so a loop
//! device is behind the link to the root disk; and no address is translated, as
//! that needs programs that are not here: the redirection is one of routes.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::{AddressFamily, SocketType, bind, socket};
use sandtrace_sys::netns::{path_of, within};
use sandtrace_sys::{device, unshare};

use super::cgroup::Cgroup;
use super::command::Plan;
use super::payload::Payload;
use super::{CANARY, StandIn, StandInConfig, StandInForm};
use crate::error::{LabError, doing};
use crate::guest_binary::guest_binary;
use crate::lab::{Inner, Lab};
use crate::netns;
use crate::programs::{IP, LOSETUP};
use crate::run::check_id;

/// Every guest's address, and what its tap's other end has.
const GUEST: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 21);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 22);
const GATEWAY_MAC: &str = "02:fc:00:00:00:01";
const GUEST_MAC: &str = "02:fc:00:00:00:05";
const TAP: &str = "tap0";
/// Routes of TCP that ends at the host, whatever its address.
const TABLE: &str = "100";
/// What a `.cow` file is written in.
const BLOCK: usize = 4096;

/// A network namespace of the pool. It is nobody's sandbox: one after the other
/// is started in it.
#[derive(Debug)]
pub struct Slot {
    lab: Arc<Inner>,
    netns: String,
    veth: String,
}

/// A sandbox in a slot, configured, whose guest does not run yet. Dropped, it is
/// killed; the slot stays.
#[derive(Debug)]
pub struct SlotSandbox {
    vmm: StandIn,
    run: String,
    template: PathBuf,
    disk: PathBuf,
    link: PathBuf,
}

/// Where the orchestrator keeps what belongs to one run.
struct Files {
    dir: PathBuf,
    /// `<sandbox id>-<random>`
    run: String,
}

impl Lab {
    /// Makes the slot of this index.
    ///
    /// # Errors
    /// When there is one, or the kernel refuses something.
    pub fn slot(&self, index: u8) -> Result<Slot, LabError> {
        let lab = Arc::clone(&self.inner);
        let slot = Slot {
            netns: lab.add_netns(&format!("ns-{index}"))?,
            veth: format!("veth-{index}"),
            lab,
        };
        slot.connect(index)?;
        Ok(slot)
    }
}

impl Slot {
    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// The host's end of its links, in the lab's namespace.
    #[must_use]
    pub fn veth(&self) -> &str {
        &self.veth
    }

    fn connect(&self, index: u8) -> Result<(), LabError> {
        let (host, inner, veth) = (self.lab.netns(), &*self.netns, &self.veth);
        let (outer_end, inner_end) = ([10, 11, 0, index].into(), [10, 12, 0, index].into());
        netns::add_tap(inner, TAP, 0, (GATEWAY, 30))?;
        netns::ip(inner, &format!("link set {TAP} address {GATEWAY_MAC}"))?;
        let neighbour = format!("neigh add {GUEST} lladdr {GUEST_MAC} dev {TAP} nud permanent");
        netns::ip(inner, &neighbour)?;
        netns::add_pair(host, veth, inner, "eth0")?;
        netns::set_address(host, veth, outer_end, 32)?;
        netns::set_address(inner, "eth0", inner_end, 32)?;
        let route = format!("route add default via {outer_end} dev eth0 onlink");
        netns::ip(inner, &route)?;
        // The same address in every slot: a connection's own link decides.
        let back = format!("route add {GUEST} via {inner_end} dev {veth} onlink metric {index}");
        netns::ip(host, &back)?;
        let here = format!("route replace local default dev lo table {TABLE}");
        netns::ip(host, &here)?;
        let rule = format!("rule add iif {veth} ipproto tcp lookup {TABLE}");
        netns::ip(host, &rule)?;
        set(inner, "ip_forward", "1")?;
        for scope in ["all", veth] {
            set(host, &format!("conf/{scope}/rp_filter"), "0")?;
        }
        Ok(())
    }

    /// Listens for what the guests of this slot send to a port, wherever they
    /// send it: a connection's own address is the one that they meant.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn proxy(&self, port: u16) -> Result<TcpListener, LabError> {
        let listen = || -> io::Result<TcpListener> {
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
            // Before it has its port, which is each slot's own by this.
            device::intercept(&socket, &self.veth)?;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
            rustix::net::listen(&socket, 8)?;
            Ok(socket.into())
        };
        let listener = within(Some(&path_of(self.lab.netns())), listen)?;
        listener.map_err(doing(format!("listen on {}", self.veth)))
    }

    /// Starts a sandbox over a copy of its configuration's disk, the template. The
    /// same id again is another run of the same sandbox.
    ///
    /// # Errors
    /// When the guest program or `losetup` is missing, or the kernel refuses something.
    pub fn sandbox(&self, config: &StandInConfig) -> Result<SlotSandbox, LabError> {
        check_id(&config.sandbox_id)?;
        let files = Files::make(&self.lab, &config.sandbox_id)?;
        let (disk, link) = (files.rootfs("disk"), files.rootfs("link"));
        fs::copy(&config.disk, &disk).map_err(doing(format!("write {}", disk.display())))?;
        let show = ["--find", "--show", &disk.to_string_lossy()].map(str::to_owned);
        let device = LOSETUP.run(show.iter().map(String::as_str))?;
        let device = device.trim_end();
        let started = self.start(config, &files, Path::new(device), &link);
        // It goes when the VMM, which has it open by now, does.
        LOSETUP.run(["--detach", device])?;
        Ok(SlotSandbox {
            vmm: started?,
            run: files.run,
            template: config.disk.clone(),
            disk,
            link,
        })
    }

    fn start(
        &self,
        config: &StandInConfig,
        files: &Files,
        device: &Path,
        link: &Path,
    ) -> Result<StandIn, LabError> {
        symlink(device, link).map_err(doing(format!("link {}", link.display())))?;
        let (program, socket) = (files.program()?, files.socket());
        let inside = files.dir.join("fc-vm").join("rootfs.ext4");
        let plan = Plan {
            form: StandInForm::E2b,
            argv0: program.clone().into(),
            program,
            arguments: vec!["--api-sock".into(), socket.clone().into()],
            working_directory: files.dir.clone(),
            socket,
            jail: None,
            disk: device.to_owned(),
            disk_inside: inside,
            payload: Payload::nominal(&config.boot_args),
            pid: None,
        };
        let start = || spawn(&plan, &self.netns, link);
        let child = within(Some(&path_of(self.lab.netns())), start)??;
        self.lab.adopt(child.id())?;
        let stand_in = StandIn {
            lab: Arc::clone(&self.lab),
            cgroup: Cgroup::of(plan.form, &config.sandbox_id, &plan.socket),
            child,
            netns: self.netns.clone(),
            is_pooled: true,
            plan,
        };
        stand_in.join_cgroup()?;
        stand_in.configure(config)?;
        Ok(stand_in)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lab.remove_netns(&self.netns);
    }
}

impl SlotSandbox {
    /// `<sandbox id>-<random>`, the name of this run alone.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The link to its disk's device.
    #[must_use]
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// Writes what its guest changed into the sparse file beside the link, as the
    /// orchestrator does while the guest runs, and tells where that is.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn cow(&self) -> Result<PathBuf, LabError> {
        let path = self.link.with_extension("cow");
        let write = || -> io::Result<()> {
            // While the VMM lives, its writes may be in the device's own cache.
            if let Ok(device) = File::open(&self.vmm.plan.disk) {
                device.sync_all()?;
            }
            let (was, is) = (fs::read(&self.template)?, fs::read(&self.disk)?);
            let file = File::create(&path)?;
            file.set_len(is.len() as u64)?;
            let blocks = was.chunks(BLOCK).zip(is.chunks(BLOCK)).enumerate();
            for (number, (_, block)) in blocks.filter(|(_, (was, is))| was != is) {
                file.write_all_at(block, (number * BLOCK) as u64)?;
            }
            Ok(())
        };
        write().map_err(doing(format!("write {}", path.display())))?;
        Ok(path)
    }
}

impl Deref for SlotSandbox {
    type Target = StandIn;

    fn deref(&self) -> &StandIn {
        &self.vmm
    }
}

impl DerefMut for SlotSandbox {
    fn deref_mut(&mut self) -> &mut StandIn {
        &mut self.vmm
    }
}

impl Files {
    fn make(lab: &Inner, sandbox_id: &str) -> Result<Self, LabError> {
        let dir = lab.dir().join("orchestrator");
        for name in ["sandbox", "fc-vm", "fc-versions/v1.10.1"] {
            let dir = dir.join(name);
            fs::create_dir_all(&dir).map_err(doing(format!("create {}", dir.display())))?;
        }
        let run = format!("{sandbox_id}-x{}", lab.name("r"));
        Ok(Self { dir, run })
    }

    fn rootfs(&self, extension: &str) -> PathBuf {
        let name = format!("rootfs-{}.{extension}", self.run);
        self.dir.join("sandbox").join(name)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(format!("fc-{}.sock", self.run))
    }

    /// Firecracker, as the orchestrator keeps it by version.
    fn program(&self) -> Result<PathBuf, LabError> {
        let program = self.dir.join("fc-versions/v1.10.1/firecracker");
        if !program.exists() {
            let guest = guest_binary()?;
            fs::copy(guest, &program).map_err(doing(format!("write {}", program.display())))?;
        }
        Ok(program)
    }
}

/// As the orchestrator's script does it: what every guest calls its root disk is
/// this one's in a mount namespace of its own.
fn spawn(plan: &Plan, netns: &str, link: &Path) -> Result<Child, LabError> {
    let mut command = IP.command()?;
    command.args(["netns", "exec", netns]);
    command.arg(&plan.program).args(&plan.arguments);
    command.env("E2B_ACCESS_TOKEN", CANARY);
    let mut start = || -> io::Result<Child> {
        unshare::mounts_and_children()?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        if let Some(dir) = plan.disk_inside.parent() {
            mount("fc-vm", dir, "tmpfs", MountFlags::empty(), None)?;
        }
        symlink(link, &plan.disk_inside)?;
        command
            .current_dir(&plan.working_directory)
            .process_group(0)
            .stdout(Stdio::null())
            .spawn()
    };
    start().map_err(doing(format!(
        "start {} in {netns}",
        plan.program.display()
    )))
}

fn set(netns: &str, name: &str, value: &str) -> Result<(), LabError> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    let write = within(Some(&path_of(netns)), || fs::write(&path, value))?;
    write.map_err(doing(format!("write {path}")))
}
