//! How each orchestrator starts its VMM.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change};
use sandtrace_sys::netns::path_of;

use super::payload::Payload;
use super::{StandInConfig, StandInForm, copy_or_link, orders};
use crate::error::{LabError, doing};
use crate::guest_binary::guest_binary;
use crate::lab::Inner;
use crate::places;

/// User and group of a jailed VMM: ids that no package of Debian's has.
pub(super) const JAILED: u32 = 59_873;

/// Everything about one start.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) form: StandInForm,
    pub(super) program: PathBuf,
    pub(super) argv0: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) working_directory: PathBuf,
    /// The API as this host names it.
    pub(super) socket: PathBuf,
    /// The new root of a jailed one.
    pub(super) jail: Option<PathBuf>,
    pub(super) disk: PathBuf,
    /// The same as the VMM names it.
    pub(super) disk_inside: PathBuf,
    pub(super) payload: Payload,
    /// The process id that it is to have.
    pub(super) pid: Option<u32>,
}

impl Plan {
    pub(super) fn make(lab: &Inner, netns: &str, config: &StandInConfig) -> Result<Self, LabError> {
        let dir = lab.make_dir(&lab.name("vm"))?;
        let name = config.form.program_name();
        let real = config.form.real().filter(|_| config.real);
        let (program, payload) = match real {
            Some(real) => (real, Payload::make(&dir)?),
            None => (guest_binary()?, Payload::nominal(&config.boot_args)),
        };
        let socket = dir.join("api.sock");
        let id = &config.sandbox_id;
        let mut plan = Self {
            form: config.form,
            program,
            argv0: dir.join(name).into(),
            arguments: Vec::new(),
            working_directory: dir.clone(),
            socket,
            jail: None,
            disk: config.disk.clone(),
            disk_inside: config.disk.clone(),
            payload,
            pid: config.pid,
        };
        match config.form {
            StandInForm::Firecracker => plan.api(["--id".into(), id.into()]),
            StandInForm::Jailed if config.real => plan.real_jail(&dir, netns, id)?,
            StandInForm::Jailed => plan.jail(&dir, id)?,
            StandInForm::ConfigFile => plan.config_file(&dir, config)?,
            StandInForm::Containerd => plan.containerd(&dir, config)?,
            StandInForm::E2b => {
                plan.socket = dir.join(format!("fc-{id}-x{}.sock", lab.name("r")));
                plan.argv0 = dir.join("fc-versions/v1.10.1/firecracker").into();
                plan.api([]);
            }
            StandInForm::CloudHypervisor => {
                plan.socket = dir.join(format!("{id}.sock"));
                let option = format!("path={}", plan.socket.display());
                let events = format!("path={}", dir.join("events.json").display());
                plan.arguments = vec!["--api-socket".into(), option.into()];
                plan.arguments
                    .extend(["--event-monitor".into(), events.into()]);
            }
            StandInForm::Libkrun => plan.libkrun(&dir, id)?,
        }
        Ok(plan)
    }

    fn api<const N: usize>(&mut self, more: [OsString; N]) {
        self.arguments = vec!["--api-sock".into(), self.socket.clone().into()];
        self.arguments.extend(more);
    }

    /// docs/jailer.md of Firecracker: `<base>/firecracker/<id>/root`.
    fn jail(&mut self, dir: &Path, id: &str) -> Result<(), LabError> {
        let root = dir.join("firecracker").join(id).join("root");
        let make = || {
            fs::create_dir_all(root.join("dev/net"))?;
            fs::create_dir_all(root.join("run"))?;
            let tun = root.join("dev/net/tun");
            let mode = Mode::from_raw_mode(0o600);
            mknodat(CWD, &tun, FileType::CharacterDevice, mode, makedev(10, 200))?;
            fs::copy(&self.program, root.join("firecracker"))?;
            copy_or_link(&self.disk, &root.join("rootfs.ext4"))?;
            let owned = ["", "dev", "dev/net", "dev/net/tun", "run", "rootfs.ext4"];
            let mut owned = owned.iter().map(|name| root.join(name));
            owned.try_for_each(|path| chown(path, Some(JAILED), Some(JAILED)))
        };
        make().map_err(doing(format!("make the jail {}", root.display())))?;
        let words = "--start-time-us 1580 --start-time-cpu-us 1580 --parent-cpu-time-us 3";
        self.arguments = vec!["--id".into(), id.into()];
        self.arguments.extend(words.split(' ').map(OsString::from));
        self.argv0 = "/firecracker".into();
        self.program = "/firecracker".into();
        self.working_directory = "/".into();
        self.disk = root.join("rootfs.ext4");
        self.disk_inside = "/rootfs.ext4".into();
        self.socket = root.join("run/firecracker.socket");
        self.jail = Some(root);
        Ok(())
    }

    /// The real jailer, which makes the jail itself: what the VM needs in it is
    /// there before, and belongs to it (docs/jailer.md of Firecracker).
    fn real_jail(&mut self, dir: &Path, netns: &str, id: &str) -> Result<(), LabError> {
        let root = dir.join("firecracker").join(id).join("root");
        // The jail and the VMM's argv[0] bear the name of this file.
        let program = dir.join("exec").join("firecracker");
        let mut make = || {
            fs::create_dir_all(&root)?;
            fs::create_dir(dir.join("exec"))?;
            fs::copy(&self.program, &program)?;
            for file in self.payload.files().chain([&mut self.disk]) {
                let name = file.file_name().unwrap_or_default().to_owned();
                copy_or_link(file, &root.join(&name))?;
                chown(root.join(&name), Some(JAILED), Some(JAILED))?;
                *file = Path::new("/").join(name);
            }
            io::Result::Ok(())
        };
        make().map_err(doing(format!("fill the jail {}", root.display())))?;
        self.disk_inside = self.disk.clone();
        self.disk = root.join(self.disk.strip_prefix("/").unwrap_or(&self.disk));
        let user = JAILED.to_string();
        let words = ["--id", id, "--uid", &user, "--gid", &user, "--exec-file"];
        self.arguments = words.map(OsString::from).into();
        self.arguments.extend([
            program.clone().into(),
            "--chroot-base-dir".into(),
            dir.to_owned().into(),
            "--netns".into(),
            path_of(netns).into(),
        ]);
        if let Some(jailer) = places::vmm_from_environment("jailer") {
            self.argv0 = jailer.clone().into();
            self.program = jailer;
        }
        self.socket = root.join("run/firecracker.socket");
        Ok(())
    }

    fn config_file(&mut self, dir: &Path, config: &StandInConfig) -> Result<(), LabError> {
        let file = dir.join("vm.json");
        let metadata = dir.join("metadata.json");
        let body = orders::configuration_file(self, config);
        self.arguments = ["--no-api", "--config-file"].map(OsString::from).into();
        self.arguments.push(file.clone().into());
        self.arguments
            .extend(["--id".into(), config.sandbox_id.clone().into()]);
        if !config.metadata.is_null() {
            self.arguments
                .extend(["--metadata".into(), metadata.clone().into()]);
            fs::write(&metadata, config.metadata.to_string())
                .map_err(doing(format!("write {}", metadata.display())))?;
        }
        fs::write(&file, body.to_string()).map_err(doing(format!("write {}", file.display())))
    }

    /// As microsandbox-core starts it (bin/msbrun.rs): layers from the lowest
    /// on, the writable one last; variables of the guest among the arguments.
    fn libkrun(&mut self, dir: &Path, id: &str) -> Result<(), LabError> {
        let (lower, upper) = (dir.join("layer"), dir.join("rw").join(id));
        fs::create_dir(&lower)
            .and_then(|()| fs::create_dir_all(&upper))
            .map_err(doing(format!("create {}", upper.display())))?;
        let layer = |path: &Path| format!("--overlayfs-layer={}", path.display());
        let secret = format!("--env=OPENAI_API_KEY={}", super::CANARY);
        let words = ["microvm", "--num-vcpus=1", "--memory-mib=128", &secret];
        self.arguments = words.map(OsString::from).into();
        self.arguments
            .extend([layer(&lower).into(), layer(&upper).into()]);
        self.arguments.push("--exec-path=/bin/sh".into());
        self.disk = upper;
        Ok(())
    }

    fn containerd(&mut self, dir: &Path, config: &StandInConfig) -> Result<(), LabError> {
        let name = format!("{}#{}", config.namespace, config.sandbox_id);
        let shim = dir.join("shim-base").join(name);
        fs::create_dir_all(&shim).map_err(doing(format!("create {}", shim.display())))?;
        self.arguments = ["--api-sock", "firecracker.sock"]
            .map(OsString::from)
            .into();
        self.socket = shim.join("firecracker.sock");
        self.argv0 = "firecracker".into();
        self.working_directory = shim;
        Ok(())
    }
}

/// As the jailer does: the jail becomes a mount and then the root.
pub(super) fn enter_jail(root: &Path) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    mount_bind(root, root)?;
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
